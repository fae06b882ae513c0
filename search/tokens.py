"""Token ids and the bytes they stand for, so that text is cut where the model's tokens end."""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from treeward.search.errors import BadInput
from treeward.search.problem import Message

ChatRenderer = Callable[[Sequence[Message]], str]
"""Renders messages, generation prompt included, the way a model was trained to read them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Translates between text and token ids for one model."""

    pieces: tuple[bytes, ...]
    """The bytes that each id stands for; empty for special tokens and those that end."""

    eos_ids: frozenset[int]
    """Ids that end a generation; they carry no text."""

    encode: Callable[[str], list[int]]
    """Returns the ids of a text, without special tokens."""

    encode_prompt: Callable[[str], list[int]]
    """Returns the ids of a whole prompt, with the special tokens the model expects before it."""

    unknown_id: int | None = None
    """The id that unreadable characters map to; None where every text can be read."""

    render_chat: ChatRenderer | None = None
    """None where the model has no chat template."""

    @property
    def end(self) -> list[int]:
        """Returns the id that ends a written solution: the lowest, or none where there is none."""
        return sorted(self.eos_ids)[:1]

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """Returns the bytes of some ids, one after the other."""
        return b"".join(map(self.pieces.__getitem__, ids))

    def text_of(self, ids: Iterable[int]) -> str:
        """Returns the text of some ids; bytes that are no UTF-8 become replacement characters."""
        return self.bytes_of(ids).decode("utf-8", "replace")

    def before_unread(self, ids: Sequence[int]) -> str | None:
        """Returns the end of what stands before the first unreadable text; None if all is read."""
        if self.unknown_id is None or self.unknown_id not in ids:
            return None
        read = itertools.takewhile(lambda token: token != self.unknown_id, ids)
        return self.text_of(read)[-20:]


def byte_tokens() -> Tokens:
    """Returns the tokens of a model that reads bytes: id = byte, and 256 ends a generation."""

    def encode(text: str) -> list[int]:
        return list(text.encode("utf-8"))

    pieces = (*(bytes([value]) for value in range(256)), b"")
    return Tokens(pieces=pieces, eos_ids=frozenset({256}), encode=encode, encode_prompt=encode)


def load_tokens(folder: Path) -> Tokens:
    """Reads the tokenizer of a model folder.

    Args:
        folder: A Hugging Face model folder with `tokenizer.json`.

    Returns:
        Its tokens; the ids that end a generation come from `generation_config.json` and
        `config.json`.

    Raises:
        BadInput: The folder holds no tokenizer that can be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadInput(f"{folder}: no tokenizer.json; a policy folder needs a fast tokenizer")
    spec = _read_json(path)
    try:
        tokenizer = Tokenizer.from_str(json.dumps(spec))
    except Exception as e:  # the library raises nothing narrower
        raise BadInput(f"{path}: no tokenizer: {e}") from e
    eos_ids = _eos_ids(folder)
    return Tokens(
        pieces=_pieces(tokenizer, spec, eos_ids, _read_json(folder / "config.json")),
        eos_ids=eos_ids,
        encode=lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        encode_prompt=lambda text: list(tokenizer.encode(text, add_special_tokens=True).ids),
        unknown_id=_unknown_id(tokenizer, spec),
        render_chat=_chat_renderer(folder),
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise BadInput(f"{path}: no JSON: {e}; fetch or save the model again") from e
    if not isinstance(data, dict):
        raise BadInput(f"{path}: must hold a JSON object; fetch or save the model again")
    return data


def _pieces(
    tokenizer: Tokenizer, spec: dict[str, Any], eos_ids: frozenset[int], config: dict[str, Any]
) -> tuple[bytes, ...]:
    """Returns the bytes of every id that the model may draw."""
    added = {entry["id"]: entry for entry in spec.get("added_tokens") or []}
    silent = eos_ids | {index for index, entry in added.items() if entry.get("special")}
    to_bytes = _byte_level_piece if _is_byte_level(spec) else _plain_piece
    # A model may have more logits than its tokenizer has tokens; those ids stand for nothing.
    size = max(
        tokenizer.get_vocab_size(with_added_tokens=True),
        1 + max(added, default=0),
        config.get("vocab_size") or 0,
    )
    return tuple(
        b""
        if index in silent
        # Added tokens are matched in the text as they stand.
        else str(added[index]["content"]).encode()
        if index in added
        else to_bytes(tokenizer.id_to_token(index) or "")
        for index in range(size)
    )


def _is_byte_level(spec: dict[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")])


def _unknown_id(tokenizer: Tokenizer, spec: dict[str, Any]) -> int | None:
    """Returns the id of unreadable characters; unigram models name it by number."""
    model = spec.get("model") or {}
    if _is_byte_level(spec):
        return None
    unknown = model.get("unk_token")
    return model.get("unk_id") if unknown is None else tokenizer.token_to_id(unknown)


def _eos_ids(folder: Path) -> frozenset[int]:
    """Returns the union of the end ids that the two configuration files name."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder / name).get("eos_token_id")
        found.update([value] if isinstance(value, int) else value or [])
    return frozenset(found)


def _chat_renderer(folder: Path) -> ChatRenderer | None:
    """Returns the model's chat template as a function; transformers renders it in its sandbox."""
    settings = _read_json(folder / "tokenizer_config.json")
    if "chat_template" not in settings and not (folder / "chat_template.jinja").is_file():
        return None

    @cache
    def load() -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)

    def render(messages: Sequence[Message]) -> str:
        from jinja2 import TemplateError

        chat = [message._asdict() for message in messages]
        try:
            text = load().apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        except TemplateError as e:
            raise BadInput(f"{folder}: its chat template refuses the messages: {e}") from e
        return str(text)

    return render


def _byte_level_table() -> dict[str, int]:
    """Returns GPT-2's map from printable characters to bytes (byte-level BPE)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in set(printable)]
    table = {chr(value): value for value in printable}
    table.update({chr(256 + offset): value for offset, value in enumerate(others)})
    return table


_BYTE_OF = _byte_level_table()


def _byte_level_piece(token: str) -> bytes:
    """Returns the bytes of a byte-level token."""
    return b"".join(
        bytes([_BYTE_OF[char]]) if char in _BYTE_OF else char.encode() for char in token
    )


def _plain_piece(token: str) -> bytes:
    """Returns the bytes of a character-level or sentencepiece token, byte fallback included."""
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode("utf-8")

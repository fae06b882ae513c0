"""Reads rows to fine-tune on, as tokens of which some are learned."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treeward.search.errors import BadInput
from treeward.search.tokens import Tokens, load_tokens
from treeward.train.packing import Row
from treeward.train.rows import check_messages, open_parquet, parquet_files

Part = tuple[list[int], bool]
"""Token ids and whether they are learned."""

Reader = Callable[[dict[str, Any], str], list[Part]]
"""Turns a record into parts; the text says where the record stands, for errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRows:
    """Holds a dataset as tokens."""

    rows: list[Row]

    n_too_long: int
    """Rows that were left out because they do not fit in a sequence."""

    def fingerprint(self) -> str:
        """Returns a digest of every token and of what is learned."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(len(row.ids).to_bytes(8, "little"))
            digest.update(row.ids.tobytes() + row.learned.tobytes())
        return digest.hexdigest()


def read_sft(data: Path, model: Path, *, room: int, skip_long: bool) -> SftRows:
    """Reads `prompt` and `completion`, or else `messages`, of a Parquet dataset.

    The completion and the end token, or the assistant's turns, are learned.

    Args:
        data: A file, or a folder: then every `train*.parquet` below it where there is one, else
            every Parquet file, in the order of their names.
        model: The folder with the tokenizer, the end token's id and the chat template.
        room: Places of a sequence.
        skip_long: Leaves out rows that need more; else they are errors.

    Raises:
        BadInput: A row, or the whole, cannot be learned from; the message names it.
    """
    tokens = load_tokens(model)
    rows: list[Row] = []
    n_too_long = 0
    for where, parts in _all_parts(data, tokens, model):
        row = _row(parts, where, tokens)
        if row.places <= room:
            rows.append(row)
        elif skip_long:
            n_too_long += 1
        else:
            raise BadInput(
                f"{where}: needs {row.places} tokens and train.sequence_length is {room}; "
                "raise it, or leave such rows out with train.skip_long=true"
            )
    if not rows:
        raise BadInput(f"{data}: no rows to learn from ({n_too_long} are too long)")
    return SftRows(rows=rows, n_too_long=n_too_long)


def _row(parts: list[Part], where: str, tokens: Tokens) -> Row:
    tokens_in = [token for part, _ in parts for token in part]
    if (before := tokens.before_unread(tokens_in)) is not None:
        raise BadInput(f"{where}: the model's tokenizer cannot read what follows {before!r}")
    ids = np.array(tokens_in, dtype=np.int32)
    learned = np.array([flag for part, flag in parts for _ in part], dtype=np.bool_)
    if len(ids) < 2 or learned[0] or not learned.any():
        raise BadInput(f"{where}: needs something to learn after a prompt of at least one token")
    return Row(ids=ids, learned=learned)


def _all_parts(data: Path, tokens: Tokens, model: Path) -> Iterator[tuple[str, list[Part]]]:
    """Yields every record as parts, with the place it stands at."""
    for path in parquet_files(data, "sft"):
        file = open_parquet(path)
        columns, reader = _reader(path, set(file.schema_arrow.names), tokens, model)
        index = 0
        with file:
            for batch in file.iter_batches(columns=columns):
                for record in batch.to_pylist():
                    where = f"{path}: row {index}"
                    yield where, reader(record, where)
                    index += 1


def _reader(path: Path, names: set[str], tokens: Tokens, model: Path) -> tuple[list[str], Reader]:
    """Returns the columns to read, and how a record of them is read."""
    if {"prompt", "completion"} <= names:
        return ["prompt", "completion"], _text_reader(tokens)
    if "messages" in names:
        return ["messages"], _chat_reader(tokens, model)
    raise BadInput(f"{path}: needs columns prompt and completion, or messages; has {sorted(names)}")


def _text_reader(tokens: Tokens) -> Reader:
    """Reads a prompt and its completion, with the lowest end token where the model has one."""

    def read(record: dict[str, Any], where: str) -> list[Part]:
        for name, text in record.items():
            if not isinstance(text, str) or not text:
                raise BadInput(f"{where}: {name} must be a text with characters, got {text!r:.60}")
        prompt, completion = record["prompt"], record["completion"]
        return [
            (tokens.encode_prompt(prompt), False),
            (tokens.encode(completion) + tokens.end, True),
        ]

    return read


def _chat_reader(tokens: Tokens, model: Path) -> Reader:
    """Reads messages as the model's chat template writes them.

    Raises:
        BadInput: The model has no chat template.
    """
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    if tokens.render_chat is None:
        raise BadInput(f"{model}: no chat template; train it on prompt and completion")
    tokenizer: Any = AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)

    def render(messages: list[dict[str, str]], where: str, *, ask: bool) -> str:
        try:
            return str(
                tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
            )
        except TemplateError as e:
            raise BadInput(f"{where}: the chat template refuses the messages: {e}") from e

    def read(record: dict[str, Any], where: str) -> list[Part]:
        messages = record["messages"] or []
        check_messages(where, messages)
        parts: list[Part] = []
        done = ""
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = render(messages[:turn], where, ask=True)
            told = render(messages[: turn + 1], where, ask=False)
            if not (asked.startswith(done) and told.startswith(asked)):
                raise BadInput(
                    f"{where}: the chat template rewrites earlier turns, so what the model was "
                    "to say is not certain; give prompt and completion"
                )
            parts.append((tokens.encode(asked[len(done) :]), False))
            parts.append((tokens.encode(told[len(asked) :]), True))
            done = told
        return parts

    return read

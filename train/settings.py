"""The settings that every trainer has."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from treeward.search.devices import check_device
from treeward.search.errors import BadInput
from treeward.search.requests import check_seed
from treeward.search.settings import refuse_unread
from treeward.train.optim import Schedule


class Dtype(StrEnum):
    """What numbers are computed in, or saved as."""

    FLOAT32 = "float32"
    """Single precision."""
    BFLOAT16 = "bfloat16"
    """Single precision's range with 8 bits of mantissa."""


class ReportTo(StrEnum):
    """Who is told the metrics beside `metrics.jsonl`."""

    NONE = "none"
    """Nobody."""
    TENSORBOARD = "tensorboard"
    """TensorBoard, by event files in the output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What any training is told; section `train.`, TRL's names where it has one."""

    steps: int = 1000
    """Optimizer steps of the whole run (TRL: max_steps)."""

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

    lora_r: int = 0
    """Rank of LoRA's matrices on every linear layer of the decoder; 0 trains all weights."""

    lora_alpha: float = 32.0
    """LoRA's matrices count alpha / r; refused where `lora_r` is 0."""

    seed: int = 0
    """Seeds the order of rows, what is sampled, dropout, and weights that a model has not."""

    save_every: int = 500
    """Steps between checkpoints (TRL: save_steps); the last step always makes one."""

    save_total_limit: int = 2
    """Checkpoints that stay; at least 1."""

    log_every: int = 10
    """Steps between lines in `metrics.jsonl` (TRL: logging_steps)."""

    report_to: ReportTo = ReportTo.NONE
    """Who is told the metrics beside `metrics.jsonl`."""

    gradient_checkpointing: bool = False
    """Whether layers are computed once more on the way back instead of being kept: less memory,
    about a third more time."""

    dtype: Dtype = Dtype.FLOAT32
    """What the forward pass computes in; weights and optimizer are float32 either way. On a CPU
    without bfloat16 instructions bfloat16 takes some ten times as long as float32."""

    save_dtype: Dtype = Dtype.FLOAT32
    """What the finished model is saved in. bfloat16 halves the file and rounds away updates that
    are smaller than some 1/500 of a weight."""

    threads: int | None = None
    """CPU threads; None leaves the process as it is. A resume needs as many as the start had."""

    device: str = "cpu"
    """Where it trains: `cpu`, or `cuda`, where resuming is not promised to be bit for bit."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        one = ("steps", "save_every", "save_total_limit", "log_every")
        zero = ("warmup_steps", "weight_decay", "max_grad_norm", "lora_r")
        check_least(self, dict.fromkeys(one, 1) | dict.fromkeys(zero, 0))
        check_seed("train.seed", self.seed)
        for name in ("dtype", "save_dtype"):
            check_member(self, name, Dtype)
        check_member(self, "schedule", Schedule)
        check_member(self, "report_to", ReportTo)
        for name in ("learning_rate", "lora_alpha"):
            if not getattr(self, name) > 0:
                raise BadInput(f"train.{name} must be above 0, got {getattr(self, name)!r}")
        if not 0 <= self.adam_beta2 < 1:
            raise BadInput(f"train.adam_beta2 must be in [0, 1), got {self.adam_beta2!r}")
        if self.threads is not None and self.threads < 1:
            raise BadInput(f"train.threads must be at least 1, got {self.threads!r}")
        if self.device not in ("cpu", "cuda"):
            raise BadInput(f"train.device must be cpu or cuda, got {self.device!r}")
        check_device("train.device", self.device)
        if not self.lora_r:
            refuse_unread("train", self, "train.lora_r=8", ("lora_alpha",))


def check_least(settings: TrainSettings, least: Mapping[str, float]) -> None:
    """Raises BadInput for the first field that is below its least value."""
    for name, low in least.items():
        if not getattr(settings, name) >= low:
            raise BadInput(f"train.{name} must be at least {low}, got {getattr(settings, name)!r}")


def check_member(settings: TrainSettings, name: str, members: Any) -> None:
    """Raises BadInput unless a field holds a member of its closed set."""
    value = getattr(settings, name)
    if not isinstance(value, members):
        raise BadInput(f"train.{name} must be one of {', '.join(members)}, got {value!r}")

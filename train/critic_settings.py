"""The settings of `train critics`."""

from dataclasses import dataclass
from enum import StrEnum

from treeward.search.errors import BadInput
from treeward.search.settings import refuse_unread
from treeward.train.settings import TrainSettings, check_least, check_member


class Targets(StrEnum):
    """What the value head learns from k right of n rollouts."""

    COUNTS = "counts"
    """The counts: Beta-Binomial likelihood."""
    HARD = "hard"
    """Whether any was right: 1[k > 0], one Bernoulli outcome a step; for comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSettings(TrainSettings):
    """How critics are trained; section `train.`, TRL's names where it has one."""

    learning_rate: float = 3e-4
    """The highest learning rate."""

    batch_size: int = 32
    """Rows a step; a row is a path from the question to a leaf."""

    micro_batch_size: int = 0
    """Rows a forward pass; 0 means all of a batch. Changes memory and speed only."""

    targets: Targets = Targets.COUNTS
    """What the value head learns from; refused where `value_weight` is 0."""

    value_weight: float = 1.0
    """What the value's loss counts. 0 leaves the head untrained, and so does data without anything
    for it; it will say nothing then. One head at least must learn."""

    progress_weight: float = 1.0
    """What the progress's loss counts; 0 leaves the head untrained."""

    outcome_weight: float = 1.0
    """What the outcome's loss counts; 0 leaves the head untrained."""

    validation: float = 0.1
    """Share of questions held out, in (0, 1); refused where the data has a validation split."""

    eval_every: int = 50
    """Steps between looks at the held-out rows (TRL: eval_steps); the last step always looks."""

    patience: int = 5
    """Looks in a row without a lower loss after which training ends; 0 never ends it early. The
    weights of the lowest loss are kept either way."""

    template: str | None = None
    """A prompt template's name or .toml file; None takes the model's own."""

    skip_long: bool = False
    """Whether steps beyond the model's context are left out, and rows with such steps counted; else
    they are errors."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        TrainSettings.__post_init__(self)
        one, zero = ("batch_size", "eval_every"), ("micro_batch_size", "patience")
        weights = ("value_weight", "progress_weight", "outcome_weight")
        check_least(self, dict.fromkeys(one, 1) | dict.fromkeys((*zero, *weights), 0))
        check_member(self, "targets", Targets)
        if not any(getattr(self, name) for name in weights):
            raise BadInput(f"train.{', train.'.join(weights)} are all 0: nothing would be learned")
        if not 0 < self.validation < 1:
            raise BadInput(f"train.validation must be in (0, 1), got {self.validation!r}")
        if not self.value_weight:
            refuse_unread("train", self, "train.value_weight=1", ("targets",))

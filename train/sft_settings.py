"""The settings of `train sft`."""

from dataclasses import dataclass

from treeward.train.settings import TrainSettings, check_least


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSettings(TrainSettings):
    """How a model is fine-tuned; section `train.`, TRL's names where it has one."""

    batch_size: int = 16
    """Packed sequences a step."""

    micro_batch_size: int = 0
    """Packed sequences a forward pass; 0 means all of a batch. Changes memory and speed only."""

    sequence_length: int = 256
    """Tokens that a packed sequence has room for (TRL: max_length)."""

    skip_long: bool = False
    """Whether rows that do not fit in a sequence are left out and counted; else they are errors."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        TrainSettings.__post_init__(self)
        check_least(self, {"batch_size": 1, "micro_batch_size": 0, "sequence_length": 2})

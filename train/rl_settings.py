"""The settings of trainers by reinforcement."""

from dataclasses import dataclass

from treeward.search.policy import require_temperature
from treeward.search.settings import refuse_unread
from treeward.train.advantages import ScaleRewards
from treeward.train.objective import LossType
from treeward.train.settings import TrainSettings, check_least, check_member


@dataclass(frozen=True, slots=True, kw_only=True)
class RlSettings(TrainSettings):
    """What SRL and RLVR have in common; section `train.`, names and defaults of TRL's GRPO.

    Departures: `epsilon_high` is DAPO's, and groups without spread are drawn anew (`refill`).
    """

    learning_rate: float = 1e-6
    """The highest learning rate; with LoRA some twenty times as much is usual."""

    prompts_per_step: int = 8
    """Groups with a signal that a step learns from, at least; without `refill`, that it draws."""

    group_size: int = 8
    """Completions a prompt (TRL: num_generations)."""

    temperature: float = 1.0
    """Divides the logits, when sampling and when learning; greater than 0."""

    template: str | None = None
    """A prompt template's name or .toml file; None takes the model's own."""

    max_completion_length: int | None = None
    """Tokens a completion may have; None takes what the template says."""

    loss_type: LossType = LossType.DAPO
    """How tokens are weighed."""

    scale_rewards: ScaleRewards = ScaleRewards.GROUP
    """What differences to the group's mean are divided by."""

    epsilon: float = 0.2
    """How far a token's ratio may fall below 1 with a gain; refused with one iteration, where every
    ratio is 1."""

    epsilon_high: float = 0.28
    """How far it may rise above 1 with a gain (DAPO, section 3.1); refused as `epsilon` is."""

    num_iterations: int = 1
    """Optimizer updates with one step's completions; ratios differ from 1 after the first."""

    beta: float = 0.0
    """What divergence from the starting weights costs; above 0 keeps a copy of them."""

    min_reward_std: float = 0.0
    """A group has a signal if its rewards' standard deviation is above this."""

    refill: bool = True
    """Whether groups without a signal are drawn anew. If not (TRL), a step learns from those of
    `prompts_per_step` that have one, and updates nothing where none has."""

    max_refills: int = 10
    """Rounds of `prompts_per_step` prompts after which a step gives up finding groups with one;
    refused without `refill`."""

    token_budget: int | None = None
    """Sampled tokens after which training ends, whatever its step; None is unlimited."""

    micro_batch_size: int = 1
    """Groups a forward pass; 0 means all of a step. Changes memory and speed only: on a CPU one is
    both the smallest and the fastest, a GPU may want more."""

    logprob_chunk: int = 1024
    """Tokens whose logits are held at once. Changes memory and speed only."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        TrainSettings.__post_init__(self)
        one = ("prompts_per_step", "num_iterations", "max_refills", "logprob_chunk")
        zero = ("epsilon", "epsilon_high", "beta", "min_reward_std", "micro_batch_size")
        check_least(self, dict.fromkeys(one, 1) | dict.fromkeys(zero, 0) | {"group_size": 2})
        for name in ("max_completion_length", "token_budget"):
            if getattr(self, name) is not None:
                check_least(self, {name: 1})
        require_temperature("train.temperature", self.temperature)
        check_member(self, "loss_type", LossType)
        check_member(self, "scale_rewards", ScaleRewards)
        if self.num_iterations == 1:
            refuse_unread("train", self, "train.num_iterations=2", ("epsilon", "epsilon_high"))
        if not self.refill:
            refuse_unread("train", self, "train.refill=true", ("max_refills",))

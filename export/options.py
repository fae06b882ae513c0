"""What a caller can ask of a run, and the sections of settings that it knows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from treeward.export.prompt_settings import PromptSettings
from treeward.search.algorithms import METHODS
from treeward.search.backends import AUTO, BackendSettings
from treeward.search.critic import Critic
from treeward.search.errors import BadInput
from treeward.search.fast import FastSettings
from treeward.search.groups import SameStep
from treeward.search.models import NANO
from treeward.search.policy import PolicySettings
from treeward.search.settings import SearchSettings
from treeward.search.spending import BudgetSettings
from treeward.search.step_ends import CustomEnd

TASK = "task:"

MOST_PROVER_K = 1024
"""Work grows with K, and best of more tells nothing apart but the rarest successes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """What is computed from evidence when trees are written; section `label.`."""

    prover_k: int | None = None
    """K of the prover that progress is measured for; None sets it by each root's value."""

    def __post_init__(self) -> None:
        """Checks K."""
        if self.prover_k is not None and not 1 <= self.prover_k <= MOST_PROVER_K:
            raise BadInput(
                f"label.prover_k must be from 1 to {MOST_PROVER_K}, got {self.prover_k!r}"
            )


SECTIONS: dict[str, type] = {
    "search": SearchSettings,
    "policy": PolicySettings,
    "prompt": PromptSettings,
    "backend": BackendSettings,
    "label": LabelSettings,
    "fast": FastSettings,
    "budget": BudgetSettings,
    **{algorithm.value: method.own for algorithm, method in METHODS.items()},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Holds what the caller asks for."""

    problems: str
    """A file, or a generator such as `task:arithmetic?n=200`."""

    policy: str | None = None
    """A model, or servers; None takes the embedded model where it can read the problems."""

    model: str | None = None
    """The name that servers serve the model by; None takes the only one there is."""

    backend: str = AUTO
    """What runs the policy; see `choose_backend`."""

    algorithm: str | None = None
    """`--search`; wins over `search.algorithm`."""

    critics: Path | str | Critic | None = None
    """A folder of trained critics, or critics of one's own; None searches without."""

    step_end: CustomEnd | None = None
    """Ends steps in a way of one's own; None leaves it to `prompt.steps` or the template."""

    same_step: SameStep | None = None
    """Tells which siblings are one to `mcts`, in a way of one's own; None leaves it to
    `mcts.group_distance`."""

    limit: int | None = None
    """Takes the first problems only; None takes all."""

    shard: str | None = None
    """`I/N`, to grow every N-th problem's tree from the I-th on; None grows all."""

    budget_tokens: int | None = None
    """Tokens that may be generated in all; wins over `budget.tokens`. None for no budget."""

    seed: int = 0
    skip_bad: bool = False
    deterministic: bool | None = None
    """None is on for the embedded model and off for all others."""

    config: Path | None = None
    assignments: Sequence[str] = field(default_factory=tuple)
    """`--set section.key=value`."""


def policy_name(options: Options) -> str:
    """Returns what runs: as asked for, or the embedded model for what it can read.

    Raises:
        BadInput: Neither.
    """
    if options.policy is not None:
        return options.policy
    if options.problems.startswith(TASK):
        return NANO
    raise BadInput(
        f"{options.problems}: say which model solves these problems with --policy; the embedded "
        f"{NANO!r} reads {TASK} problems only (smollm2-135m-instruct runs on a CPU)"
    )

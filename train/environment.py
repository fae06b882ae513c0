"""What is asked and what is rewarded: all in which SRL and RLVR differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from treeward.search.policy import Draw, PolicySettings
from treeward.search.prompts import Template
from treeward.search.requests import Kind
from treeward.search.steps import StepRule
from treeward.train.output import Json
from treeward.train.spans import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Holds one thing to ask; what is drawn for it is a group."""

    id: str
    """Unique; seeds depend on it."""

    prompt_ids: tuple[int, ...]
    """The rendered problem."""

    prefix_ids: tuple[int, ...] = ()
    """Whole steps after it that are given."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Returns all that a completion goes on from."""
        return self.prompt_ids + self.prefix_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Grades:
    """Says how good each completion of a group was."""

    rewards: tuple[float | None, ...]
    """None where nobody knows: such a completion is not learned from."""

    steps: tuple[tuple[Span, ...], ...] = ()
    """Value differences of each completion's steps, where they are known; empty without any."""

    step_weight: float = 0.0
    """What they count beside the outcome."""

    shares: Mapping[str, float] = field(default_factory=dict)
    """What else is worth a line in the metrics, as means over the group."""

    @property
    def known_steps(self) -> list[tuple[Span, ...]]:
        """Returns the steps of the completions whose reward is known, which are learned from."""
        steps = self.steps or ((),) * len(self.rewards)
        return [some for some, r in zip(steps, self.rewards, strict=True) if r is not None]


class Environment(Protocol):
    """Asks and rewards."""

    @property
    def name(self) -> str:
        """Returns what `run.json` calls it."""
        ...

    @property
    def reward_name(self) -> str:
        """Returns what metrics call its reward."""
        ...

    @property
    def kind(self) -> Kind:
        """Returns whether a step or a whole solution is asked for."""
        ...

    @property
    def prompts(self) -> Sequence[Prompt]:
        """Returns all that can be asked."""
        ...

    @property
    def sampling(self) -> PolicySettings:
        """Returns how completions are drawn."""
        ...

    @property
    def template(self) -> Template:
        """Returns the prompt template that the policy learns to read."""
        ...

    @property
    def rule(self) -> StepRule:
        """Returns where steps and solutions end."""
        ...

    @property
    def about(self) -> Json:
        """Returns what is known of the data, a digest of all that decides rewards among it."""
        ...

    def grade(self, place: int, draws: Sequence[Draw]) -> Grades:
        """Returns how good the completions of `prompts[place]` are."""
        ...

"""When a prefix has had enough rollouts: what they say decides, not how many there are.

A prefix is funded until the interval of its value is as narrow as asked (`rollouts.width`) or until
the interval lies on one side of a threshold (`rollouts.threshold`), so that a label which says
"worth more than that" can no longer change; or until it has had `search.rollouts`.

What that does to estimates. The posterior, and with it `value`, does not mind when sampling
stopped, given what was seen. Over many nodes k / n does: where the first few rollouts agree, an
interval is narrow at once and nobody corrects them, so shares lie farther from 1/2 than values do,
and intervals may cover less often than they say. `benchmarks/stopping.py` measures both.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import ClassVar

import numpy as np

from treeward.search.errors import BadInput
from treeward.search.intervals import jeffreys
from treeward.search.passing import passage
from treeward.search.settings import refuse_unread
from treeward.search.steps import Cut
from treeward.search.tree import Tree


class StopRule(StrEnum):
    """Why no more rollouts were asked for at a node."""

    FIXED = "fixed"
    """Their number was settled before any was seen."""
    NARROW = "narrow"
    """The interval of the value is narrow enough."""
    SETTLED = "settled"
    """The interval lies on one side of the threshold."""
    ONE = "one"
    """Likewise, where one outcome may be enough for that, as a right one is at 0."""
    MOST = "most"
    """There were as many as a node may have."""
    LOCATED = "located"
    """It was clear enough where a solution through the node first goes wrong."""
    BUDGET = "budget"
    """The budget of tokens ended the tree first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutsSettings:
    """When a prefix has enough rollouts; section `rollouts.`. Unset: `search.rollouts` each."""

    section: ClassVar[str] = "rollouts"

    width: float | None = None
    """Full width of the interval at which a prefix has enough, in (0, 1); None for no width."""

    threshold: float | None = None
    """A prefix has enough where the interval lies above or below this value, in [0, 1); at 0 one
    right rollout is enough. None for no threshold."""

    level: float = 0.9
    """Probability that the interval covers, in (0, 1). A bolder one stops earlier and errs more."""

    batch: int = 4
    """Rollouts asked for at once, before anyone looks again; at least 1."""

    @property
    def fixed(self) -> bool:
        """Returns whether every prefix gets as many."""
        return self.width is None and self.threshold is None

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule, or is set and nothing would read it.
        """
        if self.width is not None and not 0 < self.width < 1:
            raise BadInput(f"rollouts.width must be in (0, 1), got {self.width!r}")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise BadInput(f"rollouts.threshold must be in [0, 1), got {self.threshold!r}")
        if not 0 < self.level < 1:
            raise BadInput(f"rollouts.level must be in (0, 1), got {self.level!r}")
        if self.batch < 1:
            raise BadInput(f"rollouts.batch must be at least 1, got {self.batch!r}")
        if self.fixed:
            refuse_unread("rollouts", self, "rollouts.width or rollouts.threshold")


@dataclass(slots=True)
class Counts:
    """Keeps the strict evidence of a tree whose nodes are all there, while rollouts come in."""

    tree: Tree
    cut: Cut
    right: list[int] = field(default_factory=list)
    known: list[int] = field(default_factory=list)
    """Right and wrong ones."""
    asked: list[int] = field(default_factory=list)
    """Rollouts that started at the node itself, those of failed calls included."""
    seen: int = 0
    """Rollouts of the tree that were counted."""

    def __post_init__(self) -> None:
        """Counts the rollouts that are there."""
        self.right, self.known, self.asked = ([0] * len(self.tree) for _ in range(3))
        self.take()

    def take(self) -> None:
        """Counts the rollouts that were added since: where they start, and what they pass."""
        rollouts = self.tree.rollouts
        for index in range(self.seen, len(rollouts.node)):
            self.asked[rollouts.node[index]] += 1
            value = self.tree.rollout_value(index)
            if value is None:
                continue
            passed = passage(self.tree, index, self.cut).nodes
            for node in (rollouts.node[index], *passed):
                self.known[node] += 1
                self.right[node] += value == 1.0
        self.seen = len(rollouts.node)


def enough(right: int, known: int, asked: int, most: int, own: RolloutsSettings) -> StopRule | None:
    """Returns why a prefix gets no more rollouts; None where it does.

    Args:
        right: Right rollouts that count for it.
        known: Right and wrong ones.
        asked: Rollouts that were asked for at the prefix itself, those of failed calls included.
        most: How many may be.
        own: When it is enough.
    """
    low, high = _interval(right, known, own.level)
    if _is_settled(right, known, own):
        one = _is_settled(1, 1, own) or _is_settled(0, 1, own)
        return StopRule.ONE if one else StopRule.SETTLED
    if own.width is not None and high - low <= own.width:
        return StopRule.NARROW
    return StopRule.MOST if asked >= most else None


def _is_settled(right: int, known: int, own: RolloutsSettings) -> bool:
    """Returns whether the interval lies on one side of the threshold."""
    low, high = _interval(right, known, own.level)
    return own.threshold is not None and (low > own.threshold or high <= own.threshold)


@lru_cache(maxsize=1 << 14)
def _interval(right: int, known: int, level: float) -> tuple[float, float]:
    low, high = jeffreys(np.array(float(right)), np.array(float(known)), level)
    return float(low), float(high)

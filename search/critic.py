"""What scores prefixes: the Protocol that learned critics satisfy, as `search` sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from treeward.search.problem import Problem


@dataclass(frozen=True, slots=True)
class Scores:
    """Holds what critics say about one prefix; None where a critic was not trained."""

    value: float | None
    """Probability that the policy, within its budget, finishes right from here; in [0, 1]."""

    progress: float | None
    """How much the last step raised the prover's chance, in [-1, 1]; None for the bare problem."""

    outcome: float | None
    """Probability that the solution is right if it ends here, in [0, 1]; None for the bare
    problem."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """Holds a problem and some steps."""

    problem: Problem
    steps: tuple[str, ...]
    """Their texts; whether a delimiter is at their ends makes no difference."""


class Critic(Protocol):
    """Scores prefixes. Called from one thread at a time."""

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns what its scores depend on: a fingerprint of the weights, versions."""
        ...

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        """Returns for each prefix the scores of the bare problem and after each of its steps.

        One forward pass reads a whole prefix, so its list has `1 + len(steps)` entries.
        """
        ...

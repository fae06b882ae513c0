"""A shard: an even share of a run's problems, so that several machines can grow one run.

A shard's run folder says the same of the run as any other's, down to the ids of its trees; only its
parts are its own, and named for it. So the parts of all shards, put into one folder, are the run.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from treeward.search.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shard:
    """Names one of several shards."""

    index: int
    """Which, from 1."""
    count: int
    """Of how many."""

    @property
    def worker(self) -> str:
        """Returns what its parts are named for."""
        return f"shard-{self.index}-of-{self.count}"

    def of(self, problems: Sequence[T]) -> Sequence[T]:
        """Returns every `count`-th problem from number `index` on; perhaps none."""
        return problems[self.index - 1 :: self.count]


def choose_shard(text: str | None, *, budget: bool) -> Shard | None:
    """Reads `I/N`; None of nothing.

    Raises:
        BadInput: It is something else, or I is not between 1 and N, or there is a budget.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    shard = Shard(*map(int, found.groups())) if found else Shard(0, 0)
    if not 1 <= shard.index <= shard.count:
        raise BadInput(f"--shard must be I/N with I from 1 to N, such as 1/4, got {text!r}")
    if budget:
        raise BadInput(
            "a budget is spent over all problems and a shard sees only its own; leave "
            "--budget-tokens or --shard out, or give each machine a file of its own problems"
        )
    return shard

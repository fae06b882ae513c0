"""Continuations under way: which of them have drawn the same so far, and which slot holds them.

A branch is computed once for all of its rows. It parts when they draw different tokens.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from treeward.search.jobs import Row
from treeward.search.kv_cache import Chunk, SlotCache


@dataclass(slots=True, kw_only=True, eq=False)
class Branch:
    """Rows of one job that have drawn the same tokens so far: the model reads them once."""

    rows: list[Row]
    length: int
    """Positions whose keys and values are known."""

    chunks: list[Chunk] = field(default_factory=list)
    """These, while it waits for a slot and has drawn a token."""


@dataclass(slots=True)
class Pool:
    """Branches of one capacity and sampler; `branches[i]` lives in slot i, without gaps."""

    capacity: int
    slots: int
    cache: SlotCache
    branches: list[Branch] = field(default_factory=list)
    waiting: deque[Branch] = field(default_factory=deque)

    together: float = 2.0
    """Rows a branch has had lately."""

    @property
    def busy(self) -> bool:
        """Returns whether anything is under way."""
        return bool(self.branches or self.waiting)

    @property
    def _rows(self) -> int:
        """Returns how many rows are in the slots."""
        return sum(len(branch.rows) for branch in self.branches)

    def next(self) -> Branch | None:
        """Returns the next branch that may have a slot, no longer waiting; None if there is none.

        One that has drawn a token may. A new one may while the rows in the slots leave room for it,
        when they part as rows have done lately: what parts and finds no slot waits with a copy of
        its keys and values.
        """
        used = len(self.branches)
        if not self.waiting or used >= self.slots:
            return None
        expected = used + (self._rows - used) / self.together
        if not self.waiting[0].chunks and expected >= self.slots:
            return None
        return self.waiting.popleft()

    def place(self, branches: Sequence[Branch]) -> None:
        """Gives branches a slot each, as far as there are any; the others wait."""
        for branch in branches:
            if len(self.branches) < self.slots:
                self.cache.fill(len(self.branches), branch.chunks)
                branch.chunks = []
                self.branches.append(branch)
            else:
                self.waiting.appendleft(branch)

    def part(self, parts: Sequence[Sequence[Branch]]) -> None:
        """Replaces each slot's branch by what became of it.

        The first part stays where it is. Another gets a slot that is free and a copy of the keys
        and values, or waits with the copy.
        """
        self.together += 0.02 * (self._rows / len(self.branches) - self.together)
        free = [slot for slot, left in enumerate(parts) if not left]
        for slot, left in enumerate(parts):
            if left:
                self.branches[slot] = left[0]
            for branch in left[1:]:
                if free:
                    self.cache.move(slot, free[-1], branch.length)
                    self.branches[free.pop()] = branch
                elif len(self.branches) < self.slots:
                    self.cache.move(slot, len(self.branches), branch.length)
                    self.branches.append(branch)
                else:
                    branch.chunks = [self.cache.copy(slot, branch.length)]
                    self.waiting.appendleft(branch)
        for slot in sorted(free, reverse=True):
            last = self.branches.pop()
            if slot < len(self.branches):
                self.cache.move(len(self.branches), slot, last.length)
                self.branches[slot] = last

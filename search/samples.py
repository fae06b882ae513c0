"""The steps of all samples in one tree, those that were never made nodes included.

Samples that take the same steps share them, so what one says of a step it says once: asking again
for what was there tells nothing new, whatever it costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from treeward.search.intervals import Reals
from treeward.search.steps import Cut
from treeward.search.tree import POLICY_SAMPLER, ROOT, Tree

PLAIN = (1.0, 0.5)
"""What counts beside the samples where p must be had from their number: as many with the step, and
so many with another."""

Ids = tuple[int, ...]
Ints = NDArray[np.int64]


@dataclass(slots=True)
class Samples:
    """Holds steps, numbered from the bare problem, 0, so that parents come first."""

    parent: list[int] = field(default_factory=lambda: [-1])
    depth: list[int] = field(default_factory=lambda: [0])
    logprob: list[float | None] = field(default_factory=lambda: [0.0])
    """Of the step, in nats; None where it is not known."""
    end: list[bool | None] = field(default_factory=lambda: [None])
    """Whether a solution that ends with the step is right; None where none does."""
    taken: list[int] = field(default_factory=lambda: [0])
    """Samples that take the step."""
    taken_below: list[int] = field(default_factory=lambda: [0])
    """Samples that take the steps below it, added up."""
    children: list[list[int]] = field(default_factory=lambda: [[]])
    _found: dict[tuple[int, Ids], int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Returns the number of steps, the bare problem counted as one."""
        return len(self.parent)

    def step(
        self, parent: int, step_ids: Ids, logprob: float | None, *, taken: int, end: bool | None
    ) -> int:
        """Returns the step below another; it is taken so many times more.

        Args:
            parent: The other.
            step_ids: Its token ids.
            logprob: Kept of the first who knows it.
            taken: By how many samples.
            end: Whether the solution that it ends is right; None where it ends none.
        """
        # What ends with a step and what goes on with it are two things.
        key = parent, step_ids if end is None else (*step_ids, -1)
        step = self._found.setdefault(key, len(self))
        if step == len(self):
            self.parent.append(parent)
            self.depth.append(self.depth[parent] + 1)
            self.logprob.append(logprob)
            self.end.append(end)
            self.taken.append(0)
            self.taken_below.append(0)
            self.children.append([])
            self.children[parent].append(step)
        elif self.logprob[step] is None:
            self.logprob[step] = logprob
        self.take(step, taken)
        return step

    def take(self, step: int, times: int) -> None:
        """Counts a step as taken so many times more."""
        self.taken[step] += times
        self.taken_below[self.parent[step]] += times

    def walk(
        self, start: int, steps: Sequence[Ids], logprobs: Sequence[float | None], *, right: bool
    ) -> int:
        """Takes one sample that goes on from a step to the end of its solution; returns that."""
        if not steps:  # it ends just there, where others go on
            return self.step(start, (), None, taken=1, end=right)
        at = start
        for place, (step_ids, logprob) in enumerate(zip(steps, logprobs, strict=True), start=1):
            end = right if place == len(steps) else None
            at = self.step(at, step_ids, logprob, taken=1, end=end)
        return at

    def log_chance(self, step: int) -> float:
        """Returns log p of a step: the policy's, or that of the share of samples that take it."""
        logprob = self.logprob[step]
        if logprob is not None:
            return min(logprob, 0.0)
        return float(log_share(self.taken[step], self.taken_below[self.parent[step]]))


def log_share(taken: int | Ints, among: int | Ints) -> Reals:
    """Returns log p of steps that so many samples take, of so many that stood before them."""
    return np.asarray(np.log((taken + PLAIN[0]) / (among + sum(PLAIN))))


@dataclass(slots=True)
class TreeSamples:
    """Takes the samples of a tree as it grows; everything in it follows from the tree."""

    tree: Tree
    cut: Cut
    samples: Samples = field(default_factory=Samples)
    step_of: list[int] = field(default_factory=lambda: [ROOT])
    """The step that each node stands for."""
    _noted: int = 0
    """Rollouts of the tree that were taken so far."""

    def take(self) -> list[int]:
        """Takes what was added to the tree since; returns where that ends."""
        return [*map(self._take_node, range(len(self.step_of), len(self.tree))), *self._rollouts()]

    def _take_node(self, node: int) -> int:
        nodes, there = self.tree.nodes, len(self.samples)
        value = self.tree.terminal_value(node)
        step = self.samples.step(
            self.step_of[nodes.parent[node]],
            nodes.step_ids[node],
            nodes.logprob[node],
            taken=0,
            end=None if value is None else value == 1.0,
        )
        if step == there:  # else a rollout that became nodes, which has been counted
            self.samples.take(step, nodes.n_samples[node])
        self.step_of.append(step)
        return step

    def _rollouts(self) -> list[int]:
        """Takes the policy's rollouts of known outcome that did not become nodes."""
        rollouts, ends = self.tree.rollouts, []
        for index in range(self._noted, len(rollouts.node)):
            completion, value = rollouts.completion[index], self.tree.rollout_value(index)
            if completion is None or value is None or rollouts.is_cut[index]:
                continue
            if rollouts.sampler_id[index] == POLICY_SAMPLER:
                steps = self.cut(completion.token_ids)
                start, logprobs = self.step_of[rollouts.node[index]], completion.logprobs_of(steps)
                ends.append(self.samples.walk(start, steps, logprobs, right=value == 1.0))
        self._noted = len(rollouts.node)
        return ends

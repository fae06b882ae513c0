"""Where a solution first goes wrong: what all samples of a tree say.

A prefix is right until the first wrong step and wrong from there on. It is alive where the solution
ends right if nothing more goes wrong, and else dead. The model of a step of probability p:

    right prefix   ->  right      r = (1 - h) [f + (1 - f) / (1 + exp(-c - s logit p))]
    live prefix    ->  alive      r + (1 - r) e       an error that makes no difference
    dead prefix    ->  alive      (1 - r) m           an error that makes up for those before
    a solution ends right         exactly where it is alive

A right prefix is alive, a wrong one may be. Where a policy knows its own mind the likely steps are
the right ones, and the odds that a step is right are those of p to some power s. Where many ways to
write a step are right, or a policy is sure of its mistakes, p tells little, s = 0 and c without
end. Where the policy does not say p, it is about the share of samples that take the step. f is
small and given.

Nobody knows h, s, c, e and m: a grid of them with prior weights goes through all formulas, so that
a tree learns them as it grows, and a run from all of its trees, from how samples end alone.

All samples of the tree are one tree of steps (`samples.py`), whether or not they were made nodes:
each is right or wrong once, so that samples which share their steps are no independent witnesses.
What is believed given the steps does not depend on why they were sampled, so rollouts may be asked
where they tell most (`information.py`).

Beliefs are exact sums over that tree: from the leaves up, the likelihood of all that was seen at a
step and below it, and then from the root down (Pearl 1988, section 4.3):

    A(step) = prod_c [a_c A(c) + (1 - a_c) D(c)]     if it is alive,     a = r + (1 - r) e
    D(step) = prod_c [d_c A(c) + (1 - d_c) D(c)]     if it is dead,      d = (1 - r) m

    P(step right | the one before right) = r A(step) / [a A(step) + (1 - a) D(step)]

Binary search (Luo et al. 2024, OmegaPRM, section 3.2) asks k rollouts at the middle and believes a
single success.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp

from treeward.search.error_grid import grid, prior, step_logs_of
from treeward.search.intervals import Reals
from treeward.search.samples import Samples
from treeward.search.tree import ROOT


@dataclass(slots=True)
class Beliefs:
    """What the samples of one tree say; steps are numbered as in `samples`."""

    prior_G: Reals = field(default_factory=prior)
    """Log weights of the grid before anything is seen."""

    samples: Samples = field(default_factory=Samples)
    alive_G: list[Reals] = field(default_factory=lambda: [np.zeros(grid().size)])
    """Log likelihood of all that was seen at and below each step, if it is alive."""
    dead_G: list[Reals] = field(default_factory=lambda: [np.zeros(grid().size)])
    """The same if it is dead."""
    if_alive_G: list[Reals] = field(default_factory=lambda: [np.zeros(grid().size)])
    """The same if the step before it is alive."""
    if_dead_G: list[Reals] = field(default_factory=lambda: [np.zeros(grid().size)])
    """The same if the step before it is dead."""

    def refresh(self, steps: Iterable[int]) -> None:
        """Computes anew what steps that were taken and those above them say."""
        samples = self.samples
        for column in (self.alive_G, self.dead_G, self.if_alive_G, self.if_dead_G):
            column += [np.zeros(grid().size)] * (len(samples) - len(column))
        changed = {ROOT}
        for step in steps:
            while step not in changed:
                changed.add(step)
                step = samples.parent[step]
        # Where the policy does not say p, the shares of all that go on from a step have changed.
        for parent in {samples.parent[step] for step in changed if step != ROOT}:
            changed.update(at for at in samples.children[parent] if samples.logprob[at] is None)
        for step in sorted(changed, reverse=True):
            self._tell(step)

    def _tell(self, step: int) -> None:
        """Computes what was seen at and below a step, and what that says to the one before it."""
        end, nothing = self.samples.end[step], np.zeros(grid().size)
        if end is None:
            children = self.samples.children[step]
            alive_G = sum((self.if_alive_G[child] for child in children), nothing)
            dead_G = sum((self.if_dead_G[child] for child in children), nothing)
        else:
            never = np.full_like(nothing, -np.inf)
            alive_G, dead_G = (nothing, never) if end else (never, nothing)
        self.alive_G[step], self.dead_G[step] = alive_G, dead_G
        if step != ROOT:
            logs = step_logs_of(self.samples.log_chance(step))
            self.if_alive_G[step] = np.logaddexp(logs.lives_G + alive_G, logs.dies_G + dead_G)
            self.if_dead_G[step] = np.logaddexp(logs.mends_G + alive_G, logs.stays_dead_G + dead_G)

    def seen(self, step: int) -> bool:
        """Returns whether a known outcome is at or below a step."""
        ends, children = self.samples.end, self.samples.children
        waiting = [step]
        while waiting:
            at = waiting.pop()
            if ends[at] is not None:
                return True
            waiting += children[at]
        return False

    def evidence(self) -> Reals:
        """Returns the log likelihood of all that was seen, for each grid point."""
        return self.alive_G[ROOT]

    def weights(self) -> Reals:
        """Returns the log weights of the grid given all that was seen in the tree."""
        weights_G = self.prior_G + self.evidence()
        return np.asarray(weights_G - logsumexp(weights_G))

    def stays_right(self, step: int) -> Reals:
        """Returns log P(step right | the one before right) at each grid point."""
        logs = step_logs_of(self.samples.log_chance(step))
        return logs.right_G + self.alive_G[step] - self.if_alive_G[step]

    def first_error(self, path: Sequence[int]) -> Reals:
        """Returns where a path first goes wrong, as probabilities.

        Args:
            path: Steps from the bare problem down.

        Returns:
            Entry e - 1 for step e of `path`, and the last for nowhere.
        """
        stays_PG = [self.weights(), *(self.stays_right(step) for step in path[1:])]
        right_P = np.exp(np.cumsum(stays_PG, axis=0)).sum(axis=1)
        return np.append(-np.diff(right_P), right_P[-1])

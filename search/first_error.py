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
small and goes with s and c.

Either each of the next steps is right or not, whatever the others are; or no more than one of them
is, as where a step can be written in one way only, and then what speaks against one speaks for the
others. In that case the r of those that were seen are made less where their sum is above 1 - h.

Nobody knows which, nor h, s, c, e and m: a grid of them with prior weights goes through all
formulas, so that a tree learns them as it grows, and a run from all of its trees, from how samples
end alone.

All samples of the tree are one tree of steps (`samples.py`), whether or not they were made nodes:
each is right or wrong once, so that samples which share their steps are no independent witnesses.
What is believed given the steps does not depend on why they were sampled, so rollouts may be asked
where they tell most (`information.py`).

Beliefs are exact sums over that tree: from the leaves up, the likelihood of all that was seen at a
step and below it, and then from the root down (Pearl 1988, section 4.3):

    W(step) = e A(step) + (1 - e) D(step)                     if it is wrong, the one before alive
    A(step) = prod_c [r_c A(c) + (1 - r_c) W(c)]              if it is alive; where one is right:
            = [1 - sum_c r_c + sum_c r_c A(c) / W(c)] prod_c W(c)
    D(step) = prod_c [d_c A(c) + (1 - d_c) D(c)]              if it is dead,      d = (1 - r) m

    P(step right | the one before right) = r A(step) / [r A(step) + (1 - r) W(step)], or
            r A(step) / W(step), over the brackets before prod above

Binary search (Luo et al. 2024, OmegaPRM, section 3.2) asks k rollouts at the middle and believes a
single success.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp

from treeward.search.error_grid import grid, prior, step_logs
from treeward.search.intervals import Reals
from treeward.search.next_steps import next_steps
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
    none_G: list[Reals] = field(default_factory=lambda: [np.ones(grid().size)])
    """That none of its next steps that were seen is right, if it is alive; for `sole_G` alone."""
    stays_G: list[Reals] = field(default_factory=lambda: [np.ones(grid().size)])
    """P(step right | the one before right)."""
    spared_G: list[Reals] = field(default_factory=lambda: [np.ones(grid().size)])
    """P(step alive | it is wrong, the one before alive)."""
    mends_G: list[Reals] = field(default_factory=lambda: [np.ones(grid().size)])
    """P(step alive | the one before dead)."""

    def refresh(self, steps: Iterable[int]) -> None:
        """Computes anew what steps that were taken and those above them say."""
        samples = self.samples
        new = len(samples) - len(self.alive_G)
        for column in (self.alive_G, self.dead_G):
            column += [np.zeros(grid().size)] * new
        for column in (self.none_G, self.stays_G, self.spared_G, self.mends_G):
            column += [np.ones(grid().size)] * new
        changed = {ROOT}
        for step in steps:
            while step not in changed:
                changed.add(step)
                step = samples.parent[step]
        for step in sorted(changed, reverse=True):
            self._tell(step)

    def _tell(self, step: int) -> None:
        """Computes what was seen at and below a step, and what is likely of the next ones."""
        end, children = self.samples.end[step], self.samples.children[step]
        if end is not None:
            nothing, never = np.zeros(grid().size), np.full(grid().size, -np.inf)
            self.alive_G[step], self.dead_G[step] = (nothing, never) if end else (never, nothing)
        elif children:
            found = next_steps(
                step_logs(np.array([[self.samples.log_chance(child)] for child in children])),
                np.array([self.alive_G[child] for child in children]),
                np.array([self.dead_G[child] for child in children]),
                np.zeros(1, np.int64),
            )
            self.alive_G[step], self.dead_G[step] = found.alive_PG[0], found.dead_PG[0]
            self.none_G[step] = found.none_PG[0]
            for at, child in enumerate(children):
                self.stays_G[child] = found.stays_CG[at]
                self.spared_G[child] = found.spared_CG[at]
                self.mends_G[child] = found.mends_CG[at]

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

    def first_error(self, path: Sequence[int]) -> Reals:
        """Returns where a path first goes wrong, as probabilities.

        Args:
            path: Steps from the bare problem down.

        Returns:
            Entry e - 1 for step e of `path`, and the last for nowhere.
        """
        stays_PG = [np.exp(self.weights()), *(self.stays_G[step] for step in path[1:])]
        right_P = np.cumprod(stays_PG, axis=0).sum(axis=1)
        return np.append(-np.diff(right_P), right_P[-1])

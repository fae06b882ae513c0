"""Where a solution first goes wrong: what all samples of a tree say, and which would say most.

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
where they tell most.

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
from scipy.special import logsumexp, xlogy

from treeward.search.error_grid import StepLogs, grid, prior, step_logs_of
from treeward.search.intervals import Reals
from treeward.search.samples import Samples
from treeward.search.tree import ROOT


@dataclass(slots=True)
class Beliefs:
    """What the samples of one tree say; steps are numbered as in `samples`."""

    prior_G: Reals = field(default_factory=prior)
    """Log weights of the grid before anything is seen."""

    samples: Samples = field(default_factory=Samples)
    if_alive_G: list[Reals] = field(default_factory=lambda: [np.zeros(grid().size)])
    """Log likelihood of all that was seen at and below each step, if the one before is alive."""
    if_dead_G: list[Reals] = field(default_factory=lambda: [np.zeros(grid().size)])
    """The same if it is dead."""

    def refresh(self, steps: Iterable[int]) -> None:
        """Computes anew what steps that were taken and those above them say."""
        samples = self.samples
        for column in (self.if_alive_G, self.if_dead_G):
            column += [np.zeros(grid().size)] * (len(samples) - len(column))
        changed: set[int] = set()
        for step in steps:
            while step != ROOT and step not in changed:
                changed.add(step)
                step = samples.parent[step]
        # Where the policy does not say p, the shares of all that go on from a step have changed.
        for parent in {samples.parent[step] for step in changed}:
            changed.update(at for at in samples.children[parent] if samples.logprob[at] is None)
        for step in sorted(changed, reverse=True):
            self._tell(step)

    def _tell(self, step: int) -> None:
        """Computes what a step says to the one before it."""
        logs, (alive_G, dead_G) = self._logs(step), self._own(step)
        self.if_alive_G[step] = np.logaddexp(logs.lives_G + alive_G, logs.dies_G + dead_G)
        self.if_dead_G[step] = np.logaddexp(logs.mends_G + alive_G, logs.stays_dead_G + dead_G)

    def _logs(self, step: int) -> StepLogs:
        return step_logs_of(self.samples.log_chance(step))

    def _own(self, step: int) -> tuple[Reals, Reals]:
        """Returns the log likelihoods of what was seen at and below a step, if alive and dead."""
        end, nothing = self.samples.end[step], np.zeros(grid().size)
        if end is not None:
            never = np.full_like(nothing, -np.inf)
            return (nothing, never) if end else (never, nothing)
        children = self.samples.children[step]
        return (
            sum((self.if_alive_G[child] for child in children), nothing),
            sum((self.if_dead_G[child] for child in children), nothing),
        )

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
        return self._own(ROOT)[0]

    def weights(self) -> Reals:
        """Returns the log weights of the grid given all that was seen in the tree."""
        weights_G = self.prior_G + self.evidence()
        return np.asarray(weights_G - logsumexp(weights_G))

    def _stays_right(self, step: int) -> Reals:
        """Returns log P(step right | the one before right) at each grid point."""
        return self._logs(step).right_G + self._own(step)[0] - self.if_alive_G[step]

    def first_error(self, path: Sequence[int]) -> Reals:
        """Returns where a path first goes wrong, as probabilities.

        Args:
            path: Steps from the bare problem down.

        Returns:
            Entry e - 1 for step e of `path`, and the last for nowhere.
        """
        stays_PG = [self.weights(), *(self._stays_right(step) for step in path[1:])]
        right_P = np.exp(np.cumsum(stays_PG, axis=0)).sum(axis=1)
        return np.append(-np.diff(right_P), right_P[-1])

    def information(self, path: Sequence[int]) -> Reals:
        """Returns how much one more rollout from each step of a path is expected to tell.

        That is the mutual information, in nats, of how it ends and of where the path first goes
        wrong (Lindley 1956). It is meant for steps that end no solution. A rollout that goes on as
        the path does, with the probability of its steps, ends as the path does, whatever is wrong;
        one that leaves it takes as many steps to its end as the path, each as likely to be right
        as those of the tree are on average.
        """
        success_PE, mass_E = self._success(path)
        ends_P2 = np.stack([success_PE.sum(axis=1), 1 - success_PE.sum(axis=1)], axis=1)
        both_P = _entropy(success_PE) + _entropy(mass_E - success_PE)
        return _entropy(mass_E) + _entropy(ends_P2) - both_P

    def _success(self, path: Sequence[int]) -> tuple[Reals, Reals]:
        """Returns what rollouts from the steps of a path come to, and where it first goes wrong.

        Returns:
            The joint probability of a right rollout from each step and of each place of the first
            error, [len(path), E] with E places as in `first_error`; and that of each place.
        """
        size, ends = len(path), self.samples.end[path[-1]] is not None
        if_alive_PG, if_dead_PG = self._leaving(size, 0 if ends else 1)
        leaves_PE, mass_EG = np.zeros((size, size)), np.zeros((size, grid().size))
        alive_EG, dead_EG = np.zeros_like(mass_EG), np.zeros_like(mass_EG)
        right_G = np.exp(self.weights())
        for place, step in enumerate(path):
            if place:
                logs, own_G = self._logs(step), self._own(step)[0]
                lives_G = np.exp(logs.lives_G + own_G - self.if_alive_G[step])
                mends_G = np.exp(logs.mends_G + own_G - self.if_dead_G[step])
                stays_G = np.exp(logs.right_G + own_G - self.if_alive_G[step])
                alive_EG, dead_EG = (
                    lives_G * alive_EG + mends_G * dead_EG,
                    (1 - lives_G) * alive_EG + (1 - mends_G) * dead_EG,
                )
                # Where the first error is this very step.
                alive_EG[place - 1] = np.maximum(lives_G - stays_G, 0.0) * right_G
                dead_EG[place - 1] = (1 - lives_G) * right_G
                mass_EG[place - 1] = alive_EG[place - 1] + dead_EG[place - 1]
                right_G = right_G * stays_G
            leaves_PE[place] = alive_EG @ if_alive_PG[place] + dead_EG @ if_dead_PG[place]
        mass_EG[-1] = right_G
        # Before the first error all is right, and alive.
        leaves_PE += np.triu(if_alive_PG @ mass_EG.T)
        success_PE = np.empty_like(leaves_PE)
        onward_E, follows = leaves_PE[-1], 0.0
        for place in reversed(range(size)):
            onward_E = follows * onward_E + (1 - follows) * leaves_PE[place]
            success_PE[place] = onward_E
            follows = float(np.exp(self.samples.log_chance(path[place])))
        return success_PE, mass_EG.sum(axis=1)

    def _leaving(self, size: int, more: int) -> tuple[Reals, Reals]:
        """Returns how likely a rollout that leaves a path ends right from live and dead steps.

        Args:
            size: Of the path.
            more: Steps that are left to take at its last.

        Returns:
            [size, G] for each.
        """
        logs = [self._logs(step).right_G for step in range(1, len(self.samples))]
        right_G = np.mean(np.exp(logs), axis=0) if logs else np.zeros(grid().size)
        lives_G = right_G + (1 - right_G) * grid().harmless_G
        mends_G = (1 - right_G) * grid().mending_G
        # By the number of steps that are left, from none.
        alive_LG, dead_LG = [np.ones(grid().size)], [np.zeros(grid().size)]
        for _ in range(size - 1 + more):
            alive_G, dead_G = alive_LG[-1], dead_LG[-1]
            alive_LG.append(lives_G * alive_G + (1 - lives_G) * dead_G)
            dead_LG.append(mends_G * alive_G + (1 - mends_G) * dead_G)
        return np.array(alive_LG[::-1][:size]), np.array(dead_LG[::-1][:size])


def _entropy(masses: Reals) -> Reals:
    """Returns -sum p log p over the last axis, of masses that need not sum to 1."""
    kept = np.maximum(masses, 0.0)
    return np.asarray(-xlogy(kept, kept).sum(axis=-1))

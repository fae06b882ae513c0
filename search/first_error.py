"""Where a solution first goes wrong: what rollouts along it say, and which would say most.

A prefix is right until the first wrong step and wrong from there on. The model, for one tree:

    the next step is right             with probability (1 - h) p^t
    value of a right prefix          ~ Beta(S m, S (1 - m))
    value of a wrong prefix          ~ Beta(R w, R (1 - w))      w small: recovery by luck
    a solution that ends right is right, or wrong with probability w that it ended so

p is the probability with which the policy samples that step, 1 where it is not known. A policy that
knows its own mind is right about as often as it is sure, t = 1; where many ways to write a step are
right, or a policy is sure of its mistakes, p tells little, t = 0.

h, t, m and w are not known: a grid of them with prior weights goes through all formulas, so a tree
learns them as it grows, and a run from all of its trees, from how rollouts end alone. The
Beta-Binomial likelihood of k right of n does not depend on when sampling stopped, so rollouts may
be asked where they tell most.

Every rollout counts once: one that ends right at the last node that it passes, since one can end
right from there; one that ends wrong where it started, since that is where it could have ended
right. One that was cut into nodes counts nowhere, since its end is in the tree and speaks for it.

Wrong is a property that prefixes inherit, so beliefs are exact sums over the tree: from the leaves
up, U(node) is the likelihood of all evidence at a node and below it, and then from the root down
(Pearl 1988, section 4.3):

    U_wrong(node) = L_wrong(node) prod_c U_wrong(c)
    U_right(node) = L_right(node) prod_c [r_c U_right(c) + (1 - r_c) U_wrong(c)],
                    r = (1 - h) p^t

    P(node right | parent right) = r U_right(node) / [r U_right(node) + (1 - r) U_wrong(node)]

Binary search (Luo et al. 2024, OmegaPRM, section 3.2) asks k rollouts at the middle and believes a
single success.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logsumexp, xlogy

from treeward.search.error_grid import (
    grid,
    likelihoods,
    next_success,
    prior,
    step_chances,
)
from treeward.search.intervals import Reals
from treeward.search.tree import ROOT


@dataclass(slots=True)
class Beliefs:
    """What the evidence in one tree says; nodes are numbered as in the tree, parents first."""

    prior_G: Reals = field(default_factory=prior)
    """Log weights of the grid before anything is seen."""

    parent: list[int] = field(default_factory=list)
    logprob: list[float | None] = field(default_factory=list)
    """log p of the step to each node, in nats; None where it is not known."""
    children: list[list[int]] = field(default_factory=list)
    right: list[int] = field(default_factory=list)
    """Right rollouts that count at each node."""
    known: list[int] = field(default_factory=list)
    """Right and wrong ones."""
    end: list[bool | None] = field(default_factory=list)
    """Whether a solution that ends at the node is right; None inside the tree."""
    up_right_G: list[Reals] = field(default_factory=list)
    """Log likelihood of all that was seen at and below each node, if it is right."""
    up_wrong_G: list[Reals] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        parent: Sequence[int],
        logprob: Sequence[float | None],
        right: Sequence[int],
        known: Sequence[int],
        end: Sequence[bool | None],
        prior_G: Reals,
    ) -> "Beliefs":
        """Returns what a finished tree says, from its columns."""
        nothing = [np.zeros(grid().size)] * len(parent)
        children: list[list[int]] = [[] for _ in parent]
        for node, above in enumerate(parent):
            if above >= 0:
                children[above].append(node)
        beliefs = cls(
            prior_G=prior_G,
            parent=list(parent),
            logprob=list(logprob),
            children=children,
            right=list(right),
            known=list(known),
            end=list(end),
            up_right_G=list(nothing),
            up_wrong_G=list(nothing),
        )
        for node in reversed(range(len(parent))):
            beliefs._combine(node)
        return beliefs

    def add(self, parent: int, *, logprob: float | None = None, end: bool | None = None) -> int:
        """Adds a node below one that is there; the first, whose parent is -1, is the root."""
        node = len(self.parent)
        self.parent.append(parent)
        self.logprob.append(logprob)
        self.children.append([])
        self.right.append(0)
        self.known.append(0)
        self.end.append(end)
        nothing = np.zeros(grid().size)
        self.up_right_G.append(nothing)
        self.up_wrong_G.append(nothing)
        if parent >= 0:
            self.children[parent].append(node)
        if end is not None:
            self._refresh(node)
        return node

    def count(self, node: int, *, right: int, known: int) -> None:
        """Counts rollouts at a node."""
        self.right[node] += right
        self.known[node] += known
        self._refresh(node)

    def _refresh(self, node: int) -> None:
        """Computes a node and all above it anew."""
        while node >= 0:
            self._combine(node)
            node = self.parent[node]

    def _combine(self, node: int) -> None:
        """Puts together what was seen at a node and what its children say."""
        right_G, wrong_G = self._own(node)
        for child in self.children[node]:
            wrong_G = wrong_G + self.up_wrong_G[child]
            right_G = right_G + self._mixed(child)
        self.up_right_G[node], self.up_wrong_G[node] = right_G, wrong_G

    def _mixed(self, node: int) -> Reals:
        """Returns log [r U_right + (1 - r) U_wrong] of a node."""
        right_G, wrong_G = step_chances(self.logprob[node])
        right_G = right_G + self.up_right_G[node]
        return np.asarray(np.logaddexp(right_G, wrong_G + self.up_wrong_G[node]))

    def _stays_right(self, node: int) -> Reals:
        """Returns the log probability that a node is right if its parent is, at each grid point."""
        right_G, _ = step_chances(self.logprob[node])
        return right_G + self.up_right_G[node] - self._mixed(node)

    def _own(self, node: int) -> tuple[Reals, Reals]:
        """Returns the log likelihoods of what was seen at a node itself, if right and if wrong."""
        end, leak_G = self.end[node], grid().leak_G
        if end is not None:
            certain_G = np.zeros_like(leak_G)
            if end:
                return certain_G, np.log(leak_G)
            return np.full_like(leak_G, -np.inf), np.log1p(-leak_G)
        return likelihoods(self.right[node], self.known[node])

    def seen(self, node: int) -> bool:
        """Returns whether any outcome is known at or below a node."""
        # Every outcome is less than certain from a wrong prefix, so none leaves these at 0.
        return bool(self.up_wrong_G[node].any())

    def evidence(self) -> Reals:
        """Returns the log likelihood of all that was seen, for each grid point."""
        return self.up_right_G[ROOT]

    def weights(self) -> Reals:
        """Returns the log weights of the grid given all that was seen in the tree."""
        weights_G = self.prior_G + self.evidence()
        return np.asarray(weights_G - logsumexp(weights_G))

    def right_by_grid(self, path: Sequence[int]) -> Reals:
        """Returns the joint probability of each grid point and of each node's being right.

        Args:
            path: The nodes from the root to some node; the root is right.

        Returns:
            Shape [len(path), G].
        """
        log_right_G = self.weights()
        rows = [log_right_G]
        for node in path[1:]:
            log_right_G = log_right_G + self._stays_right(node)
            rows.append(log_right_G)
        return np.exp(rows)

    def right_chances(self) -> list[float]:
        """Returns the probability that each node is right; 1 for the root."""
        log_right_NG = [self.weights()]
        for node in range(1, len(self.parent)):
            log_right_NG.append(log_right_NG[self.parent[node]] + self._stays_right(node))
        return [float(np.exp(log_right_G).sum()) for log_right_G in log_right_NG]

    def first_error(self, path: Sequence[int]) -> Reals:
        """Returns where a path first goes wrong, as probabilities.

        Returns:
            Entry e - 1 for step e of `path`, which starts at the root, and the last for nowhere.
        """
        right_P = self.right_by_grid(path).sum(axis=1)
        return np.append(-np.diff(right_P), right_P[-1])

    def information(self, path: Sequence[int]) -> Reals:
        """Returns how much one more rollout from each node of a path is expected to tell.

        That is the mutual information, in nats, of how it ends and of where the path first goes
        wrong (Lindley 1956). It is meant for nodes inside the tree. A rollout that goes on as the
        path does, with the probability of its steps, ends as the path does, whatever is wrong.
        """
        right_PG = self.right_by_grid(path)
        joint_EG = np.vstack([-np.diff(right_PG, axis=0), right_PG[-1:]])
        success_PE = self._success(path, joint_EG)
        mass_E = joint_EG.sum(axis=1)
        ends_P2 = np.stack([success_PE.sum(axis=1), 1 - success_PE.sum(axis=1)], axis=1)
        both_P = _entropy(success_PE) + _entropy(mass_E - success_PE)
        return _entropy(mass_E) + _entropy(ends_P2) - both_P

    def _success(self, path: Sequence[int], joint_EG: Reals) -> Reals:
        """Returns the joint probability of each place and of a right rollout from each node."""
        success_PE = np.empty((len(path), len(joint_EG)))
        onward_EG, follows = np.zeros_like(joint_EG), 0.0
        for place in reversed(range(len(path))):
            node = path[place]
            end, logprob = self.end[node], self.logprob[node]
            if end is None:
                if_right_G, if_wrong_G = next_success(self.right[node], self.known[node])
                # A node is right where the first wrong step, or none, comes after it.
                right_E = np.arange(len(joint_EG)) >= place
                leaves_EG = np.where(right_E[:, None], if_right_G, if_wrong_G)
                onward_EG = follows * onward_EG + (1 - follows) * leaves_EG
            else:
                onward_EG = np.full_like(joint_EG, end)
            success_PE[place] = (onward_EG * joint_EG).sum(axis=1)
            follows = 0.0 if logprob is None else float(np.exp(min(logprob, 0.0)))
        return success_PE


def _entropy(masses: Reals) -> Reals:
    """Returns -sum p log p over the last axis, of masses that need not sum to 1."""
    kept = np.maximum(masses, 0.0)
    return np.asarray(-xlogy(kept, kept).sum(axis=-1))

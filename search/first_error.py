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
right.

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
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logsumexp, xlogy

from treeward.search.tree import ROOT

Reals = NDArray[np.float64]

HAZARDS = (0.003, 0.05, 0.25)
TRUSTS = {0.0: 0.7, 0.1: 0.1, 0.3: 0.1, 1.0: 0.1}
"""t, with the weight that each has before anything is known: a policy's doubt may say nothing."""
LEVELS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
LEAKS = {0.003: 0.4, 0.01: 0.3, 0.03: 0.15, 0.08: 0.1, 0.2: 0.05}
"""w, with the weight that each has before anything is known."""
SPREAD_RIGHT = 3.0
"""S: how much the values of a tree's right prefixes agree."""
SPREAD_WRONG = 20.0
"""R: how much those of its wrong ones agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Holds all combinations of h, t, m and w; the columns have one entry each, G in all."""

    hazard_G: Reals
    trust_G: Reals
    level_G: Reals
    leak_G: Reals

    @property
    def size(self) -> int:
        """Returns G."""
        return len(self.hazard_G)


@cache
def grid() -> Grid:
    """Returns the combinations in which a right prefix is worth more than twice a wrong one."""
    points = [each for each in product(HAZARDS, TRUSTS, LEVELS, LEAKS) if each[2] > 2 * each[3]]
    hazard_G, trust_G, level_G, leak_G = np.array(points).T
    return Grid(hazard_G=hazard_G, trust_G=trust_G, level_G=level_G, leak_G=leak_G)


@cache
def prior() -> Reals:
    """Returns the log weights of the grid before anything is known: luck is rare."""
    points = zip(grid().leak_G, grid().trust_G, strict=True)
    weights_G = np.array([LEAKS[leak] * TRUSTS[trust] for leak, trust in points])
    return np.asarray(np.log(weights_G / weights_G.sum()))


def learn_prior(evidence_TG: Reals, rounds: int = 10) -> Reals:
    """Returns the log weights of the grid that many trees together make likely.

    t is the policy's, the same in all trees, so that they vouch for it together. h, m and w are
    each tree's own: for each t, expectation maximisation over which of them a tree has, from even
    weights and with one pseudo-tree that has all alike.

    Args:
        evidence_TG: The log likelihood of each tree's evidence at each grid point.
        rounds: Of the two steps.
    """
    weights_G = np.empty(grid().size)
    for trust, weight in TRUSTS.items():
        chosen_G = grid().trust_G == trust
        evidence_TC = evidence_TG[:, chosen_G]
        weights_C = _mixture(evidence_TC, rounds)
        told = logsumexp(evidence_TC + weights_C, axis=1).sum()
        weights_G[chosen_G] = np.log(weight) + told + weights_C
    return np.asarray(weights_G - logsumexp(weights_G))


def _mixture(evidence_TC: Reals, rounds: int) -> Reals:
    """Returns the log weights of C components that trees of them make likely."""
    trees, size = evidence_TC.shape
    weights_C = np.full(size, -np.log(size))
    for _ in range(rounds):
        joint_TC = evidence_TC + weights_C
        share_TC = np.exp(joint_TC - logsumexp(joint_TC, axis=1, keepdims=True))
        weights_C = np.log((share_TC.sum(axis=0) + 1 / size) / (trees + 1))
    return weights_C


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
        wrong (Lindley 1956). It is meant for nodes inside the tree.
        """
        right_PG = self.right_by_grid(path)
        joint_EG = np.vstack([-np.diff(right_PG, axis=0), right_PG[-1:]])
        chances = [next_success(self.right[node], self.known[node]) for node in path]
        if_right_PG, if_wrong_PG = (np.array(each) for each in zip(*chances, strict=True))
        # A node is right where the first wrong step, or none, comes after it.
        places = np.arange(len(path))
        after_PE = places >= places[:, None]
        success_PE = np.where(after_PE, if_right_PG @ joint_EG.T, if_wrong_PG @ joint_EG.T)
        mass_E = joint_EG.sum(axis=1)
        ends_P2 = np.stack([success_PE.sum(axis=1), 1 - success_PE.sum(axis=1)], axis=1)
        both_P = _entropy(success_PE) + _entropy(mass_E - success_PE)
        return _entropy(mass_E) + _entropy(ends_P2) - both_P


def step_chances(logprob: float | Reals | None) -> tuple[Reals, Reals]:
    """Returns the log probabilities that the next step is right and that it is wrong.

    Args:
        logprob: Of the step, in nats, or of many in a column, [steps, 1]; None where not known.
    """
    log_right_P, trust_P, pair_G = _pairs()
    right_P = log_right_P
    if logprob is not None:
        right_P = log_right_P + trust_P * np.minimum(logprob, 0.0)
    return right_P[..., pair_G], np.log(-np.expm1(right_P))[..., pair_G]


@cache
def _pairs() -> tuple[Reals, Reals, NDArray[np.int64]]:
    """Returns log (1 - h) and t of their P pairs, and which pair each combination has."""
    both = np.stack([grid().hazard_G, grid().trust_G])
    (hazard_P, trust_P), pair_G = np.unique(both, axis=1, return_inverse=True)
    return np.log1p(-hazard_P), trust_P, pair_G.reshape(-1)


@cache
def likelihoods(right: int, known: int) -> tuple[Reals, Reals]:
    """Returns the log likelihoods of k right of n rollouts from a right and from a wrong prefix."""
    if_right, if_wrong = (
        np.asarray(betaln(a_G + right, b_G + known - right) - betaln(a_G, b_G))
        for a_G, b_G in _shapes()
    )
    return if_right, if_wrong


@cache
def next_success(right: int, known: int) -> tuple[Reals, Reals]:
    """Returns the chance that one more rollout ends right, from a right and from a wrong prefix."""
    if_right, if_wrong = ((a_G + right) / (a_G + b_G + known) for a_G, b_G in _shapes())
    return if_right, if_wrong


@cache
def _shapes() -> tuple[tuple[Reals, Reals], tuple[Reals, Reals]]:
    """Returns both parameters of the Beta distributions of right and of wrong prefixes."""
    level_G, leak_G = grid().level_G, grid().leak_G
    return (
        (SPREAD_RIGHT * level_G, SPREAD_RIGHT * (1 - level_G)),
        (SPREAD_WRONG * leak_G, SPREAD_WRONG * (1 - leak_G)),
    )


def _entropy(masses: Reals) -> Reals:
    """Returns -sum p log p over the last axis, of masses that need not sum to 1."""
    kept = np.maximum(masses, 0.0)
    return np.asarray(-xlogy(kept, kept).sum(axis=-1))

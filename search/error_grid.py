"""The states of the model of first errors, and what steps and rollouts say of each.

`first_error.py` has the model: a grid of its numbers h, t, m and w, with a weight each, which many
trees together make more or less likely.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logsumexp

from treeward.search.intervals import Reals

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

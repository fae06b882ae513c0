"""The states of the model of first errors, and what a step says in each.

`first_error.py` has the model: a grid of its numbers, with a weight each, which many trees together
make more or less likely.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, logsumexp

from treeward.search.intervals import Reals


class Curve(NamedTuple):
    """Says how often a step of probability p is right.

    That is f + (1 - f) / (1 + exp(-lift - slope logit p)).
    """

    slope: float
    lift: float
    floor: float = 0.01
    """f: among the least likely steps so many are right all the same."""
    sole: bool = False
    """Whether no more than one of the next steps is right; else each is, whatever others are."""


SILENT = Curve(0.0, np.inf)
"""That of a policy whose doubt says nothing."""
CURVES = {
    SILENT: 0.3,
    Curve(0.5, 1.0): 0.1,
    Curve(1.0, 0.0): 0.18,
    Curve(1.5, 0.5): 0.1,
    Curve(2.0, 0.0): 0.27,
    Curve(1.0, 0.0, floor=0.03, sole=True): 0.02,
    Curve(2.0, 0.0, floor=0.03, sole=True): 0.03,
}
"""Each with the weight that it has before anything is known, as all below."""
HARMLESS = {0.001: 0.3, 0.01: 0.3, 0.1: 0.4}
"""e"""
MENDING = {0.01: 0.5, 0.1: 0.5}
"""m"""
HAZARDS = {0.001: 0.4, 0.02: 0.4, 0.15: 0.2}
"""h"""

SUREST = 1 - 1e-6
"""No step is taken to be more likely than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Holds all combinations; columns have one entry each, G in all, those of a run together."""

    slope_G: Reals
    lift_G: Reals
    floor_G: Reals
    sole_G: NDArray[np.bool_]
    harmless_G: Reals
    mending_G: Reals
    hazard_G: Reals

    @property
    def size(self) -> int:
        """Returns G."""
        return len(self.hazard_G)


@cache
def grid() -> Grid:
    """Returns the combinations."""
    points = [(*curve, *rest) for curve, *rest in product(CURVES, HARMLESS, MENDING, HAZARDS)]
    slope_G, lift_G, floor_G, sole_G, harmless_G, mending_G, hazard_G = np.array(points).T
    return Grid(
        slope_G=slope_G,
        lift_G=lift_G,
        floor_G=floor_G,
        sole_G=sole_G > 0,
        harmless_G=harmless_G,
        mending_G=mending_G,
        hazard_G=hazard_G,
    )


@cache
def prior() -> Reals:
    """Returns the log weights of the grid before anything is known."""
    weights = [
        np.prod(each)
        for each in product(CURVES.values(), HARMLESS.values(), MENDING.values(), HAZARDS.values())
    ]
    return np.log(weights)


def learn_prior(evidence_TG: Reals, rounds: int = 10) -> Reals:
    """Returns the log weights of the grid that many trees together make likely.

    All but h is the policy's, the same in all trees, so that they vouch for it together. h is each
    tree's own: expectation maximisation over which of them a tree has, beside one more tree that
    has them as they were before.

    Args:
        evidence_TG: The log likelihood of each tree's evidence at each grid point.
        rounds: Of the two steps.
    """
    trees = len(evidence_TG)
    run_R1, own_RH = _parted(prior())
    evidence_TRH = evidence_TG.reshape(trees, *own_RH.shape)
    weights_RH = own_RH
    for _ in range(rounds):
        share_TRH, _ = _shares(evidence_TRH, weights_RH)
        weights_RH = np.log((share_TRH.sum(axis=0) + np.exp(own_RH)) / (trees + 1))
    _, told_TR1 = _shares(evidence_TRH, weights_RH)
    weights_G = (run_R1 + told_TR1.sum(axis=0) + weights_RH).reshape(-1)
    return np.asarray(weights_G - logsumexp(weights_G))


def without(learned_G: Reals, evidence_TG: Reals, trees: int) -> Reals:
    """Returns what the other trees of a run make likely, for some of its trees.

    What a tree says is weighed against this, or it would count twice.

    Args:
        learned_G: The log weights that all of them make likely.
        evidence_TG: As `learn_prior`, of the trees that are left out, one at a time.
        trees: How many the weights were learned from; at least 1.

    Returns:
        Log weights for each tree; their sum is not 1.
    """
    _, own_RH = _parted(prior())
    run_R1, weights_RH = _parted(learned_G)
    share_TRH, told_TR1 = _shares(evidence_TG.reshape(-1, *own_RH.shape), weights_RH)
    left_TRH = (trees + 1) * np.exp(weights_RH) - share_TRH
    # A tree that was passed over in a long run takes out what it has not put in.
    others_TRH = np.log(np.maximum(left_TRH, np.exp(own_RH)) / trees)
    return np.asarray((run_R1 - told_TR1 + others_TRH).reshape(evidence_TG.shape))


def _parted(weights_G: Reals) -> tuple[Reals, Reals]:
    """Returns log weights of what a run's trees have in common, and of h for each of that."""
    weights_RH = weights_G.reshape(-1, len(HAZARDS))
    run_R1 = logsumexp(weights_RH, axis=1, keepdims=True)
    return run_R1, weights_RH - run_R1


def _shares(evidence_TRH: Reals, weights_RH: Reals) -> tuple[Reals, Reals]:
    """Returns how likely each h is in each tree, and the tree's log likelihood over all of them."""
    joint_TRH = evidence_TRH + weights_RH
    told_TR1 = logsumexp(joint_TRH, axis=2, keepdims=True)
    return np.exp(joint_TRH - told_TR1), told_TR1


class StepLogs(NamedTuple):
    """Holds log probabilities of what a step does, each at every grid point."""

    right_G: Reals
    """A right prefix stays right, where no other next step is known to be right."""
    mends_G: Reals
    """A dead prefix comes to life: the step is an error that makes up for those before."""
    stays_dead_G: Reals


def step_logs(logprob: float | Reals) -> StepLogs:
    """Returns what a step does.

    Args:
        logprob: Of the step, in nats, or of many in a column, [steps, 1].
    """
    points = grid()
    odds = logit(np.minimum(np.exp(logprob), SUREST))
    with np.errstate(invalid="ignore"):
        doubt_G = np.where(
            points.slope_G == 0, points.lift_G, points.lift_G + points.slope_G * odds
        )
    told_G = points.floor_G + (1 - points.floor_G) * expit(doubt_G)
    right_G = (1 - points.hazard_G) * told_G
    mends_G = (1 - right_G) * points.mending_G
    return StepLogs(np.log(right_G), np.log(mends_G), np.log1p(-mends_G))

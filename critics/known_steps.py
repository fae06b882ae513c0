"""The value of a node whose next steps have known probabilities, which need not be estimated.

With the probability p_c of each child known, how often a step was drawn no longer matters
(Rao-Blackwell); draws only tell what is left, the steps that are no children:

    V = sum_c p_c V_c + p_o V_o,    p_o = 1 - sum_c p_c
    V_o = [sum_c s_c V_c + k_strayed + sum_c p_c V_c] / N_o
    N_o = sum_c s_c + n_strayed + sum_c p_c

Rollouts that went into no child say best what is left. Of the S samples that made the children each
step had the chance pi_c = 1 - (1 - p_c)^S to be one of them (Horvitz and Thompson 1952), so that an
unlikely child stands for others like it, s_c = SAMPLE_WEIGHT S (p_c / pi_c - p_c). The children are
one more draw as far as they are likely, which is all there is to go by where nothing strayed. Where
every step is unlikely this is the mean of all draws.

A rollout of the node that was asked for before a child was made, and goes into it, does not count
for the child, whose making it may have caused; for the node it tells of the child:
V_c <- (m_c V_c + k_entered) / (m_c + n_entered) with m_c draws at the child.

Only children that were sampled at the node are weighed like this. Of those that were cut from a
solution there is often one, which may be unlikely, and then it stands for far too much.

With the share b of the outcomes' variance between steps, w_c = p_c + p_o (s_c + p_c) / N_o, and the
children's draw as far off as it is noisy, the variance is

    p_o^2 V_o (1 - V_o) [b SAMPLE_WEIGHT sum_c s_c + n_strayed + 2 sum_c p_c] / N_o^2
    + sum_c w_c^2 Var(V_c)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treeward.critics.evidence import Evidence
from treeward.search.intervals import PRIOR, Reals
from treeward.search.tree import Tree

ICC = 0.5
"""Share of the outcomes' variance that is assumed to lie between next steps."""

SAMPLE_WEIGHT = 1 / ICC
"""What a draw whose child is well known is worth in lone rollouts."""

_ROUNDING = 1e-12
"""Of probabilities: so near to 0 or 1 they are treated as if they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSteps:
    """Holds what the formulas need, every column with one entry a node."""

    chance: Reals
    """The probability of its step at its parent; NaN at parents where some child's is not known, or
    some child was not sampled there."""
    samples: Reals
    """That made it."""
    known: Reals
    """m: draws at it, in rollouts."""
    strayed: Reals
    strayed_right: Reals
    entered: Reals
    entered_right: Reals
    """The columns of `Evidence`."""


def known_steps(
    trees: Sequence[Tree],
    evidence: Sequence[Evidence],
    parent: NDArray[np.int64],
    samples: Reals,
    *,
    as_is: bool,
) -> KnownSteps:
    """Returns the columns of all nodes of some trees.

    Args:
        trees: Grown trees.
        evidence: The strict evidence of each.
        parent: The place of each node's parent among all nodes; -1 for a root.
        samples: That made each node; 0 below a node some of whose children were not sampled.
        as_is: Whether a step's `logprob` is that of being drawn.
    """
    inner = np.flatnonzero(parent >= 0)

    def sum_below(column: Reals) -> Reals:
        return sum_at(parent[inner], column[inner], len(parent))

    def joined(name: str) -> Reals:
        return np.concatenate([getattr(each, name) for each in evidence]).astype(float)

    logprob = np.array([each for tree in trees for each in tree.nodes.logprob], dtype=float)
    unclear = np.isnan(logprob) | (samples == 0) | (not as_is)
    clear = sum_below(unclear.astype(float))[parent] == 0
    return KnownSteps(
        chance=np.where(clear, np.exp(np.minimum(logprob, 0.0)), np.nan),
        samples=samples,
        known=SAMPLE_WEIGHT * sum_below(samples) + joined("n_rollouts"),
        strayed=joined("strayed"),
        strayed_right=joined("strayed_right"),
        entered=joined("entered"),
        entered_right=joined("entered_right"),
    )


def weigh(
    steps: KnownSteps,
    level: NDArray[np.int64],
    below: NDArray[np.int64],
    at: NDArray[np.int64],
    value: Reals,
    variance: Reals,
    share: Reals,
) -> tuple[Reals, Reals]:
    """Returns the value of a level's nodes and its variance; NaN where steps are not known.

    Args:
        steps: What was drawn.
        level: Nodes in ascending order.
        below: All of their children.
        at: The place in `level` of each child's parent.
        value: Of all nodes, NaN where nothing is known; the children's are read.
        variance: Likewise.
        share: b, of each node of the level.
    """

    def sum_below(column: Reals) -> Reals:
        return sum_at(at, column, len(level))

    chance = steps.chance[below]
    values, variances = _with_entered(steps, below, value[below], variance[below])
    if np.isnan(chance + values).all():
        return np.full(len(level), np.nan), np.full(len(level), np.nan)
    sampled = sum_below(steps.samples[below])
    with np.errstate(invalid="ignore", divide="ignore"):
        met = -np.expm1(sampled[at] * np.log1p(-np.minimum(chance, 1 - _ROUNDING)))
        # The least likely steps are met once if at all.
        odds = np.where(chance < _ROUNDING, 1 / sampled[at], chance / met)
        stands = SAMPLE_WEIGHT * sampled[at] * (odds - chance)
        likely, strayed = sum_below(chance), steps.strayed[level]
        left = np.maximum(1 - likely, 0.0)
        # Summed as `others` is: a subtree that is all right has a value of exactly 1.
        draws = sum_below(stands + chance) + strayed
        others = (sum_below((stands + chance) * values) + steps.strayed_right[level]) / draws
        # Rounded, probabilities can sum to more than 1.
        mean = (sum_below(chance * values) + left * others) / (likely + left)
        noise = share * SAMPLE_WEIGHT * sum_below(stands) + strayed + 2 * likely
        error = (left / draws) ** 2 * outcome_variance(others, draws) * noise
        weights = chance + (left / draws)[at] * (stands + chance)
        error = (error + sum_below(weights**2 * variances)) / (likely + left) ** 2
    without = sum_below(np.ones(len(below))) == 0
    return np.where(without, np.nan, mean), np.where(without, np.nan, error)


def _with_entered(
    steps: KnownSteps, below: NDArray[np.int64], value: Reals, variance: Reals
) -> tuple[Reals, Reals]:
    """Returns what parents know of some children, and its variance."""
    entered, right = steps.entered[below], steps.entered_right[below]
    known = np.where(np.isnan(value), 0.0, steps.known[below])
    draws = np.maximum(known + entered, 1.0)
    mean = (known * np.nan_to_num(value) + right) / draws
    error = known**2 * np.nan_to_num(variance) + entered * outcome_variance(mean, draws)
    tells = (entered > 0) & (variance != 0)  # ends need nobody to tell
    return np.where(tells, mean, value), np.where(tells, error / draws**2, variance)


def sum_at(places: NDArray[np.int64], numbers: Reals, size: int) -> Reals:
    """Returns for each place the sum of its numbers."""
    return np.bincount(places, numbers, size).astype(float)


def as_rollouts(mean: Reals, variance: Reals) -> Reals:
    """Returns the number n of rollouts whose mean has that variance, `outcome_variance` / n."""
    draws, least = np.ones_like(mean), np.maximum(variance, _ROUNDING**2)
    for _ in range(24):  # each halves what is wrong with log n, at least
        draws = np.sqrt(draws * outcome_variance(mean, draws) / least)
    return np.asarray(np.where(variance > 0, draws, np.inf))


def outcome_variance(mean: Reals, draws: Reals) -> Reals:
    """Returns the variance of one outcome, of a mean shrunk as the prior has it."""
    shrunk = (draws * mean + PRIOR) / (draws + 2 * PRIOR)
    return np.asarray(shrunk * (1 - shrunk))

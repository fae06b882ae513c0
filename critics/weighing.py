"""The value of a node from the draws at it, the values of its next steps and their probabilities.

Every draw at a node goes into some next step c: n_c samples made it, and r_c rollouts that count
for the node went into it. A child has its own value V_c, a step that only rollouts took the mean of
their outcomes, and V is the mean of all next steps' values. With the probability p_c of each known,
how often it was drawn no longer matters (Rao-Blackwell); draws only tell what is left, the steps
that nobody drew:

    V = sum_c p_c V_c + p_o V_o,    p_o = 1 - sum_c p_c,    V_o = sum_c a_c V_c / sum_c a_c
    a_c = g_c N (p_c / pi_c - p_c) + l p_c,    pi_c = 1 - (1 - p_c)^N,    N = sum_c (n_c + r_c)

Each step had the chance pi_c to be among those that were drawn (Horvitz and Thompson 1952), so that
an unlikely one stands for others like it; likely ones, which say less of them, are l = LIKELY draws
at most. A child that is here whatever was drawn stands for none, a_c = l p_c, and one that is here
for an outcome says nothing of others, a_c = 0; where nothing else was drawn, V_o is not known: 1/2,
with the prior's variance. A sample weighs SAMPLE_WEIGHT rollouts, as more is known below it than
one outcome: g_c = (SAMPLE_WEIGHT n_c + r_c) / (n_c + r_c). Where every step is unlikely this is the
mean of all draws, and so it is where a probability is not known: p_c = 0 and
a_c = SAMPLE_WEIGHT n_c + r_c. Of few draws V is too high where unlikely steps are worse, and too
low where they are better.

A rollout of the node that was asked for before a child was made, and goes into it, does not count
for the child, whose making it may have caused; for the node it tells of the child:
V_c <- (m_c V_c + k_entered) / (m_c + n_entered). Of the solutions through the child the share
s_c = sum p s is known with their probabilities, 1 at an end: m_c = (draws at the child) /
(1 - s_c)^2, so that nothing tells of what is known. If it was chosen for an outcome, rollouts that
went into it later are m_c, and s_c = 0 for what is above. If one outcome may have been the last
that was asked for there, all rollouts of the node that went into it tell of it, and m_c = 0.

Of the variance of one outcome the share b lies between next steps,

    b V (1 - V) = min([sum_c d_c (V_c - V_.)^2 + ICC V (1 - V)] / D, V (1 - V))

with D draws on children, d_c on each: their spread, and one prior draw. The noise in V_c is not
taken off, which makes up for the draw that their mean V_. takes. With w_c = p_c + p_o a_c / sum a
and h_c = (SAMPLE_WEIGHT^2 n_c + r_c) / (n_c + r_c), the variance of V is

    V_o (1 - V_o) [p_o / sum_c a_c]^2 [sum_c b_c h_c N (p_c / pi_c - p_c) + 2 (l sum_c p_c)^2]
    + V_o (1 - V_o) b min(sum_c p_c (p_c / pi_c - p_c), p_o^2)
    + sum_c w_c^2 Var(V_c)                                            of children
    + [1 - b (1 - sum_c p_c^2)] V (1 - V) sum_c w_c^2 / r_c           of steps of rollouts alone

where b_c is b, or 1 for a child of which all is known: it may be as far off as an outcome. Likely
steps are as far off as they are noisy, the second line is for what is left, which may be a step or
two, and nothing lies between steps of which one must follow. Where probabilities are not known,
rollouts that came to an end count as if they alone told of it, and as the posterior has the
variance of two draws more than there are, these are taken off.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treeward.critics.next_steps import ICC, SAMPLE_WEIGHT, NextSteps, sum_at
from treeward.search.intervals import PRIOR, Reals

LIKELY = 0.1
"""What steps are worth, in draws, as a guess of those that nobody drew, if they are all likely."""

_SETTLED = 1 - 1e-9
"""A share that is taken for all there is."""

_GUESSED = 0.25 / (1 + 2 * PRIOR)
"""The variance of a value that nothing is known of, as the prior has it."""

_LEAST = 1e-24
"""A variance that is told apart from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Holds the next steps of some nodes, one entry each."""

    at: NDArray[np.int64]
    """Which of the nodes it follows."""
    size: int
    """How many nodes there are."""
    chance: Reals
    """0 where that of some step of the node is not known."""
    unclear: NDArray[np.bool_]
    """Whether that is so."""
    samples: Reals
    rollouts: Reals
    value: Reals
    """0 for one that is not weighed."""
    variance: Reals
    """Likewise, and of one that is `lone`."""
    lone: NDArray[np.bool_]
    """Whether rollouts of the node alone tell of it."""
    given: NDArray[np.bool_]
    """Whether it is here whatever was drawn, and its probability known."""
    picked: NDArray[np.bool_]
    """Whether that is so for an outcome."""
    settled: Reals
    """What share of the solutions through it is known with their probabilities."""

    @property
    def draws(self) -> Reals:
        """Returns samples and rollouts."""
        return self.samples + self.rollouts

    def sum(self, column: Reals | NDArray[np.bool_]) -> Reals:
        """Returns for each node the sum over its next steps."""
        return sum_at(self.at, column.astype(float), self.size)


def weigh(rows: Rows) -> tuple[Reals, Reals, Reals]:
    """Returns the values of nodes, their variances, and rollouts that would tell as much.

    All are NaN where nothing was drawn, and the last where it follows from the others.
    """
    chance, draws, likely = rows.chance, rows.draws, rows.sum(rows.chance)
    with np.errstate(invalid="ignore", divide="ignore"):
        n = rows.sum(draws)
        met = -np.expm1(n[rows.at] * np.log1p(-chance))
        # The least likely steps are met once if at all.
        by_met = np.where(chance == 0, 1 / n[rows.at], chance / met)
        stands = np.where(rows.unclear, 1.0, n[rows.at] * (by_met - chance) / draws)
        stands[(draws == 0) | rows.given] = 0.0
        guess = np.where(rows.picked, 0.0, LIKELY * chance)
        parts = stands * (SAMPLE_WEIGHT * rows.samples + rows.rollouts) + guess
        # Rounded, probabilities can sum to more than 1.
        left, total = np.maximum(1 - likely, 0.0), rows.sum(parts)
        # Where probabilities are known, a sample is one draw of what is left, whatever it weighs.
        known = rows.sum(rows.unclear) == 0
        tries = np.where(known, rows.sum(stands * draws + guess), total)
        told = total > 0
        others = np.where(told, rows.sum(parts * rows.value) / total, 0.5)
        each = np.where(told, left / total, 0.0)
        mean = (rows.sum(chance * rows.value) + left * others) / (likely + left)

        single = outcome_variance(mean, rows.sum(SAMPLE_WEIGHT * rows.samples + rows.rollouts))
        share = _share_between(rows, single)
        between = np.where(rows.settled > _SETTLED, 1.0, share[rows.at])
        far = rows.sum(between * stands * (SAMPLE_WEIGHT**2 * rows.samples + rows.rollouts))
        far = (far + 2 * rows.sum(guess) ** 2) * each**2
        same = rows.sum(np.where(rows.given, 0.0, chance * (by_met - chance)))
        error = (far + share * np.minimum(same, left**2)) * outcome_variance(others, tries)
        error += np.where(told, 0.0, left**2 * _GUESSED)
        weights = chance + each[rows.at] * parts
        error += rows.sum(weights**2 * rows.variance)
        lone = rows.sum(np.where(rows.lone, weights**2 / rows.rollouts, 0.0))
        error += (1 - share * (1 - rows.sum(chance**2))) * single * lone
        error /= (likely + left) ** 2
        rough = rows.sum(rows.unclear & ~rows.lone & (draws > 0)) > 0
        counted = np.where(rough, np.maximum(single / error - 4 * PRIOR, 0.0), np.nan)
    return np.where(n > 0, mean, np.nan), np.where(n > 0, error, np.nan), counted


def rows_below(
    steps: NextSteps,
    level: NDArray[np.int64],
    below: NDArray[np.int64],
    value: Reals,
    variance: Reals,
    settled: Reals,
) -> Rows:
    """Returns the next steps of some nodes, told by all that may tell of them.

    Args:
        steps: What was drawn.
        level: Nodes in ascending order; those where no solution ends.
        below: All of their next steps.
        value: Of those, NaN where nothing is known.
        variance: Likewise.
        settled: Of those, the share of solutions that is known with their probabilities.
    """
    at = np.searchsorted(level, steps.parent[below])

    def some(column: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns whether it is so of any step of the same node."""
        return np.asarray(sum_at(at, column.astype(float), len(level))[at] > 0)

    stopped = steps.stopped[below] & (settled < _SETTLED) & (steps.rollouts[below] > 0)
    entered = np.where(stopped, steps.rollouts[below], steps.entered[below])
    right = np.where(stopped, steps.right[below], steps.entered_right[below])
    ends, chosen = steps.ends[below], steps.chosen[below] & ~steps.ends[below]
    tells = (entered > 0) & (chosen | (settled < _SETTLED))
    own = steps.own[below] / (1 - np.minimum(settled, _SETTLED)) ** 2
    # What led to a choice is to be weighed with nothing but draws at the same place.
    own = np.where(chosen, steps.rollouts[below] - entered, own)
    known = np.where(np.isnan(value) | stopped, 0.0, own)
    draws = np.maximum(known + entered, 1.0)
    mean = (known * np.nan_to_num(value) + right) / draws
    error = known**2 * np.nan_to_num(variance) + entered * outcome_variance(mean, draws)
    value = np.where(tells, mean, value)
    variance = np.where(tells, error / draws**2, variance)
    # A child that nothing is known about would have to be guessed: then no sample says anything.
    guessed = some(np.isnan(value))
    unclear = guessed | some(np.isnan(steps.chance[below]))
    chance = np.where(unclear, 0.0, steps.chance[below])
    samples, rollouts = np.where(guessed, 0.0, steps.samples[below]), steps.rollouts[below]
    # An end that came up again and again says little of those that did not.
    lone = (tells & (known == 0)) | (unclear & ends & (samples == 0) & (rollouts > 0))
    weighed = (samples + rollouts > 0) | (chance > 0)
    return Rows(
        at=at,
        size=len(level),
        chance=chance,
        unclear=unclear,
        samples=samples,
        rollouts=rollouts,
        value=np.where(weighed, value, 0.0),
        variance=np.where(weighed & ~lone, variance, 0.0),
        lone=lone,
        given=steps.given[below] & ~unclear,
        picked=steps.given[below] & steps.chosen[below] & ~unclear,
        settled=np.where(lone | (chosen & tells), 0.0, settled),
    )


def _share_between(rows: Rows, single: Reals) -> Reals:
    """Returns b of each node, from the variance of one outcome."""
    draws = np.where(rows.lone, 0.0, rows.draws)
    n = rows.sum(draws)
    centre = np.nan_to_num(rows.sum(draws * rows.value) / n)
    spread = rows.sum(draws * (rows.value - centre[rows.at]) ** 2)
    return np.minimum((spread + ICC * single) / np.maximum(n, 1.0) / single, 1.0)


def as_rollouts(mean: Reals, variance: Reals) -> Reals:
    """Returns the number n of rollouts whose mean has that variance, `outcome_variance` / n."""
    draws, least = np.ones_like(mean), np.maximum(variance, _LEAST)
    for _ in range(24):  # each halves what is wrong with log n, at least
        draws = np.sqrt(draws * outcome_variance(mean, draws) / least)
    return np.asarray(np.where(variance == 0, np.inf, draws))


def outcome_variance(mean: Reals, draws: Reals) -> Reals:
    """Returns the variance of one outcome, of a mean shrunk as the prior has it."""
    shrunk = (draws * mean + PRIOR) / (draws + 2 * PRIOR)
    return np.asarray(shrunk * (1 - shrunk))

"""Tree evidence: the value of a node from the draws at it, each judged by all that is known below.

The policy's value is the mean of its next steps' values, so every draw of a next step estimates it:

    a rollout that counts for the node   by the tree value of the child that it passes and counts
                                         for as well, otherwise by its own outcome
    a sample that made a child           by the child's tree value; it weighs SAMPLE_WEIGHT rollouts

    V = [sum_c a_c V_c + k_stay] / W,  a_c = SAMPLE_WEIGHT * n_samples(c) + passed(c)

Where the probabilities of the next steps are known, that is better (`known_steps.py`), and so done.

Samples stand for the policy only where nothing but sampling made children: a child cut from a
rollout is one of the draws already if the cut was blind, and none if it was chosen. Weights depend
on how a draw was made, never on where it fell or how it ended, so this is unbiased wherever no
outcome decides where to look. The variance is

    B (SAMPLE_WEIGHT^2 S + n) / W^2      between next steps, from S samples and n rollouts
    + sum_c (a_c / W)^2 Var(V_c)         within the children
    + n_stay (V (1 - V) - B) / W^2       within the steps of rollouts that passed no child

with B = min([sum_c d_c (V_c - V_.)^2 + ICC V (1 - V)] / D, V (1 - V)) for the D draws, d_c on each
child: their spread, and one prior draw. The noise in V_c is not taken off, which makes up for the
draw that their mean V_. takes.

A search that looks where outcomes were good leaves bad luck as it is and thins good luck with fresh
evidence, which makes the values above a little too low: `benchmarks/evidence.py` measures it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treeward.critics.evidence import Evidence
from treeward.critics.known_steps import (
    ICC,
    SAMPLE_WEIGHT,
    KnownSteps,
    as_rollouts,
    known_steps,
    outcome_variance,
    sum_at,
    weigh,
)
from treeward.critics.value import interval
from treeward.search.intervals import Reals
from treeward.search.tree import NO_PARENT, Creation, Tree
from treeward.search.verdicts import VERDICT_OF, Verdict

_VALUE_OF = {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0, Verdict.UNKNOWN: np.nan}
_EXACT = {reason: _VALUE_OF[verdict] for reason, verdict in VERDICT_OF.items()}
"""The value where a solution ends, by why it was judged so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeValue:
    """Holds the tree evidence of each node; NaN where there is none."""

    value: Reals
    low: Reals
    high: Reals
    n_effective: Reals
    """Rollouts that would give an interval as narrow; infinite at terminal nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Holds what was drawn, without regard to values; every column has one entry a node."""

    parent: NDArray[np.int64]
    samples: Reals
    """That made it; 0 below a node some of whose children were not sampled."""
    passed: Reals
    """Rollouts that count for it and for its parent."""
    stayed: Reals
    """Rollouts that count for it and for none of its children."""
    stayed_right: Reals


def tree_values(tree: Tree, evidence: Evidence, *, as_is: bool) -> TreeValue:
    """Returns the tree evidence of every node of a tree, as `forest_values` does."""
    return forest_values([tree], [evidence], as_is=as_is)


def forest_values(trees: Sequence[Tree], evidence: Sequence[Evidence], *, as_is: bool) -> TreeValue:
    """Returns the tree evidence of every node, one tree after the other.

    Goes level by level from the leaves up, in all trees at once; a tree's numbers are those that it
    has alone.

    Args:
        trees: Grown trees.
        evidence: The strict evidence of each.
        as_is: Whether a step's `logprob` is that of being drawn: `PolicySettings.as_is` of the run.
    """
    counts = _count(trees, evidence)
    steps = known_steps(trees, evidence, counts.parent, counts.samples, as_is=as_is)
    judged = np.concatenate([ended(tree) for tree in trees])
    value = np.concatenate([exact_values(tree) for tree in trees])
    known = ~np.isnan(value)
    variance, counted = np.where(known, 0.0, np.nan), np.where(known, np.inf, np.nan)
    below = np.zeros(0, dtype=np.int64)
    for level in _levels(trees):
        estimates = _estimate(counts, steps, level, below, value, variance)
        inner = ~judged[level] & ~np.isnan(estimates[0])
        for column, estimate in zip((value, variance, counted), estimates, strict=True):
            column[level[inner]] = estimate[inner]
        below = level
    weighed = np.isnan(counted) & ~np.isnan(value)
    counted[weighed] = as_rollouts(value[weighed], variance[weighed])
    low, high = value.copy(), value.copy()
    inner = np.isfinite(counted)
    ends = interval(value[inner] * counted[inner], counted[inner])
    # Few rollouts of a value near 0 or 1 give an interval that is drawn to 1/2 beyond it.
    low[inner], high[inner] = np.minimum(ends[0], value[inner]), np.maximum(ends[1], value[inner])
    return TreeValue(value=value, low=low, high=high, n_effective=counted)


def ended(tree: Tree) -> NDArray[np.bool_]:
    """Returns whether a solution ends at each node."""
    return np.array([judgement is not None for judgement in tree.nodes.judgement])


def exact_values(tree: Tree) -> Reals:
    """Returns 1 or 0 at each node where a solution with a known verdict ends, else NaN."""
    return np.array(
        [
            np.nan if judgement is None else _EXACT[judgement.reason]
            for judgement in tree.nodes.judgement
        ]
    )


def parents_of(trees: Sequence[Tree]) -> NDArray[np.int64]:
    """Returns the place of each node's parent among all nodes of the trees; -1 for a root."""
    parents, first = [], 0
    for tree in trees:
        parent = np.array(tree.nodes.parent)
        parents.append(np.where(parent == NO_PARENT, -1, parent + first))
        first += len(parent)
    return np.concatenate(parents)


def _levels(trees: Sequence[Tree]) -> list[NDArray[np.int64]]:
    """Returns the nodes of each depth in their order, the deepest first."""
    depth = np.concatenate([np.array(tree.nodes.depth) for tree in trees])
    ends = np.cumsum(np.bincount(depth))
    return np.split(np.argsort(depth, kind="stable"), ends[:-1])[::-1]


def _count(trees: Sequence[Tree], evidence: Sequence[Evidence]) -> _Counts:
    parent = parents_of(trees)
    inner = np.flatnonzero(parent >= 0)
    n_right, n_wrong, started_right, started_wrong = (
        np.concatenate([getattr(each, name) for each in evidence])
        for name in ("n_right", "n_wrong", "started_right", "started_wrong")
    )
    right = (n_right - started_right).astype(float)
    passed = right + (n_wrong - started_wrong).astype(float)

    def sum_below(column: Reals) -> Reals:
        return sum_at(parent[inner], column[inner], len(parent))

    cut = np.array([made is not Creation.SAMPLED for tree in trees for made in tree.nodes.creation])
    usable = sum_below(cut.astype(float))[parent] == 0
    samples = [count for tree in trees for count in tree.nodes.n_samples]
    return _Counts(
        parent=parent,
        samples=usable * np.array(samples, dtype=float),
        passed=passed,
        stayed=n_right + n_wrong - sum_below(passed),
        stayed_right=n_right - sum_below(right),
    )


def _estimate(
    counts: _Counts,
    steps: KnownSteps,
    level: NDArray[np.int64],
    below: NDArray[np.int64],
    value: Reals,
    variance: Reals,
) -> tuple[Reals, Reals, Reals]:
    """Returns the value of a level's nodes, its variance, and the rollouts that would tell as much.

    The last is left open, NaN, where the probabilities of steps are known.

    Args:
        counts: What was drawn.
        steps: What is known of next steps.
        level: Nodes in ascending order; NaN is returned for those that nothing is known about.
        below: All of their children.
        value: The children's.
        variance: The children's.
    """
    at = np.searchsorted(level, counts.parent[below])

    def sum_below(column: Reals) -> Reals:
        return sum_at(at, column, len(level))

    # A child that nothing is known about would have to be guessed: then no sample says anything.
    unknown = np.isnan(value[below])
    samples = counts.samples[below] * (sum_below(unknown.astype(float)) == 0)[at]
    fell = samples + counts.passed[below]
    values, variances = (np.where(fell > 0, column[below], 0.0) for column in (value, variance))
    weights = SAMPLE_WEIGHT * samples + counts.passed[below]
    stayed, sampled, draws = counts.stayed[level], sum_below(samples), sum_below(fell)
    rollouts = draws - sampled + stayed
    total = SAMPLE_WEIGHT * sampled + rollouts
    with np.errstate(invalid="ignore", divide="ignore"):
        # Whole numbers until the division: a subtree that is all right has a value of exactly 1.
        mean = (sum_below(weights * values) + counts.stayed_right[level]) / total
        single = outcome_variance(mean, total)
        centre = sum_below(fell * values) / draws
        spread = sum_below(fell * (values - centre[at]) ** 2)
        between = np.minimum((spread + ICC * single) / draws, single)
        error = between * (SAMPLE_WEIGHT**2 * sampled + rollouts)
        error += sum_below(weights**2 * variances)
        error = (error + stayed * (single - between)) / total**2
        share = np.where(draws > 0, between / single, 1.0)
        weighed = weigh(steps, level, below, at, value, variance, share)
        known = ~np.isnan(weighed[0])
        mean, error = np.where(known, weighed, (mean, error))
        # Rollouts alone say what they are counted to say.
        alone = (draws == 0) & ~known
        error[alone] = (single / stayed)[alone]
        counted = np.where(alone, stayed, np.maximum(single / error - 2, 0.0))
        counted[known] = np.nan
    return mean, error, counted

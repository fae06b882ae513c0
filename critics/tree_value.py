"""Tree evidence: the value of a node from the draws at it, each judged by all that is known below.

The policy's value is the mean of its next steps' values, so every draw of a next step estimates it:

    a rollout that counts for the node   by the tree value of the child that it passes and counts
                                         for as well, otherwise by its own outcome
    a sample that made a child           by the child's tree value; it weighs SAMPLE_WEIGHT rollouts

    V = [sum_c a_c V_c + k_stay] / W,  a_c = SAMPLE_WEIGHT * n_samples(c) + passed(c)

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

from dataclasses import dataclass

import numpy as np

from treeward.critics.evidence import Evidence
from treeward.critics.value import interval
from treeward.search.intervals import PRIOR, Reals
from treeward.search.tree import Creation, Tree

ICC = 0.5
"""Share of the outcomes' variance that is assumed to lie between next steps."""

SAMPLE_WEIGHT = 1 / ICC
"""What a draw whose child is well known is worth in lone rollouts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeValue:
    """Holds the tree evidence of each node; NaN where there is none."""

    value: Reals
    low: Reals
    high: Reals
    n_effective: Reals
    """Rollouts that would give an interval as narrow; infinite at terminal nodes."""


@dataclass(frozen=True, slots=True)
class _Draws:
    """Holds the draws at one node; the columns have one entry a child that any of them fell on."""

    value: Reals
    variance: Reals
    samples: Reals
    passed: Reals
    stayed: int
    """Rollouts that count for the node and for none of its children."""
    stayed_right: int


def tree_values(tree: Tree, evidence: Evidence) -> TreeValue:
    """Returns the tree evidence of every node, from the leaves up."""
    size = len(tree)
    rollouts = evidence.n_rollouts
    value, variance, counted = (np.full(size, np.nan) for _ in range(3))
    for node in reversed(range(size)):
        if tree.is_terminal(node):
            known = tree.terminal_value(node)
            if known is not None:
                value[node], variance[node], counted[node] = known, 0.0, np.inf
            continue
        if not tree.nodes.children[node]:
            if rollouts[node]:
                value[node], variance[node], counted[node] = _lone(
                    int(evidence.n_right[node]), int(rollouts[node])
                )
            continue
        draws = _draws_at(tree, evidence, node, int(rollouts[node]), value, variance)
        if draws.stayed + draws.samples.sum() + draws.passed.sum() > 0:
            value[node], variance[node], counted[node] = _estimate(draws)
    low, high = value.copy(), value.copy()
    inner = np.isfinite(counted)
    low[inner], high[inner] = interval(value[inner] * counted[inner], counted[inner])
    return TreeValue(value=value, low=low, high=high, n_effective=counted)


def _draws_at(
    tree: Tree, evidence: Evidence, node: int, rollouts: int, value: Reals, variance: Reals
) -> _Draws:
    """Returns the draws at one node, its children's estimates being there."""
    children = np.array(tree.nodes.children[node], dtype=np.int64)
    # A child that nothing is known about would have to be guessed: then no sample says anything.
    usable = not np.isnan(value[children]).any() and all(
        tree.nodes.creation[child] is Creation.SAMPLED for child in children
    )
    samples = np.array([usable * tree.nodes.n_samples[child] for child in children], dtype=float)
    right = evidence.n_right[children] - evidence.started_right[children]
    passed = right + evidence.n_wrong[children] - evidence.started_wrong[children]
    drawn = samples + passed > 0
    return _Draws(
        value=value[children][drawn],
        variance=variance[children][drawn],
        samples=samples[drawn],
        passed=passed[drawn].astype(float),
        stayed=int(rollouts - passed.sum()),
        stayed_right=int(evidence.n_right[node] - right.sum()),
    )


def _estimate(draws: _Draws) -> tuple[float, float, float]:
    """Returns the mean of some draws, its variance, and the rollouts that would tell as much."""
    samples, rollouts = draws.samples.sum(), draws.passed.sum() + draws.stayed
    weights = SAMPLE_WEIGHT * draws.samples + draws.passed
    total = SAMPLE_WEIGHT * samples + rollouts
    # Whole numbers until the division: a subtree that is all right has a value of exactly 1.
    if not len(weights):
        return _lone(draws.stayed_right, draws.stayed)
    mean = float(weights @ draws.value + draws.stayed_right) / total
    single = _single(mean, total)
    fell = draws.samples + draws.passed
    spread = fell @ (draws.value - fell @ draws.value / fell.sum()) ** 2
    between = min((spread + ICC * single) / fell.sum(), single)
    variance = between * (SAMPLE_WEIGHT**2 * samples + rollouts) + weights**2 @ draws.variance
    variance = (variance + draws.stayed * (single - between)) / total**2
    return mean, variance, max(single / variance - 2, 0.0)


def _lone(right: int, rollouts: int) -> tuple[float, float, float]:
    """Returns the same of rollouts alone."""
    mean = right / rollouts
    return mean, _single(mean, rollouts) / (rollouts + 2), rollouts


def _single(mean: float, total: float) -> float:
    """Returns the variance of one outcome, of a mean shrunk as the prior has it."""
    shrunk = (total * mean + PRIOR) / (total + 2 * PRIOR)
    return float(shrunk * (1 - shrunk))

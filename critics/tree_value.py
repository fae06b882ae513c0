"""Tree evidence: the value of a node from all that was drawn at it and all that is known below.

From the leaves up, a node's value is that of its next steps by their probabilities, or as often as
they were drawn where these are not known (`weighing.py`). Samples stand for the policy only where
nothing but sampling made children: one that was cut from a rollout is one of the draws already if
the cut was blind, and none if it was chosen. Weights depend on how draws were made, never on how
they ended: where draws are counted, this is unbiased wherever no outcome decides where to look.

A search that looks where outcomes were good leaves bad luck as it is and thins good luck with fresh
evidence, which makes the values above a little too low: `benchmarks/evidence.py` measures it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treeward.critics.evidence import Evidence
from treeward.critics.next_steps import next_steps
from treeward.critics.value import interval
from treeward.critics.weighing import as_rollouts, rows_below, weigh
from treeward.search.intervals import Reals
from treeward.search.tree import Tree
from treeward.search.verdicts import VALUE_OF, VERDICT_OF

_EXACT = {reason: VALUE_OF.get(verdict, np.nan) for reason, verdict in VERDICT_OF.items()}
"""The value where a solution ends, by why it was judged so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeValue:
    """Holds the tree evidence of each node; NaN where there is none."""

    value: Reals
    low: Reals
    high: Reals
    n_effective: Reals
    """Rollouts that would give an interval as narrow; infinite where nothing is left to chance."""


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
    steps = next_steps(trees, evidence, as_is=as_is)
    exact = np.concatenate([exact_values(tree) for tree in trees])
    n_nodes, n_steps = len(exact), len(steps.parent)
    inner = ~steps.ends & (np.arange(n_steps) < n_nodes)
    value, variance, counted = np.full((3, n_steps), np.nan)
    value[:n_nodes], variance[:n_nodes] = exact, np.where(np.isnan(exact), np.nan, 0.0)
    settled = np.zeros(n_steps)
    settled[:n_nodes] = ~np.isnan(exact)
    below = np.zeros(0, dtype=np.int64)
    for level in _levels(steps.depth):
        at = level[inner[level]]
        rows = rows_below(steps, at, below, value[below], variance[below], settled[below])
        value[at], variance[at], counted[at] = weigh(rows)
        settled[at] = rows.sum(rows.chance * rows.settled)
        below = level[inner[steps.parent[level]]]
    value, variance, counted = value[:n_nodes], variance[:n_nodes], counted[:n_nodes]
    counted = np.where(np.isnan(counted), as_rollouts(value, variance), counted)
    low, high = value.copy(), value.copy()
    at = np.flatnonzero(np.isfinite(counted))
    ends = interval(value[at] * counted[at], counted[at])
    # Few rollouts of a value near 0 or 1 give an interval that is drawn to 1/2 beyond it.
    low[at], high[at] = np.minimum(ends[0], value[at]), np.maximum(ends[1], value[at])
    return TreeValue(value=value, low=low, high=high, n_effective=counted)


def exact_values(tree: Tree) -> Reals:
    """Returns 1 or 0 at each node where a solution with a known verdict ends, else NaN."""
    return np.array(
        [
            np.nan if judgement is None else _EXACT[judgement.reason]
            for judgement in tree.nodes.judgement
        ]
    )


def _levels(depth: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Returns the steps of each depth in their order, the deepest first."""
    ends = np.cumsum(np.bincount(depth))
    return np.split(np.argsort(depth, kind="stable"), ends[:-1])[::-1]

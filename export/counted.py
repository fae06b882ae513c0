"""What the counted critics say of all nodes of many trees at once; NaN where there is no evidence.

Nodes of the trees come one after the other. Each number depends on its own tree alone, to the last
bit: whatever is computed for several rows is made of operations that know one row at a time.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from treeward.critics.evidence import Evidence
from treeward.critics.next_steps import ended, parents_of
from treeward.critics.progress import progress_interval, prover_draws, prover_k, prover_value
from treeward.critics.tree_value import exact_values, forest_values
from treeward.critics.value import interval, posterior_mean
from treeward.search.intervals import Reals
from treeward.search.tree import ROOT, Tree

_PAIRS_AT_ONCE = 256
"""Intervals of progress computed together: 64 x 64 differences each, 8 MB in all."""


def counted_columns(
    trees: Sequence[Tree], evidence: Sequence[Evidence], fixed_k: int | None, *, as_is: bool
) -> dict[str, Reals]:
    """Returns values, tree values and progress with their intervals.

    Args:
        trees: Grown trees.
        evidence: Of each.
        fixed_k: K of the prover; None sets it for each tree by its root's value.
        as_is: Whether the policy samples as its `logprob` says.
    """
    sizes = np.array([len(tree) for tree in trees])
    k = np.concatenate([each.n_right for each in evidence]).astype(float)
    n = np.concatenate([each.n_rollouts for each in evidence]).astype(float)
    ends = np.concatenate([ended(tree) for tree in trees])
    exact = np.concatenate([exact_values(tree) for tree in trees])
    low, high = interval(k, n)
    value = np.where(ends, exact, np.where(n > 0, posterior_mean(k, n), np.nan))
    from_trees = forest_values(trees, evidence, as_is=as_is)
    first = np.cumsum(sizes) - sizes
    provers = [_prover(value[at + ROOT], fixed_k) for at in first]
    prover = np.repeat(np.array(provers, dtype=float), sizes)
    return {
        "value": value,
        "value_low": np.where(ends, exact, np.where(n > 0, low, np.nan)),
        "value_high": np.where(ends, exact, np.where(n > 0, high, np.nan)),
        "value_tree": from_trees.value,
        "value_tree_low": from_trees.low,
        "value_tree_high": from_trees.high,
        "n_effective": np.where(np.isinf(from_trees.n_effective), np.nan, from_trees.n_effective),
        "prover_k": prover,
        **_progress(parents_of(trees), k, n, exact, value, prover),
    }


def _prover(root_value: float, fixed_k: int | None) -> float:
    """Returns K of a tree's prover; NaN where it is unknown."""
    known = fixed_k or prover_k(None if np.isnan(root_value) else float(root_value))
    return np.nan if known is None else known


def _progress(
    parents: NDArray[np.int64], k: Reals, n: Reals, exact: Reals, value: Reals, prover: Reals
) -> dict[str, Reals]:
    """Returns the progress of each step with its interval; NaN where either end is unknown.

    Nodes with the same counts, and steps between the same two, are computed once.
    """
    certain = ~np.isnan(exact)
    counts = np.stack([np.nan_to_num(exact, nan=-1), k, n, prover], axis=1)
    counts[certain, 1:] = 0
    known = certain | ~(np.isnan(value) | np.isnan(prover))
    beliefs, which = np.unique(counts[known], axis=0, return_inverse=True)
    at = np.full(len(exact), -1)
    at[known] = which.ravel()
    sure, right, rollouts, provers = beliefs.T
    exact_of = np.where(sure >= 0, sure, np.nan)
    chance = np.where(sure >= 0, exact_of, prover_value(right, rollouts, provers))
    draws = prover_draws(right, rollouts, provers)
    draws = np.where((sure >= 0)[:, None], exact_of[:, None], draws)

    steps = (parents >= 0) & (at >= 0) & (at[parents] >= 0) & ~np.isnan(prover)
    pairs, step = np.unique(
        np.stack([at[steps], at[parents[steps]]], axis=1), axis=0, return_inverse=True
    )
    child, parent = pairs.T
    found = np.empty((3, len(pairs)))
    found[0] = chance[child] - chance[parent]
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        found[1:, some] = progress_interval(draws[child[some]], draws[parent[some]])
    columns = np.full((3, len(exact)), np.nan)
    columns[:, steps] = found[:, step.ravel()]
    return dict(zip(("progress", "progress_low", "progress_high"), columns, strict=True))

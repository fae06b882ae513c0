"""Tree evidence: the value of a node from its policy-sampled children, without optimism.

The policy's value is the mean of its next steps' values, so a node's children, weighted by how many
samples fell on each and never by visits, estimate it without bias, and what is learned below a
child serves all its ancestors. Two unbiased estimates are averaged at every node:

    own        k / n of the rollouts that started there
    children   sum_c w_c V_c,  w_c = n_samples(c) / S

with weights that no outcome has a say in, n_own and n_children, where

    1 / n_children = ICC / S + (1 - ICC) * sum_c w_c^2 / n_c

counts the children as if a share ICC of the outcomes' variance lay between them. The variance that
is reported does not assume that share; it adds, as estimated,

    within     sum_c w_c^2 Var(V_c)
    between    [S * sum_c w_c (V_c - V)^2 + m (1 - m)] / (S (S + 1)),  m = (S V + 1/2) / (S + 1)

A search that widens a node because of what it saw there makes own estimates of widened nodes
optimistic; the fresh samples below are not. `benchmarks/evidence.py` measures what is left of it.
"""

from dataclasses import dataclass

import numpy as np

from treeward.critics.evidence import Evidence
from treeward.critics.value import PRIOR, Reals, interval
from treeward.search.tree import Creation, Tree

ICC = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeValue:
    """Holds the tree evidence of each node; NaN where there is none."""

    value: Reals
    low: Reals
    high: Reals
    n_effective: Reals
    """Rollouts that would give an interval as narrow; infinite at terminal nodes."""


@dataclass(frozen=True, slots=True)
class _Estimate:
    """Holds one estimate of one node's value."""

    mean: float
    variance: float
    weight: float
    """What it counts as, in rollouts, by design and whatever came out."""


def tree_values(tree: Tree, evidence: Evidence) -> TreeValue:
    """Returns the tree evidence of every node, from the leaves up."""
    estimates: list[_Estimate | None] = [None] * len(tree)
    for node in reversed(range(len(tree))):
        estimates[node] = _estimate(tree, evidence, node, estimates)
    mean = np.array([np.nan if e is None else e.mean for e in estimates])
    counted = np.array([np.nan if e is None else _effective(e) for e in estimates])
    low, high = mean.copy(), mean.copy()
    inner = np.isfinite(counted)
    low[inner], high[inner] = interval(mean[inner] * counted[inner], counted[inner])
    return TreeValue(value=mean, low=low, high=high, n_effective=counted)


def _estimate(
    tree: Tree, evidence: Evidence, node: int, estimates: list[_Estimate | None]
) -> _Estimate | None:
    """Returns what is known about one node, its children's estimates being there."""
    if tree.is_terminal(node):
        value = tree.terminal_value(node)
        return None if value is None else _Estimate(value, 0.0, np.inf)
    own = _own(int(evidence.started_right[node]), int(evidence.started_wrong[node]))
    children = tree.nodes.children[node]
    below = [estimates[child] for child in children]
    known = [estimate for estimate in below if estimate is not None]
    # A child that nothing is known about would have to be guessed: then the children say nothing.
    if not children or len(known) < len(children):
        return own
    samples = np.array([tree.nodes.n_samples[child] for child in children], dtype=float)
    blind = any(tree.nodes.creation[child] is Creation.BLIND for child in children)
    return _combine(own, *_from_children(known, samples), shared=blind)


def _own(k: int, wrong: int) -> _Estimate | None:
    """Returns the estimate from rollouts that started here; its variance is the posterior's."""
    n = k + wrong
    if n == 0:
        return None
    a, b = k + PRIOR, wrong + PRIOR
    return _Estimate(k / n, a * b / ((a + b) ** 2 * (a + b + 1)), n)


def _from_children(known: list[_Estimate], samples: Reals) -> tuple[_Estimate, float]:
    """Returns the children's estimate, and the part of its variance that lies between them."""
    total = samples.sum()
    share = samples / total
    means = np.array([estimate.mean for estimate in known])
    mean = float(share @ means)
    shrunk = (total * mean + PRIOR) / (total + 1)
    spread = total * float(share @ (means - mean) ** 2)
    between = (spread + shrunk * (1 - shrunk)) / (total * (total + 1))
    within = float(share**2 @ np.array([estimate.variance for estimate in known]))
    per_child = np.array([1 / estimate.weight for estimate in known])
    weight = 1 / (ICC / total + (1 - ICC) * float(share**2 @ per_child))
    return _Estimate(mean, between + within, weight), float(between)


def _combine(
    own: _Estimate | None, children: _Estimate, between: float, *, shared: bool
) -> _Estimate:
    """Returns the average of two estimates by their weights.

    Where the children were cut from the node's own rollouts, both rest on the same choice of
    children, and that part of the variance does not average out.
    """
    if own is None:
        return children
    weight = own.weight + children.weight
    x, y = own.weight / weight, children.weight / weight
    variance = x**2 * own.variance + y**2 * children.variance
    variance += 2 * x * y * between if shared else 0.0
    return _Estimate(x * own.mean + y * children.mean, variance, weight)


def _effective(estimate: _Estimate) -> float:
    """Returns the n of a Beta posterior that has the estimate's mean and variance."""
    if estimate.variance == 0.0:
        return np.inf
    shrunk = (estimate.mean * estimate.weight + PRIOR) / (estimate.weight + 1)
    return max(shrunk * (1 - shrunk) / estimate.variance - 2, 0.0)

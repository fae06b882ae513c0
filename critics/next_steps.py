"""Which next steps the draws at the nodes of some trees went into, and how likely each of these is.

A draw at a node is a policy sample of its next step, or a rollout that counts for the node. The
step is a child, or one that only rollouts took.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import is_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treeward.critics.evidence import Evidence
from treeward.search.intervals import Reals
from treeward.search.stopping import StopRule
from treeward.search.tree import NO_PARENT, Creation, Tree

ICC = 0.5
"""Share of the outcomes' variance that is assumed to lie between next steps."""

_BY_OUTCOMES = {StopRule.ONE, StopRule.LOCATED}
"""Rules by which one outcome may be the last: shares are then far off, too high if it is a right
one. What the width or the side of an interval decides is off by a hundredth or two."""

SAMPLE_WEIGHT = 1 / ICC
"""What a draw whose child is well known is worth in lone rollouts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NextSteps:
    """Holds what was drawn, without regard to values.

    Every column has one entry a step: the nodes of all trees one after the other, then the steps
    that only rollouts took.
    """

    parent: NDArray[np.int64]
    """The place of its parent; -1 for a root."""
    depth: NDArray[np.int64]
    chance: Reals
    """Its probability at its parent; NaN where it is not known."""
    samples: Reals
    """That made it; 0 at parents some of whose children were not sampled."""
    rollouts: Reals
    """Of its parent that went into it."""
    right: Reals
    """Among these, the right ones."""
    entered: Reals
    """Among all of these, those that do not count for it."""
    entered_right: Reals
    """Among these, the right ones."""
    ends: NDArray[np.bool_]
    """Whether a solution ends there in the tree."""
    chosen: NDArray[np.bool_]
    """Whether it was chosen for an outcome."""
    given: NDArray[np.bool_]
    """Whether no draw at its parent led to it."""
    stopped: NDArray[np.bool_]
    """Whether outcomes decided how many rollouts were asked for there, not their number alone."""
    own: Reals
    """Draws at itself, in rollouts."""


def next_steps(trees: Sequence[Tree], evidence: Sequence[Evidence], *, as_is: bool) -> NextSteps:
    """Returns what was drawn in some trees.

    Args:
        trees: Grown trees.
        evidence: The strict evidence of each.
        as_is: Whether a step's `logprob` is that of being drawn.
    """
    nodes = _nodes(trees, evidence)
    strayed = _strayed(trees, evidence)
    n_strayed = len(strayed["parent"])
    strayed["depth"] = nodes["depth"][strayed["parent"]] + 1
    columns = {
        name: np.concatenate([column, strayed.get(name, np.zeros(n_strayed, column.dtype))])
        for name, column in nodes.items()
    }
    chance = np.exp(np.minimum(columns.pop("logprob"), 0.0))
    return NextSteps(chance=chance if as_is else np.full(len(chance), np.nan), **columns)


def _nodes(trees: Sequence[Tree], evidence: Sequence[Evidence]) -> dict[str, NDArray[Any]]:
    """Returns the columns of the nodes of all trees."""
    parent = parents_of(trees)
    inner = np.flatnonzero(parent >= 0)

    def sum_below(column: Reals) -> Reals:
        return sum_at(parent[inner], column[inner], len(parent))

    def of_nodes(name: str) -> Reals:
        return np.concatenate([np.array(getattr(tree.nodes, name), dtype=float) for tree in trees])

    def counted(name: str) -> Reals:
        return np.concatenate([getattr(each, name) for each in evidence]).astype(float)

    def made(creation: Creation) -> NDArray[np.bool_]:
        ways = [tree.nodes.creation for tree in trees]
        return np.concatenate([[*map(is_, of, repeat(creation))] for of in ways]).astype(bool)

    cut, chosen = sum_below((~made(Creation.SAMPLED)).astype(float)), made(Creation.CHOSEN)
    samples = of_nodes("n_samples") * (cut[parent] == 0)
    return {
        "parent": parent,
        "depth": of_nodes("depth").astype(np.int64),
        "logprob": of_nodes("logprob"),
        "samples": samples,
        "rollouts": counted("drawn"),
        "right": counted("drawn_right"),
        "entered": counted("entered"),
        "entered_right": counted("entered_right"),
        "ends": np.concatenate([ended(tree) for tree in trees]),
        "chosen": chosen,
        "given": made(Creation.GIVEN) | (chosen & (counted("entered_before") == 0)),
        "stopped": np.concatenate([stopped(tree) for tree in trees]),
        "own": SAMPLE_WEIGHT * sum_below(samples) + counted("n_rollouts"),
    }


def _strayed(trees: Sequence[Tree], evidence: Sequence[Evidence]) -> dict[str, NDArray[Any]]:
    """Returns the columns that are not 0 of the steps that only rollouts took."""
    place_of: dict[tuple[int, tuple[int, ...]], int] = {}
    rollouts: list[tuple[float | None, ...]] = []
    first = 0
    for tree, each in zip(trees, evidence, strict=True):
        for node, step_ids, *told in each.strayed():
            place = place_of.setdefault((first + node, step_ids), len(place_of))
            rollouts.append((place, first + node, *told))
        first += len(tree)
    places, parents, logprobs, right = np.array(rollouts, dtype=float).reshape(-1, 4).T
    at, n_steps = places.astype(np.int64), len(place_of)
    parent, logprob = np.zeros(n_steps, dtype=np.int64), np.full(n_steps, np.nan)
    parent[at] = parents
    heard = ~np.isnan(logprobs)
    logprob[at[heard]] = logprobs[heard]
    n, n_right = sum_at(at, np.ones(len(at)), n_steps), sum_at(at, right, n_steps)
    return {
        "parent": parent,
        "logprob": logprob,
        "rollouts": n,
        "right": n_right,
        "entered": n,
        "entered_right": n_right,
    }


def stopped(tree: Tree) -> NDArray[np.bool_]:
    """Returns of which nodes outcomes decided how many rollouts they had."""
    return np.array([rule in _BY_OUTCOMES for rule in tree.nodes.stop_rule], dtype=bool)


def ended(tree: Tree) -> NDArray[np.bool_]:
    """Returns whether a solution ends at each node."""
    return np.array([judgement is not None for judgement in tree.nodes.judgement])


def parents_of(trees: Sequence[Tree]) -> NDArray[np.int64]:
    """Returns the place of each node's parent among all nodes of the trees; -1 for a root."""
    parents, first = [], 0
    for tree in trees:
        parent = np.array(tree.nodes.parent)
        parents.append(np.where(parent == NO_PARENT, -1, parent + first))
        first += len(parent)
    return np.concatenate(parents)


def sum_at(places: NDArray[np.int64], numbers: Reals, size: int) -> Reals:
    """Returns for each place the sum of its numbers."""
    return np.bincount(places, numbers, size).astype(float)

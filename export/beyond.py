"""The columns of nodes that say which steps samples take, those included that are no nodes."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from treeward.export.schema import NODES
from treeward.search.samples import Samples, TreeSamples
from treeward.search.steps import Cut
from treeward.search.tree import Tree

KIND = NODES.field("beyond").type


def beyond_columns(trees: Sequence[Tree], cut: Cut) -> dict[str, pa.Array]:
    """Returns `logprob`, `n_taken` and `beyond` of all nodes, tree by tree, as `schema.py` says.

    A node whose step nobody had heard the probability of has it from a rollout that takes it.

    Args:
        trees: Grown trees.
        cut: Splits the ids of a rollout into steps, as the search did.
    """
    all_taken: list[int] = []
    logprobs: list[float | None] = []
    sizes: list[NDArray[np.int64]] = []
    found: dict[str, list[int | float | bool | None]] = {
        field.name: [] for field in KIND.value_type
    }
    for tree in trees:
        drawn = TreeSamples(tree, cut)
        drawn.take()
        samples, size = drawn.samples, len(tree)
        all_taken += samples.taken[:size]
        logprobs += [None, *samples.logprob[1:size]]
        node_of, place = _places(samples, size)
        sizes.append(np.bincount(np.array(node_of[size:], np.int64), minlength=size))
        for step in sorted(range(size, len(samples)), key=node_of.__getitem__):
            found["parent"].append(place[samples.parent[step]])
            found["logprob"].append(samples.logprob[step])
            found["n_taken"].append(samples.taken[step])
            found["right"].append(samples.end[step])
    steps = pa.StructArray.from_arrays(
        [pa.array(found[field.name], field.type) for field in KIND.value_type],
        fields=list(KIND.value_type),
    )
    ends = np.cumsum(np.concatenate([[0], *sizes])).astype(np.int32)
    return {
        "logprob": pa.array(logprobs, NODES.field("logprob").type),
        "n_taken": pa.array(all_taken, NODES.field("n_taken").type),
        "beyond": pa.ListArray.from_arrays(pa.array(ends), steps, type=KIND),
    }


def _places(samples: Samples, size: int) -> tuple[list[int], list[int]]:
    """Returns the node that each step is behind, and its place among those of that node.

    A node is behind itself, and its place is -1; nodes come first, so that steps are numbered as
    they are up to `size`.
    """
    node_of, place = list(range(size)), [-1] * size
    counts = [0] * size
    for step in range(size, len(samples)):
        node = node_of[samples.parent[step]]
        node_of.append(node)
        place.append(counts[node])
        counts[node] += 1
    return node_of, place

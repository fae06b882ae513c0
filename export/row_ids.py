"""Ids of the rows of a dataset that stand for paths through trees, many at once.

A tree is a state of SplitMix64 (Steele, Lea and Flood 2014) in each of two lanes, the number of a
node the place in its sequence:

    id(d, n) = mix(d + n G)        in each lane, modulo 2^64; d is the tree's digest

So the ids of a tree differ for certain, and those of different trees but for a chance of 2^-128.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from treeward.export.tree_batch import Ints

GOLDEN = 0x9E3779B97F4A7C15
"""G."""


def row_ids(about: Sequence[str], trees: Iterable[str], tree_R: Ints, node_R: Ints) -> pa.Array:
    """Returns 32 hex digits for each row.

    Args:
        about: What all rows have in common.
        trees: The ids of the trees.
        tree_R: Each row's tree, as its place among them.
        node_R: The number of the last node of each row's path, from 0.
    """
    start = hashlib.blake2b("\n".join(about).encode(), digest_size=16).digest()
    digests = (hashlib.blake2b(start + tree.encode(), digest_size=16).digest() for tree in trees)
    digest_TL = np.frombuffer(b"".join(digests), dtype=">u8").reshape(-1, 2).astype(np.uint64)
    words = digest_TL[tree_R] + (node_R.astype(np.uint64) * np.uint64(GOLDEN))[:, np.newaxis]
    text = _mix(words).astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, 32 * len(words) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(offsets), pa.py_buffer(text))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the finaliser of SplitMix64 (Stafford's thirteenth variant) of each word."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))

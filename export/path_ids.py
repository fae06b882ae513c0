"""Ids of paths: 128 bits that stand for what a row of a dataset is about.

A digest goes from the root down, so every node costs the same however long the path to it is. It
has two lanes of 64 bits; all sums and products are modulo 2^64:

    m_i              = mix(x_i + i G)        x_1 ... x_n are the bytes of a text, the ids of a step
    piece_1          = sum_i m_i
    piece_2          = sum_i s(m_i B)                   s(w) = w xor (w >> 31)
    next(d, piece)   = mix(d A + piece)

mix is the finaliser of SplitMix64 (Steele, Lea and Flood 2014, Stafford's thirteenth variant). It
is no cryptographic hash: it tells apart what differs by chance, not what is made to collide.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from treeward.export.tree_batch import Ints, TreeBatch

Words = NDArray[np.uint64]

GOLDEN = 0x9E3779B97F4A7C15
"""G."""
CHAIN = 0xD1342543DE82EF95
"""A, odd."""
SECOND = 0xDB4F0B9175AE2165
"""B, odd."""
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
LAST = 31

_BLOCK = 1 << 15


def path_ids(
    about: Sequence[str], keys: pa.StringArray, batch: TreeBatch, ends: Ints
) -> pa.StringArray:
    """Returns 32 hex digits for each of some paths.

    Args:
        about: What all of them have in common.
        keys: A text for each tree.
        batch: The trees; `token_ids` are what tells steps apart.
        ends: The last node of each path.
    """
    start = hashlib.blake2b("\n".join(about).encode(), digest_size=16).digest()
    steps = batch.table["token_ids"].combine_chunks()
    offsets = np.asarray(steps.offsets).astype(np.int64)
    piece_LN = _pieces(np.asarray(steps.values), offsets)
    piece_LT = _pieces(*_bytes_of(keys))
    found = np.empty((len(ends), len(piece_LN)), dtype=">u8")
    for lane, first in enumerate(np.frombuffer(start, dtype=">u8").astype(np.uint64)):
        digest_N = np.empty(batch.size, dtype=np.uint64)
        digest_N[batch.start_T] = _next(np.full(len(keys), first), piece_LT[lane])
        for rows in batch.level_D[1:]:
            digest_N[rows] = _next(digest_N[batch.parent_N[rows]], piece_LN[lane][rows])
        found[:, lane] = digest_N[ends]
    return _hex(found)


def _pieces(values: NDArray[Any], offsets: Ints) -> tuple[Words, Words]:
    """Returns the digests of each list of numbers; the lists lie one behind the other.

    A block of them at a time, so that the words stay in the processor's cache.
    """
    inner = np.searchsorted(offsets, np.arange(offsets[0] + _BLOCK, offsets[-1], _BLOCK))
    cuts = np.unique(np.concatenate([[0], inner, [len(offsets) - 1]]))
    pieces = [_block(values, offsets[a : b + 1]) for a, b in pairwise(cuts)]
    first, second = zip(*pieces, strict=True) if pieces else ((), ())
    none = np.zeros(0, dtype=np.uint64)
    return np.concatenate([none, *first]), np.concatenate([none, *second])


def _block(values: NDArray[Any], offsets: Ints) -> tuple[Words, Words]:
    at = offsets - offsets[0]
    words = np.arange(1, at[-1] + 1, dtype=np.uint64)
    words -= np.repeat(at[:-1].astype(np.uint64), np.diff(at))
    words *= np.uint64(GOLDEN)
    words += values[offsets[0] : offsets[-1]].astype(np.uint64)
    _mix(words)
    first = _sums(words, at)
    words *= np.uint64(SECOND)
    words ^= words >> np.uint64(LAST)
    return first, _sums(words, at)


def _sums(words: Words, at: Ints) -> Words:
    total = np.zeros(len(words) + 1, dtype=np.uint64)
    np.cumsum(words, out=total[1:])
    return np.asarray(total[at[1:]] - total[at[:-1]])


def _next(digest: Words, piece: Words) -> Words:
    return _mix(digest * np.uint64(CHAIN) + piece)


def _mix(words: Words) -> Words:
    """Mixes words in place."""
    for shift, factor in MIX:
        words ^= words >> np.uint64(shift)
        words *= np.uint64(factor)
    words ^= words >> np.uint64(LAST)
    return words


def _bytes_of(texts: pa.StringArray) -> tuple[NDArray[np.uint8], Ints]:
    """Returns the bytes of some texts and where each begins."""
    _, offsets, data = texts.buffers()
    at = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", dtype=np.uint8), at.astype(np.int64)


def _hex(words: NDArray[Any]) -> pa.StringArray:
    """Returns rows of 16 bytes as text."""
    pairs = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), dtype=np.uint16)
    text = pairs[words.view(np.uint8)]
    offsets = np.arange(0, 32 * len(words) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(offsets), pa.py_buffer(text))

"""Columns of lists, one list a path through trees, made of columns of their nodes."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.dataset_spec import COUNT
from treeward.export.tree_batch import Flags, Ints, TreeBatch


class PathLists:
    """Makes columns whose lists have an entry for each step of a path."""

    def __init__(self, batch: TreeBatch, ends: Ints) -> None:
        """Finds the steps of the paths to some nodes, none of which is a root."""
        self._offsets, self._steps = batch.paths(ends)
        self._taken = pa.array(self._steps)

    def of(self, column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.ListArray:
        """Returns the lists of a column of nodes; `kind` is that of the lists."""
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        values = pc.take(whole, self._taken, boundscheck=False)
        offsets = pa.array(self._offsets, pa.int32())
        return pa.ListArray.from_arrays(offsets, values, type=kind)

    def first(self, flag_N: Flags) -> pa.Array:
        """Returns the place of the first step of each path that has a flag, or -1."""
        if not len(self._steps):
            return pa.array([], COUNT)
        starts = self._offsets[:-1]
        place = np.arange(len(self._steps)) - np.repeat(starts, np.diff(self._offsets))
        none = len(self._steps)
        first = np.minimum.reduceat(np.where(flag_N[self._steps], place, none), starts)
        return pa.array(np.where(first < none, first, -1), COUNT)


def small_spans(
    batch: TreeBatch, ends: Ints, texts: pa.StringArray, *, own_R: Ints, most: int
) -> Iterator[tuple[int, int]]:
    """Yields spans of paths whose texts have at most so many bytes together, or are of one path.

    Args:
        batch: The trees.
        ends: [R] the node that each path leads to; none is a root.
        texts: [N] the text of each node.
        own_R: [R] bytes that each path has beside them.
        most: The bytes.
    """
    length_N = pc.binary_length(texts).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets, steps = batch.paths(ends)
    reached_R = np.concatenate([[0], np.cumsum(length_N[steps])])[offsets]
    reached_R = reached_R + np.concatenate([[0], np.cumsum(own_R)])
    start = 0
    while start < len(ends):
        fits = int(np.searchsorted(reached_R, reached_R[start] + most, side="right")) - 1
        end = min(max(fits, start + 1), len(ends))
        yield start, end
        start = end


def clean_steps(texts: pa.StringArray, delimiter: str) -> pa.StringArray:
    """Returns steps without delimiters, so that no step can be read as two, as `clean_step` does.

    What delimiters part and is not empty is put together again with spaces.
    """
    if len(delimiter.encode()) == 1 and len(texts):
        cut = _without_ends(texts, delimiter)
        if cut is not None:
            return cut
    pieces = pc.split_pattern(texts, pattern=delimiter)
    values, offsets = pieces.values, np.asarray(pieces.offsets)
    filled = np.asarray(pc.binary_length(values)) > 0
    kept = np.concatenate([[0], np.cumsum(filled)])[offsets].astype(np.int32)
    said = pa.ListArray.from_arrays(pa.array(kept), values.filter(pa.array(filled)))
    return pc.binary_join(said, " ")


def _without_ends(texts: pa.StringArray, delimiter: str) -> pa.StringArray | None:
    """Returns texts without the one byte that each may end with; None where it is elsewhere too.

    That is how a search cuts steps, and then one pass over the bytes of all is enough.
    """
    _, offsets, data = texts.buffers()
    at = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    data = np.frombuffer(data or b"", np.uint8)[at[0] : at[-1]]
    at = at - at[0]
    parts = data == ord(delimiter)
    ended_N = (np.diff(at) > 0) & np.append(parts, False)[at[1:] - 1]
    if np.count_nonzero(parts) != np.count_nonzero(ended_N):
        return None
    at = at - np.concatenate([[0], np.cumsum(ended_N)])
    places, kept = pa.py_buffer(at.astype(np.int32)), pa.py_buffer(data[~parts])
    return pa.StringArray.from_buffers(len(texts), places, kept)

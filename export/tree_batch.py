"""Many whole trees as columns, so that what is asked of every node is asked of all at once.

Rows are the nodes of one tree after another, each tree in pre-order. Names end in N for one entry a
node, T for one a tree. The structure follows from the intervals alone: the nodes at and below one
are the rows from its own to its end, so

    depth(row)  = rows before it - intervals that ended before it
    parent(row) = the last row before it that is one less deep

and a sum or an inheritance over subtrees is a running sum over rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from treeward.export.label_spec import critic_of
from treeward.export.schema import NODES
from treeward.search.errors import DamagedData

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
Flags = NDArray[np.bool_]

PLACES = ("pre", "post_end")
"""The columns of nodes that the structure follows from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeBatch:
    """Holds the nodes of many whole trees."""

    table: pa.Table
    """The columns that were asked for, a row a node, each column in one piece."""

    start_T: Ints
    """The first row of each tree, which is its root."""

    tree_N: Ints
    """The number of each node's tree in the batch."""

    end_N: Ints
    """The last row of each node's subtree."""

    depth_N: Ints

    parent_N: Ints
    """The row of each node's parent; -1 for roots."""

    level_D: tuple[Ints, ...]
    """The rows of each depth, from 0, ascending."""

    @classmethod
    def of(cls, table: pa.Table) -> "TreeBatch":
        """Returns the trees of a table whose rows are in order.

        Raises:
            DamagedData: The intervals are not those of trees.
        """
        table = table.combine_chunks()
        row_N = np.arange(table.num_rows)
        pre_N, post_N = (plain(table[name]).astype(np.int64) for name in PLACES)
        start_T = np.flatnonzero(pre_N == 0)
        if table.num_rows and not (len(start_T) and start_T[0] == 0):
            raise _no_trees()
        tree_N = np.cumsum(pre_N == 0) - 1
        first_N = start_T[tree_N]
        end_N = first_N + post_N
        last_T = np.append(start_T[1:], table.num_rows) - 1
        sound = (pre_N == row_N - first_N) & (end_N >= row_N) & (end_N <= last_T[tree_N])
        if not (sound.all() and (end_N[start_T] == last_T).all()):
            raise _no_trees()
        ended_N = np.cumsum(np.bincount(end_N + 1, minlength=table.num_rows + 1))[:-1]
        depth_N = row_N - ended_N
        if ((depth_N == 0) != (pre_N == 0)).any():
            raise _no_trees()
        level_D = levels(depth_N)
        parent_N = np.full(table.num_rows, -1)
        for above, rows in pairwise(level_D):
            parent_N[rows] = above[np.searchsorted(above, rows) - 1]
        inner = parent_N >= 0
        if not (end_N[parent_N[inner]] >= end_N[inner]).all():
            raise _no_trees()
        return cls(
            table=table,
            start_T=start_T,
            tree_N=tree_N,
            end_N=end_N,
            depth_N=depth_N,
            parent_N=parent_N,
            level_D=level_D,
        )

    @classmethod
    def of_rows(cls, nodes: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> "TreeBatch":
        """Returns the trees of rows of the view `nodes`, with some of their columns."""
        schema = pa.schema([NODES.field(critic_of(name)[0]).with_name(name) for name in columns])
        data = {name: [node[name] for node in nodes] for name in columns}
        return cls.of(pa.Table.from_pydict(data, schema=schema))

    @property
    def size(self) -> int:
        """Returns the number of nodes."""
        return len(self.tree_N)

    @property
    def is_step(self) -> Flags:
        """Returns which nodes are steps: all but the roots."""
        return self.parent_N >= 0

    def counts(self, name: str) -> Ints:
        """Returns a column of whole numbers without nulls."""
        return plain(self.table[name]).astype(np.int64)

    def numbers(self, name: str) -> Reals:
        """Returns a column of numbers, NaN where it is null."""
        column = pc.cast(self.table[name], pa.float64())
        return np.asarray(plain(pc.fill_null(column, np.nan)))

    def equals(self, name: str, value: str) -> Flags:
        """Returns where a column of text has a value."""
        column = self.table[name]
        if pa.types.is_dictionary(column.type):
            coded = column.combine_chunks()
            codes = pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy()
            known = [*(each == value for each in coded.dictionary.to_pylist()), False]
            return np.asarray(np.array(known)[codes])
        return np.asarray(plain(pc.fill_null(pc.equal(column, value), False)))

    def some_below(self, flag_N: Flags) -> Flags:
        """Returns which nodes have a flag at or below them."""
        before = np.concatenate([[0], np.cumsum(flag_N)])
        return np.asarray(before[self.end_N + 1] > before[:-1])

    def some_above(self, flag_N: Flags, *, strictly: bool = False) -> Flags:
        """Returns which nodes have a flag on the way from their root, their own counting or not."""
        flagged = np.flatnonzero(flag_N)
        change = np.bincount(flagged + strictly, minlength=self.size + 2)
        change -= np.bincount(self.end_N[flagged] + 1, minlength=self.size + 2)
        return np.asarray(np.cumsum(change)[: self.size] > 0)

    def paths(self, ends: Ints) -> tuple[Ints, Ints]:
        """Returns the steps from the root to some nodes.

        Returns:
            Where each path begins, with the end of the last; and the rows of all steps.
        """
        offsets = np.concatenate([[0], np.cumsum(self.depth_N[ends])])
        rows = np.empty(offsets[-1], dtype=np.int64)
        at, place = ends, offsets[1:] - 1
        while len(at):
            rows[place] = at
            at, place = self.parent_N[at], place - 1
            inner = self.depth_N[at] > 0
            at, place = at[inner], place[inner]
        return offsets, rows

    def pieces(self, size: int, size_N: Ints) -> Iterator["TreeBatch"]:
        """Yields the trees again in batches of about a size; a tree stays whole.

        Args:
            size: Of a batch.
            size_N: Of each node.
        """
        rows_T = np.append(self.start_T, self.size)
        edges_T = np.concatenate([[0], np.cumsum(size_N)])[rows_T]
        start = 0
        while start < len(self.start_T):
            reached = int(np.searchsorted(edges_T, edges_T[start] + size))
            end = min(max(reached, start + 1), len(self.start_T))
            yield TreeBatch.of(self.table.slice(rows_T[start], rows_T[end] - rows_T[start]))
            start = end


def spans(start_T: Ints, size_T: Ints) -> Ints:
    """Returns the numbers of some spans, one span behind the other."""
    shift_T = start_T - (np.cumsum(size_T) - size_T)
    return np.asarray(np.repeat(shift_T, size_T) + np.arange(size_T.sum()))


def levels(depth_N: Ints) -> tuple[Ints, ...]:
    """Returns the rows of each depth."""
    if not len(depth_N):
        return ()
    # Of the smallest type that holds them, since those of up to 16 bits are sorted by counting.
    order = np.argsort(depth_N.astype(np.min_scalar_type(depth_N.max())), kind="stable")
    return tuple(np.split(order, np.cumsum(np.bincount(depth_N))[:-1]))


def plain(column: pa.ChunkedArray) -> NDArray[Any]:
    """Returns a column without nulls; ChunkedArray's own way to do so imports pandas."""
    pieces = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
    empty = np.zeros(0, dtype=column.type.to_pandas_dtype())
    return np.asarray(pieces[0] if len(pieces) == 1 else np.concatenate([empty, *pieces]))


def _no_trees() -> DamagedData:
    return DamagedData(
        "nodes: pre and post_end are not those of whole trees; `treeward verify` names the file"
    )

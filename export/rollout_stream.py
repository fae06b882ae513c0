"""Reads the rollouts of a run's trees beside their nodes, a window of trees at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.problems_file import first_line
from treeward.export.queries import dataset
from treeward.export.tree_stream import Item, TreeRow
from treeward.search.errors import DamagedData

WINDOW_NODES = 16_384
"""Nodes whose trees' rollouts are held at once, give or take a tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledItem(Item):
    """Holds one problem, its tree, and the tree's rollouts."""

    rollouts: pa.Table
    """In the order in which they were asked for; no rows where there is no tree."""


def with_rollouts(
    items: Iterator[Item], columns: Sequence[str], *, window_nodes: int = WINDOW_NODES
) -> Iterator[RolledItem]:
    """Yields every item with the rollouts of its tree.

    Args:
        items: Problems with their trees, as `stream` yields them.
        columns: Which columns of `rollouts` are wanted.
        window_nodes: What is read at once, by the nodes of its trees.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    window: list[Item] = []
    size = 0
    for item in items:
        window.append(item)
        size += item.tree.row.n_nodes if item.tree else 1
        if size >= window_nodes:
            yield from _read_window(window, columns)
            window, size = [], 0
    yield from _read_window(window, columns)


def _read_window(window: Sequence[Item], columns: Sequence[str]) -> Iterator[RolledItem]:
    found = _by_tree([item.tree.row for item in window if item.tree], columns)
    nothing = dataset("rollouts", []).to_table(columns=list(columns))
    for item in window:
        rollouts = found.get(item.tree.row.tree_id, nothing) if item.tree else nothing
        yield RolledItem(index=item.index, problem=item.problem, tree=item.tree, rollouts=rollouts)


def _by_tree(rows: Sequence[TreeRow], columns: Sequence[str]) -> dict[str, pa.Table]:
    """Returns the rollouts of some trees by tree id; views of the tables they were read with."""
    found: dict[str, pa.Table] = {}
    for part in sorted({row.part for row in rows}):
        path = part / "rollouts.parquet"
        wanted = pc.field("tree_id").isin([row.tree_id for row in rows if row.part == part])
        try:
            table = dataset("rollouts", [path]).to_table(
                columns=["tree_id", *columns], filter=wanted
            )
        except (OSError, pa.ArrowException) as e:
            raise DamagedData(f"{path}: cannot be read: {first_line(e)}; restore it") from e
        start = 0
        for tree_id, same in groupby(table["tree_id"].to_pylist()):
            found[tree_id] = table.slice(start, sum(1 for _ in same)).select(list(columns))
            start += found[tree_id].num_rows
    return found

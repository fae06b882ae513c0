"""Reads a run problem by problem, in the order of its problems.

Parts hold trees in the order in which they were finished, so the problems are taken in windows: the
trees of a window are read from whichever parts hold them. What is held at any time is the problems,
a row for each tree, and the nodes of one window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.labels import Nodes
from treeward.export.parts import committed_parts
from treeward.export.problems_file import first_line
from treeward.export.queries import dataset
from treeward.export.run_folder import RunFolder
from treeward.search.errors import DamagedData
from treeward.search.problem import Problem

WINDOW_NODES = 65_536
_TREE_COLUMNS = ["tree_id", "problem_id", "n_nodes", "best_node_id", "pass_rate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRow:
    """Holds what the view `trees` says of one tree, and where its nodes are."""

    part: Path
    tree_id: str
    problem_id: str
    n_nodes: int
    best_node_id: int | None
    pass_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Holds one tree."""

    row: TreeRow
    nodes: Nodes
    """Only the columns that were asked for, in pre-order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Holds one problem and its tree."""

    index: int
    """The problem's place in the run, from 0."""

    problem: Problem
    tree: Grown | None
    """None where no tree is committed yet."""


def stream(
    run: RunFolder, node_columns: Sequence[str], *, window_nodes: int = WINDOW_NODES
) -> Iterator[Item]:
    """Yields every problem of a run, in order, with its tree.

    Args:
        run: The run.
        node_columns: Which columns of `nodes` are wanted; at least one.
        window_nodes: Nodes that are held at once, give or take a tree.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    trees = {row.problem_id: row for row in _tree_rows(run)}
    window: list[tuple[int, Problem]] = []
    size = 0
    for place in enumerate(run.problems()):
        window.append(place)
        size += trees[place[1].id].n_nodes if place[1].id in trees else 0
        if size >= window_nodes:
            yield from _read_window(window, trees, node_columns)
            window, size = [], 0
    yield from _read_window(window, trees, node_columns)


def _tree_rows(run: RunFolder) -> Iterator[TreeRow]:
    for part in committed_parts(run.path):
        for row in _read(part / "trees.parquet", "trees", _TREE_COLUMNS).to_pylist():
            yield TreeRow(part=part, **row)


def _read_window(
    window: Sequence[tuple[int, Problem]], trees: dict[str, TreeRow], node_columns: Sequence[str]
) -> Iterator[Item]:
    wanted = [trees[problem.id] for _, problem in window if problem.id in trees]
    nodes = _nodes_by_tree(wanted, node_columns)
    for index, problem in window:
        row = trees.get(problem.id)
        tree = Grown(row=row, nodes=nodes[row.tree_id].to_pylist()) if row else None
        yield Item(index=index, problem=problem, tree=tree)


def _nodes_by_tree(rows: Sequence[TreeRow], columns: Sequence[str]) -> dict[str, pa.Table]:
    """Returns the nodes of some trees by tree id; views of the tables they were read with."""
    nodes: dict[str, pa.Table] = {}
    for part in sorted({row.part for row in rows}):
        ids = [row.tree_id for row in rows if row.part == part]
        path = part / "nodes.parquet"
        table = _read(path, "nodes", ["tree_id", *columns], pc.field("tree_id").isin(ids))
        start = 0
        for tree_id, same in groupby(table["tree_id"].to_pylist()):
            nodes[tree_id] = table.slice(start, sum(1 for _ in same)).select(columns)
            start += nodes[tree_id].num_rows
    for row in rows:
        if row.tree_id not in nodes or nodes[row.tree_id].num_rows != row.n_nodes:
            raise DamagedData(
                f"{row.part}/nodes.parquet: tree {row.tree_id} has not the {row.n_nodes} nodes "
                "that trees.parquet says; restore it"
            )
    return nodes


def _read(
    path: Path, name: str, columns: Sequence[str], where: pc.Expression | None = None
) -> pa.Table:
    """Reads columns of one file of a part, rows in the order of the file."""
    try:
        return dataset(name, [path]).to_table(columns=list(columns), filter=where)
    except (OSError, pa.ArrowException) as e:
        raise DamagedData(f"{path}: cannot be read: {first_line(e)}; restore it") from e

"""Reads a run problem by problem, in the order of its problems, as rows of Python values.

For what is asked of few columns or needs a model's time anyway; `tree_windows` is what to read the
nodes of a large run with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from treeward.export.labels import Nodes
from treeward.export.run_folder import RunFolder
from treeward.export.tree_windows import WINDOW_NODES, windows
from treeward.search.problem import Problem


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
    problems = run.problems()
    for window in windows(run, node_columns, window_nodes=window_nodes):
        batch, rows = window.batch, window.trees.to_pylist()
        nodes = batch.table.select([*node_columns])
        edges = pairwise([*batch.start_T.tolist(), batch.size])
        grown = {
            int(place): Grown(
                row=TreeRow(part=window.parts[part], **row),
                nodes=nodes.slice(start, end - start).to_pylist(),
            )
            for place, part, row, (start, end) in zip(
                window.problem_T, window.part_T, rows, edges, strict=True
            )
        }
        for place in range(window.problems.num_rows):
            index = window.first + place
            yield Item(index=index, problem=problems[index], tree=grown.get(place))

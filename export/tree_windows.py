"""Reads a run as batches of whole trees, in the order of its problems.

Parts hold trees in the order in which they were finished, so problems are taken in windows: the
trees of a window are read from whichever parts hold them. What is held at any time is the problems,
a row for each tree, the nodes of one window, and the row groups that were read last.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.added_scores import AddedScores
from treeward.export.label_spec import critic_of
from treeward.export.parts import committed_parts
from treeward.export.row_groups import RowGroups
from treeward.export.run_folder import RunFolder
from treeward.export.tree_batch import PLACES, Ints, TreeBatch, plain, spans
from treeward.search.errors import DamagedData

WINDOW_NODES = 65_536
MOST_KEPT = 524_288
"""Nodes that are kept since the next windows may want them: up to two of the largest parts."""

TREE_COLUMNS = ("tree_id", "problem_id", "n_nodes", "best_node_id", "pass_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Holds some problems that follow each other, and the trees of those that have one."""

    first: int
    """The place of the first problem in the run, from 0."""

    problems: pa.Table
    """The columns `problem_id` and `prompt`, a row a problem."""

    trees: pa.Table
    """The columns `TREE_COLUMNS`, a row a tree, in the order in which the parts hold them."""

    problem_T: Ints
    """The row in `problems` of each tree."""

    parts: Sequence[Path]
    """The parts of the run."""

    part_T: Ints
    """The number of each tree's part among them."""

    batch: TreeBatch
    """The nodes of the trees, in their order."""

    def in_order(self) -> TreeBatch:
        """Returns the trees in the order of their problems, however the run is cut into parts."""
        order = np.argsort(self.problem_T)
        start_T = self.batch.start_T
        size_T = np.diff(np.append(start_T, self.batch.size))
        return TreeBatch.of(self.batch.table.take(spans(start_T[order], size_T[order])))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Forest:
    """Holds where the trees of a run are; the rows of `trees` are numbered as the arrays."""

    parts: Sequence[Path]
    trees: pa.Table
    part_T: Ints
    start_T: Ints
    """The row of each tree's root in the part's table of nodes."""
    size_T: Ints
    nodes_of_part: Ints


def windows(
    run: RunFolder, node_columns: Sequence[str], *, window_nodes: int = WINDOW_NODES
) -> Iterator[Window]:
    """Yields all problems of a run, in order, with their trees.

    Args:
        run: The run.
        node_columns: Which columns of `nodes` are wanted; those of critics hold scores that were
            added later, as the view does, or a named critic's (`value_critic:NAME`).
        window_nodes: Nodes that are held at once, give or take a tree.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    problems = RowGroups("problems", ("problem_id", "prompt", "messages")).whole(run.problems_path)
    forest = _survey(committed_parts(run.path))
    files = RowGroups(
        "nodes",
        ("tree_id", "node_id", *PLACES, *(name for name in node_columns if not critic_of(name)[1])),
        kept_rows=min(MOST_KEPT, 2 * int(forest.nodes_of_part.max(initial=0))),
    )
    added = AddedScores(run, node_columns)
    tree_P = np.full(problems.num_rows, -1)
    place_T = _problem_of_each(problems, forest)
    known = np.flatnonzero(place_T >= 0)
    tree_P[place_T[known]] = known
    size_P = np.where(tree_P >= 0, np.append(forest.size_T, 0)[tree_P], 0)
    for start, end in _cut(np.cumsum(size_P), window_nodes):
        chosen = tree_P[start:end]
        table, trees = _nodes(files, forest, chosen[chosen >= 0])
        table = added.over(table, forest.trees["tree_id"].take(trees))
        yield Window(
            first=start,
            problems=problems.slice(start, end - start),
            trees=forest.trees.take(trees),
            problem_T=place_T[trees] - start,
            parts=forest.parts,
            part_T=forest.part_T[trees],
            batch=TreeBatch.of(table),
        )


def _survey(parts: Sequence[Path]) -> _Forest:
    """Reads which trees there are; those of a part lie in its tables in the same order."""
    files = RowGroups("trees", TREE_COLUMNS)
    tables = [files.whole(part / "trees.parquet") for part in parts]
    sizes = [plain(table["n_nodes"]).astype(np.int64) for table in tables]
    none = np.zeros(0, dtype=np.int64)
    return _Forest(
        parts=parts,
        trees=pa.concat_tables([files.empty, *tables]).combine_chunks(),
        part_T=np.repeat(np.arange(len(parts)), [len(each) for each in sizes]),
        start_T=np.concatenate([none, *(np.cumsum(each) - each for each in sizes)]),
        size_T=np.concatenate([none, *sizes]),
        nodes_of_part=np.array([each.sum() for each in sizes], dtype=np.int64),
    )


def _problem_of_each(problems: pa.Table, forest: _Forest) -> Ints:
    """Returns the place of each tree's problem; -1 where the run has no such problem."""
    ids = problems["problem_id"].combine_chunks()
    return plain(pc.fill_null(pc.index_in(forest.trees["problem_id"], value_set=ids), -1))


def _cut(reached_P: Ints, size: int) -> Iterator[tuple[int, int]]:
    """Yields spans of problems with at least so many nodes together; the last may have fewer."""
    start, before = 0, 0
    while start < len(reached_P):
        end = min(int(np.searchsorted(reached_P, before + size)) + 1, len(reached_P))
        yield start, end
        start, before = end, int(reached_P[end - 1])


def _nodes(files: RowGroups, forest: _Forest, chosen: Ints) -> tuple[pa.Table, Ints]:
    """Returns the nodes of some trees, and the trees in the order in which their nodes lie."""
    tables, order = [files.empty], [chosen[:0]]
    part_T = forest.part_T[chosen]
    for number in np.unique(part_T):
        mine = np.sort(chosen[part_T == number])
        path = forest.parts[number] / "nodes.parquet"
        if files.edges(path)[-1] != forest.nodes_of_part[number]:
            raise DamagedData(
                f"{path}: has {files.edges(path)[-1]} nodes and not the "
                f"{forest.nodes_of_part[number]} that trees.parquet says; restore it"
            )
        sizes = forest.size_T[mine]
        table, at = files.holding(path, forest.start_T[mine], sizes)
        tables.append(_cut_out(table, at, sizes))
        order.append(mine)
    table, ordered = pa.concat_tables(tables).combine_chunks(), np.concatenate(order)
    _check(table, forest, ordered)
    return table, ordered


def _cut_out(table: pa.Table, at: Ints, sizes: Ints) -> pa.Table:
    """Returns some spans of rows; those that follow each other are not copied."""
    if (at[1:] == at[:-1] + sizes[:-1]).all():
        return table.slice(at[0], sizes.sum())
    return table.take(spans(at, sizes))


def _check(table: pa.Table, forest: _Forest, trees: Ints) -> None:
    """Refuses nodes that are not those of some trees.

    Raises:
        DamagedData: They are not.
    """
    sizes = forest.size_T[trees]
    roots = table.select(["tree_id", "pre"]).take(np.cumsum(sizes) - sizes)
    wrong = pc.or_(
        pc.not_equal(roots["tree_id"], forest.trees["tree_id"].take(trees)),
        pc.not_equal(roots["pre"], 0),
    )
    for place in np.flatnonzero(plain(wrong))[:1]:
        tree = int(trees[place])
        raise DamagedData(
            f"{forest.parts[forest.part_T[tree]]}/nodes.parquet: tree "
            f"{forest.trees['tree_id'][tree]} has not the {sizes[place]} nodes that trees.parquet "
            "says; restore it"
        )

"""Writes pages: of one tree, of two side by side, or of a run."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from treeward.export.added_scores import require_scores
from treeward.export.durable import disk_errors, write_file
from treeward.export.labels import LEARNING_READS, LabelRule, load_rule
from treeward.export.page import make_page
from treeward.export.page_run import run_data
from treeward.export.page_tree import Columns, no_such_tree, trees_data
from treeward.export.plots import markup
from treeward.export.queries import reading
from treeward.export.run_folder import RunFolder
from treeward.export.tree_windows import windows
from treeward.search.errors import BadInput

Blocks = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Says what page was written."""

    out: Path
    n_bytes: int
    n_trees: int
    """Trees that the page holds whole."""

    def __str__(self) -> str:
        """Returns one line for a terminal."""
        trees = "1 tree" if self.n_trees == 1 else f"{self.n_trees:,} trees"
        return f"{self.out}: {trees}, {self.n_bytes:,} bytes"


def write_run_page(run: RunFolder, out: Path) -> Written:
    """Writes the page of a run, with its trees where they are few and small.

    Raises:
        BadInput: The file cannot be written.
        DamagedData: A file of the run is not what was written.
    """
    page, figures = run_data(run)
    blocks: Blocks = {"page": page}
    if page["embedded"]:
        with reading(run) as connection:
            rule = load_rule()
            blocks |= _tree_blocks(trees_data(connection, run, page["embedded"], rule))
    return _write(out, blocks, markup(figures))


def write_tree_page(
    run: RunFolder,
    tree_ids: Sequence[str],
    out: Path,
    *,
    against: RunFolder | None = None,
    rule: str | None = None,
    rollouts: bool = True,
) -> Written:
    """Writes the page of one tree, or of two side by side.

    Args:
        run: The run.
        tree_ids: One tree or two; with one and `against`, the other is of the same problem.
        out: The file.
        against: The run that the second tree is from; None takes the same run.
        rule: The label rule; None takes any_success.
        rollouts: Whether the page holds the rollouts.

    Raises:
        BadInput: A run has no such tree, there are more than two, or the file cannot be written.
        DamagedData: A file of a run is not what was written.
    """
    if not 1 <= len(tree_ids) <= 2:
        raise BadInput(f"tree: a page shows one tree or two side by side, got {len(tree_ids)}")
    runs = [run, against or run]
    with ExitStack() as stack:
        first = stack.enter_context(reading(run))
        second = first if against is None else stack.enter_context(reading(against))
        connections = [first, second]
        if against is not None and len(tree_ids) == 1:
            tree_ids = [tree_ids[0], _same_problem(connections, runs, tree_ids[0])]
        page = {
            "kind": "compare" if len(tree_ids) == 2 else "tree",
            "title": " and ".join(f"tree {tree_id}" for tree_id in tree_ids),
            "left_out": not rollouts,
        }
        blocks: Blocks = {"page": page}
        shown = [
            trees_data(at, its, [tree_id], _load_rule(its, rule), rollouts=rollouts)[0]
            for at, its, tree_id in zip(connections, runs, tree_ids, strict=False)
        ]
    return _write(out, blocks | _tree_blocks(shown))


def _load_rule(run: RunFolder, name: str | None) -> LabelRule:
    """Returns a rule; `posterior` learns its prior from all trees of the run."""
    rule = load_rule(name, trees=(window.in_order() for window in windows(run, LEARNING_READS)))
    require_scores(run, rule.spec.measures)
    return rule


def _tree_blocks(trees: Sequence[tuple[Mapping[str, Any], Columns]]) -> Blocks:
    blocks: Blocks = {}
    for place, (tree, rollouts) in enumerate(trees):
        blocks |= {f"tree-{place}": tree, f"rollouts-{place}": rollouts}
    return blocks


def _same_problem(
    connections: Sequence[duckdb.DuckDBPyConnection], runs: Sequence[RunFolder], tree_id: str
) -> str:
    """Returns the tree of the second run that is of the same problem as one of the first."""
    sql = "SELECT problem_id FROM trees WHERE tree_id = ?"
    problem = connections[0].execute(sql, [tree_id]).fetchall()
    if not problem:
        raise no_such_tree(runs[0], tree_id)
    sql = "SELECT tree_id FROM trees WHERE problem_id = ?"
    found = connections[1].execute(sql, [problem[0][0]]).fetchall()
    if not found:
        raise BadInput(f"{runs[1].path}: no tree of problem {problem[0][0]!r}; name one by --tree")
    return str(found[0][0])


def _write(out: Path, blocks: Mapping[str, Any], figures: str = "") -> Written:
    page = make_page(blocks, figures)
    if out.is_dir():
        raise BadInput(f"{out}: a folder; give the name of a file, such as {out / 'view.html'}")
    with disk_errors(out, "cannot write the page"):
        write_file(out, page)
    trees = sum(name.startswith("tree-") for name in blocks)
    return Written(out=out, n_bytes=len(page), n_trees=trees)

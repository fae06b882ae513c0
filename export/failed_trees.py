"""Trees in which calls failed: which they are, and how they leave a run to be grown anew."""

from collections.abc import Collection
from pathlib import Path

import pyarrow.compute as pc

from treeward.export.durable import disk_errors
from treeward.export.parts import committed_parts, parts_in, read_manifest
from treeward.export.rewriting import NewPart, rewrite
from treeward.export.row_groups import RowGroups
from treeward.export.run_folder import RunFolder
from treeward.export.schema import TABLES
from treeward.export.score_store import TABLE, score_sets
from treeward.search.errors import BadInput


def failed_trees(run: Path) -> set[str]:
    """Returns the ids of committed trees in which calls failed."""
    files = RowGroups("trees", ("tree_id", "status"))
    tables = (files.whole(part / "trees.parquet") for part in committed_parts(run))
    failed = (table.filter(pc.not_equal(table["status"], "ok")) for table in tables)
    return {tree_id for table in failed for tree_id in table["tree_id"].to_pylist()}


def drop_trees(run: RunFolder, trees: Collection[str]) -> None:
    """Takes trees, and what critics said of them, out of a run that this process has locked.

    Args:
        run: The run.
        trees: Their ids; others stay as they are.

    Raises:
        BadInput: The run has a budget: what a tree may cost follows from the trees before it.
        DamagedData: A file is not what was written.
        TreewardError: The disk failed; what critics said may be gone, the trees are there.
    """
    if trees and run.identity.settings.get("budget.tokens") is not None:
        raise BadInput(
            f"{run.path}: a run with a budget cannot grow single trees anew, as they share it; "
            "begin another run, or leave --retry-failed out"
        )
    # Scores first: those of a tree that is gone would be taken for those of the next.
    places = [*((place, (TABLE,)) for place in score_sets(run.path)), (run.path / "parts", TABLES)]
    with disk_errors(run.path, "cannot take trees out"):
        for place, tables in places:
            held = {part: {*read_manifest(part).trees} for part in parts_in(place)}
            if any(there.intersection(trees) for there in held.values()):
                kept = [
                    NewPart(name=part.name, parts=[part], without=there.intersection(trees))
                    for part, there in held.items()
                    if not there <= {*trees}
                ]
                rewrite(run, place, tables, kept)

"""Counts labels by depth for runs of any size: a part at a time, without a loop over nodes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from treeward.export.labels import MIN_ROLLOUTS
from treeward.export.parts import committed_parts
from treeward.export.problems_file import first_line
from treeward.export.queries import dataset
from treeward.export.run_folder import RunFolder
from treeward.search.errors import DamagedData
from treeward.search.verdicts import Verdict

Ints = NDArray[np.int64]

_COLUMNS = (
    *("node_id", "parent_id", "depth", "pre", "post_end", "n_right", "n_rollouts", "verdict"),
)


class LabelCounts(NamedTuple):
    """Counts steps at each depth, from 0; the root is no step."""

    right: Ints
    wrong: Ints
    undecided: Ints


def label_counts(run: RunFolder) -> LabelCounts:
    """Returns what the rule `any_success` says, as often as a dataset keeps it.

    A path is counted up to its first step that is wrong or undecided.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    found = [_count(_read(part / "nodes.parquet")) for part in committed_parts(run.path)]
    size = max((counts.shape[1] for counts in found), default=0)
    total = np.zeros((3, size), dtype=np.int64)
    for counts in found:
        total[:, : counts.shape[1]] += counts
    return LabelCounts(*total)


def _count(nodes: pa.Table) -> Ints:
    """Returns right, wrong and undecided steps by depth; rows are sorted by tree and pre-order."""
    if not nodes.num_rows:
        return np.zeros((3, 0), dtype=np.int64)
    rows = np.arange(nodes.num_rows)
    depth, pre, end, node = (
        nodes[name].to_numpy() for name in ("depth", "pre", "post_end", "node_id")
    )
    start = rows - pre
    row_of = np.empty_like(rows)
    row_of[start + node] = rows
    parent = row_of[start + pc.fill_null(nodes["parent_id"], 0).to_numpy()]
    right, wrong = (
        pc.fill_null(pc.equal(nodes["verdict"], verdict), False).to_numpy()
        for verdict in (Verdict.RIGHT, Verdict.WRONG)
    )
    # The subtree of a node is the rows from its own to its end.
    before = np.concatenate([[0], np.cumsum((nodes["n_right"].to_numpy() > 0) | right)])
    lives = before[start + end + 1] > before[rows]
    failed = (nodes["n_rollouts"].to_numpy() >= MIN_ROLLOUTS) | wrong
    counted = (depth > 0) & (lives[parent] | (depth[parent] == 0))
    kinds = (lives, ~lives & failed, ~lives & ~failed)
    size = int(depth.max()) + 1
    return np.array([np.bincount(depth[counted & kind], minlength=size) for kind in kinds])


def _read(path: Path) -> pa.Table:
    try:
        return dataset("nodes", [path]).to_table(columns=list(_COLUMNS))
    except (OSError, pa.ArrowException) as e:
        raise DamagedData(f"{path}: cannot be read: {first_line(e)}; restore it") from e

"""Counts labels by depth for runs of any size: a part at a time, without a loop over nodes."""

from typing import NamedTuple

import numpy as np

from treeward.export.label_rules import RIGHT, UNDECIDED, WRONG
from treeward.export.labels import LabelRule, load_rule
from treeward.export.parts import committed_parts
from treeward.export.row_groups import RowGroups
from treeward.export.run_folder import RunFolder
from treeward.export.tree_batch import Ints, TreeBatch


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
    rule = load_rule()
    files = RowGroups("nodes", rule.reads)
    paths = (part / "nodes.parquet" for part in committed_parts(run.path))
    found = [_count(rule, TreeBatch.of(files.whole(path))) for path in paths]
    size = max((counts.shape[1] for counts in found), default=0)
    total = np.zeros((3, size), dtype=np.int64)
    for counts in found:
        total[:, : counts.shape[1]] += counts
    return LabelCounts(*total)


def _count(rule: LabelRule, batch: TreeBatch) -> Ints:
    """Returns right, wrong and undecided steps by depth."""
    sign_N = rule.judge_all(batch).sign_N
    ended_N = batch.is_step & (sign_N != RIGHT)
    counted_N = batch.is_step & ~batch.some_above(ended_N, strictly=True)
    size = len(batch.level_D)
    return np.array(
        [
            np.bincount(batch.depth_N[counted_N & (sign_N == sign)], minlength=size)
            for sign in (RIGHT, WRONG, UNDECIDED)
        ]
    ).reshape(3, size)

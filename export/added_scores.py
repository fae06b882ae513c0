"""What critics said of nodes after a run was grown, put in the place of the nodes' own columns.

The view `nodes` does the same: scores that were added are shown where the run was grown without
critics and one critic has scored it since.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.parts import trees_in
from treeward.export.problems_file import first_line
from treeward.export.queries import dataset
from treeward.export.run_folder import RunFolder
from treeward.export.score_store import TABLE, score_sets
from treeward.export.tree_batch import plain
from treeward.search.errors import BadInput, DamagedData

SAID = {"value_critic": "value", "progress_critic": "progress", "outcome_critic": "outcome"}
"""The columns of nodes, and those of scores that go in their place."""


def require_scores(run: RunFolder, measures: Iterable[str]) -> None:
    """Refuses to read a critic's columns where it is not plain whose they would be.

    Raises:
        BadInput: No critic scored the run, or more than one did.
    """
    asked = [name for name in measures if name in SAID]
    if not asked or run.identity.has_critics:
        return
    critics = [place.name for place in score_sets(run.path)]
    if not critics:
        raise BadInput(
            f"rule: {asked[0]}: no critic has scored {run.path}; "
            f"`treeward score {run.path} --critics DIR` adds scores"
        )
    if len(critics) > 1:
        raise BadInput(
            f"rule: {asked[0]}: {len(critics)} critics have scored {run.path}: "
            f"{', '.join(critics)}; move the folders of all but one out of {run.path / 'scores'}"
        )


@dataclass(frozen=True, slots=True)
class AddedScores:
    """Finds the scores of one critic."""

    parts: Mapping[str, Path]
    """The part of the scores that holds each tree."""

    columns: Sequence[str]
    """Which columns of nodes are wanted."""

    @classmethod
    def of(cls, run: RunFolder, columns: Iterable[str]) -> "AddedScores | None":
        """Returns the scores that some columns of nodes are read from; None where from nodes."""
        wanted = [name for name in columns if name in SAID]
        sets = score_sets(run.path) if wanted and not run.identity.has_critics else []
        return cls(trees_in(sets[0]), wanted) if len(sets) == 1 else None

    def over(self, nodes: pa.Table, trees: pa.ChunkedArray) -> pa.Table:
        """Returns the nodes of some trees, in the order of the trees, with the critic's scores.

        Raises:
            DamagedData: A file of the scores is not what was written.
        """
        ids = trees.to_pylist()
        files = sorted(
            {self.parts[tree] / f"{TABLE}.parquet" for tree in ids if tree in self.parts}
        )
        names = ["tree_id", "node_id", *(SAID[name] for name in self.columns)]
        try:
            scores = dataset("scores", files).to_table(
                columns=names, filter=pc.field("tree_id").isin(ids)
            )
        except (OSError, pa.ArrowException) as e:
            raise DamagedData(f"{files[0].parent.parent}: {first_line(e)}; restore it") from e
        root_T = np.flatnonzero(plain(nodes["pre"]) == 0)
        tree_N = np.cumsum(plain(nodes["pre"]) == 0) - 1
        row_of = np.empty(nodes.num_rows, dtype=np.int64)
        row_of[root_T[tree_N] + plain(nodes["node_id"])] = np.arange(nodes.num_rows)
        tree_S = plain(pc.index_in(scores["tree_id"], value_set=pa.array(ids, pa.string())))
        score_N = np.full(nodes.num_rows, -1)
        score_N[row_of[root_T[tree_S] + plain(scores["node_id"])]] = np.arange(scores.num_rows)
        at = pa.array(score_N, mask=score_N < 0)
        for name in self.columns:
            place = nodes.column_names.index(name)
            said = scores[SAID[name]].combine_chunks().take(at)
            nodes = nodes.set_column(place, nodes.schema.field(name), said)
        return nodes

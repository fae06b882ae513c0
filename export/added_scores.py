"""What critics said of nodes after a run was grown, put in the place of the nodes' own columns.

The view `nodes` does the same: scores that were added are shown where the run was grown without
critics and one critic has scored it since. What a named critic said is a column of its own.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.label_spec import critic_of
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
        BadInput: A measure names a critic that has not scored the run, or it names none and no
            critic has, or more than one.
    """
    critics = [place.name for place in score_sets(run.path)]
    for name in measures:
        of, critic = critic_of(name)
        if of not in SAID or critic in critics or (run.identity.has_critics and not critic):
            continue
        if not critics:
            raise BadInput(
                f"rule: {name}: no critic has scored {run.path}; "
                f"`treeward score {run.path} --critics DIR` adds scores"
            )
        if critic:
            raise BadInput(
                f"rule: {name}: that critic has not scored {run.path}; {', '.join(critics)} have"
            )
        if len(critics) > 1:
            raise BadInput(
                f"rule: {name}: {len(critics)} critics have scored {run.path}: "
                f"{', '.join(critics)}; name one: {name}:{critics[0]}"
            )


class AddedScores:
    """Finds what critics said after a run was grown."""

    def __init__(self, run: RunFolder, columns: Iterable[str]) -> None:
        """Finds the critics whose scores some columns of nodes are read from.

        Args:
            run: The run.
            columns: Those of critics that name none are read from nodes where the run was grown
                with critics, or where not exactly one has scored it since.
        """
        sets = {place.name: place for place in score_sets(run.path)}
        alone = next(iter(sets)) if len(sets) == 1 and not run.identity.has_critics else ""
        self._columns: dict[str, list[str]] = {}
        """By critic."""
        for name in columns:
            of, critic = critic_of(name)
            if of in SAID and (critic or alone):
                self._columns.setdefault(critic or alone, []).append(name)
        self._parts = {critic: trees_in(sets[critic]) for critic in self._columns}
        """By critic, the part of the scores that holds each tree."""

    def over(self, nodes: pa.Table, trees: pa.ChunkedArray) -> pa.Table:
        """Returns the nodes of some trees, in the order of the trees, with what critics said.

        Raises:
            DamagedData: A file of the scores is not what was written.
        """
        for critic in self._columns:
            nodes = self._over(nodes, trees, critic)
        return nodes

    def _over(self, nodes: pa.Table, trees: pa.ChunkedArray, critic: str) -> pa.Table:
        ids, parts, columns = trees.to_pylist(), self._parts[critic], self._columns[critic]
        files = sorted({parts[tree] / f"{TABLE}.parquet" for tree in ids if tree in parts})
        wanted = {name: SAID[critic_of(name)[0]] for name in columns}
        names = ["tree_id", "node_id", *dict.fromkeys(wanted.values())]
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
        for name, column in wanted.items():
            said = scores[column].combine_chunks().take(at)
            if name in nodes.column_names:
                place = nodes.column_names.index(name)
                nodes = nodes.set_column(place, nodes.schema.field(name), said)
            else:
                nodes = nodes.append_column(name, said)
        return nodes

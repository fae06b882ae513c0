"""What a page shows of one tree: its columns, in pre-order, and its rollouts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from treeward.export.labels import LabelRule
from treeward.export.run_folder import RunFolder
from treeward.search.errors import BadInput

Columns = dict[str, list[Any]]

_REALS = (
    *("logprob", "prior", "q", "value", "value_low", "value_high", "value_tree", "value_tree_low"),
    *("value_tree_high", "n_effective", "progress", "progress_low", "progress_high"),
    *("value_critic", "progress_critic", "outcome_critic"),
)
_NODE_COLUMNS = (
    *("node_id", "parent_id", "pre", "post_end", "depth", "step_text", "n_tokens", "n_samples"),
    *("visits", "n_right", "n_rollouts", "n_unknown", "n_no_answer", "n_length", "n_right_last"),
    *("n_wrong_first", "stop_rule", "prover_k", "is_terminal", "answer", "verdict"),
    *("verdict_reason", "finish_reason", "status", "error_kind", "oracle_step_correct"),
    *("oracle_prefix_correct", *_REALS),
)
_LABELLING = ("pre", "n_right_last", "n_wrong_first")
"""Read for labels, or implied by other columns: not shown."""
_ROLLOUT_COLUMNS = (
    *("node_id", "sampler_id", "evidence_from", "text", "n_tokens", "logprob", "answer"),
    *("verdict", "verdict_reason", "finish_reason"),
)
_DIGITS = 4


def tree_data(
    connection: duckdb.DuckDBPyConnection,
    run: RunFolder,
    tree_id: str,
    rule: LabelRule,
    *,
    rollouts: bool = True,
) -> tuple[Mapping[str, Any], Columns]:
    """Returns what a page shows of a tree, and apart from it, since it is long, its rollouts.

    Args:
        connection: What `connected(run)` gives.
        run: The run.
        tree_id: Which tree.
        rule: How its steps are labelled.
        rollouts: Whether rollouts are read.

    Raises:
        BadInput: The run has no such tree.
        DamagedData: A file of the run is not what was written.
    """
    rows = _of_tree(connection, "SELECT * FROM trees", tree_id).to_pylist()
    if not rows:
        raise no_such_tree(run, tree_id)
    nodes = _of_tree(
        connection, f"SELECT {', '.join(_NODE_COLUMNS)} FROM nodes", tree_id, "ORDER BY pre"
    )
    drawn = _of_tree(
        connection,
        f"SELECT {', '.join(_ROLLOUT_COLUMNS)} FROM rollouts",
        tree_id,
        "ORDER BY rollout_id" if rollouts else "LIMIT 0",
    )
    said = rule.judge(nodes.to_pylist())
    columns = {name: values for name, values in nodes.to_pydict().items() if name not in _LABELLING}
    columns |= {"label": said.labels, "chance": said.chances or []}
    shown = {
        "run": run.path.resolve().name,
        "tree": {name: _short(value) for name, value in rows[0].items()},
        "rule": {"name": rule.name, "says": rule.says},
        "nodes": {name: _column(values) for name, values in columns.items()},
    }
    return shown, {name: _column(values) for name, values in drawn.to_pydict().items()}


def no_such_tree(run: RunFolder, tree_id: str) -> BadInput:
    """Returns the error of asking for a tree that a run has not."""
    return BadInput(f"{run.path}: no tree {tree_id!r}; query 'SELECT tree_id FROM trees'")


def _of_tree(
    connection: duckdb.DuckDBPyConnection, select: str, tree_id: str, rest: str = ""
) -> pa.Table:
    return connection.sql(f"{select} WHERE tree_id = ? {rest}", params=[tree_id]).to_arrow_table()


def _column(values: Sequence[Any]) -> list[Any]:
    """Returns a column as JSON can hold it; empty where nothing is known of any row."""
    if all(value is None for value in values):
        return []
    return [_short(value) for value in values]


def _short(value: Any) -> Any:
    """Returns a value as JSON can hold it, a real number to the digits that a page shows."""
    if not isinstance(value, float):
        return value
    return round(value, _DIGITS) if math.isfinite(value) else str(value)

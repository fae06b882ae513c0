"""What a page shows of trees: their columns, in pre-order, and their rollouts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from treeward.export.added_scores import SAID
from treeward.export.label_spec import critic_of
from treeward.export.labels import LabelRule
from treeward.export.run_folder import RunFolder
from treeward.search.errors import BadInput

Columns = dict[str, list[Any]]
Row = Mapping[str, Any]
Rows = list[Row]

_REALS = (
    *("logprob", "prior", "q", "value", "value_low", "value_high", "value_tree", "value_tree_low"),
    *("value_tree_high", "n_effective", "progress", "progress_low", "progress_high"),
    *("value_critic", "progress_critic", "outcome_critic"),
)
_NODE_COLUMNS = (
    *("node_id", "parent_id", "pre", "post_end", "depth", "step_text", "n_tokens", "n_samples"),
    *("visits", "n_right", "n_rollouts", "n_unknown", "n_no_answer", "n_length", "n_taken"),
    *("beyond", "stop_rule", "prover_k", "is_terminal", "answer", "verdict"),
    *("verdict_reason", "finish_reason", "status", "error_kind", "oracle_step_correct"),
    *("oracle_prefix_correct", *_REALS),
)
_LABELLING = ("pre", "n_taken", "beyond")
"""Read for labels, or implied by other columns: not shown."""
_ROLLOUT_COLUMNS = (
    *("node_id", "sampler_id", "evidence_from", "text", "n_tokens", "logprob", "answer"),
    *("verdict", "verdict_reason", "finish_reason"),
)
_DIGITS = 4


def trees_data(
    connection: duckdb.DuckDBPyConnection,
    run: RunFolder,
    tree_ids: Sequence[str],
    rule: LabelRule,
    *,
    rollouts: bool = True,
) -> list[tuple[Mapping[str, Any], Columns]]:
    """Returns what a page shows of each tree, and apart from it, since it is long, its rollouts.

    Args:
        connection: What `reading(run)` gives.
        run: The run.
        tree_ids: Which trees.
        rule: How their steps are labelled.
        rollouts: Whether rollouts are read.

    Raises:
        BadInput: The run has no such tree.
        DamagedData: A file of the run is not what was written.
    """
    trees = _by_tree(connection, "* FROM trees", tree_ids)
    for tree_id in tree_ids:
        if tree_id not in trees:
            raise no_such_tree(run, tree_id)
    nodes = _by_tree(connection, f"tree_id, {', '.join(_NODE_COLUMNS)} FROM nodes", tree_ids, "pre")
    nodes = {tree_id: _with_scores(connection, rows, rule) for tree_id, rows in nodes.items()}
    drawn: Mapping[str, Rows] = {}
    if rollouts:
        select = f"tree_id, {', '.join(_ROLLOUT_COLUMNS)} FROM rollouts"
        drawn = _by_tree(connection, select, tree_ids, "rollout_id")
    return [
        (
            _shown(run, trees[tree_id][0], nodes[tree_id], rule),
            _columns(drawn.get(tree_id, []), _ROLLOUT_COLUMNS),
        )
        for tree_id in tree_ids
    ]


def _shown(run: RunFolder, tree: Row, nodes: Rows, rule: LabelRule) -> Mapping[str, Any]:
    said = rule.judge(nodes)
    names = [name for name in _NODE_COLUMNS if name not in _LABELLING]
    return {
        "run": run.path.resolve().name,
        "tree": {name: _short(value) for name, value in tree.items()},
        "rule": {"name": rule.name, "says": rule.says},
        "nodes": {
            **_columns(nodes, names),
            "label": _column(said.labels),
            "chance": _column(said.chances or []),
        },
    }


def _with_scores(connection: duckdb.DuckDBPyConnection, nodes: Rows, rule: LabelRule) -> Rows:
    """Returns the nodes of a tree with what the critics said that a rule names."""
    for name in rule.spec.measures:
        of, critic = critic_of(name)
        if critic:
            sql = f"SELECT node_id, {SAID[of]} FROM scores WHERE critic = ? AND tree_id = ?"
            said = dict(connection.execute(sql, [critic, nodes[0]["tree_id"]]).fetchall())
            nodes = [{**node, name: said.get(node["node_id"])} for node in nodes]
    return nodes


def no_such_tree(run: RunFolder, tree_id: str) -> BadInput:
    """Returns the error of asking for a tree that a run has not."""
    return BadInput(f"{run.path}: no tree {tree_id!r}; query 'SELECT tree_id FROM trees'")


def _by_tree(
    connection: duckdb.DuckDBPyConnection, select: str, tree_ids: Sequence[str], order: str = "1"
) -> dict[str, Rows]:
    """Returns the rows of some trees by tree, in an order."""
    one = len(tree_ids) == 1
    where = "tree_id = ?" if one else "list_contains(?, tree_id)"
    sql = f"SELECT {select} WHERE {where} ORDER BY {order}"
    params = [tree_ids[0] if one else list(tree_ids)]
    rows: dict[str, Rows] = {}
    for row in connection.sql(sql, params=params).to_arrow_table().to_pylist():
        rows.setdefault(row["tree_id"], []).append(row)
    return rows


def _columns(rows: Rows, names: Sequence[str]) -> Columns:
    return {name: _column([row[name] for row in rows]) for name in names}


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

"""Draws a tree for a terminal: one line a step, with its evidence."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from rich.text import Text

from treeward.export.console import clean
from treeward.export.queries import reading
from treeward.export.run_folder import RunFolder
from treeward.search.errors import BadInput

Node = Mapping[str, Any]


_COLUMNS = (
    "node_id, parent_id, depth, post_end, pre, step_text, n_samples, n_right, n_rollouts, "
    "value, value_low, value_high, verdict, verdict_reason, "
    "oracle_step_correct, oracle_prefix_correct"
)


def read_nodes(run: RunFolder, tree_id: str) -> list[Node]:
    """Returns a tree's nodes in pre-order.

    Raises:
        BadInput: The run has no such tree.
    """
    with reading(run) as connection:
        sql = f"SELECT {_COLUMNS} FROM nodes WHERE tree_id = ? ORDER BY pre"
        table: pa.Table = connection.sql(sql, params=[tree_id]).to_arrow_table()
    if not table.num_rows:
        raise BadInput(f"{run.path}: no tree {tree_id!r}; query 'SELECT tree_id FROM trees'")
    nodes: list[Node] = table.to_pylist()
    return nodes


def first_tree(run: RunFolder) -> tuple[str, int]:
    """Returns the id of a run's first tree, by id, and how many trees there are.

    Raises:
        BadInput: The run has no tree yet.
    """
    with reading(run) as connection:
        row = connection.execute("SELECT min(tree_id), count(*) FROM trees").fetchall()[0]
    if not row[1]:
        raise BadInput(f"{run.path}: no tree is finished yet; `treeward status {run.path}`")
    return str(row[0]), int(row[1])


def draw_tree(nodes: Sequence[Node], *, max_lines: int | None = None) -> Text:
    """Returns a tree as text: green is right, red is wrong, by verdict or by the task's oracle.

    Args:
        nodes: All of a tree's nodes, in pre-order.
        max_lines: Nodes to show; those that fewest samples reached are left out first.
    """
    shown = most_sampled(nodes, max_lines)
    last_child = {node["parent_id"]: node["node_id"] for node in shown}
    lines = Text()
    open_ends: list[bool] = []
    for node in shown:
        if node["parent_id"] is None:
            continue
        last = node["node_id"] == last_child[node["parent_id"]]
        del open_ends[node["depth"] - 1 :]
        bars = "".join("   " if closed else "|  " for closed in open_ends)
        open_ends.append(last)
        lines.append(f"{bars}{'`- ' if last else '|- '}", style="dim")
        lines.append_text(_line(node))
    return lines


def most_sampled(nodes: Sequence[Node], most: int | None) -> list[Node]:
    """Returns the nodes to show, in pre-order, each with its ancestors."""
    if most is None or len(nodes) <= most:
        return list(nodes)
    by_id = {node["node_id"]: node for node in nodes}
    kept: set[int] = set()
    for node in sorted(nodes, key=lambda node: (-node["n_samples"], node["pre"])):
        path = []
        at: Node | None = node
        while at is not None and at["node_id"] not in kept:
            path.append(at["node_id"])
            at = by_id.get(at["parent_id"])
        if len(kept) + len(path) <= most:
            kept.update(path)
    return [node for node in nodes if node["node_id"] in kept]


def _line(node: Node) -> Text:
    """Returns one step with what is known about it; `x` marks what is wrong, without colours too.

    A step that is right by itself can still be wrong so far.
    """
    truth = node["oracle_prefix_correct"]
    sure = truth if truth is not None else _from_verdict(node["verdict"])
    style = "" if sure is None else "green" if sure else "red"
    mark = " " if sure is not False else "x"
    line = Text(f"{mark} {clean(node['step_text']).strip():<14} ", style=style)
    if node["verdict"] is not None:
        reason = "" if node["verdict_reason"] in {"match", "mismatch"} else node["verdict_reason"]
        line.append(f"{node['verdict'].upper()} {reason}".rstrip(), style=f"bold {style}")
    elif node["n_rollouts"]:
        line.append(f"{node['n_right']}/{node['n_rollouts']} right ", style="bold")
        line.append(f" {node['value']:.2f}", style="cyan")
        line.append(f" [{node['value_low']:.2f}, {node['value_high']:.2f}]", style="dim")
    if node["oracle_step_correct"] is False:
        line.append("  <- error", style=style)
    return line.append("\n")


def _from_verdict(verdict: str | None) -> bool | None:
    return {"right": True, "wrong": False}.get(verdict or "")

"""The dataset `preference`: pairs of steps from the same prefix, one worth more than the other."""

from collections.abc import Iterator, Mapping
from typing import Any

from treeward.export.dataset_spec import (
    COUNT,
    FLAG,
    ID,
    MESSAGES,
    PROBLEM_ID,
    REAL,
    TEXT,
    Column,
    Dataset,
    ExportSettings,
    Kind,
    Row,
    Tally,
    asked_of,
    row_id,
    template_of,
)
from treeward.export.label_spec import TIE
from treeward.export.labels import Nodes
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Grown, Item
from treeward.search.prompts import Template

Node = Mapping[str, Any]

MARGIN = 0.2
"""What a pair's values differ by at least, as in the macro `contrastive_pairs`."""

SIDES = ("chosen", "rejected")
_EVIDENCE = ("n_right", "n_rollouts", "value", "value_low", "value_high")
_NODE_COLUMNS = ("node_id", "parent_id", "path", "step_text", "token_ids", *_EVIDENCE)
_SAYS = {
    "n_right": (COUNT, "Right rollouts that count for the {side} step."),
    "n_rollouts": (COUNT, "Right and wrong ones together."),
    "value": (REAL, "The value after the {side} step; exactly 0 or 1 where it ends a solution."),
    "value_low": (REAL, "Lower end of its 90 % interval."),
    "value_high": (REAL, "Upper end of it."),
}


def _columns(template: Template) -> tuple[Column, ...]:
    """Returns the columns; what the policy reads is chats where its template makes them."""
    kind = MESSAGES if template.chat else TEXT
    end = " Its last turn, where there are shared steps, goes on." if template.chat else ""
    return (
        ID,
        PROBLEM_ID,
        Column("tree_id", TEXT, "The tree in the run."),
        Column("prompt", kind, f"What the policy reads, then the steps that both share.{end}"),
        Column("chosen", kind, "The step that is worth more, as sampled."),
        Column("rejected", kind, "The step that is worth less, as sampled."),
        Column("margin", REAL, "chosen_value - rejected_value."),
        Column("separated", FLAG, "Whether the 90 % intervals of the values are apart."),
        Column("messages", MESSAGES, "The problem as a chat, without steps."),
        Column("shared_steps", TEXT, "The steps that both share, as sampled; empty at the root."),
        *(
            Column(f"{side}_{name}", kind, says.format(side=side))
            for side in SIDES
            for name, (kind, says) in _SAYS.items()
        ),
        Column("parent_id", COUNT, "The node that both start from."),
        Column("chosen_id", COUNT, "The node of the chosen step."),
        Column("rejected_id", COUNT, "The node of the rejected step."),
    )


def preference(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: for each node the best child against the worst."""
    template = template_of(run, settings)
    least = MARGIN if settings.margin is None else settings.margin

    def rows(item: Item) -> Iterator[Row]:
        if item.tree is None:
            tally.left_out["problems without a finished tree"] += 1
            return
        by_id = {node["node_id"]: node for node in item.tree.nodes}
        for best, worst in _extremes(item.tree, tally):
            margin = best["value"] - worst["value"]
            if margin < least - TIE:
                tally.left_out["pairs whose values are closer than the margin"] += 1
                continue
            tally.kept["pairs"] += 1
            shared = [by_id[node] for node in best["path"][1:-1]]
            yield _row(item, item.tree, template, shared, best, worst)

    return Dataset(
        columns=_columns(template),
        node_columns=_NODE_COLUMNS,
        rows=rows,
        says=(
            "A row is a node of a tree whose best step is worth more than its worst by at least "
            f"{least}: the chance that the policy finishes right after each, estimated "
            "from strict evidence. Ties go to the node that was made first.",
            "`prompt` and a step put together are what the policy reads and writes. Both sides are "
            "single steps: a trainer that puts an end token after them teaches to stop there, "
            "except where the step ends a solution.",
            "A best and a worst of several noisy estimates look further apart than they are; "
            "`separated` says where their intervals do not touch.",
        ),
    )


def _extremes(tree: Grown, tally: Tally) -> Iterator[tuple[Node, Node]]:
    """Yields the best and the worst step of every node that has two of known value."""
    below: dict[int, list[Node]] = {}
    for node in tree.nodes[1:]:
        below.setdefault(node["parent_id"], []).append(node)
    for parent in sorted(below):
        known = [node for node in below[parent] if node["value"] is not None]
        if len(below[parent]) < 2:
            tally.left_out["nodes with a single step"] += 1
        elif len(known) < 2:
            tally.left_out["nodes with fewer than two steps of known value"] += 1
        else:
            best = min(known, key=lambda node: (-node["value"], node["node_id"]))
            worst = min(known, key=lambda node: (node["value"], node["node_id"]))
            if worst is not best:
                yield best, worst
            else:
                tally.left_out["pairs whose values are closer than the margin"] += 1


def _row(
    item: Item, tree: Grown, template: Template, shared: Nodes, best: Node, worst: Node
) -> Row:
    text = "".join(step["step_text"] for step in shared)
    ids = [[step["token_ids"] for step in shared], best["token_ids"], worst["token_ids"]]
    row: dict[str, Any] = {
        "id": row_id(Kind.PREFERENCE, item.problem.id, *ids),
        "problem_id": item.problem.id,
        "tree_id": tree.row.tree_id,
        "margin": best["value"] - worst["value"],
        "separated": best["value_low"] > worst["value_high"],
        "messages": asked_of(item, template),
        "shared_steps": text,
        "parent_id": best["parent_id"],
        "chosen_id": best["node_id"],
        "rejected_id": worst["node_id"],
    }
    for side, node in zip(SIDES, (best, worst), strict=True):
        row |= {f"{side}_{name}": node[name] for name in _EVIDENCE}
        row[side] = _said(node["step_text"]) if template.chat else node["step_text"]
    if template.chat:
        row["prompt"] = [*row["messages"], *(_said(text) if text else ())]
    else:
        row["prompt"] = template.plain_text(item.problem) + text
    return row


def _said(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]

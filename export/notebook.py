"""A tree as a little static HTML, for notebooks: no script, no style sheet, all text escaped."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from treeward.export.console import clean
from treeward.export.viewer import most_sampled

MOST_NODES = 200
_OPEN_DEPTH = 2
_LONGEST = 300
_COLORS = {"right": "#13796b", "wrong": "#b4432d", "unknown": "#80650f"}


def tree_html(tree_id: str, nodes: Sequence[Mapping[str, Any]]) -> str:
    """Returns a tree as nested lists that open and close.

    Args:
        tree_id: Names the tree in the heading.
        nodes: All of its nodes, in pre-order; the `MOST_NODES` that most samples reached are shown.
    """
    shown = most_sampled(nodes, MOST_NODES)
    head = f"tree {tree_id}: {len(nodes):,} nodes"
    if len(shown) < len(nodes):
        head += f", {len(shown):,} of them shown"
    parts = [f'<div style="font-variant-numeric:tabular-nums"><b>{escape(clean(head))}</b>']
    ends: list[int] = []
    for place, node in enumerate(shown):
        while ends and node["pre"] > ends[-1]:
            parts.append("</details>")
            ends.pop()
        if place + 1 < len(shown) and shown[place + 1]["pre"] <= node["post_end"]:
            opened = " open" if node["depth"] < _OPEN_DEPTH else ""
            parts.append(f'<details style="margin-left:1.2em"{opened}><summary>{_line(node)}')
            parts.append("</summary>")
            ends.append(node["post_end"])
        else:
            parts.append(f'<div style="margin-left:2.2em">{_line(node)}</div>')
    return "".join([*parts, "</details>" * len(ends), "</div>"])


def _line(node: Mapping[str, Any]) -> str:
    text = clean(node["step_text"].strip()) if node["parent_id"] is not None else "problem"
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "\u2026"
    facts = ""
    if node["verdict"] is not None:
        color = _COLORS[node["verdict"]]
        facts = f'<b style="color:{color}">{escape(clean(node["verdict"]))}</b>'
    elif node["n_rollouts"]:
        facts = (
            f'<span style="opacity:.7">{node["n_right"]}/{node["n_rollouts"]} right, '
            f"{node['value']:.2f} [{node['value_low']:.2f}, {node['value_high']:.2f}]</span>"
        )
    return f"<bdi>{escape(text)}</bdi> {facts}"

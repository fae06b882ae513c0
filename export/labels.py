"""Label rules: what the evidence in a tree says about each of its steps.

A rule is named and versioned: what it says never changes without a new version.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from treeward.search.errors import BadInput
from treeward.search.specs import nearest
from treeward.search.verdicts import Verdict


class Label(StrEnum):
    """What a rule says of a node; None where it is undecided."""

    RIGHT = "right"
    """The prefix up to here is right."""
    WRONG = "wrong"
    """This step, or one before it, is wrong."""


Nodes = Sequence[Mapping[str, Any]]
"""One tree's rows of the view `nodes`, in pre-order."""

Labels = list[Label | None]
"""One for each node; the root, which is no step, is right or undecided."""

READS = ("node_id", "parent_id", "pre", "post_end", "n_right", "n_rollouts", "verdict")
"""The columns that rules read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Holds a rule with its settings."""

    name: str
    """Stands for the rule, its version and its settings, such as `any_success@1(...)`."""

    says: str
    """The rule in a sentence or two."""

    label: Callable[[Nodes], Labels]


def load_rule(name: str, *, min_rollouts: int) -> LabelRule:
    """Returns a rule by its name.

    Args:
        name: `any_success`.
        min_rollouts: Rollouts without a success that make a prefix wrong; at least 1.

    Raises:
        BadInput: There is no such rule, or a setting breaks its own.
    """
    if min_rollouts < 1:
        raise BadInput(f"min_rollouts must be at least 1, got {min_rollouts!r}")
    if name != "any_success":
        raise BadInput(f"rule: no label rule {name!r}; {nearest(name, ['any_success'])}")
    return LabelRule(
        name=f"any_success@1(min_rollouts={min_rollouts})",
        says="A step is right if its prefix has a success: a right rollout that counts for it or "
        "for a step below it, or a right solution that ends at it or below it. The first step "
        f"without one is wrong if at least {min_rollouts} rollouts count for it or a wrong "
        "solution ends at it. Otherwise it is undecided, and so is all below it.",
        label=lambda nodes: any_success(nodes, min_rollouts=min_rollouts),
    )


def any_success(nodes: Nodes, *, min_rollouts: int) -> Labels:
    """Labels the nodes of one tree; along a path right steps come first.

    Below the first step without a success all have that step's label.
    """
    parents = parent_rows(nodes)
    success = [node["n_right"] > 0 or node["verdict"] == Verdict.RIGHT for node in nodes]
    # Pre-order: the nodes at and below one are the rows from its own to its post_end.
    before = np.concatenate([[0], np.cumsum(success)])
    labels: Labels = []
    for row, node in enumerate(nodes):
        if before[node["post_end"] + 1] > before[row]:
            labels.append(Label.RIGHT)
        elif row == 0:
            labels.append(None)
        elif parents[row] == 0 or labels[parents[row]] is Label.RIGHT:
            failed = node["n_rollouts"] >= min_rollouts or node["verdict"] == Verdict.WRONG
            labels.append(Label.WRONG if failed else None)
        else:
            labels.append(labels[parents[row]])
    return labels


def kept_rows(nodes: Nodes, labels: Labels) -> list[bool]:
    """Returns which steps a dataset keeps: the right ones and the first wrong one of each path."""
    kept = [False] * len(nodes)
    for row, parent in enumerate(parent_rows(nodes)):
        follows = parent == 0 or (parent > 0 and labels[parent] is Label.RIGHT)
        kept[row] = follows and labels[row] is not None
    return kept


def parent_rows(nodes: Nodes) -> list[int]:
    """Returns the row of each node's parent; -1 for the root, which is row 0."""
    assert all(node["pre"] == row for row, node in enumerate(nodes)), "not in pre-order"
    row_of = {node["node_id"]: row for row, node in enumerate(nodes)}
    return [row_of.get(node["parent_id"], -1) for node in nodes]

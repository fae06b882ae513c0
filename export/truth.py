"""Compares labels with what a task knows of every step; no label is made from it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from treeward.export.labels import Label, LabelRule
from treeward.export.queries import reading
from treeward.export.run_folder import RunFolder

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of "this prefix is wrong"."""

    said_and_so: int
    """Labelled wrong, and wrong."""

    said: int
    """Labelled wrong."""

    so: int
    """Wrong; those left undecided are among them."""

    @property
    def precision(self) -> float | None:
        """Returns the share of those labelled wrong that are; None without any."""
        return self.said_and_so / self.said if self.said else None

    @property
    def recall(self) -> float | None:
        """Returns the share of the wrong that are labelled so; None without any."""
        return self.said_and_so / self.so if self.so else None


def read_trees(run: RunFolder) -> list[list[Node]]:
    """Returns the nodes of every tree, each in pre-order.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    with reading(run) as connection:
        table = connection.sql("SELECT * FROM nodes ORDER BY tree_id, pre").to_arrow_table()
    trees: dict[str, list[Node]] = {}
    for node in table.to_pylist():
        trees.setdefault(node["tree_id"], []).append(node)
    return list(trees.values())


def is_wrong(node: Node) -> bool:
    """Returns whether the task says that a prefix is wrong."""
    return node["oracle_prefix_correct"] is False


def compare(trees: Iterable[Sequence[Node]], rule: LabelRule, *, inner: bool = False) -> Confusion:
    """Counts how the labels of all steps agree with the task.

    Args:
        trees: From a task that judges steps.
        rule: How steps are labelled.
        inner: Leaves out steps that end a solution, whose verdicts need no rollouts.
    """
    pairs = list(_pairs(trees, rule, inner))
    return Confusion(
        said_and_so=sum(said and so for said, so in pairs),
        said=sum(said for said, _ in pairs),
        so=sum(so for _, so in pairs),
    )


def _pairs(
    trees: Iterable[Sequence[Node]], rule: LabelRule, inner: bool
) -> Iterator[tuple[bool, bool]]:
    for nodes in trees:
        for node, label in zip(nodes, rule.label(nodes), strict=True):
            is_step = node["parent_id"] is not None
            if is_step and not (inner and node["is_terminal"]):
                yield label is Label.WRONG, is_wrong(node)

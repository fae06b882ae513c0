"""Label rules: what the evidence in a tree says about each of its steps.

A rule is named and versioned: what it says never changes without a new version.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from treeward.search.errors import BadInput
from treeward.search.first_error import Beliefs, Reals, grid, learn_prior, prior
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

READS = (
    *("node_id", "parent_id", "pre", "post_end", "n_right", "n_rollouts", "verdict"),
    *("n_right_last", "n_wrong_first"),
)
"""The columns that rules read."""

MIN_ROLLOUTS = 8
CONFIDENCE = 0.6
RULES = ("any_success", "posterior")


class Judged(NamedTuple):
    """Holds what a rule says of one tree."""

    labels: Labels

    chances: list[float] | None
    """The probability that each prefix is right; None where the rule has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Holds a rule with its settings."""

    name: str
    """Stands for the rule, its version and its settings, such as `any_success@1(...)`."""

    says: str
    """The rule in a sentence or two."""

    judge: Callable[[Nodes], Judged]

    def label(self, nodes: Nodes) -> Labels:
        """Returns the labels alone."""
        return self.judge(nodes).labels


def load_rule(
    name: str,
    *,
    min_rollouts: int = MIN_ROLLOUTS,
    confidence: float = CONFIDENCE,
    trees: Iterable[Nodes] = (),
) -> LabelRule:
    """Returns a rule by its name.

    Args:
        name: One of `RULES`.
        min_rollouts: Rollouts without a success that make a prefix wrong (any_success); at least 1.
        confidence: Probability from which a prefix is called right or wrong (posterior); above 1/2.
        trees: The run's, which `posterior` learns its prior from; read once.

    Raises:
        BadInput: There is no such rule, or a setting breaks its own.
    """
    if min_rollouts < 1:
        raise BadInput(f"min_rollouts must be at least 1, got {min_rollouts!r}")
    if not 0.5 < confidence < 1:
        raise BadInput(f"confidence must be in (0.5, 1), got {confidence!r}")
    if name not in RULES:
        raise BadInput(f"rule: no label rule {name!r}; {nearest(name, RULES)}")
    if name == "posterior" and min_rollouts != MIN_ROLLOUTS:
        raise BadInput(f"min_rollouts={min_rollouts} is for any_success; leave it out")
    if name != "posterior" and confidence != CONFIDENCE:
        raise BadInput(f"confidence={confidence} is for posterior; leave it out")
    if name == "posterior":
        return _posterior_rule(confidence, trees)
    return LabelRule(
        name=f"any_success@1(min_rollouts={min_rollouts})",
        says="A step is right if its prefix has a success: a right rollout that counts for it or "
        "for a step below it, or a right solution that ends at it or below it. The first step "
        f"without one is wrong if at least {min_rollouts} rollouts count for it or a wrong "
        "solution ends at it. Otherwise it is undecided, and so is all below it.",
        judge=lambda nodes: Judged(any_success(nodes, min_rollouts=min_rollouts), None),
    )


def _posterior_rule(confidence: float, trees: Iterable[Nodes]) -> LabelRule:
    """Returns the rule `posterior` with a prior learned from the run."""
    evidence = [beliefs_of(nodes, prior()).evidence() for nodes in trees]
    prior_G = learn_prior(np.array(evidence)) if evidence else prior()
    leak = float(np.exp(prior_G) @ grid().leak_G)

    def judge(nodes: Nodes) -> Judged:
        chances = beliefs_of(nodes, prior_G).right_chances()
        return Judged(by_chance(nodes, chances, confidence), chances)

    return LabelRule(
        name=f"posterior@1(confidence={confidence})",
        says="A step is right or wrong where its prefix is so with a probability of at least "
        f"{confidence}, given all rollouts and ends of the tree (search/first_error.py); otherwise "
        "it is undecided, and so is all below it. One success is not enough where the policy comes "
        f"right again by luck: in this run a wrong prefix ends right about {leak:.1%} of the time, "
        f"as learned from {len(evidence)} trees without any reference to the truth.",
        judge=judge,
    )


def beliefs_of(nodes: Nodes, prior_G: Reals) -> Beliefs:
    """Returns what a tree's rows say of where its paths go wrong; numbered as the rows."""
    right = [node["n_right_last"] for node in nodes]
    known = [k + node["n_wrong_first"] for k, node in zip(right, nodes, strict=True)]
    ends = {Verdict.RIGHT: True, Verdict.WRONG: False}
    end = [ends.get(node["verdict"]) for node in nodes]
    return Beliefs.of(parent_rows(nodes), right, known, end, prior_G)


def by_chance(nodes: Nodes, chances: Sequence[float], confidence: float) -> Labels:
    """Labels the nodes of one tree by the probability that each is right.

    Along a path right steps come first, then perhaps undecided ones, and then wrong ones; what
    follows an undecided step is undecided.
    """
    labels: Labels = []
    for row, (parent, chance) in enumerate(zip(parent_rows(nodes), chances, strict=True)):
        if row and labels[parent] is None:
            labels.append(None)
        elif chance >= confidence:
            labels.append(Label.RIGHT)
        else:
            labels.append(Label.WRONG if chance <= 1 - confidence else None)
    return labels


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

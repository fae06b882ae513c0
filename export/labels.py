"""Label rules: what the evidence in a tree says about each of its steps.

A rule is named and versioned: what it says never changes without a new version. Its text is that of
`label_spec`; what its parts say is in `label_rules`, and what rows keep in `label_cut`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from treeward.export.label_beliefs import READS as BELIEF_READS
from treeward.export.label_rules import RIGHT, UNDECIDED, WRONG, Part, Said, Signs, make_part
from treeward.export.label_spec import (
    RuleSpec,
    parse_rule,
    with_setting,
)
from treeward.export.tree_batch import PLACES, Flags, Reals, TreeBatch
from treeward.search.errors import BadInput


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

DEFAULT_RULE = "any_success"
"""The rule where none is named."""

LEARNING_READS = (*PLACES, *BELIEF_READS)
"""The columns from which a rule learns that reads all trees of a run first."""

READS = (*LEARNING_READS, "n_right", "n_rollouts")
"""The columns that rules read which know of counts alone; `LabelRule.reads` are those of one."""

_LABELS = {RIGHT: Label.RIGHT, WRONG: Label.WRONG, UNDECIDED: None}


class Judged(NamedTuple):
    """Holds what a rule says of one tree."""

    labels: Labels

    chances: list[float] | None
    """The probability that each prefix is right; None where the rule has none."""


class JudgedTrees(NamedTuple):
    """Holds what a rule says of many trees."""

    sign_N: Signs
    chance_N: Reals | None
    soft_N: Reals | None
    """What is to be learned of each prefix where a part says so, NaN where it is unknown."""
    causes: Mapping[str, Flags]
    """Why steps are undecided, with the nodes that each is the reason for; none where the rule has
    but one part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Holds a rule with its settings."""

    spec: RuleSpec
    parts: Sequence[Part]

    @property
    def name(self) -> str:
        """Returns what stands for the rule, its versions and settings: `any_success@1(...)`."""
        return str(self.spec)

    @property
    def says(self) -> str:
        """Returns the rule in a few sentences."""
        if len(self.parts) == 1:
            return self.parts[0].says
        said = " ".join(f"({place}) {part.says}" for place, part in enumerate(self.parts, start=1))
        return f"A step is right, or wrong, where all of these say so; else undecided. {said}"

    @property
    def reads(self) -> tuple[str, ...]:
        """Returns the columns of nodes that are looked at."""
        read = (column for part in self.parts for column in part.reads)
        return tuple(dict.fromkeys((*PLACES, *read)))

    def judge_all(self, batch: TreeBatch) -> JudgedTrees:
        """Returns what the rule says of every node of many trees."""
        said = [part.judge(batch) for part in self.parts]
        chances = [each.chance_N for each in said if each.chance_N is not None]
        softs = [each.soft_N for each in said if each.soft_N is not None]
        return JudgedTrees(
            sign_N=_agreed(said),
            chance_N=chances[0] if chances else None,
            soft_N=softs[0] if softs else None,
            causes=self._causes(said) if len(said) > 1 else {},
        )

    def judge(self, nodes: Nodes) -> Judged:
        """Returns what the rule says of every node of one tree."""
        said = self.judge_all(TreeBatch.of_rows(nodes, self.reads))
        chances = None if said.chance_N is None else said.chance_N.tolist()
        return Judged([_LABELS[int(sign)] for sign in said.sign_N], chances)

    def label(self, nodes: Nodes) -> Labels:
        """Returns the labels alone."""
        return self.judge(nodes).labels

    def _causes(self, said: Sequence[Said]) -> Mapping[str, Flags]:
        """Returns why steps are undecided: the first part that says nothing, or a contradiction."""
        causes: dict[str, Flags] = {}
        open_N = _agreed(said) == UNDECIDED
        for spec, each in zip(self.spec.parts, said, strict=True):
            causes[f"undecided by {spec}"] = open_N & (each.sign_N == UNDECIDED)
            open_N = open_N & (each.sign_N != UNDECIDED)
        return causes | {"labelled differently by the parts of the rule": open_N}


def load_rule(
    name: str | None = None,
    *,
    min_rollouts: int | None = None,
    confidence: float | None = None,
    trees: Iterable[TreeBatch | Nodes] = (),
) -> LabelRule:
    """Returns a rule by its name, or by the text of several parts.

    Args:
        name: As `label_spec` describes it, such as `any_success`, which None takes.
        min_rollouts: Rollouts without a success that make a prefix wrong (any_success), where the
            text does not say it; at least 1. None leaves it to the text.
        confidence: Probability from which a prefix is called right or wrong (posterior), where the
            text does not say it; above 1/2. None leaves it to the text.
        trees: The run's, many at once or one by one, with the columns `LEARNING_READS`, which
            `posterior` learns its prior from; read once, and only by a rule that learns.

    Raises:
        BadInput: There is no such rule, or a setting breaks its own.
    """
    if min_rollouts is not None and min_rollouts < 1:
        raise BadInput(f"min_rollouts must be at least 1, got {min_rollouts!r}")
    if confidence is not None and not 0.5 < confidence < 1:
        raise BadInput(f"confidence must be in (0.5, 1), got {confidence!r}")
    spec = parse_rule(DEFAULT_RULE if name is None else name)
    if min_rollouts is not None:
        spec = with_setting(spec, "any_success", "min_rollouts", min_rollouts)
    if confidence is not None:
        spec = with_setting(spec, "posterior", "confidence", confidence)
    batches = (
        each if isinstance(each, TreeBatch) else TreeBatch.of_rows(each, LEARNING_READS)
        for each in trees
    )
    return LabelRule(spec=spec, parts=[make_part(part, batches) for part in spec.parts])


def _agreed(said: Sequence[Said]) -> Signs:
    """Returns what all say, and nothing where they differ."""
    first_N = said[0].sign_N
    same_N = np.logical_and.reduce([each.sign_N == first_N for each in said])
    return np.where(same_N, first_N, UNDECIDED).astype(np.int8)

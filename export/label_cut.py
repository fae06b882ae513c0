"""What rows keep of trees whose steps have labels, and the count of what they do not.

A row is a path from the question through steps that it keeps, as long as it can be.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from treeward.export.label_rules import UNDECIDED, WRONG, Signs
from treeward.export.label_spec import END, MASK, Value
from treeward.export.tree_batch import Flags, Ints, TreeBatch


class Kept(NamedTuple):
    """Says what rows keep of a batch."""

    end_R: Ints
    """The last node of each row."""

    step_N: Flags
    """Which nodes are in a row."""

    learn_N: Flags
    """Which of them have a label to learn from; the others are masked."""


def cut(batch: TreeBatch, sign_N: Signs, values: Mapping[str, Value]) -> Kept:
    """Returns what rows keep.

    Args:
        batch: The trees.
        sign_N: What a rule says of their nodes.
        values: What becomes of steps below a wrong one (`wrong`), and of undecided ones and those
            below them (`undecided`).
    """
    wrong_N = batch.is_step & (sign_N == WRONG)
    undecided_N = batch.is_step & (sign_N == UNDECIDED)
    kept_N = batch.is_step
    if values["undecided"] == END:
        kept_N &= ~batch.some_above(undecided_N)
    if values["wrong"] == END:
        kept_N &= ~batch.some_above(wrong_N, strictly=True)
    learn_N = kept_N & (sign_N != UNDECIDED)
    if values["wrong"] == MASK:
        learn_N &= ~batch.some_above(wrong_N, strictly=True)
    goes_on = np.bincount(batch.parent_N[kept_N], minlength=batch.size) > 0
    end_R = np.flatnonzero(kept_N & ~goes_on & batch.some_above(learn_N))
    ends_N = np.zeros(batch.size, dtype=bool)
    ends_N[end_R] = True
    step_N = batch.is_step & batch.some_below(ends_N)
    return Kept(end_R, step_N, learn_N & step_N)


def count_steps(
    batch: TreeBatch,
    sign_N: Signs,
    kept: Kept,
    values: Mapping[str, Value],
    causes: Mapping[str, Flags],
) -> tuple[Counter[str], Counter[str]]:
    """Counts every step once: what rows keep, and what they do not.

    Args:
        batch: The trees.
        sign_N: What the rule says.
        kept: What rows keep.
        values: As in `cut`.
        causes: Why steps are undecided, in words, with the nodes that each is the reason for; none
            where the rule has but one part.
    """
    wrong_N, undecided_N = sign_N == WRONG, sign_N == UNDECIDED
    masked_N = kept.step_N & ~kept.learn_N
    inside = Counter(
        {
            "steps right": _count(kept.learn_N & ~wrong_N),
            "steps wrong": _count(kept.learn_N & wrong_N),
            "steps masked, below a wrong one": _count(masked_N & ~undecided_N),
        }
    )
    for cause, at_N in (causes or {"undecided": undecided_N}).items():
        inside[f"steps masked, {cause}"] = _count(masked_N & at_N)
    out_N = batch.is_step & ~kept.step_N
    below_N = np.zeros_like(out_N)
    if values["wrong"] == END:
        below_N = out_N & batch.some_above(wrong_N & kept.step_N, strictly=True)
    outside = Counter({"steps below a wrong one": _count(below_N)})
    out_N &= ~below_N
    if not causes:
        outside["steps undecided, or below an undecided one"] = _count(out_N)
        return +inside, +outside
    first_N = out_N & undecided_N
    if values["undecided"] == END:
        first_N &= ~batch.some_above(undecided_N & batch.is_step, strictly=True)
    for cause, at_N in causes.items():
        outside[f"steps {cause}"] = _count(first_N & at_N)
    outside["steps below an undecided one"] = _count(out_N & ~first_N)
    return +inside, +outside


def _count(flag_N: Flags) -> int:
    return int(np.count_nonzero(flag_N))

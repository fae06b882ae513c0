"""What the parts of a label rule say of the steps of many trees at once.

Each part looks at the evidence in a tree and calls every node right, wrong or undecided. Where it
comes from:

    any_success   "hard" labels: some rollout ends right (Math-Shepherd, arXiv 2312.08935, sec. 3.2)
    posterior     where a path first goes wrong, by the model of search/first_error.py
    threshold     a value, or a bound of its interval, against a number (sweep in arXiv 2501.07301)
    ratio         a value relative to that before the step (GenPRM, arXiv 2504.00891: at least .8)
    soft          the value itself is the target; right stands for at least .5
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from treeward.export.label_beliefs import READS as BELIEF_READS
from treeward.export.label_beliefs import learned_prior, right_chances, seen
from treeward.export.label_spec import BY_CRITIC, COUNTED, TIE, PartSpec, Value, critic_of
from treeward.export.tree_batch import Flags, Reals, TreeBatch
from treeward.search.error_grid import grid, step_logs
from treeward.search.verdicts import Verdict

Signs = NDArray[np.int8]

RIGHT, WRONG, UNDECIDED = 1, -1, 0
"""What a part says of a node."""

COUNTS = ("n_right", "n_rollouts", "verdict")
"""The columns of nodes in which successes and failures are."""

SOFT = 0.5


class Said(NamedTuple):
    """Holds what a part says of a batch."""

    sign_N: Signs
    chance_N: Reals | None = None
    """The probability that each prefix is right; None where the part has none."""
    soft_N: Reals | None = None
    """What is to be learned of each prefix, NaN where it is unknown; None where signs are."""


class Part(NamedTuple):
    """Holds a part of a rule, ready to judge."""

    says: str
    """The part in a sentence or two."""
    reads: Sequence[str]
    """The columns of nodes that it looks at."""
    judge: Callable[[TreeBatch], Said]


def make_part(spec: PartSpec, trees: Iterable[TreeBatch]) -> Part:
    """Returns a part that can judge.

    Args:
        spec: Which, with which settings.
        trees: The run's, which `posterior` learns its prior from; read once.
    """
    if spec.name == "posterior":
        return _posterior(spec.values, trees)
    return _MAKERS[spec.name](spec.values)


def successes(batch: TreeBatch) -> Flags:
    """Returns which nodes have a success at or below them."""
    own_N = (batch.counts("n_right") > 0) | batch.equals("verdict", Verdict.RIGHT)
    return batch.some_below(own_N)


def measure(batch: TreeBatch, name: str, min_rollouts: int = 1) -> Reals:
    """Returns how good each prefix is by some measure; NaN where that is not known.

    Args:
        batch: The trees.
        name: A column of nodes, or `share`: right rollouts of right and wrong ones, and exactly 0
            or 1 where a solution ends.
        min_rollouts: Rollouts with which a counted measure is known inside the tree.
    """
    ends = {
        1.0: batch.equals("verdict", Verdict.RIGHT),
        0.0: batch.equals("verdict", Verdict.WRONG),
    }
    if name == "share":
        n_N = batch.counts("n_rollouts")
        found = np.where(n_N > 0, batch.counts("n_right") / np.maximum(n_N, 1), np.nan)
        for value, there in ends.items():
            found[there] = value
    else:
        found = batch.numbers(name).copy()
    if name in COUNTED:
        few = batch.counts("n_rollouts") < min_rollouts
        found[few & ~ends[1.0] & ~ends[0.0]] = np.nan
    return found


def signs(right_N: Flags, wrong_N: Flags) -> Signs:
    """Returns the signs of nodes that are right, wrong or neither."""
    return right_N.astype(np.int8) - wrong_N.astype(np.int8)


def _any_success(values: Mapping[str, Value]) -> Part:
    min_rollouts = int(values["min_rollouts"])

    def judge(batch: TreeBatch) -> Said:
        lives_N = successes(batch)
        first_N = ~lives_N & batch.is_step
        first_N &= lives_N[batch.parent_N] | (batch.depth_N == 1)
        failed_N = batch.equals("verdict", Verdict.WRONG)
        failed_N |= batch.counts("n_rollouts") >= min_rollouts
        return Said(signs(lives_N, batch.some_above(first_N & failed_N)))

    return Part(
        says="A step is right if its prefix has a success: a right rollout that counts for it or "
        "for a step below it, or a right solution that ends at it or below it. The first step "
        f"without one is wrong if at least {min_rollouts} rollouts count for it or a wrong "
        "solution ends at it. Otherwise it is undecided, and so is all below it.",
        reads=COUNTS,
        judge=judge,
    )


def _posterior(values: Mapping[str, Value], trees: Iterable[TreeBatch]) -> Part:
    confidence = float(values["confidence"])
    prior_G, n_trees = learned_prior(trees)
    likely, unlikely = (
        float(np.exp(prior_G) @ np.exp(step_logs(np.log(p)).right_G)) for p in (0.95, 0.05)
    )
    points = grid()
    harmless, mending, sole = (
        float(np.exp(prior_G) @ of) for of in (points.harmless_G, points.mending_G, points.sole_G)
    )

    def judge(batch: TreeBatch) -> Said:
        chance_N = right_chances(batch, prior_G, n_trees)
        right_N = chance_N >= confidence
        wrong_N = ~right_N & (chance_N <= 1 - confidence)
        # Below a wrong step all is wrong; any other needs an outcome of its own or below it.
        unseen_N = ~seen(batch) & ~batch.some_above(wrong_N, strictly=True)
        unclear_N = batch.some_above(unseen_N | ~(right_N | wrong_N))
        return Said(signs(right_N & ~unclear_N, wrong_N & ~unclear_N), chance_N)

    return Part(
        says="A step is right or wrong where its prefix is so with a probability of at least "
        f"{confidence}, given all rollouts and ends of the tree and how sure the policy was of "
        "each step (search/first_error.py); an outcome is at or below it or a wrong step is before "
        "it; otherwise it is undecided, and so is all below it. One success is not enough where "
        f"errors make no difference, here {harmless:.1%} of them, or make up for others, here "
        f"{mending:.1%}. A step that the policy takes with a probability of .95 is right about "
        f"{likely:.1%} of the time, one of .05 about {unlikely:.1%}; that no more than one of the "
        f"steps that can follow another is right has a probability of {sole:.1%}. All this is "
        f"learned from how samples end in {n_trees} trees, without any reference to the truth.",
        reads=BELIEF_READS,
        judge=judge,
    )


def _threshold(values: Mapping[str, Value]) -> Part:
    of, by, at = str(values["of"]), str(values["by"]), float(values["at"])
    min_rollouts = int(values["min_rollouts"])

    def judge(batch: TreeBatch) -> Said:
        known_N = ~np.isnan(measure(batch, of, min_rollouts))
        means = (
            ("mean", "mean") if by == "mean" else ("low", "high") if by == "interval" else (by, by)
        )
        for_right_N, for_wrong_N = (
            measure(batch, of if bound == "mean" else f"{of}_{bound}", min_rollouts)
            for bound in means
        )
        with np.errstate(invalid="ignore"):
            return Said(signs(known_N & (for_right_N >= at), known_N & (for_wrong_N < at)))

    what = {
        "mean": f"`{of}` is at least {at}, and wrong where it is less",
        "low": f"the lower end of the interval of `{of}` is at least {at}, and wrong where it is "
        "less",
        "high": f"the upper end of the interval of `{of}` is at least {at}, and wrong where it is "
        "less",
        "interval": f"the whole interval of `{of}` is at least {at}, and wrong where all of it is "
        "less",
    }
    return Part(
        says=f"A step is right where {what[by]}; otherwise it is undecided."
        + _few(of, min_rollouts),
        reads=(*_columns(of), *(f"{of}_{end}" for end in ("low", "high") if by != "mean")),
        judge=judge,
    )


def _ratio(values: Mapping[str, Value]) -> Part:
    of, to, at = str(values["of"]), str(values["to"]), float(values["at"])
    min_rollouts = int(values["min_rollouts"])

    def judge(batch: TreeBatch) -> Said:
        own_N = measure(batch, of, min_rollouts)
        base_N = own_N[batch.parent_N if to == "parent" else batch.start_T[batch.tree_N]]
        known_N = batch.is_step & ~np.isnan(own_N) & (base_N > 0)
        ratio_N = own_N / np.where(known_N, base_N, 1.0)
        with np.errstate(invalid="ignore"):
            right_N = ratio_N >= at - TIE
        return Said(signs(known_N & right_N, known_N & ~right_N))

    before = "of its parent, the prefix before it" if to == "parent" else "of the bare question"
    return Part(
        says=f"A step is right where its `{of}` is at least {at} times that {before}, and wrong "
        "where it is less; undecided where either is unknown or that one is 0."
        + _few(of, min_rollouts),
        reads=_columns(of),
        judge=judge,
    )


def _soft(values: Mapping[str, Value]) -> Part:
    of = str(values["of"])

    def judge(batch: TreeBatch) -> Said:
        found_N = measure(batch, of)
        with np.errstate(invalid="ignore"):
            return Said(signs(found_N >= SOFT, found_N < SOFT), soft_N=found_N)

    return Part(
        says=f"`{of}` itself is what to learn; for those who need right or wrong, right stands for "
        f"at least {SOFT}. Where it is unknown, the step is undecided.",
        reads=_columns(of),
        judge=judge,
    )


def _columns(of: str) -> Sequence[str]:
    """Returns the columns that a measure reads."""
    return COUNTS if of == "share" else (*COUNTS, of)


def _few(of: str, min_rollouts: int) -> str:
    if critic_of(of)[0] in BY_CRITIC or min_rollouts == 1:
        return ""
    return f" Less than {min_rollouts} rollouts say nothing, except where a solution ends."


_MAKERS: Mapping[str, Callable[[Mapping[str, Value]], Part]] = {
    "any_success": _any_success,
    "threshold": _threshold,
    "ratio": _ratio,
    "soft": _soft,
}

"""Strict evidence: which rollouts may count for which node.

A rollout is strict evidence for a node if it was drawn by the run's own policy, starts at the node
or starts above and passes through it, and neither the node's making nor the decision to ask for
the rollout depended on how it ended. So it counts for

- the node where it started;
- every node on its path that existed when it was asked for;
- every later node on its path that was cut from a rollout without regard to any outcome.

It does not count for a node made because of outcomes seen so far, its own among them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from treeward.search.passing import Passage, passage
from treeward.search.steps import Cut
from treeward.search.tree import POLICY_SAMPLER, Tree
from treeward.search.verdicts import Judgement, Reason, Verdict


class Strayed(NamedTuple):
    """A right or wrong rollout that leaves its tree."""

    node: int
    """The last for which it counts."""
    step_ids: tuple[int, ...]
    """The step that it takes there, which is no node; empty where it has none left."""
    logprob: float | None
    """Of that step; None where it is not known."""
    is_right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Holds what counts for each node of a tree; every array has one entry a node."""

    n_right: NDArray[np.int64]
    n_wrong: NDArray[np.int64]
    n_unknown: NDArray[np.int64]
    """Rollouts that ended nobody knows how; in no other column."""
    n_no_answer: NDArray[np.int64]
    """Among the wrong."""
    n_length: NDArray[np.int64]
    """Among the wrong."""
    started_right: NDArray[np.int64]
    """Among the right, those that started at the node itself."""
    started_wrong: NDArray[np.int64]
    """Among the wrong, those that started at the node itself."""
    drawn: NDArray[np.int64]
    """Right and wrong ones of its parent that go into it."""
    drawn_right: NDArray[np.int64]
    """Among these, the right ones."""
    entered: NDArray[np.int64]
    """Among these, those that do not count for it, as none does where a solution ends."""
    entered_right: NDArray[np.int64]
    """Among these, the right ones."""
    entered_before: NDArray[np.int64]
    """Among those that do not count for it, the ones that were asked for before it was made."""
    strayed: Callable[[], Iterator[Strayed]]
    """Yields those that go on into no child of the last node for which they count; reads the tree,
    and cuts their steps, when it is called."""

    @property
    def n_rollouts(self) -> NDArray[np.int64]:
        """Returns right and wrong ones together."""
        return self.n_right + self.n_wrong


def strict_evidence(tree: Tree, cut: Cut) -> Evidence:
    """Counts the strict evidence of every node.

    Args:
        tree: A grown tree; not modified.
        cut: Splits the ids of a rollout into steps, as the search did.
    """
    places: dict[str, list[int]] = {name: [] for name in _COUNTS}
    strayed: list[tuple[int, Passage]] = []
    for index, sampler in enumerate(tree.rollouts.sampler_id):
        if sampler != POLICY_SAMPLER:
            continue
        start, judgement = tree.rollouts.node[index], outcome(tree, index)
        way = passage(tree, index, cut)
        nodes = [start, *way.nodes]
        if judgement.verdict is Verdict.UNKNOWN:
            places["n_unknown"] += nodes
            continue
        is_right = judgement.verdict is Verdict.RIGHT
        if is_right:
            places["n_right"] += nodes
            places["started_right"].append(start)
        else:
            places["n_wrong"] += nodes
            places["started_wrong"].append(start)
            if judgement.reason in _WRONG_BY:
                places[_WRONG_BY[judgement.reason]] += nodes
        into = way.into if way.end is None else way.end
        passed = way.nodes if into is None else [*way.nodes, into]
        places["drawn"] += passed
        places["drawn_right"] += passed * is_right
        if into is None:
            strayed.append((index, way))
        else:
            places["entered"].append(into)
            places["entered_right"] += [into] * is_right
            places["entered_before"] += [into] * (way.end is None)
    return Evidence(
        **{
            name: np.bincount(np.array(nodes, np.int64), minlength=len(tree))
            for name, nodes in places.items()
        },
        strayed=partial(_strayed, tree, strayed, cut),
    )


_COUNTS = [field.name for field in fields(Evidence) if field.name != "strayed"]
_WRONG_BY = {Reason.NO_ANSWER: "n_no_answer", Reason.LENGTH: "n_length"}


def _strayed(tree: Tree, ways: Sequence[tuple[int, Passage]], cut: Cut) -> Iterator[Strayed]:
    """Yields where rollouts leave their tree."""
    for index, way in ways:
        completion = tree.rollouts.completion[index]
        assert completion is not None, "its outcome is known"
        last, place = [tree.rollouts.node[index], *way.nodes][-1], len(way.nodes)
        steps = cut(completion.token_ids)
        is_right = outcome(tree, index).verdict is Verdict.RIGHT
        if place == len(steps):  # it ended just there, where the tree goes on
            yield Strayed(last, (), None, is_right)
        else:
            yield Strayed(last, steps[place], completion.logprobs_of(steps)[place], is_right)


def outcome(tree: Tree, index: int) -> Judgement:
    """Returns what is known about a rollout; a failed call is an unknown with its reason."""
    completion = tree.rollouts.completion[index]
    if completion is None:
        return Judgement(Reason.CALL_FAILED)
    assert completion.judgement is not None, "a rollout goes to the end of its solution"
    return completion.judgement

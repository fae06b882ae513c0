"""Strict evidence: which rollouts may count for which node.

A rollout is strict evidence for a node if it was drawn by the run's own policy, starts at the node
or starts above and passes through it, and neither the node's making nor the decision to ask for
the rollout depended on how it ended. So it counts for

- the node where it started;
- every node on its path that existed when it was asked for;
- every later node on its path that was cut from a rollout without regard to any outcome.

It does not count for a node made because of outcomes seen so far, its own among them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treeward.search.passing import passed_nodes
from treeward.search.steps import Cut
from treeward.search.tree import Creation, Tree
from treeward.search.verdicts import Judgement, Reason, Verdict

POLICY_SAMPLER = 0
"""The sampler whose value is measured; what others draw steers and is no evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Holds what counts for each node of a tree; every column has one entry a node."""

    n_right: NDArray[np.int64]
    n_wrong: NDArray[np.int64]
    n_unknown: NDArray[np.int64]
    """Rollouts that ended nobody knows how; in no other column."""
    n_no_answer: NDArray[np.int64]
    """Among the wrong."""
    n_length: NDArray[np.int64]
    """Among the wrong."""
    right_last: NDArray[np.int64]
    """Among the right, those that count for no node below; without the one from which a right end
    in the tree was cut, since that end speaks for it."""
    started_right: NDArray[np.int64]
    """Among the right, those that started at the node itself."""
    started_wrong: NDArray[np.int64]
    """Among the wrong, those that started at the node itself."""

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
    places: list[list[int]] = [[] for _ in range(8)]
    right, wrong, unknown, no_answer, length, right_last, started_right, started_wrong = places
    spoken: set[int] = set()
    for index, sampler in enumerate(tree.rollouts.sampler_id):
        if sampler != POLICY_SAMPLER:
            continue
        start = tree.rollouts.node[index]
        judgement = outcome(tree, index)
        passed, end = passed_nodes(tree, index, cut)
        nodes = [start, *passed]
        if judgement.verdict is Verdict.UNKNOWN:
            unknown += nodes
        elif judgement.verdict is Verdict.RIGHT:
            right += nodes
            if end is None or end in spoken or tree.nodes.creation[end] is not Creation.BLIND:
                right_last.append(nodes[-1])
            else:
                spoken.add(end)
            started_right.append(start)
        else:
            wrong += nodes
            started_wrong.append(start)
            if judgement.reason is Reason.NO_ANSWER:
                no_answer += nodes
            elif judgement.reason is Reason.LENGTH:
                length += nodes
    columns = [np.bincount(np.array(nodes, np.int64), minlength=len(tree)) for nodes in places]
    return Evidence(
        n_right=columns[0],
        n_wrong=columns[1],
        n_unknown=columns[2],
        n_no_answer=columns[3],
        n_length=columns[4],
        right_last=columns[5],
        started_right=columns[6],
        started_wrong=columns[7],
    )


def outcome(tree: Tree, index: int) -> Judgement:
    """Returns what is known about a rollout; a failed call is an unknown with its reason."""
    completion = tree.rollouts.completion[index]
    if completion is None:
        return Judgement(Reason.CALL_FAILED)
    assert completion.judgement is not None, "a rollout goes to the end of its solution"
    return completion.judgement

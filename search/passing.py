"""Which nodes a rollout passes, and for which of these it may count.

It may count for a node that existed when it was asked for, and for one that was cut from a rollout
without regard to any outcome.
"""

from typing import NamedTuple

from treeward.search.steps import Cut
from treeward.search.tree import Creation, Tree


class Passage(NamedTuple):
    """Where a rollout goes in its tree."""

    nodes: list[int]
    """Those inside the tree, below its start, for which it counts."""

    end: int | None = None
    """The end of a solution for which it counts; None where no solution ends as it does."""

    into: int | None = None
    """The node that it goes into behind the last of them, without counting for it; where there is
    none and no end, it leaves the tree there."""


def passage(tree: Tree, index: int, cut: Cut) -> Passage:
    """Returns where a rollout goes."""
    completion = tree.rollouts.completion[index]
    node = tree.rollouts.node[index]
    before = tree.rollouts.nodes_before[index]
    children = tree.nodes.children[node]
    if completion is None or not children:
        return Passage([])
    if not any(_counts(tree, child, before) for child in children):
        # A step ends with the first token that completes it, so this needs no cut.
        ids, steps = completion.token_ids, tree.nodes.step_ids
        entered = (child for child in children if ids[: len(steps[child])] == steps[child])
        return Passage([], into=next(entered, None))
    nodes: list[int] = []
    for step_ids in cut(completion.token_ids):
        child = tree.child_with(node, step_ids)
        if child is None or not _counts(tree, child, before):
            return Passage(nodes, into=child)
        if tree.is_terminal(child):
            return Passage(nodes, child)
        nodes.append(child)
        node = child
    return Passage(nodes)


def _counts(tree: Tree, node: int, nodes_before: int) -> bool:
    return node < nodes_before or tree.nodes.creation[node] is Creation.BLIND

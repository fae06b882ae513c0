"""Which nodes a rollout passes, and for which of these it may count.

It may count for a node that existed when it was asked for, and for one that was cut from a rollout
without regard to any outcome.
"""

from treeward.search.steps import Cut
from treeward.search.tree import Creation, Tree


def passed_nodes(tree: Tree, index: int, cut: Cut) -> tuple[list[int], int | None]:
    """Returns the nodes inside the tree, below its start, for which a rollout counts, and its end.

    The end is None where no solution in the tree ends as it does.
    """
    completion = tree.rollouts.completion[index]
    node = tree.rollouts.node[index]
    before = tree.rollouts.nodes_before[index]
    if completion is None or not any(
        _counts(tree, child, before) for child in tree.nodes.children[node]
    ):
        return [], None
    passed: list[int] = []
    for step_ids in cut(completion.token_ids):
        child = tree.child_with(node, step_ids)
        if child is None or not _counts(tree, child, before):
            break
        if tree.is_terminal(child):
            return passed, child
        passed.append(child)
        node = child
    return passed, None


def _counts(tree: Tree, node: int, nodes_before: int) -> bool:
    return node < nodes_before or tree.nodes.creation[node] is Creation.BLIND

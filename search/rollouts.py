"""Rollouts after every step of sampled solutions, as in Math-Shepherd (Wang et al. 2024, sec. 3.3).

Every solution is cut, whatever its outcome, so each is evidence for all prefixes it passes through;
Math-Shepherd throws that away. Solutions that share steps share nodes, and rollouts with them.

Every prefix gets as many rollouts, or as many as it takes (`stopping.py`): then prefixes are asked
about in turns, a batch each, and those that have enough are passed over. The bare problem is one of
them then, whose first rollouts are the solutions.
"""

from collections.abc import Generator, Sequence

from treeward.search.growing import absorb_rollouts, ask_rollouts, cut_rollout, in_parts, roll
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Kind, Request, ask
from treeward.search.settings import SearchSettings
from treeward.search.steps import Cut
from treeward.search.stopping import Counts, RolloutsSettings, StopRule, enough
from treeward.search.tree import ROOT, Creation, Tree

UNTIL_ASKED = StopRule.BUDGET
"""It stands where nobody looks again: then the tree was ended from outside."""


def rollouts(
    tree: Tree, settings: SearchSettings, cut: Cut, own: RolloutsSettings | None = None
) -> Growth:
    """Grows a tree from `settings.width` solutions, with rollouts from every prefix.

    Args:
        tree: Holds its root only; modified in place.
        settings: How many solutions, and how many rollouts a prefix gets, at most.
        cut: Splits solutions into steps.
        own: When a prefix has enough; None gives each as many.
    """
    solved = yield from solve(tree, settings.width, cut)
    inner = [
        node
        for node in range(ROOT + 1, len(tree))
        if not tree.is_terminal(node) and tree.nodes.depth[node] < settings.max_depth
    ]
    if own is not None and not own.fixed:
        yield from fund(tree, [ROOT, *inner] if solved else [], settings, cut, own)
        return
    for node in inner if settings.rollouts else ():
        tree.nodes.stop_rule[node] = UNTIL_ASKED
    for first in range(0, len(inner), settings.wave):
        wave = inner[first : first + settings.wave]
        yield from roll(tree, ask_rollouts(tree, wave, settings.rollouts))


def fund(
    tree: Tree, nodes: Sequence[int], settings: SearchSettings, cut: Cut, own: RolloutsSettings
) -> Growth:
    """Asks for rollouts in turns until every node has enough; `settings.rollouts` each at most.

    Args:
        tree: Modified in place; no node is added.
        nodes: Those to ask about, in order.
        settings: How many at most, and at how many nodes at once.
        cut: Splits rollouts into steps.
        own: When a node has enough.
    """
    counts, stop_rule = Counts(tree, cut), tree.nodes.stop_rule

    def open_among(some: Sequence[int]) -> list[int]:
        """Returns the nodes that have not enough, and notes why the others have."""
        for node in some:
            rule = enough(
                counts.right[node], counts.known[node], counts.asked[node], settings.rollouts, own
            )
            stop_rule[node] = rule or UNTIL_ASKED
        return [node for node in some if stop_rule[node] is UNTIL_ASKED]

    left = open_among(nodes)
    while left:
        for first in range(0, len(left), settings.wave):
            requests = [
                ask(
                    tree, node, Kind.ROLLOUT, min(own.batch, settings.rollouts - counts.asked[node])
                )
                for node in open_among(left[first : first + settings.wave])
            ]
            yield from roll(tree, requests)
            counts.take()
        # What came from above may have made an interval wider again.
        left = open_among(nodes)


def solve(tree: Tree, n: int, cut: Cut) -> Generator[list[Request], list[Reply], dict[int, int]]:
    """Asks for whole solutions and makes nodes of all their steps.

    Returns:
        The node where each rollout that is a solution ends.
    """
    ends: dict[int, int] = {}

    def absorb(requests: Sequence[Request], replies: Sequence[Reply]) -> None:
        first = len(tree.rollouts.node)
        absorb_rollouts(tree, requests, replies)
        tree.nodes.failure[ROOT] = replies[0].failure or tree.nodes.failure[ROOT]
        for index in range(first, first + len(replies[0].completions)):
            ends[index] = cut_rollout(tree, index, cut, creation=Creation.BLIND)[-1]

    yield from in_parts(ask_rollouts(tree, [ROOT], n), absorb)
    return ends

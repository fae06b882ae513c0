"""The phases that guided searches share: expand, evaluate, back up."""

from collections.abc import Generator

from treeward.search.growing import (
    absorb_rollouts,
    absorb_samples,
    absorb_scores,
    ask_rollouts,
    count_outcomes,
)
from treeward.search.leaf_value import critic_opinion, leaf_value
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Request, ask_scores
from treeward.search.settings import SearchSettings
from treeward.search.tree import Tree


def expand(
    tree: Tree, requests: list[Request], settings: SearchSettings, *, scored: bool
) -> Generator[list[Request], list[Reply], list[int]]:
    """Asks for steps, finds out what those are worth that are new, and returns their nodes.

    Args:
        tree: Modified in place.
        requests: For samples, one a node.
        settings: How nodes are judged.
        scored: Whether there are critics to ask.
    """
    made = absorb_samples(tree, requests, (yield requests))
    children = [child for of_node in made for child in of_node]
    yield from evaluate(tree, children, settings, scored=scored)
    return children


def evaluate(tree: Tree, nodes: list[int], settings: SearchSettings, *, scored: bool) -> Growth:
    """Finds out what nodes are worth and backs it up.

    Where a solution ends that is its verdict; elsewhere what rollouts and critics say together.
    """
    inner = [node for node in nodes if not tree.is_terminal(node)]
    rolled = ask_rollouts(tree, inner, settings.rollouts)
    asked = ask_scores(tree, nodes) if scored else []
    replies = (yield [*rolled, *asked]) if rolled or asked else []
    absorb_rollouts(tree, rolled, replies[: len(rolled)])
    absorb_scores(tree, asked, replies[len(rolled) :])
    counts = {
        request.node: count_outcomes(reply.completions)
        for request, reply in zip(rolled, replies, strict=False)
    }
    for node in nodes:
        back_up(tree, node, worth(tree, node, settings, counts.get(node, (0, 0))))


def worth(tree: Tree, node: int, settings: SearchSettings, counts: tuple[int, int]) -> float | None:
    """Returns what a node is worth to the search, in [0, 1]; None where nobody knows.

    Args:
        tree: Not modified.
        node: A node whose scores are there, if there are critics.
        settings: Holds the critics' weights.
        counts: Its right rollouts, and those with a known verdict.
    """
    scores = tree.nodes.scores[node]
    if tree.is_terminal(node):
        exact = tree.terminal_value(node)
        return scores.outcome if exact is None and scores else exact
    opinion = critic_opinion(scores, settings) if scores else None
    return leaf_value(*counts, opinion, settings.critic_rollouts)


def back_up(tree: Tree, node: int, value: float | None) -> None:
    """Counts a visit of a node and of all above it; an unknown value is no visit."""
    if value is None:
        return
    for at in tree.ancestors(node):
        tree.nodes.visits[at] += 1
        tree.nodes.value_sum[at] += value

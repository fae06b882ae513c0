"""Rollouts after every step of sampled solutions, as in Math-Shepherd (Wang et al. 2024, sec. 3.3).

Every solution is cut, whatever its outcome, so each is evidence for all prefixes it passes through;
Math-Shepherd throws that away. Solutions that share steps share nodes, and rollouts with them.
"""

from collections.abc import Callable, Generator

from treeward.search.growing import absorb_rollouts, add_path, ask_rollouts
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Request
from treeward.search.settings import SearchSettings
from treeward.search.tree import ROOT, Creation, Tree

Cut = Callable[[tuple[int, ...]], list[tuple[int, ...]]]
"""Splits the ids of a solution into steps."""


def rollouts(tree: Tree, settings: SearchSettings, cut: Cut) -> Growth:
    """Grows a tree from `settings.width` solutions, with `settings.rollouts` from every prefix."""
    yield from solve(tree, settings.width, cut)
    inner = [
        node
        for node in range(ROOT + 1, len(tree))
        if not tree.is_terminal(node) and tree.nodes.depth[node] < settings.max_depth
    ]
    for first in range(0, len(inner), settings.wave):
        requests = ask_rollouts(tree, inner[first : first + settings.wave], settings.rollouts)
        absorb_rollouts(tree, requests, (yield requests))


def solve(tree: Tree, n: int, cut: Cut) -> Generator[list[Request], list[Reply], list[int]]:
    """Asks for whole solutions, makes nodes of all their steps, and returns where each ends."""
    requests = ask_rollouts(tree, [ROOT], n)
    replies = yield requests
    absorb_rollouts(tree, requests, replies)
    tree.nodes.failure[ROOT] = replies[0].failure
    return [
        add_path(tree, ROOT, cut(done.token_ids), done, creation=Creation.BLIND)[-1]
        for done in replies[0].completions
    ]

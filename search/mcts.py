"""Monte Carlo tree search over steps: select, expand, evaluate, back up.

PUCT (Rosin 2011; Silver et al. 2017, Methods) with values in [0, 1]:

    score(child) = q(child) + c * prior(child) * sqrt(visits(parent)) / (1 + visits(child))

The prior is a child's share of the policy's samples at its parent, not the model's probability of
its text. A child without visits has its parent's q, so that looking elsewhere must pay. Several
leaves are chosen before any reply is seen; each counts for the later choices as a visit of value 0.
"""

from collections import Counter

from treeward.search.phases import evaluate, expand
from treeward.search.requests import Growth, Kind, ask
from treeward.search.settings import SearchSettings
from treeward.search.tree import ROOT, Tree


def mcts(tree: Tree, settings: SearchSettings, *, scored: bool = False) -> Growth:
    """Grows a tree by `settings.simulations` expansions, or until nothing is left to expand.

    Args:
        tree: Holds its root only; modified in place.
        settings: How far and where to look.
        scored: Whether there are critics to ask about every node.
    """
    yield from evaluate(tree, [ROOT], settings, scored=scored)
    closed = {ROOT} if tree.is_terminal(ROOT) else set()
    left = settings.simulations
    while left > 0:
        leaves = select(tree, settings, closed, width=min(settings.wave, left))
        if not leaves:
            break
        left -= len(leaves)
        requests = [ask(tree, leaf, Kind.SAMPLE, settings.width) for leaf in leaves]
        yield from expand(tree, requests, settings, scored=scored)
        for leaf in leaves:
            close(tree, settings, closed, leaf)


def select(tree: Tree, settings: SearchSettings, closed: set[int], *, width: int) -> list[int]:
    """Returns up to `width` distinct open nodes without children, best first.

    Args:
        tree: Not modified.
        settings: Holds c.
        closed: Nodes below which nothing is left to expand.
        width: How many are wanted.
    """
    pending: Counter[int] = Counter()
    taken = set(closed)
    leaves: list[int] = []
    while len(leaves) < width and ROOT not in taken:
        node = ROOT
        while tree.nodes.children[node]:
            open_children = [child for child in tree.nodes.children[node] if child not in taken]
            node = max(
                open_children, key=lambda child: (score(tree, settings.c, child, pending), -child)
            )
        leaves.append(node)
        for at in tree.ancestors(node):
            pending[at] += 1
            if all(child in taken for child in tree.nodes.children[at]):
                taken.add(at)
    return leaves


def score(tree: Tree, c: float, child: int, pending: Counter[int]) -> float:
    """Returns a child's PUCT score; pending visits count with value 0."""
    nodes = tree.nodes
    parent = nodes.parent[child]
    siblings = sum(nodes.n_samples[other] for other in nodes.children[parent])
    prior = nodes.n_samples[child] / siblings
    visits = nodes.visits[child] + pending[child]
    at = child if visits else parent
    seen = nodes.visits[at] + pending[at]
    mean = nodes.value_sum[at] / seen if seen else 0.0
    parent_visits = nodes.visits[parent] + pending[parent]
    return float(mean + c * prior * parent_visits**0.5 / (1 + visits))


def close(tree: Tree, settings: SearchSettings, closed: set[int], leaf: int) -> None:
    """Closes an expanded leaf's finished children, and all above that have none left open."""
    for child in tree.nodes.children[leaf]:
        if tree.is_terminal(child) or tree.nodes.depth[child] >= settings.max_depth:
            closed.add(child)
    for at in tree.ancestors(leaf):
        if any(child not in closed for child in tree.nodes.children[at]):
            break
        closed.add(at)

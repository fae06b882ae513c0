"""How many children a node may have: more where they are worth different things.

AlphaLLM (Tian et al. 2024) bounds what a node of m children misses of the best next
step by I / (m - 1), so that m - 1 should grow with the importance I of the choice made there:

    I(s) = max over children of |v(child) - v(s)|
    n(s) = max(c_min, min(floor(alpha * I(s)) + 1, c_max))

v is what rollouts and critics said when a node was made, in [0, 1], as the paper has it (its code
takes the mean of the children for v(s), and min(floor(2 I), 10)). With values in [0, 1] the
published alpha = 1 gives floor(I) + 1, which is 1 for every I below 1: it leaves the width to
c_min. Unless set, alpha is c_max - 1, for which n(s) runs through all widths up to c_max.

Counted values are noisy and noise is a difference too: with 8 rollouts it is .1 to .2 by itself.
An upper bound adds some standard deviations of a child's value to its difference, which widens
where little is known (`mcts.width_sd`).

Where outcomes decide how many samples a node gets, its tree evidence is no longer exactly unbiased.
`benchmarks/evidence.py` has known values beside it: with 2 samples and up to 8, value_tree is .009
too high at the roots of 1,000 trees, and .012 (standard error .004) with 2 alone on the same
problems; on 1,500 others it is .003 too low with both. Strict evidence is exact either way.
"""

from dataclasses import dataclass, field
from math import floor, sqrt

from treeward.search.mcts_settings import MctsSettings
from treeward.search.tree import ROOT, Tree


@dataclass(slots=True)
class Opinions:
    """Holds what nodes were worth when they were made, by node; those nobody knows are missing."""

    value: dict[int, float] = field(default_factory=dict)
    """In [0, 1]."""

    weight: dict[int, float] = field(default_factory=dict)
    """Rollouts that the value stands for; missing where it is exact."""


def importance(tree: Tree, opinions: Opinions, node: int, sd: float) -> float | None:
    """Returns I of a node; None where nothing is known of it or of all its children.

    Args:
        tree: Not modified.
        opinions: What its nodes are worth.
        node: One that has been expanded.
        sd: How many standard deviations are added to each difference.
    """
    value = opinions.value
    if node not in value:
        return None
    return max(
        (
            abs(value[child] - value[node]) + sd * deviation(opinions, child)
            for child in tree.nodes.children[node]
            if child in value
        ),
        default=None,
    )


def deviation(opinions: Opinions, node: int) -> float:
    """Returns the posterior standard deviation of a node's value, Jeffreys' prior before it."""
    weight = opinions.weight.get(node)
    if weight is None:
        return 0.0
    mean = (opinions.value[node] * weight + 0.5) / (weight + 1)
    return sqrt(mean * (1 - mean) / (weight + 2))


def samples(own: MctsSettings, *, node: int, width: int) -> int:
    """Returns the samples of a node's first expansion, its c_min, where most have so many."""
    return width if node != ROOT or own.width_root is None else own.width_root


def allowed(worth: float | None, own: MctsSettings, *, node: int, least: int) -> int:
    """Returns n(s), the children that a node may have.

    Args:
        worth: Its importance; None leaves the least.
        own: Holds c_max, which may be another for the root, and alpha.
        node: The node.
        least: c_min.
    """
    assert own.width_max is not None, "asked where widths adapt"
    at_root = node == ROOT and own.width_max_root is not None
    most = own.width_max_root if at_root else own.width_max
    assert most is not None
    alpha = most - 1 if own.width_alpha is None else own.width_alpha
    if worth is None:
        return least
    # .3 alpha is the same whether the values were .7 and .4 or .6 and .3.
    return max(least, min(floor(alpha * worth + 1e-9) + 1, most))

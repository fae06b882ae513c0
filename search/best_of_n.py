"""Best of N: whole solutions, and critics to say which of them to believe.

Every solution is cut into steps, whatever its outcome. Critics score every prefix, and what they
say along a solution is put together (Lightman et al. 2023 take the product or the least; critics
that learned from outcomes are best read at the last step, Zhang et al. 2025). That is backed up as
a visit of each solution: the `q` of an end is what critics say of it, that of a prefix their mean.
Verdicts have no part in it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from treeward.search.growing import absorb_scores
from treeward.search.leaf_value import critic_opinion
from treeward.search.phases import back_up
from treeward.search.requests import Growth, ask_scores
from treeward.search.rollouts import solve
from treeward.search.settings import SearchSettings
from treeward.search.steps import Cut
from treeward.search.tree import ROOT, Tree


class Aggregate(StrEnum):
    """How the scores of a solution's steps make the score of the solution."""

    LAST = "last"
    """That of the last step."""
    MIN = "min"
    """The least."""
    PRODUCT = "product"
    """Their product: longer solutions have less."""
    MEAN = "mean"
    """Their mean."""


_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {
    Aggregate.LAST: lambda scores: scores[-1],
    Aggregate.MIN: min,
    Aggregate.PRODUCT: math.prod,
    Aggregate.MEAN: fmean,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOfNSettings:
    """What best of N has of its own; section `best_of_n.`."""

    aggregate: Aggregate = Aggregate.LAST
    """How the scores of steps make that of a solution: last, min, product or mean."""


def best_of_n(
    tree: Tree, settings: SearchSettings, own: BestOfNSettings, cut: Cut, *, scored: bool = False
) -> Growth:
    """Grows a tree from `settings.width` solutions and has critics score every prefix of them.

    Args:
        tree: Holds its root only; modified in place.
        settings: How many solutions, and what each critic weighs.
        own: How scores are put together.
        cut: Splits a solution into steps.
        scored: Whether there are critics; without them nothing is backed up.
    """
    ends = yield from solve(tree, settings.width, cut)
    if not scored:
        return
    nodes = range(len(tree))
    for first in range(0, len(tree), settings.wave):
        requests = ask_scores(tree, nodes[first : first + settings.wave])
        absorb_scores(tree, requests, (yield requests))
    for end in ends.values():
        said = solution_score(tree, end, settings, own.aggregate)
        back_up(tree, {} if said is None else {end: said})


def solution_score(
    tree: Tree, end: int, settings: SearchSettings, aggregate: Aggregate
) -> float | None:
    """Returns what critics say of a whole solution, in [0, 1]; None where a step has no score."""
    scores = [_step_score(tree, node, settings) for node in tree.path(end) if node != ROOT]
    known = [score for score in scores if score is not None]
    return _AGGREGATES[aggregate](known) if len(known) == len(scores) else None


def _step_score(tree: Tree, node: int, settings: SearchSettings) -> float | None:
    """Returns the critics' opinion of a prefix; where a solution ends, the outcome critic's."""
    scores = tree.nodes.scores[node]
    if scores is None:
        return None
    if tree.is_terminal(node) and scores.outcome is not None:
        return scores.outcome
    return critic_opinion(scores, settings)

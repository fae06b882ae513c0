"""Selection from the root down: at each node the child with the highest score, PUCT or UCT.

PUCT (Rosin 2011; Silver et al. 2017, Methods) with values in [0, 1]:

    score(child) = q(child) + c * prior(child) * sqrt(visits(parent)) / (1 + visits(child))

The prior is a child's share of the policy's samples at its parent, not the model's probability of
its text. UCT (Kocsis and Szepesvari 2006):

    score(child) = q(child) + c * sqrt(ln visits(parent) / visits(child))

AlphaLLM (Tian et al. 2024) prints the logarithm around the whole ratio, `sqrt(2 ln(N / n))`, which
would stop exploring a child that has most of the visits; its code has the form above, without the
factor 2 that belongs to c = sqrt(2).

A child without visits has its parent's q, so that looking elsewhere must pay, and counts one visit
in UCT: where nobody knows what a child is worth, an endless bonus would never end. A group of
children is one arm with the samples, visits and values of all its members; once chosen, it goes on
with the open member that looks best, so that near-duplicates share what is spent on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Protocol

from treeward.search.groups import Groups
from treeward.search.mcts_settings import TreePolicy
from treeward.search.open_nodes import OpenNodes
from treeward.search.tree import ROOT, Tree

Column = Sequence[int] | Mapping[int, int]
Sums = Sequence[float] | Mapping[int, float]


class Arms(Protocol):
    """What is known about the arms that selection chooses from; the nodes of a tree are some."""

    @property
    def n_samples(self) -> Column:
        """Returns the policy's samples that fell on each."""
        ...

    @property
    def visits(self) -> Column:
        """Returns the evaluations at and below each."""
        ...

    @property
    def value_sum(self) -> Sums:
        """Returns the sums of these."""
        ...


@dataclass(frozen=True, slots=True)
class Parent:
    """Holds what is known about the node at which an arm is chosen."""

    n_samples: int
    """The policy's samples below it."""
    visits: int
    mean: float
    """0 without visits."""


class Score(Protocol):
    """Chooses an arm."""

    def __call__(self, arms: Arms, choices: Sequence[int], parent: Parent, c: float) -> int:
        """Returns the choice with the highest score, of equal ones the first."""
        ...


def puct(arms: Arms, choices: Sequence[int], parent: Parent, c: float) -> int:
    """Returns the choice with the highest PUCT score, of equal ones the first."""
    n_samples, visits, value_sum = arms.n_samples, arms.visits, arms.value_sum
    root = parent.visits**0.5
    best, highest = choices[0], -inf
    for arm in choices:
        seen = visits[arm]
        mean = value_sum[arm] / seen if seen else parent.mean
        score = mean + c * (n_samples[arm] / parent.n_samples) * root / (1 + seen)
        if score > highest:
            best, highest = arm, score
    return best


def uct(arms: Arms, choices: Sequence[int], parent: Parent, c: float) -> int:
    """Returns the choice with the highest UCT score, of equal ones the first."""
    visits, value_sum = arms.visits, arms.value_sum
    spread = log(parent.visits) if parent.visits else 0.0
    best, highest = choices[0], -inf
    for arm in choices:
        seen = visits[arm]
        mean = value_sum[arm] / seen if seen else parent.mean
        score = mean + c * sqrt(spread / (seen or 1))
        if score > highest:
            best, highest = arm, score
    return best


SCORES: Mapping[TreePolicy, Score] = {TreePolicy.PUCT: puct, TreePolicy.UCT: uct}


def select(
    tree: Tree,
    open_nodes: OpenNodes,
    *,
    width: int,
    score: Score,
    c: float,
    groups: Groups | None = None,
) -> list[int]:
    """Returns up to `width` distinct ready nodes, best first, and makes them unready.

    Each counts for the later ones as a visit of value 0 on its path, so that they look elsewhere.

    Args:
        tree: As before once this returns.
        open_nodes: What may be asked about; the chosen ones are taken out.
        width: How many are wanted.
        score: Chooses on the way down.
        c: Weight of exploration.
        groups: Which children are one arm; None makes each an arm.
    """
    visits = tree.nodes.visits
    chosen: list[int] = []
    while len(chosen) < width and open_nodes.is_open(ROOT):
        if chosen:
            for at in tree.ancestors(chosen[-1]):
                visits[at] += 1
        node = ROOT
        while not open_nodes.ready[node]:
            node = _step_down(tree, node, open_nodes.children[node], score, c, groups)
        open_nodes.take(tree, node)
        chosen.append(node)
    for node in chosen[:-1]:
        for at in tree.ancestors(node):
            visits[at] -= 1
    return chosen


def _step_down(
    tree: Tree, node: int, choices: list[int], score: Score, c: float, groups: Groups | None
) -> int:
    """Returns the child to go on with."""
    nodes = tree.nodes
    visits = nodes.visits[node]
    mean = nodes.value_sum[node] / visits if visits else 0.0
    parent = Parent(nodes.n_samples_below[node], visits, mean)
    if groups is None:
        return score(nodes, choices, parent, c)
    pooled = pool(tree, groups.of[node], choices)
    return score(pooled, list(pooled.visits), parent, c)


@dataclass(frozen=True, slots=True)
class Pooled:
    """Holds groups as arms, each by the member that it goes on with."""

    n_samples: dict[int, int]
    visits: dict[int, int]
    value_sum: dict[int, float]


def pool(tree: Tree, groups: Sequence[Sequence[int]], open_children: Sequence[int]) -> Pooled:
    """Returns the groups that have an open member; those finished count all the same."""
    nodes = tree.nodes
    pooled = Pooled({}, {}, {})
    for members in groups:
        face = face_of(tree, members, open_children)
        if face is not None:
            pooled.n_samples[face] = sum(nodes.n_samples[member] for member in members)
            pooled.visits[face] = sum(nodes.visits[member] for member in members)
            pooled.value_sum[face] = sum(nodes.value_sum[member] for member in members)
    return pooled


def face_of(tree: Tree, members: Sequence[int], open_children: Sequence[int]) -> int | None:
    """Returns a group's open member with the highest mean, of equal ones the first."""
    visits, value_sum = tree.nodes.visits, tree.nodes.value_sum
    return max(
        (member for member in members if member in open_children),
        key=lambda member: value_sum[member] / visits[member] if visits[member] else -inf,
        default=None,
    )

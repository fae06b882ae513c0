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


class Score(Protocol):
    """Chooses an arm."""

    def __call__(
        self,
        arms: Arms,
        choices: Sequence[int],
        n_samples: int,
        visits: int,
        mean: float,
        c: float,
        /,
    ) -> int:
        """Returns the choice with the highest score, of equal ones the first.

        Args:
            arms: What is known about them.
            choices: Those to choose from.
            n_samples: The policy's samples at the parent.
            visits: The parent's.
            mean: The parent's q.
            c: Weight of exploration.
        """
        ...


def puct(
    arms: Arms, choices: Sequence[int], n_samples: int, visits: int, mean: float, c: float
) -> int:
    """Returns the choice with the highest PUCT score, of equal ones the first."""
    of_arm, visits_of, value_sum = arms.n_samples, arms.visits, arms.value_sum
    a_sample = c * visits**0.5 / n_samples
    best, highest = choices[0], -inf
    for arm in choices:
        seen = visits_of[arm]
        q = value_sum[arm] / seen if seen else mean
        score = q + a_sample * of_arm[arm] / (1 + seen)
        if score > highest:
            best, highest = arm, score
    return best


def uct(arms: Arms, choices: Sequence[int], _: int, visits: int, mean: float, c: float) -> int:
    """Returns the choice with the highest UCT score, of equal ones the first."""
    visits_of, value_sum = arms.visits, arms.value_sum
    spread = log(visits) if visits else 0.0
    best, highest = choices[0], -inf
    for arm in choices:
        seen = visits_of[arm]
        q = value_sum[arm] / seen if seen else mean
        score = q + c * sqrt(spread / (seen or 1))
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
    paths: list[list[int]] = []
    while len(paths) < width and open_nodes.is_open(ROOT):
        path = descend(tree, open_nodes, score, c, groups)
        open_nodes.take(tree, path[-1])
        paths.append(path)
        if len(paths) < width:
            for node in path:
                visits[node] += 1
    for path in paths[: width - 1]:
        for node in path:
            visits[node] -= 1
    return [path[-1] for path in paths]


def descend(
    tree: Tree, open_nodes: OpenNodes, score: Score, c: float, groups: Groups | None
) -> list[int]:
    """Returns the path from the root to the first ready node; some node must be ready."""
    nodes, ready, open_children = tree.nodes, open_nodes.ready, open_nodes.children
    visits_of, value_sum, n_samples = nodes.visits, nodes.value_sum, nodes.n_samples_below
    path = [ROOT]
    node = ROOT
    while node not in ready:
        choices = open_children[node]
        if len(choices) == 1:
            node = choices[0]
        else:
            visits = visits_of[node]
            mean = value_sum[node] / visits if visits else 0.0
            arms: Arms = nodes
            if groups is not None:
                arms = pool(tree, groups.of[node], choices)
                choices = list(arms.visits)
            node = score(arms, choices, n_samples[node], visits, mean, c)
        path.append(node)
    return path


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

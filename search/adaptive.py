"""AB-MCTS-A: wider or deeper, by Thompson sampling (Inoue et al. 2025, arXiv 2503.04412, sec. 3).

On the way down every node has two arms with Beta posteriors under Jeffreys' prior, a node's worth
in [0, 1] counting as that share of a success:

    wider    what the samples drawn here were worth when they were made
    deeper   what has been made below the children here was worth

Where the draw for `wider` is higher the search samples here. Otherwise it goes on to the child with
the highest draw from its own posterior: its worth and that of all below.

Departures from the paper: nodes are steps, so an end has no `deeper` and a prefix is worth its
chance to end right; identical samples share a child, and each counts for `wider`; choices whose
replies are still to come count as worth 0 for all arms on their way, so that a wave spreads.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from treeward.search.fast import FastRollouts
from treeward.search.phases import evaluate, expand
from treeward.search.requests import Growth, Kind, ask
from treeward.search.settings import SearchSettings
from treeward.search.tree import ROOT, Tree

PRIOR = 0.5
"""Both parameters of Jeffreys' prior."""


class Chance(Protocol):
    """Draws from Beta distributions, as numpy's generators do."""

    def beta(self, a: float, b: float) -> float:
        """Returns one draw from Beta(a, b)."""
        ...


Chances = Callable[[str, int], Chance]
"""Given a problem's id and how many choices its tree has seen, what the next one draws from."""


class Arm(NamedTuple):
    """Holds what is known of a choice."""

    total: float
    """Sum of what it was worth."""

    n: int
    """How often that is known."""

    def draw(self, chance: Chance, pending: int) -> float:
        """Returns a draw from its posterior; what is pending counts as worth 0."""
        return chance.beta(PRIOR + self.total, PRIOR + self.n - self.total + pending)


@dataclass(slots=True)
class Pending:
    """Counts choices whose replies are still to come."""

    here: Counter[int] = field(default_factory=Counter)
    """By the node that is to be expanded."""

    through: Counter[int] = field(default_factory=Counter)
    """By every node on the way to it, that node included."""

    def add(self, tree: Tree, node: int) -> None:
        """Counts one more."""
        self.here[node] += 1
        self.through.update(tree.ancestors(node))


def adaptive(
    tree: Tree,
    settings: SearchSettings,
    chances: Chances,
    *,
    scored: bool = False,
    fast: FastRollouts | None = None,
) -> Growth:
    """Grows a tree by `settings.simulations` expansions of `settings.width` samples each.

    Args:
        tree: Holds its root only; modified in place.
        settings: How far to look.
        chances: What each choice draws from.
        scored: Whether there are critics to ask about every node.
        fast: Rollouts that steer beside the policy's own; None for none.
    """
    yield from evaluate(tree, [ROOT], settings, scored=scored, fast=fast)
    for first in range(0, settings.simulations, settings.wave):
        pending = Pending()
        for index in range(first, min(first + settings.wave, settings.simulations)):
            chance = chances(tree.problem.id, index)
            pending.add(tree, choose(tree, settings.max_depth, pending, chance))
        requests = [
            ask(tree, node, Kind.SAMPLE, settings.width * times)
            for node, times in pending.here.items()
        ]
        yield from expand(tree, requests, settings, scored=scored, fast=fast)


def choose(tree: Tree, max_depth: int, pending: Pending, chance: Chance) -> int:
    """Returns the node to sample at; neither the tree nor what is pending is modified."""
    nodes, node = tree.nodes, ROOT
    while True:
        open_children = [
            child
            for child in nodes.children[node]
            if not tree.is_terminal(child) and nodes.depth[child] < max_depth
        ]
        wider, deeper = arms(tree, node)
        here = pending.here[node]
        if not open_children or wider.draw(chance, here) >= deeper.draw(
            chance, pending.through[node] - here
        ):
            return node
        draws = {
            child: Arm(nodes.value_sum[child], nodes.visits[child]).draw(
                chance, pending.through[child]
            )
            for child in open_children
        }
        node = max(draws, key=draws.__getitem__)


def arms(tree: Tree, node: int) -> tuple[Arm, Arm]:
    """Returns what sampling at a node was worth, and what going on below its children was."""
    nodes = tree.nodes
    wider, deeper = Arm(0.0, 0), Arm(0.0, 0)
    for child in nodes.children[node]:
        below = Arm(
            sum(nodes.value_sum[at] for at in nodes.children[child]),
            sum(nodes.visits[at] for at in nodes.children[child]),
        )
        # A node's sums are its own worth, if that is known, and its children's sums.
        samples = nodes.n_samples[child] * (nodes.visits[child] - below.n)
        own = min(max(nodes.value_sum[child] - below.total, 0.0), 1.0)
        wider = Arm(wider.total + samples * own, wider.n + samples)
        deeper = Arm(deeper.total + below.total, deeper.n + below.n)
    return wider, deeper


def seeded(run_seed: int) -> Chances:
    """Returns generators seeded by the run, the problem and the choice, and by nothing else."""

    def chances(problem_id: str, choice: int) -> Chance:
        name = repr(("adaptive", run_seed, problem_id, choice)).encode()
        digest = hashlib.blake2b(name, digest_size=16).digest()
        return np.random.default_rng(int.from_bytes(digest, "little"))

    return chances

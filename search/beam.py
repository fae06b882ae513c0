"""Beam search over steps, guided by what rollouts and critics say of each prefix.

As in Snell et al. (2024, section 5.2): every beam is continued by some samples, and the best
prefixes go on. What ends stays in the tree and takes no beam's place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from treeward.search.errors import BadInput
from treeward.search.fast import FastRollouts
from treeward.search.phases import evaluate, expand
from treeward.search.requests import Growth, Kind, ask
from treeward.search.settings import SearchSettings
from treeward.search.tree import ROOT, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamSettings:
    """What beam search has of its own; section `beam.`."""

    beams: int = 4
    """Prefixes that go on after each step."""

    def __post_init__(self) -> None:
        """Checks the number of beams."""
        if self.beams < 1:
            raise BadInput(f"beam.beams must be at least 1, got {self.beams!r}")


def beam(
    tree: Tree,
    settings: SearchSettings,
    own: BeamSettings,
    *,
    scored: bool = False,
    fast: FastRollouts | None = None,
) -> Growth:
    """Grows a tree step by step until no prefix is open or all are `settings.max_depth` deep.

    Args:
        tree: Holds its root only; modified in place.
        settings: How many samples a beam, and how nodes are judged.
        own: How many beams.
        scored: Whether there are critics to ask about every node.
        fast: Rollouts that steer beside the policy's own; None for none.
    """
    yield from evaluate(tree, [ROOT], settings, scored=scored, fast=fast)
    beams = [ROOT]
    while beams and tree.nodes.depth[beams[0]] < settings.max_depth:
        children: list[int] = []
        for first in range(0, len(beams), settings.wave):
            wave = beams[first : first + settings.wave]
            requests = [ask(tree, node, Kind.SAMPLE, settings.width) for node in wave]
            children += yield from expand(tree, requests, settings, scored=scored, fast=fast)
        beams = best(tree, [node for node in children if not tree.is_terminal(node)], own.beams)


def best(tree: Tree, nodes: Sequence[int], n: int) -> list[int]:
    """Returns the `n` nodes that are worth most; among equals more samples, then the older.

    A node of which nothing is known counts like the nearest prefix of it of which something is.
    """

    def rank(node: int) -> tuple[float, int, int]:
        known = (at for at in tree.ancestors(node) if tree.nodes.visits[at])
        at = next(known, None)
        worth = 0.0 if at is None else tree.nodes.value_sum[at] / tree.nodes.visits[at]
        return (-worth, -tree.nodes.n_samples[node], node)

    return sorted(nodes, key=rank)[:n]

"""Which nodes of a tree a search may still ask about.

A node is *ready* if it may be asked for more steps, and *open* if it or any node below it is ready.
Both change along one path at a time, so keeping them costs a path and never the tree.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from treeward.search.tree import ROOT, Tree


@dataclass(slots=True)
class OpenNodes:
    """Holds what is open in a tree; one entry a node."""

    ready: list[bool] = field(default_factory=list)
    """Whether a node may be asked for more steps."""

    children: list[list[int]] = field(default_factory=list)
    """A node's open children, in the order of their making."""

    def is_open(self, node: int) -> bool:
        """Returns whether anything is left to ask at a node or below it."""
        return self.ready[node] or bool(self.children[node])

    def take(self, tree: Tree, node: int) -> None:
        """Makes a node unready; closes it and what is above as far as nothing else is open."""
        self.ready[node] = False
        while node != ROOT and not self.is_open(node):
            parent = tree.nodes.parent[node]
            self.children[parent].remove(node)
            node = parent

    def offer(self, tree: Tree, nodes: Sequence[int]) -> None:
        """Makes nodes ready; opens them and what is above."""
        added = len(tree) - len(self.ready)
        self.ready += [False] * added
        self.children += [[] for _ in range(added)]
        for node in nodes:
            self.ready[node] = True
            self._open(tree, node)

    def _open(self, tree: Tree, node: int) -> None:
        while node != ROOT:
            parent = tree.nodes.parent[node]
            siblings = self.children[parent]
            place = bisect_left(siblings, node)
            if place < len(siblings) and siblings[place] == node:
                return
            siblings.insert(place, node)
            if len(siblings) > 1:  # then the parent was open before
                return
            node = parent

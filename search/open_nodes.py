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
    """Holds what is open in a tree."""

    ready: set[int] = field(default_factory=set)
    """Nodes that may be asked for more steps."""

    children: dict[int, list[int]] = field(default_factory=dict)
    """The open children, in the order of their making, of nodes that have any."""

    def is_open(self, node: int) -> bool:
        """Returns whether anything is left to ask at a node or below it."""
        return node in self.ready or node in self.children

    def take(self, tree: Tree, node: int) -> None:
        """Makes a node unready; closes it and what is above as far as nothing else is open."""
        self.ready.discard(node)
        while node != ROOT and not self.is_open(node):
            parent = tree.nodes.parent[node]
            siblings = self.children[parent]
            if len(siblings) > 1:
                siblings.remove(node)
                return
            del self.children[parent]
            node = parent

    def offer(self, tree: Tree, nodes: Sequence[int]) -> None:
        """Makes nodes ready; opens them and what is above."""
        self.ready.update(nodes)
        for node in nodes:
            self._open(tree, node)

    def _open(self, tree: Tree, node: int) -> None:
        while node != ROOT:
            parent = tree.nodes.parent[node]
            siblings = self.children.get(parent)
            if siblings is not None:  # then the parent was open before
                if siblings[-1] < node:
                    siblings.append(node)
                elif siblings[place := bisect_left(siblings, node)] != node:
                    siblings.insert(place, node)
                return
            self.children[parent] = [node]
            node = parent

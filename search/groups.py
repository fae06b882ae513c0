"""Siblings that come to the same step are one to the search: one arm, one in the width.

AlphaLLM's state merge (Tian et al. 2024): a new step joins the first group whose
first member it is the same as, or founds one. Its code samples again instead, up to five times,
until a step differs; what it paid for before is thrown away. Here every sample stays in the tree,
with its own node and its own evidence: "12*3=36" and "12*3=35" are one edit apart.

The edit distance is computed on token ids by the bit-vector method of Myers (1999) in the form of
Hyyro (2003): one machine operation handles a column of the table, and Python's integers have as
many bits as a step has tokens, so a pair of steps takes microseconds and no library is needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from treeward.search.critic import Prefix
from treeward.search.tree import Tree


class Same(Protocol):
    """Says whether two siblings come to the same step; by edits, an embedding, or a judge.

    A tree is repeatable only where this is: its answers are not recorded.
    """

    def __call__(self, tree: Tree, first: int, other: int) -> bool:
        """Returns whether a node is in the group of a sibling that founded one."""
        ...


class SameStep:
    """Tells siblings by a function of their texts, such as an embedding's cosine or a judge."""

    def __init__(self, name: str, same: Callable[[Prefix, str, str], bool]) -> None:
        """Takes a name and a function.

        Args:
            name: Stands for the function in a run's identity: the same name promises the same one.
            same: Given what stands before two steps and the texts of both, whether they come to
                the same. The search waits for its answer; it is asked once for a new step and each
                group that its siblings have.
        """
        self.name = name
        self._same = same

    def of_texts(self, text: Callable[[tuple[int, ...]], str]) -> Same:
        """Returns what tells nodes apart, where texts of token ids are read like this."""

        def same(tree: Tree, first: int, other: int) -> bool:
            ids = tree.nodes.step_ids
            above = tree.path(tree.nodes.parent[first])[1:]
            prefix = Prefix(tree.problem, tuple(text(ids[node]) for node in above))
            return self._same(prefix, text(ids[first]), text(ids[other]))

        return same

    def __str__(self) -> str:
        """Returns what stands for it."""
        return f"custom:{self.name}"


def within_distance(limit: float) -> Same:
    """Returns what tells siblings by their normalised edit distance.

    Args:
        limit: At most this share of the longer step's tokens is inserted, deleted or replaced.
    """
    return partial(_near, limit=limit)


def _near(tree: Tree, first: int, other: int, limit: float) -> bool:
    one, two = tree.nodes.step_ids[first], tree.nodes.step_ids[other]
    most = limit * max(len(one), len(two))
    return abs(len(one) - len(two)) <= most and edit_distance(one, two) <= most


def edit_distance(one: Sequence[int], two: Sequence[int]) -> int:
    """Returns how many insertions, deletions and replacements lead from one to the other."""
    if not one:
        return len(two)
    places: dict[int, int] = {}
    for place, token in enumerate(one):
        places[token] = places.get(token, 0) | 1 << place
    mask, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    # Bit i: the table's column is one more (up) or one less (down) at row i + 1 than at row i.
    up, down, distance = mask, 0, len(one)
    for token in two:
        equal = places.get(token, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right_up = (down | ~(diagonal | up)) & mask
        right_down = up & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up = (right_up << 1 | 1) & mask
        right_down = right_down << 1 & mask
        vertical = equal | down
        up = (right_down | ~(vertical | right_up)) & mask
        down = right_up & vertical
    return distance


@dataclass(slots=True)
class Groups:
    """Holds which siblings come to the same step."""

    same: Same

    of: dict[int, list[list[int]]] = field(default_factory=dict)
    """The groups of a node's children, by node: each its members in the order of their making."""

    def add(self, tree: Tree, parent: int, children: Sequence[int]) -> int:
        """Puts new children where they belong; returns how many groups they founded."""
        groups = self.of.setdefault(parent, [])
        before = len(groups)
        for child in children:
            for members in groups:
                if self.same(tree, members[0], child):
                    members.append(child)
                    break
            else:
                groups.append([child])
        return len(groups) - before

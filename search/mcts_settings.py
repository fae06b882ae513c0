"""The settings that only `mcts` has."""

import math
from dataclasses import dataclass, fields
from enum import StrEnum

from treeward.search.errors import BadInput


class TreePolicy(StrEnum):
    """How a child is chosen on the way down."""

    PUCT = "puct"
    """Mean value and a bonus that the policy's own samples weigh."""
    UCT = "uct"
    """Mean value and a bonus that is the same for all children with as many visits."""


class Selection(StrEnum):
    """Where the next node to expand is looked for."""

    TREE = "tree"
    """From the root down, by the tree policy."""
    FRONTIER = "frontier"
    """Among all nodes that may be expanded at once, as in DeepSearch."""


class Backup(StrEnum):
    """What an evaluation leaves on the nodes above it, for selection to read."""

    MEAN = "mean"
    """The mean of all evaluations below a node."""
    SIGNED = "signed"
    """DeepSearch's sum with a sign: a success counts more than any number of failures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MctsSettings:
    """How `mcts` looks around, beside what every search knows; section `mcts.`."""

    tree_policy: TreePolicy = TreePolicy.PUCT
    """How a child is chosen on the way down; `search.c` weighs exploration in both."""

    selection: Selection = Selection.TREE
    """Where the next node to expand is looked for."""

    backup: Backup = Backup.MEAN
    """What selection reads; `signed` needs `mcts.selection=frontier`."""

    frontier_value: float = 0.4
    """Weight of the value above a node in selection by frontier; at least 0."""

    frontier_entropy: float = 0.0
    """Weight of the policy's surprise at a node's step, in nats a token."""

    frontier_depth: float = 0.01
    """Weight of a node's depth."""

    width_max: int | None = None
    """Different children that a node may come to where they are worth different things; None
    expands every node once, with `search.width` samples."""

    width_max_root: int | None = None
    """The same for the root; None takes `mcts.width_max`."""

    width_root: int | None = None
    """Samples of the root's first expansion; None takes `search.width`, which all others get."""

    width_alpha: float | None = None
    """Children that a difference in value of 1 pays for; None takes the most that a node may come
    to, less 1, so that the whole range of values is used. With the published 1, no node comes to
    more than 2."""

    width_sd: float = 0.0
    """How many standard deviations of a child's value are added to its difference; 0 takes
    differences as they are."""

    group_distance: float | None = None
    """Siblings at most this far apart are one to selection and to widths: insertions, deletions
    and replacements of tokens, as a share of the longer step, in [0, 1). None groups nothing."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule, or is set and nothing would read it.
        """
        for name in ("width_max", "width_max_root", "width_root"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"mcts.{name} must be at least 1, got {value!r}")
        for name in (*FRONTIER, "width_sd", "width_alpha"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise BadInput(f"mcts.{name} must be at least 0, got {value!r}")
        if self.group_distance is not None and not 0 <= self.group_distance < 1:
            raise BadInput(f"mcts.group_distance must be in [0, 1), got {self.group_distance!r}")
        if self.width_max is None:
            self._refuse(("width_max_root", "width_alpha", "width_sd"), "mcts.width_max")
        if self.selection is Selection.TREE:
            self._refuse((*FRONTIER, "backup"), "mcts.selection=frontier")
        else:
            self._refuse(("tree_policy",), "mcts.selection=tree")

    def _refuse(self, names: tuple[str, ...], reader: str) -> None:
        """Raises BadInput for what is set and would be read only along with another setting."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in names and value != field.default:
                raise BadInput(
                    f"mcts.{field.name}={value!r} is read only with {reader}; give that as well, "
                    f"or leave mcts.{field.name} out"
                )


FRONTIER = ("frontier_value", "frontier_entropy", "frontier_depth")
"""The weights of selection by frontier."""

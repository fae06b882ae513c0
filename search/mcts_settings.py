"""The settings that only `mcts` has."""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from treeward.search.errors import BadInput
from treeward.search.settings import SearchSettings, refuse_unread


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
    """Samples of the root's first expansion, and the least different children that it is to come
    to where widths adapt; None takes `search.width`, which all other nodes have."""

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
        refuse = partial(refuse_unread, "mcts", self)
        if self.width_max is None:
            refuse("mcts.width_max", ("width_max_root", "width_alpha", "width_sd"))
        if self.selection is Selection.TREE:
            refuse("mcts.selection=frontier", (*FRONTIER, "backup"))
        else:
            refuse("mcts.selection=tree", ("tree_policy",))

    def check_beside(self, settings: SearchSettings) -> None:
        """Checks that these fit the settings that every search knows.

        Raises:
            BadInput: An expansion has more samples than a node may come to have children, or
                something is set and nothing would read it.
        """
        if self.selection is Selection.FRONTIER:
            refuse_unread("search", settings, "mcts.selection=tree", ("c",))
        width = "search.width", settings.width
        root = width if self.width_root is None else ("mcts.width_root", self.width_root)
        for name, (of, least) in (("width_max", width), ("width_max_root", root)):
            most = getattr(self, name)
            if most is not None and most < least:
                raise BadInput(
                    f"mcts.{name}={most} is below {of}={least}, the samples of an expansion; lower "
                    "that too"
                )


FRONTIER = ("frontier_value", "frontier_entropy", "frontier_depth")
"""The weights of selection by frontier."""

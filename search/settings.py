"""The settings that every search knows."""

from dataclasses import dataclass
from enum import StrEnum

from treeward.search.errors import BadInput


class Algorithm(StrEnum):
    """The searches there are."""

    MCTS = "mcts"
    """Monte Carlo tree search: PUCT selection, expansion by policy samples, rollouts, backup."""
    ROLLOUTS = "rollouts"
    """Rollouts after every step of sampled solutions; no outcome decides where to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How a tree is grown; section `search.`."""

    algorithm: Algorithm = Algorithm.MCTS
    """Which search."""

    simulations: int = 16
    """Expansions a tree (mcts)."""

    width: int = 4
    """Samples an expansion (mcts), or solutions a tree (rollouts)."""

    rollouts: int = 8
    """Rollouts a node."""

    wave: int = 4
    """Nodes that are asked about at once."""

    max_depth: int = 32
    """Steps from the root at which nothing is expanded any more."""

    c: float = 1.0
    """Weight of exploration in PUCT, for values in [0, 1]."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        for name in ("simulations", "width", "rollouts", "wave", "max_depth"):
            if getattr(self, name) < 1:
                raise BadInput(f"search.{name} must be at least 1, got {getattr(self, name)!r}")
        if not self.c >= 0:
            raise BadInput(f"search.c must be at least 0, got {self.c!r}")

"""The settings that every search knows."""

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from treeward.search.errors import BadInput


class Algorithm(StrEnum):
    """The searches there are."""

    MCTS = "mcts"
    """Monte Carlo tree search: selection, expansion by policy samples, rollouts, backup."""
    ROLLOUTS = "rollouts"
    """Rollouts after every step of sampled solutions; no outcome decides where to look."""
    OMEGA = "omega"
    """OmegaPRM: the first wrong step of wrong rollouts, the most telling ones first."""
    GIVEN = "given"
    """No search: evidence on solutions that are given (`treeward label`)."""
    BEAM = "beam"
    """Beam search: the best prefixes of each depth go on."""
    BEST_OF_N = "best_of_n"
    """Whole solutions, which critics rank."""
    ADAPTIVE = "adaptive"
    """AB-MCTS-A: whether to sample anew or go deeper is decided by Thompson sampling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """How a tree is grown; section `search.`. A search passes over what its name is not at."""

    algorithm: Algorithm = Algorithm.MCTS
    """Which search."""

    simulations: int = 16
    """Expansions a tree (mcts, adaptive), or rollouts looked into (omega)."""

    width: int = 4
    """Samples an expansion (mcts, beam, adaptive), or solutions a tree (rollouts, omega,
    best_of_n)."""

    rollouts: int = 8
    """Rollouts a node (all but best_of_n), at most with `rollouts.width` or `rollouts.threshold`; 0
    lets critics alone say what a node is worth. For omega and given those at a middle of a binary
    search, at most."""

    wave: int = 4
    """Nodes that are asked about at once; for omega and given rollouts at a middle."""

    max_depth: int = 32
    """Steps from the root at which nothing is expanded (mcts, adaptive, beam) or rolled out
    (rollouts) any more."""

    c: float = 1.0
    """Weight of exploration in PUCT and UCT, for values in [0, 1] (mcts)."""

    critic_value: float = 1.0
    """Weight of the value critic in what a node is worth; at least 0."""

    critic_progress: float = 0.0
    """Weight of the progress critic."""

    critic_outcome: float = 0.0
    """Weight of the outcome critic. For best_of_n of all but ends, which it alone ranks where it
    says something."""

    critic_rollouts: float = 8.0
    """How many rollouts the critics' judgement of a node weighs; greater than 0 (all but
    best_of_n)."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        least = {"simulations": 1, "width": 1, "rollouts": 0, "wave": 1, "max_depth": 1, "c": 0}
        for name, bound in {**least, **dict.fromkeys(WEIGHTS, 0)}.items():
            value = getattr(self, name)
            if not value >= bound or value == math.inf:
                raise BadInput(f"search.{name} must be at least {bound}, got {value!r}")
        if not 0 < self.critic_rollouts < math.inf:
            raise BadInput(
                f"search.critic_rollouts must be greater than 0, got {self.critic_rollouts!r}"
            )


def refuse_unread(
    section: str, settings: Any, reader: str, names: Collection[str] | None = None
) -> None:
    """Raises BadInput for a setting that is no default and would be read only with another.

    Args:
        section: The section of the settings.
        settings: A dataclass with defaults.
        reader: What would have to be given, so that something read them.
        names: Its fields that nothing reads now; None for all.
    """
    for field in fields(settings):
        value = getattr(settings, field.name)
        if (names is None or field.name in names) and value != field.default:
            shown = value.value if isinstance(value, StrEnum) else value
            raise BadInput(
                f"{section}.{field.name}={shown!r} is read only with {reader}; give that as well, "
                f"or leave {section}.{field.name} out"
            )


WEIGHTS = ("critic_value", "critic_progress", "critic_outcome")
CRITIC_SETTINGS = (*WEIGHTS, "critic_rollouts")
"""The settings that say what critics count for; without critics they are no part of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoSettings:
    """Stands for a search that has no settings of its own."""

"""The searches there are: the settings that each has of its own, its bounds, and how it starts.

A search named `omega` has the settings of section `omega.`; all know those of section `search.`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from treeward.search.errors import BadInput
from treeward.search.mcts import mcts
from treeward.search.mcts_settings import MctsSettings
from treeward.search.requests import Search
from treeward.search.rollouts import Cut, rollouts
from treeward.search.settings import (
    CRITIC_SETTINGS,
    WEIGHTS,
    Algorithm,
    NoSettings,
    SearchSettings,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Holds what a search works with beside its tree and its settings."""

    cut: Cut

    scored: bool
    """Whether there are critics to ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Holds what a tree may come to, at most."""

    nodes: int

    samples: int
    """Steps that the policy is asked for."""

    rollouts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Holds what there is to know about one search."""

    own: type
    """The dataclass of its section."""

    start: Callable[[SearchSettings, Any, Tools], Search]
    """Returns the search with its settings, common and own."""

    bounds: Callable[[SearchSettings, Any], Bounds]

    steered: bool
    """Whether critics can steer it."""


def _start_mcts(settings: SearchSettings, own: MctsSettings, tools: Tools) -> Search:
    return partial(mcts, settings=settings, own=own, scored=tools.scored)


def _mcts_bounds(settings: SearchSettings, own: MctsSettings) -> Bounds:
    at_root = own.width_root or settings.width
    samples = at_root + (settings.simulations - 1) * settings.width
    return Bounds(nodes=1 + samples, samples=samples, rollouts=(1 + samples) * settings.rollouts)


def _start_rollouts(settings: SearchSettings, _: NoSettings, tools: Tools) -> Search:
    return partial(rollouts, settings=settings, cut=tools.cut)


def _rollouts_bounds(settings: SearchSettings, _: NoSettings) -> Bounds:
    below = settings.width * settings.max_depth
    rolled = settings.width + below * settings.rollouts
    return Bounds(nodes=1 + below, samples=0, rollouts=rolled)


METHODS: Mapping[Algorithm, Method] = {
    Algorithm.MCTS: Method(own=MctsSettings, start=_start_mcts, bounds=_mcts_bounds, steered=True),
    Algorithm.ROLLOUTS: Method(
        own=NoSettings, start=_start_rollouts, bounds=_rollouts_bounds, steered=False
    ),
}


def check_critics(settings: SearchSettings, *, scored: bool) -> None:
    """Checks that settings fit a search with or without critics.

    Raises:
        BadInput: They ask for critics that are not there, or for a search that uses none.
    """
    if not scored:
        for field in fields(SearchSettings):
            value = getattr(settings, field.name)
            if field.name in CRITIC_SETTINGS and value != field.default:
                raise BadInput(
                    f"search.{field.name}={value!r} weighs critics and there are none; give "
                    "--critics DIR"
                )
        if settings.rollouts == 0:
            raise BadInput(
                "search.rollouts must be at least 1 without critics, got 0; give --critics DIR"
            )
    elif not METHODS[settings.algorithm].steered:
        raise BadInput(
            f"critics do not steer the search {settings.algorithm.value}; leave --critics out and "
            "add scores afterwards with `treeward score`"
        )
    elif settings.rollouts == 0 and not any(getattr(settings, name) for name in WEIGHTS):
        raise BadInput(
            f"search.rollouts is 0 and so are {', '.join(f'search.{name}' for name in WEIGHTS)}; "
            "give one of them more than 0"
        )

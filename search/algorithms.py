"""The searches there are: the settings that each has of its own, its bounds, and how it starts.

A search named `omega` has the settings of section `omega.`; all know those of section `search.`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from math import ceil
from typing import Any

from treeward.search.adaptive import adaptive, seeded
from treeward.search.beam import BeamSettings, beam
from treeward.search.best_of_n import BestOfNSettings, best_of_n
from treeward.search.errors import BadInput
from treeward.search.fast import FastRollouts
from treeward.search.given import Given, GivenSettings, label_given
from treeward.search.groups import Same
from treeward.search.localise import Localiser, LocaliserSettings
from treeward.search.mcts import mcts
from treeward.search.mcts_settings import MctsSettings
from treeward.search.omega import OmegaSettings, omega
from treeward.search.requests import Growth, Search
from treeward.search.rollouts import rollouts
from treeward.search.settings import (
    CRITIC_SETTINGS,
    WEIGHTS,
    Algorithm,
    NoSettings,
    SearchSettings,
)
from treeward.search.steps import Cut
from treeward.search.stopping import RolloutsSettings
from treeward.search.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Holds what a search works with beside its tree and its settings."""

    cut: Cut

    scored: bool
    """Whether there are critics to ask."""

    seed: int
    """The run's seed, for searches that choose by chance."""

    solutions: Mapping[str, Sequence[Given]] = field(default_factory=dict)
    """By problem id, where solutions are given."""

    fast: FastRollouts | None = None
    """None where there are no fast rollouts."""

    same: Same | None = None
    """Tells which siblings are one to `mcts`; None leaves it to the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Holds what a tree may come to, at most; solutions with `search.max_depth` steps at most."""

    nodes: int

    samples: int
    """Steps that the policy is asked for."""

    rollouts: int

    calls: int
    """Requests to the policy."""


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

    rolls: bool = True
    """Whether it asks for `search.rollouts` from its nodes."""

    of_critics: tuple[str, ...] = ()
    """Settings of its own that say what critics count for."""


def _start_mcts(settings: SearchSettings, own: MctsSettings, tools: Tools) -> Search:
    scored, fast, same = tools.scored, tools.fast, tools.same
    return partial(mcts, settings=settings, own=own, scored=scored, fast=fast, same=same)


def _mcts_bounds(settings: SearchSettings, own: MctsSettings) -> Bounds:
    return _sampled(settings, settings.simulations, first=own.width_root)


def _start_adaptive(settings: SearchSettings, _: NoSettings, tools: Tools) -> Search:
    chances = seeded(tools.seed)
    return partial(
        adaptive, settings=settings, chances=chances, scored=tools.scored, fast=tools.fast
    )


def _adaptive_bounds(settings: SearchSettings, _: NoSettings) -> Bounds:
    return _sampled(settings, settings.simulations)


def _start_beam(settings: SearchSettings, own: BeamSettings, tools: Tools) -> Search:
    return partial(beam, settings=settings, own=own, scored=tools.scored, fast=tools.fast)


def _beam_bounds(settings: SearchSettings, own: BeamSettings) -> Bounds:
    return _sampled(settings, 1 + own.beams * (settings.max_depth - 1))


def _sampled(settings: SearchSettings, expansions: int, *, first: int | None = None) -> Bounds:
    """Returns the bounds of a search that samples at nodes and rolls out from all it makes.

    Args:
        settings: Hold how many samples an expansion has.
        expansions: How many there are.
        first: Samples of the first; None as for all others.
    """
    samples = (first or settings.width) + (expansions - 1) * settings.width
    nodes = 1 + samples
    return Bounds(
        nodes=nodes,
        samples=samples,
        rollouts=nodes * settings.rollouts,
        calls=expansions + nodes * (settings.rollouts > 0),
    )


def _start_rollouts(settings: SearchSettings, own: RolloutsSettings, tools: Tools) -> Search:
    return partial(rollouts, settings=settings, cut=tools.cut, own=own)


def _rollouts_bounds(settings: SearchSettings, own: RolloutsSettings) -> Bounds:
    below = settings.width * settings.max_depth
    rolled, calls = settings.width + below * settings.rollouts, 1 + below
    if not own.fixed:
        more = max(0, settings.rollouts - settings.width)
        rolled += more
        calls = 1 + ceil(more / own.batch) + below * ceil(settings.rollouts / own.batch)
    return Bounds(nodes=1 + below, samples=0, rollouts=rolled, calls=calls)


def _start_best_of_n(settings: SearchSettings, own: BestOfNSettings, tools: Tools) -> Search:
    return partial(best_of_n, settings=settings, own=own, cut=tools.cut, scored=tools.scored)


def _best_of_n_bounds(settings: SearchSettings, _: BestOfNSettings) -> Bounds:
    nodes = 1 + settings.width * settings.max_depth
    return Bounds(nodes=nodes, samples=0, rollouts=settings.width, calls=1)


def _start_omega(settings: SearchSettings, own: OmegaSettings, tools: Tools) -> Search:
    return partial(omega, settings=settings, own=own, cut=tools.cut)


def _omega_bounds(settings: SearchSettings, own: OmegaSettings) -> Bounds:
    paths = settings.width + settings.simulations
    looks = _looks(settings, own)
    return Bounds(
        nodes=1 + paths * settings.max_depth,
        samples=0,
        rollouts=settings.width + settings.simulations * looks,
        calls=1 + settings.simulations * looks,
    )


def _start_given(settings: SearchSettings, own: GivenSettings, tools: Tools) -> Search:
    def search(tree: Tree) -> Growth:
        solutions = tools.solutions[tree.problem.id]
        return label_given(tree, settings, own, tools.cut, solutions)

    return search


def _given_bounds(settings: SearchSettings, own: GivenSettings) -> Bounds:
    looks = _looks(settings, own)
    return Bounds(
        nodes=1 + settings.max_depth, samples=0, rollouts=own.rollouts + looks, calls=2 + looks
    )


def _looks(settings: SearchSettings, own: LocaliserSettings) -> int:
    """Returns how many rollouts a first wrong step may cost."""
    if own.localiser is Localiser.BAYES:
        return own.most
    return settings.max_depth.bit_length() * settings.rollouts


METHODS: Mapping[Algorithm, Method] = {
    Algorithm.MCTS: Method(own=MctsSettings, start=_start_mcts, bounds=_mcts_bounds, steered=True),
    Algorithm.ROLLOUTS: Method(
        own=RolloutsSettings, start=_start_rollouts, bounds=_rollouts_bounds, steered=False
    ),
    Algorithm.OMEGA: Method(
        own=OmegaSettings, start=_start_omega, bounds=_omega_bounds, steered=False
    ),
    Algorithm.GIVEN: Method(
        own=GivenSettings, start=_start_given, bounds=_given_bounds, steered=False, rolls=False
    ),
    Algorithm.BEAM: Method(own=BeamSettings, start=_start_beam, bounds=_beam_bounds, steered=True),
    Algorithm.BEST_OF_N: Method(
        own=BestOfNSettings,
        start=_start_best_of_n,
        bounds=_best_of_n_bounds,
        steered=True,
        rolls=False,
        of_critics=("aggregate",),
    ),
    Algorithm.ADAPTIVE: Method(
        own=NoSettings, start=_start_adaptive, bounds=_adaptive_bounds, steered=True
    ),
}


def of_critics(algorithm: Algorithm) -> frozenset[str]:
    """Returns the dotted names of all settings that say what critics count for."""
    own = METHODS[algorithm].of_critics
    return frozenset(f"search.{name}" for name in CRITIC_SETTINGS) | {
        f"{algorithm.value}.{name}" for name in own
    }


def check_guides(settings: SearchSettings, own: Any, *, scored: bool, fast: bool) -> None:
    """Checks that settings fit a search with or without critics and fast rollouts.

    Args:
        settings: The common ones.
        own: Those of the search.
        scored: Whether there are critics.
        fast: Whether there are fast rollouts.

    Raises:
        BadInput: They ask for critics that are not there, or for a search that uses none, or no
            fast rollouts.
    """
    method = METHODS[settings.algorithm]
    if isinstance(own, MctsSettings | GivenSettings):
        own.check_beside(settings)
    if fast and not (method.steered and method.rolls):
        able = [name.value for name, other in METHODS.items() if other.steered and other.rolls]
        raise BadInput(
            f"fast rollouts steer the searches {', '.join(able)}, and the search is "
            f"{settings.algorithm.value}; leave fast.rollouts out, or take one of these"
        )
    blind = not (method.rolls and (settings.rollouts or fast))
    if not scored:
        _check_unscored("search", settings, CRITIC_SETTINGS)
        _check_unscored(settings.algorithm.value, own, method.of_critics)
        if method.rolls and blind:
            raise BadInput(
                "search.rollouts must be at least 1 without critics and fast rollouts, got 0; "
                "give --critics DIR or fast.rollouts=4"
                if method.steered
                else f"search.rollouts must be at least 1 for {settings.algorithm.value}, got 0"
            )
    elif not method.steered:
        raise BadInput(
            f"critics do not steer the search {settings.algorithm.value}; leave --critics out and "
            "add scores afterwards with `treeward score`"
        )
    elif blind and not any(getattr(settings, name) for name in WEIGHTS):
        weights = ", ".join(f"search.{name}" for name in WEIGHTS)
        raise BadInput(
            f"search.rollouts is 0 and so are {weights}; give one of them more than 0"
            if method.rolls
            else f"{weights} are all 0, and nothing else ranks solutions; give one more than 0"
        )


def _check_unscored(section: str, settings: Any, names: Collection[str]) -> None:
    """Raises BadInput for a setting that weighs critics where there are none."""
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name in names and value != each.default:
            raise BadInput(
                f"{section}.{each.name}={value!r} weighs critics and there are none; give "
                "--critics DIR"
            )

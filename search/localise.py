"""Finds the first wrong step of a solution with few rollouts.

Binary search (Luo et al. 2024, OmegaPRM, section 3.2) takes one success for proof that a prefix is
right and none of k for proof that it is wrong. Where a policy can come right again by luck it goes
too far, the more rollouts the further. The other way keeps a posterior over the place, asks where a
rollout tells most for its tokens, and stops at a stated confidence.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np

from treeward.search.errors import BadInput
from treeward.search.information import information
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Request
from treeward.search.settings import SearchSettings, refuse_unread
from treeward.search.stopping import StopRule
from treeward.search.survey import Survey

Finding = Generator[list[Request], list[Reply], int]
"""A search for a step at work; returns how many steps are held to be right."""


class Localiser(StrEnum):
    """The ways to find the first wrong step."""

    BAYES = "bayes"
    """A posterior over the place; rollouts where they tell most."""
    BINARY = "binary"
    """Halves the solution with `search.rollouts` rollouts at each middle."""


class Stop(StrEnum):
    """When a middle has had enough rollouts (binary)."""

    SUCCESS = "success"
    """At the first that is right, asked `search.wave` at a time."""
    FIXED = "fixed"
    """When all are there, as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocaliserSettings:
    """How the first wrong step of a solution is found; section `given.` for given solutions."""

    section: ClassVar[str] = "given"
    """What its settings are called by."""

    localiser: Localiser = Localiser.BAYES
    """Which way."""

    stop: Stop = Stop.SUCCESS
    """When a middle has had enough rollouts (binary)."""

    confidence: float = 0.95
    """Probability of the likeliest place at which nothing more is asked (bayes); in (0, 1)."""

    most: int = 32
    """Rollouts a solution, at most (bayes)."""

    least: float = 0.003
    """What a rollout must be expected to tell of the place, in nats, to be asked for (bayes);
    greater than 0. Where a policy never ends right from right prefixes, no number helps."""

    batch: int = 1
    """Rollouts asked for at once (bayes)."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        if not 0 < self.confidence < 1:
            raise BadInput(f"{self.section}.confidence must be in (0, 1), got {self.confidence!r}")
        if not self.least > 0:
            raise BadInput(f"{self.section}.least must be greater than 0, got {self.least!r}")
        for name in ("most", "batch"):
            if getattr(self, name) < 1:
                raise BadInput(
                    f"{self.section}.{name} must be at least 1, got {getattr(self, name)!r}"
                )
        if self.localiser is Localiser.BAYES:
            refuse_unread(self.section, self, f"{self.section}.localiser=binary", ("stop",))
        else:
            refuse_unread(self.section, self, f"{self.section}.localiser=bayes", BAYES)


BAYES = ("confidence", "most", "least", "batch")
"""The settings that a search by posterior reads."""


def find_first_error(
    survey: Survey,
    path: Sequence[int],
    settings: SearchSettings,
    own: LocaliserSettings,
    *,
    right: int = 0,
) -> Growth:
    """Asks for rollouts along a solution to find its first wrong step.

    Args:
        survey: Holds the tree; modified.
        path: Nodes from the root to where the solution ends.
        settings: `rollouts` at a middle, `wave` of them at a time (binary).
        own: Which way, and when it is enough.
        right: Place in `path` of a node that is held to be right (binary); a solution that is not
            known to end wrong is not halved.
    """
    if own.localiser is Localiser.BAYES:
        yield from find_by_posterior(survey, path, own)
    elif survey.tree.terminal_value(path[-1]) == 0.0:
        wave = settings.wave if own.stop is Stop.SUCCESS else None
        yield from find_by_halves(survey, path[right:], settings.rollouts, wave=wave)


def find_by_halves(survey: Survey, path: Sequence[int], k: int, *, wave: int | None) -> Finding:
    """Halves a path whose first node is held to be right and whose last one to be wrong.

    Args:
        survey: Holds the tree; modified.
        path: Nodes, each below the one before.
        k: Rollouts at a middle, at most.
        wave: Asks so many at a time and stops at the first success; None asks for all at once.

    Returns:
        The place in `path` of the last node that is held to be right. Where all calls at a middle
        failed nothing is known of it, and the search ends there.
    """
    low, high = 0, len(path) - 1
    while high - low > 1:
        middle = (low + high) // 2
        node = path[middle]
        while (left := k - survey.asked[node]) > 0 and not (wave and survey.right[node]):
            yield from _roll(survey, node, min(wave or left, left))
        if not survey.known[node]:
            break
        if survey.right[node]:
            low = middle
        else:
            high = middle
    return low


def _roll(survey: Survey, node: int, n: int) -> Growth:
    """Asks for rollouts from a node because of how others ended."""
    yield from survey.roll([node], n)
    survey.tree.nodes.stop_rule[node] = StopRule.LOCATED


def find_by_posterior(survey: Survey, path: Sequence[int], settings: LocaliserSettings) -> Finding:
    """Asks for rollouts along a path until it is clear enough where it first goes wrong.

    What is clear from the prior alone is no finding: the step that is held to be the first wrong
    one, or the last, has an outcome at or below it, unless nothing more can be asked. A node from
    which all calls failed, or no verdict could be had, is not asked again.

    Args:
        survey: Holds the tree; modified.
        path: Nodes from the root down.
        settings: When it is clear enough.

    Returns:
        The place in `path` of the last node before the likeliest first wrong step.
    """
    tree = survey.tree
    inner = [node for node in path if not tree.is_terminal(node)]
    tokens = np.cumsum([len(tree.nodes.step_ids[node]) for node in path])
    # What a rollout costs is known of the path alone; one step more than it has is a fair guess.
    cost = tokens[-1] - tokens[: len(inner)] + tokens[-1] / max(1, len(path) - 1)
    steps, beliefs = survey.steps(path), survey.beliefs
    silent = np.array([bool(survey.asked[node]) and not survey.known[node] for node in inner])
    asked = 0
    while True:
        place_E = beliefs.first_error(steps)
        likeliest = int(place_E.argmax())
        if place_E[likeliest] >= settings.confidence:
            at = min(likeliest + 1, len(inner) - 1)
            enough = beliefs.seen(steps[at])
        else:
            told = np.where(silent, 0.0, information(beliefs, steps)[: len(inner)])
            at = int((told / cost).argmax())
            enough = bool(told.max() < settings.least)
        if enough or silent[at] or asked >= settings.most:
            return likeliest
        node = inner[at]
        n, before = min(settings.batch, settings.most - asked), survey.known[node]
        yield from _roll(survey, node, n)
        asked += n
        silent[at] = survey.known[node] == before

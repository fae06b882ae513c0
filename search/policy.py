"""What samples text: the Protocol that every backend satisfies, and what it is asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from treeward.search.errors import BadInput, CallFailed
from treeward.search.requests import Kind
from treeward.search.steps import Finish, StepRule
from treeward.search.tokens import Tokens

_LEAST_TEMPERATURE = 1e-6
"""Far below, differences of logits are no finite numbers any more."""


def require_temperature(name: str, temperature: float) -> None:
    """Raises BadInput for what logits cannot be divided by; `name` is the setting's."""
    if not _LEAST_TEMPERATURE <= temperature < math.inf:
        raise BadInput(
            f"{name} must be finite and at least {_LEAST_TEMPERATURE:g}, got {temperature!r}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """How the policy samples; what a node's value is the value of."""

    temperature: float = 1.0
    """Divides the logits before sampling; finite, at least 1e-6 (all but greedy)."""

    top_p: float = 1.0
    """Keeps the smallest set of tokens with at least this probability; in (0, 1]."""

    max_step_tokens: int = 128
    """Tokens a step may have, in samples and rollouts alike."""

    max_rollout_tokens: int = 512
    """Tokens a whole solution may have, the steps above a node included."""

    @property
    def as_is(self) -> bool:
        """Returns whether tokens are drawn with the very probabilities that the model gives."""
        return self.temperature == 1.0 and self.top_p == 1.0

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        require_temperature("policy.temperature", self.temperature)
        if not 0 < self.top_p <= 1:
            raise BadInput(f"policy.top_p must be in (0, 1], got {self.top_p!r}")
        for name in ("max_step_tokens", "max_rollout_tokens"):
            if getattr(self, name) < 1:
                raise BadInput(f"policy.{name} must be at least 1, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Asks a backend for continuations of one token sequence."""

    prompt_ids: tuple[int, ...]
    """The rendered problem."""

    prefix_ids: tuple[int, ...]
    """The steps below it; whole steps only."""

    kind: Kind
    """To the end of a step, or of the solution."""

    seeds: tuple[int, ...]
    """One for each continuation; equal asks with equal seeds get equal replies."""

    settings: PolicySettings
    rule: StepRule

    stick_to: str
    """Asks with the same word share prefixes: a backend with replicas keeps them together."""

    @property
    def room(self) -> int:
        """Returns how many tokens the rest of the solution may have."""
        return self.settings.max_rollout_tokens - len(self.prefix_ids)

    @property
    def most(self) -> int:
        """Returns how many tokens a continuation may have."""
        to_step = self.kind is Kind.SAMPLE
        return min(self.room, self.settings.max_step_tokens) if to_step else self.room

    @property
    def positions(self) -> int:
        """Returns how many a model must have for the longest continuation."""
        return len(self.prompt_ids) + len(self.prefix_ids) + self.most


@dataclass(frozen=True, slots=True, kw_only=True)
class LogprobAsk:
    """Asks a backend how likely tokens are that are given; it draws none."""

    prompt_ids: tuple[int, ...]
    """The rendered problem; at least one."""

    ids: tuple[int, ...]
    """What follows it; at least one."""

    stick_to: str
    """See `Ask`."""

    @property
    def positions(self) -> int:
        """Returns how many a model must have."""
        return len(self.prompt_ids) + len(self.ids)


@dataclass(frozen=True, slots=True)
class Draw:
    """Holds one continuation as a backend drew it."""

    token_ids: tuple[int, ...]
    """Sampled ids, end token included."""

    logprob: float
    """Sum of the log-probabilities of the ids at temperature 1, in nats."""

    finish: Finish
    """Why it stopped."""

    step_logprobs: tuple[float, ...] = ()
    """That of each step, where there are several."""


class SomeFailed(CallFailed):
    """Reports an ask of which some continuations failed; the others came and are here."""

    def __init__(self, failure: CallFailed, draws: dict[int, Draw]) -> None:
        """Takes the first failure, and the continuations that came by their seeds."""
        super().__init__(failure.kind, failure.message)
        self.draws = draws


def draws_of(ask: Ask, outcomes: Sequence[Draw | CallFailed]) -> list[Draw] | CallFailed:
    """Returns the draws of an ask, or what is to be raised where some are missing.

    Args:
        ask: What was asked.
        outcomes: What came of each seed, in their order.
    """
    failure = next((each for each in outcomes if isinstance(each, CallFailed)), None)
    if failure is None:
        return [each for each in outcomes if isinstance(each, Draw)]
    pairs = zip(ask.seeds, outcomes, strict=True)
    draws = {seed: each for seed, each in pairs if isinstance(each, Draw)}
    return SomeFailed(failure, draws) if draws else failure


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySampler:
    """Holds a policy and how it samples."""

    policy: "Policy"
    settings: PolicySettings


class Mode(StrEnum):
    """Whether companions in a batch may change a reply's last bits."""

    NORMAL = "normal"
    """Fastest: a sampled token can differ with the batch it was drawn in."""
    DETERMINISTIC = "deterministic"
    """A reply depends on its ask alone, on the same machine, threads and versions."""


class Policy(Protocol):
    """Samples text."""

    @property
    def tokens(self) -> Tokens:
        """Returns what its token ids stand for."""
        ...

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns what its replies depend on: weights' fingerprint, mode, threads, versions."""
        ...

    async def draw(self, ask: Ask) -> list[Draw]:
        """Returns one continuation for each seed, in their order.

        Raises:
            SomeFailed: Some of them could not be had; the search goes on with the others.
            CallFailed: The policy could not be asked; the search goes on without the reply.
        """
        ...

    async def logprobs(self, ask: LogprobAsk) -> list[float]:
        """Returns the log-probability of each id given all before it, at temperature 1, in nats.

        Raises:
            CallFailed: The policy could not be asked, or does not tell.
        """
        ...

    async def close(self) -> None:
        """Releases what it holds; no call is under way or follows."""
        ...

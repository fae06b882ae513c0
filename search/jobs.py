"""Asks under way, the same for every engine that runs in this process.

A job is an ask and whoever waits for its draws. Its rows are its continuations: an engine brings
each its tokens one by one, and the row says where it ends.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from treeward.search.continuation import Continuation
from treeward.search.errors import CallFailed
from treeward.search.policy import Ask, Draw, LogprobAsk, draws_of
from treeward.search.tokens import Tokens


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """An ask under way."""

    ask: Ask
    done: Callable[["list[Draw] | BaseException"], None]
    """Called once with the draws, in the order of the seeds, or with what went wrong."""

    outcomes: dict[int, Draw | CallFailed] = field(default_factory=dict)
    """What came of each continuation that has ended, by its place."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Returns prompt and prefix."""
        return self.ask.prompt_ids + self.ask.prefix_ids

    def is_work(self, max_positions: int) -> bool:
        """Returns whether there is anything to draw; else the job is done.

        Args:
            max_positions: Tokens that the model's context holds.
        """
        if failure := too_long(self.ask.positions, max_positions):
            self.done(failure)
            return False
        assert self.ids, "there is something to go on from"
        assert self.ask.room > 0, "a prefix without room is the end of its solution"
        if not self.ask.seeds:
            self.done([])
        return bool(self.ask.seeds)

    def start(self, tokens: Tokens) -> "list[Row]":
        """Returns its continuations, one for each seed, all at their first token."""
        rows = []
        for index, seed in enumerate(self.ask.seeds):
            drawn = Continuation.of(self.ask, tokens)
            rows.append(Row(job=self, index=index, seed=seed, drawn=drawn))
        return rows

    def settle(self, index: int, draw: Draw | CallFailed) -> None:
        """Takes what one continuation came to; the last one makes the job done."""
        self.outcomes[index] = draw
        n = len(self.ask.seeds)
        if len(self.outcomes) == n:
            self.done(draws_of(self.ask, [self.outcomes[place] for place in range(n)]))


@dataclass(slots=True, kw_only=True, eq=False)
class LogprobJob:
    """An ask for log-probabilities under way."""

    ask: LogprobAsk
    done: Callable[["list[float] | BaseException"], None]
    """Called once with one number for each id, or with what went wrong."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Returns the prompt and what follows it."""
        return self.ask.prompt_ids + self.ask.ids

    def fits(self, max_positions: int) -> bool:
        """Returns whether a model can read it all; else the job is done."""
        failure = too_long(self.ask.positions, max_positions)
        if failure is not None:
            self.done(failure)
        return failure is None

    def tell(self, logprobs: list[float]) -> None:
        """Takes what the model says."""
        self.done(logprobs if all(map(math.isfinite, logprobs)) else not_a_number())


def too_long(need: int, max_positions: float) -> CallFailed | None:
    """Returns why a model cannot take so many positions; None where it can."""
    if need <= max_positions:
        return None
    return CallFailed("context_length", f"{need} positions needed, the model has {max_positions}")


def not_a_number() -> CallFailed:
    """Returns what becomes of a call where logits are not numbers."""
    return CallFailed("not_a_number", "the model's logits are not numbers")


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """A continuation under way."""

    job: Job
    index: int
    seed: int
    drawn: Continuation

    @property
    def ids(self) -> list[int]:
        """Returns the tokens so far."""
        return self.drawn.ids

    def extend(self, token: int, logprob: float) -> bool:
        """Adds a token; returns whether the continuation goes on."""
        draw = self.drawn.add(token, logprob)
        if not math.isfinite(logprob):
            self.fail(not_a_number())
        elif draw is None:
            return True
        else:
            self.job.settle(self.index, draw)
        return False

    def fail(self, failure: CallFailed) -> None:
        """Ends the continuation without a draw."""
        self.job.settle(self.index, failure)

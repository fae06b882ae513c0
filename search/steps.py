"""Cuts token ids into steps, one token at a time, the same way for every reader.

A step ends with the first token whose text completes the delimiter, so the steps' ids put together
are the ids that were sampled. Sampling and splitting a finished solution use the same `Stepper`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from treeward.search.tokens import Tokens


class Finish(StrEnum):
    """Why a generation stopped."""

    STEP = "step"
    """A step is complete and the solution goes on."""
    END = "end"
    """The solution is complete: an end token, or a step with the answer."""
    LENGTH = "length"
    """The step or the solution ran out of its token budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRule:
    """Says where steps and solutions end."""

    delimiter: str = "\n"
    """Text that completes a step."""

    answer_mark: str = "Answer:"
    """Text that introduces the answer."""

    answer_ends: bool = True
    """Whether a complete step with the mark ends the solution; else only an end token does."""


@dataclass(slots=True, kw_only=True)
class Budget:
    """Counts down the tokens a solution may still take; both limits are inclusive."""

    step: int
    """Tokens a step may have."""

    total: int
    """Tokens that the rest of the solution may have."""


@dataclass(slots=True)
class Stepper:
    """Reads a solution token by token and tells where its steps end.

    `feed` is exact for streams that start at a step's first token.
    """

    tokens: Tokens
    rule: StepRule
    budget: Budget
    buffer: bytearray = field(default_factory=bytearray)
    """The bytes of the step so far."""
    length: int = 0
    """The tokens of the step so far."""

    def feed(self, token: int) -> Finish | None:
        """Returns what this token completes, or None inside a step.

        After `STEP` the stepper is at the start of the next step; after the others it is done.
        """
        self.length += 1
        self.budget.total -= 1
        if token in self.tokens.eos_ids:
            return Finish.END
        self.buffer += self.tokens.pieces[token]
        complete = self.rule.delimiter.encode() in self.buffer
        if complete and self.rule.answer_ends and self.rule.answer_mark.encode() in self.buffer:
            return Finish.END
        if self.budget.total <= 0 or (not complete and self.length >= self.budget.step):
            return Finish.LENGTH
        if complete:
            self.buffer.clear()
            self.length = 0
            return Finish.STEP
        return None


def cut(ids: Iterable[int], tokens: Tokens, rule: StepRule) -> list[tuple[int, ...]]:
    """Splits the ids of a solution into steps; put together they are the ids again.

    Args:
        ids: Token ids that start at a step's first token.
        tokens: What the ids stand for.
        rule: Where steps end.

    Returns:
        The steps; the last may be incomplete.
    """
    ids = tuple(ids)
    unlimited = len(ids) + 1
    stepper = Stepper(tokens, rule, Budget(step=unlimited, total=unlimited))
    steps: list[tuple[int, ...]] = []
    start = 0
    for end, token in enumerate(ids, start=1):
        if stepper.feed(token) is not None:
            steps.append(ids[start:end])
            start = end
    if start < len(ids):
        steps.append(ids[start:])
    return steps

"""Cuts token ids into steps, one token at a time, the same way for every reader.

A step ends with the first token whose text completes the delimiter, so the steps' ids put together
are the ids that were sampled. Sampling and splitting a finished solution use the same `Stepper`.
Where steps end depends on each step's own tokens alone; what the last of them brings after the
delimiter belongs to the next line, where it can be the beginning of the answer's mark.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from treeward.search.errors import BadInput
from treeward.search.tokens import Tokens

OPEN, CLOSE = "<think>", "</think>"
"""What thoughts are put between."""


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

    think: bool = False
    """Whether steps may begin with a `<think>` block, in which nothing ends a step or answers."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        for name in ("delimiter", "answer_mark"):
            if not getattr(self, name):
                raise BadInput(f"rule.{name} must not be empty")


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

    It starts at a step's first token; `after` starts it behind other steps.
    """

    tokens: Tokens
    rule: StepRule
    budget: Budget
    buffer: bytearray = field(default_factory=bytearray)
    """The bytes of the step so far."""
    length: int = 0
    """The tokens of the step so far."""
    carried: bytes = b""
    """What the step before brought after its delimiter."""

    @classmethod
    def after(
        cls, prefix_ids: Iterable[int], tokens: Tokens, rule: StepRule, budget: Budget
    ) -> "Stepper":
        """Returns a stepper at the start of the step that follows some whole steps."""
        carried = tokens.bytes_of(prefix_ids).rpartition(rule.delimiter.encode())[2]
        return cls(tokens, rule, budget, carried=carried)

    def feed(self, token: int) -> Finish | None:
        """Returns what this token completes, or None inside a step.

        After any finish the stepper is at the start of the next step.
        """
        self.length += 1
        self.budget.total -= 1
        self.buffer += self.tokens.pieces[token]
        finish = self._finish(ended=token in self.tokens.eos_ids)
        if finish is not None:
            self.carried = self._lines()[1]
            self.buffer.clear()
            self.length = 0
        return finish

    def _finish(self, *, ended: bool) -> Finish | None:
        complete = self.rule.delimiter.encode() in self._spoken()
        if ended or (complete and self.rule.answer_ends and self._has_answer()):
            return Finish.END
        if self.budget.total <= 0 or (not complete and self.length >= self.budget.step):
            return Finish.LENGTH
        return Finish.STEP if complete else None

    def _has_answer(self) -> bool:
        return self.rule.answer_mark.encode() in self._lines()[0]

    def _lines(self) -> tuple[bytes, bytes]:
        """Returns what the step completes, and what it brings after that."""
        text = self._spoken() if self._thinks() else self.carried + self.buffer
        done, _, rest = text.rpartition(self.rule.delimiter.encode())
        return bytes(done), bytes(rest)

    def _thinks(self) -> bool:
        """Returns whether the step begins with thoughts."""
        text = self.carried + self.buffer
        return self.rule.think and text.lstrip().startswith(OPEN.encode())

    def _spoken(self) -> bytes | bytearray:
        """Returns the bytes of the step that come after its thoughts; none while they last."""
        if not self._thinks():
            return self.buffer
        return (self.carried + self.buffer).partition(CLOSE.encode())[2]


def without_thoughts(text: str) -> str:
    """Returns a text without what stands in `<think>` blocks; one left open goes to the end."""
    before, opened, rest = text.partition(OPEN)
    while opened:
        spoken, opened, thoughts = rest.partition(CLOSE)[2].partition(OPEN)
        before, rest = before + spoken, thoughts
    return before


def clean_step(text: str, delimiter: str) -> str:
    """Returns a step without delimiters, so that no step can be read as two."""
    return " ".join(part for part in text.split(delimiter) if part)


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

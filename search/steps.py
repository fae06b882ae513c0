"""Cuts token ids into steps, one token at a time, the same way for every reader.

A step ends with the first token that completes it, by its text or by its number, so the steps' ids
put together are the ids that were sampled. Sampling and splitting a finished solution use the same
`Stepper`. Where steps end depends on each step's own tokens alone. Where a solution ends depends on
its lines, whatever a step is: what a token brings after a delimiter belongs to the next line, where
it can be the beginning of the answer's mark.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate

from treeward.search.errors import BadInput
from treeward.search.step_ends import CustomEnd, StepEnd, Watch, never, watch_for
from treeward.search.tokens import Tokens

OPEN, CLOSE = "<think>", "</think>"

Cut = Callable[[tuple[int, ...]], list[tuple[int, ...]]]
"""Splits the ids of a solution into steps."""
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
    """Text that ends a line: steps that are written down, answers, and sampled steps by `ends`."""

    ends: StepEnd | CustomEnd = StepEnd.DELIMITER
    """What ends a step that is sampled or cut."""

    step_tokens: int | None = None
    """Tokens of a step, where their number ends it; else None."""

    answer_mark: str = "Answer:"
    """Text that introduces the answer."""

    answer_ends: bool = True
    """Whether a complete line with the mark ends the solution; else only an end token does."""

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
        if (self.step_tokens is None) is (self.ends is StepEnd.TOKENS):
            raise BadInput(
                f"rule.step_tokens={self.step_tokens!r} does not go with rule.ends={self.ends}; "
                "give a number of tokens with rule.ends=tokens, and with no other"
            )
        if self.step_tokens is not None and self.step_tokens < 1:
            raise BadInput(f"rule.step_tokens must be at least 1, got {self.step_tokens!r}")
        if self.think and self.ends not in (StepEnd.DELIMITER, StepEnd.FORMULA):
            raise BadInput(
                f"rule.think=true needs steps that a delimiter ends, got rule.ends={self.ends}; "
                "take ends=delimiter or ends=formula, or leave think out"
            )

    @property
    def stop_text(self) -> str | None:
        """Returns the text at which a step ends wherever it comes; None where none does that."""
        return None if self.think or self.ends is not StepEnd.DELIMITER else self.delimiter


class Steps(StrEnum):
    """The step rules by name."""

    LINE = "line"
    """A line is a step."""
    PARAGRAPH = "paragraph"
    """What blank lines part is a step."""
    FORMULA = "formula"
    """A paragraph with a formula is a step, along with those before it that have none."""
    SENTENCE = "sentence"
    """A sentence is a step."""
    TOKENS = "tokens"
    """So many tokens are a step."""


def with_steps(rule: StepRule, steps: Steps, step_tokens: int | None = None) -> StepRule:
    """Returns a rule that ends steps otherwise and answers as before.

    Args:
        rule: Whose lines stay as they are where steps are sentences or numbers of tokens.
        steps: What a step is.
        step_tokens: How many tokens, where steps are that.

    Raises:
        BadInput: The number is missing, or there is one and nothing to count.
    """
    ends = StepEnd.DELIMITER if steps in (Steps.LINE, Steps.PARAGRAPH) else StepEnd(steps.value)
    lines = {Steps.LINE: "\n", Steps.PARAGRAPH: "\n\n", Steps.FORMULA: "\n\n"}
    delimiter = lines.get(steps, rule.delimiter)
    return replace(rule, ends=ends, delimiter=delimiter, step_tokens=step_tokens)


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
    line: bytearray = field(default_factory=bytearray)
    """What was said since the last delimiter, in this step or those before it."""
    text: bytearray = field(default_factory=bytearray)
    """What this step says so far, without thoughts."""
    length: int = 0
    """The tokens of the step so far."""
    thoughts: bytearray | None = None
    """The beginning of a step that has thoughts, or may have; None once it only speaks."""
    thinking: bool = False
    """Whether that beginning is known for thoughts."""
    watch: Watch = never
    delimiter: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Begins the first step."""
        self.delimiter = self.rule.delimiter.encode()
        self._begin()

    @classmethod
    def after(
        cls, prefix_ids: Iterable[int], tokens: Tokens, rule: StepRule, budget: Budget
    ) -> "Stepper":
        """Returns a stepper at the start of the step that follows some whole steps."""
        line = tokens.bytes_of(prefix_ids).rpartition(rule.delimiter.encode())[2]
        return cls(tokens, rule, budget, line=bytearray(line))

    def feed(self, token: int) -> Finish | None:
        """Returns what this token completes, or None inside a step.

        After any finish the stepper is at the start of the next step.
        """
        self.length += 1
        self.budget.total -= 1
        said = self.tokens.pieces[token]
        if self.thoughts is not None:
            said = self._hear(said)
        fresh = len(self.text)
        self.text += said
        answered = self._read_lines(said)
        complete = self.length == self.rule.step_tokens or self.watch(self.text, fresh)
        finish = self._finish(
            ended=token in self.tokens.eos_ids or (answered and self.rule.answer_ends),
            complete=complete,
        )
        if finish is not None:
            self._begin()
        return finish

    def _begin(self) -> None:
        self.text.clear()
        self.length = 0
        self.thoughts = bytearray() if self.rule.think else None
        self.thinking = False
        self.watch = watch_for(self.rule.ends, self.rule.delimiter)

    def _finish(self, *, ended: bool, complete: bool) -> Finish | None:
        if ended:
            return Finish.END
        if self.budget.total <= 0 or (not complete and self.length >= self.budget.step):
            return Finish.LENGTH
        return Finish.STEP if complete else None

    def _read_lines(self, said: bytes) -> bool:
        """Adds to the line; returns whether a line with the answer's mark is complete."""
        delimiter = self.delimiter
        fresh = len(self.line)
        self.line += said
        end = self.line.rfind(delimiter, max(0, fresh - len(delimiter) + 1))
        if end < 0:
            return False
        answered = self.line.find(self.rule.answer_mark.encode(), 0, end) >= 0
        del self.line[: end + len(delimiter)]
        return answered

    def _hear(self, piece: bytes) -> bytes:
        """Returns what of a token's text is no thought."""
        assert self.thoughts is not None
        seen = len(self.thoughts)
        self.thoughts += piece
        if not self.thinking:
            start = bytes(self.thoughts.lstrip()[: len(OPEN)])
            if start != OPEN.encode():
                if not OPEN.encode().startswith(start):
                    self.thoughts = None
                return piece
            # What looked like speech was the block's beginning.
            self.thinking, seen = True, 0
            self.text.clear()
            self.line.clear()
        close = CLOSE.encode()
        end = self.thoughts.find(close, max(0, seen - len(close) + 1))
        if end < 0:
            return b""
        said = bytes(self.thoughts[end + len(close) :])
        self.thoughts = None
        return said


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
    ends = _found(ids, tokens, rule.stop_text)
    if ends is None:
        unlimited = len(ids) + 1
        stepper = Stepper(tokens, rule, Budget(step=unlimited, total=unlimited))
        ends = [at for at, token in enumerate(ids, 1) if stepper.feed(token) is not None]
    if ids and (not ends or ends[-1] < len(ids)):
        ends.append(len(ids))
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _found(ids: tuple[int, ...], tokens: Tokens, stop_text: str | None) -> list[int] | None:
    """Returns behind which tokens steps end, found in the whole text at once.

    None where it takes more: no text ends steps; an end token has others behind it; or a step ends
    with the beginning of a delimiter, which may complete a line of the next step.
    """
    if stop_text is None or not tokens.eos_ids.isdisjoint(ids[:-1]):
        return None
    stop, pieces = stop_text.encode(), [tokens.pieces[token] for token in ids]
    text, bounds = b"".join(pieces), [*accumulate(map(len, pieces))]
    begun = [stop[:size] for size in range(1, len(stop))]
    ends, start = [], 0
    while (found := text.find(stop, start)) >= 0:
        token = bisect_left(bounds, found + len(stop))
        start = bounds[token]
        rest = text[text.rfind(stop, found, start) + len(stop) : start]
        if any(map(rest.endswith, begun)):
            return None
        ends.append(token + 1)
    return ends

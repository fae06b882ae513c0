"""What can end a step: watches that look at each token once, at its text and little before it.

A watch sees nothing but the step's own text, so that a rollout is cut where it was drawn. All the
patterns are fixed here and none can backtrack: text from a model costs time in proportion to its
length, whatever it says.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

Watch = Callable[[bytearray, int], bool]
"""Given a step's text and where its last token begins in it, whether the step is complete.

Called once for each token of a step, in their order.
"""


class StepEnd(StrEnum):
    """What ends a step."""

    DELIMITER = "delimiter"
    """The delimiter."""
    FORMULA = "formula"
    """The delimiter, if there is a formula, `$...$` or `<<...>>`, between it and the one before it
    or the step's beginning; else the step goes on (AlphaLLM, Tian et al. 2024, on MATH)."""
    SENTENCE = "sentence"
    """The end of a sentence or of a line, by the rule of thumb that `Sentences` has."""
    TOKENS = "tokens"
    """A number of tokens."""


class CustomEnd:
    """Ends steps as a function says. The name stands for it in a run's identity."""

    def __init__(self, name: str, complete: Callable[[str], bool]) -> None:
        """Takes a name and a function.

        Args:
            name: Another name makes another run; the same name promises the same function.
            complete: Given the text of a step so far, whether that is the step; called once for
                each token. It must depend on the text alone.
        """
        self.name = name
        self._complete = complete

    def __call__(self, text: bytearray, _: int) -> bool:
        """Returns whether a step is complete; bytes that are no UTF-8 yet are left out."""
        return self._complete(text.decode("utf-8", "ignore"))

    def __str__(self) -> str:
        """Returns what stands for it."""
        return f"custom:{self.name}"


@dataclass(frozen=True, slots=True)
class Delimiters:
    """Ends a step with the first delimiter."""

    delimiter: bytes

    def __call__(self, text: bytearray, fresh: int) -> bool:
        """Returns whether the last token completes a delimiter."""
        return text.find(self.delimiter, max(0, fresh - len(self.delimiter) + 1)) >= 0


_FORMULA = re.compile(rb"\$[^$\n]*\$|<<[^<>\n]*>>")


@dataclass(frozen=True, slots=True)
class Formulas:
    """Ends a step with the first delimiter that has a formula before it."""

    delimiter: bytes

    def __call__(self, text: bytearray, fresh: int) -> bool:
        """Returns whether the last token completes such a delimiter.

        What stands before a delimiter is searched when that is complete, up to the one before it.
        """
        size = len(self.delimiter)
        end = text.find(self.delimiter, max(0, fresh - size + 1))
        while end >= 0:
            before = text.rfind(self.delimiter, 0, end)
            if _FORMULA.search(text, 0 if before < 0 else before + size, end):
                return True
            end = text.find(self.delimiter, end + size)
        return False


_SPEECH = re.compile(rb"\S")
_SENTENCE = re.compile(
    rb"(?<=[^\s.!?])[.!?][\"')\]]{0,2}\s"
    # A number may go on behind its point, and "i." may become "i.e.": these wait for the space.
    rb"|(?<=[A-Za-z\x80-\xff]{2})[.!?]\Z|(?<=[)\]}\"'$%])[.!?]\Z"
    rb"|\xe3\x80\x82|\xef\xbc\x81|\xef\xbc\x9f"
)
_SENTENCE_REACH = 5
"""Bytes before a token that can belong to a sentence end which the token completes."""


@dataclass(slots=True)
class Sentences:
    """Ends a step with a sentence: a mark `.`, `!` or `?` behind two letters, a bracket or a quote.

    Behind anything else, as in "3.5", the mark needs a space after it, which may come with the next
    word. A full stop of Chinese and Japanese text ends a step, and so does a line that is not
    empty. "e.g. " is taken for an end.
    """

    begun: int | None = None
    """Where the step's first character is that is no space; None while there is none."""

    def __call__(self, text: bytearray, fresh: int) -> bool:
        """Returns whether the last token completes a sentence or a line."""
        if self.begun is None:
            first = _SPEECH.search(text, fresh)
            if first is None:
                return False
            self.begun = first.start()
        if text.find(b"\n", max(self.begun, fresh)) >= 0:
            return True
        return _SENTENCE.search(text, max(self.begun, fresh - _SENTENCE_REACH)) is not None


def never(_: bytearray, __: int) -> bool:
    """Ends nothing: for steps that something other than their text ends."""
    return False


def watch_for(ends: StepEnd | CustomEnd, delimiter: str) -> Watch:
    """Returns the watch over one step; each step needs its own."""
    if isinstance(ends, CustomEnd):
        return ends
    if ends is StepEnd.SENTENCE:
        return Sentences()
    if ends is StepEnd.TOKENS:
        return never
    kind = Formulas if ends is StepEnd.FORMULA else Delimiters
    return kind(delimiter.encode())

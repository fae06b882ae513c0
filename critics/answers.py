r"""Compares answers as text and as exact numbers, without an expression parser.

Text is equal up to white space, invisible marks, wrapping ($...$, \(...\), \text{...}, **...**)
and a final full stop.

A number is an integer, a decimal, `a/b`, `\frac{a}{b}` or a mixed number, with sign, thousands
separators (1,000 and 1 000), e-notation, one currency sign and one percent sign. Equality is exact:
0.5 = 1/2 = 50%, and 0.333333 is not 1/3. A percentage equals the part of one and the number before
its sign, since questions ask for either: 50% = 0.5 and 50% = 50 (never 0.5 = 50). A unit in words
counts where the reference has one: for "5 cm", "5" and "5.0 cm" are right, "5 m" is wrong; for "5",
"5 cm" is no number. A decimal comma is not read.

All regular expressions here are linear; all of this is linear in the length of the text.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from treeward.critics.caps import MAX_EXPONENT, MAX_LENGTH, Cap

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\uff05": "%"})
_WRAPS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("\\text{", "}"))
_SPACING = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,; ]")
_LOOSE_SPACE = re.compile(r"(?<!\w) | (?!\w)")

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d+)"
_PLAIN = rf"(?P<plain>(?:{_DIGITS}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)"
_FRACTION = (
    r"(?:(?P<whole>\d+)(?: |(?=\\)))?"
    r"(?:(?P<top>\d+) ?/ ?(?P<bottom>\d+)"
    r"|\\frac ?(?:\{ ?(?P<top2>\d+) ?\}|(?P<top3>\d))"
    r" ?(?:\{ ?(?P<bottom2>\d+) ?\}|(?P<bottom3>\d)))"
)
_NUMBER = re.compile(
    r"(?P<sign>[+-]?) ?[$\u20ac\u00a3]?(?P<sign2>-?)"
    rf"(?:{_FRACTION}|{_PLAIN}) ?(?P<percent>%|percent\b|)"
    r"(?P<unit>(?: [a-z]+){0,3}|[a-z]{2,})",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Number:
    """Holds a number as an answer states it."""

    value: Fraction
    """The number before the percent sign."""

    percent: bool = False
    """Whether a percent sign follows."""

    unit: str = ""
    """The words after it, in lower case."""

    def accepts(self, other: "Number") -> bool:
        """Returns whether another number answers a question whose reference is this one."""
        if other.unit not in ("", self.unit):
            return False
        if self.percent == other.percent:
            return self.value == other.value
        rate, bare = (self.value, other.value) if self.percent else (other.value, self.value)
        return bare in (rate, rate / 100)


@lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    """Returns a text without invisible marks, wrapping, spare white space and final full stop."""
    text = " ".join(_INVISIBLE.sub("", text).translate(_SIGNS).split())
    for _ in _WRAPS:
        before = text
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
        for opening, closing in _WRAPS:
            inner = text[len(opening) : -len(closing)]
            wrapped = text.startswith(opening) and text.endswith(closing)
            if wrapped and len(text) > len(opening + closing) and closing not in inner:
                text = inner.strip()
        if text == before:
            break
    return text


def same_text(reference: str, answer: str) -> bool:
    """Returns whether two texts are equal up to what `tidy` takes away, and letter case."""
    return text_key(reference) == text_key(answer)


def text_key(text: str) -> str:
    """Returns what texts that `same_text` calls equal have in common."""
    return tidy(text).casefold()


def same_expression(reference: str, answer: str) -> bool:
    r"""Returns whether two expressions are written alike up to spacing, \left and \dfrac."""
    return expression_key(reference) == expression_key(answer)


def expression_key(text: str) -> str:
    """Returns what expressions that `same_expression` calls equal have in common."""
    text = _spaced(tidy(text)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return _LOOSE_SPACE.sub("", " ".join(text.split()))


def _spaced(text: str) -> str:
    r"""Returns LaTeX with its spacing as spaces; `\!` takes space away, as in `10,\!000`."""
    return _SPACING.sub(" ", text.replace("\\!", ""))


def read_number(text: str) -> Number | Cap | None:
    """Reads a text that is one number.

    Returns:
        The number; the cap it exceeds, if it may be a number that is too long to read; None where
        it is no number.
    """
    text = tidy(text)
    if len(text) > MAX_LENGTH:
        return Cap.LENGTH if any(char.isdigit() for char in text) else None
    text = _spaced(text).replace("{,}", ",").replace("\\%", "%").replace("\\$", "$")
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    match = _NUMBER.fullmatch(" ".join(text.split()))
    if match is None or (match["sign"] and match["sign2"]):
        return None
    value = _value(match)
    if not isinstance(value, Fraction):
        return value
    negative = (match["sign"] == "-") != (match["sign2"] == "-")
    unit = match["unit"].strip().lower()
    return Number(-value if negative else value, bool(match["percent"]), unit)


def _value(match: re.Match[str]) -> Fraction | Cap | None:
    """Returns the unsigned value that a match of `_NUMBER` states."""
    plain = match["plain"]
    if plain is not None:
        mantissa, _, exponent = plain.lower().partition("e")
        if exponent and abs(int(exponent)) > MAX_EXPONENT:
            return Cap.EXPONENT
        digits = mantissa.replace(",", "").replace(" ", "").rstrip(".")
        return Fraction(digits) * Fraction(10) ** int(exponent or 0)
    top = int(match["top"] or match["top2"] or match["top3"])
    bottom = int(match["bottom"] or match["bottom2"] or match["bottom3"])
    return None if bottom == 0 else int(match["whole"] or 0) + Fraction(top, bottom)


_CHOICE = re.compile(
    r"(?:option |choice )?[(\[]?([a-z0-9])(?:[)\].:](?: (?P<rest>.*))?)?", re.IGNORECASE
)
_MORE = re.compile(
    r"(?:or|and|is|are|nor|not)\b|[(\[]?[a-z][)\].:]?$|.*(?<![a-z0-9])[(\[]?[a-z][)\].:](?: |$)",
    re.IGNORECASE,
)
"""What follows a choice where it need not be the one that is meant."""

_ONE = r"(?:option |choice )?[(\[]?[a-z0-9][)\].:]?"
_SEVERAL = re.compile(rf"{_ONE}(?:(?:,|/|,? (?:or|and)) ?{_ONE})+", re.IGNORECASE)
"""Choices side by side, and nothing else."""
_LISTED = re.compile(r"(?<![a-z0-9])[a-z0-9](?![a-z0-9])")


def same_choice(reference: str, answer: str) -> bool | None:
    """Returns whether two texts name the same choice: "B" = "(b)" = "B." = "Option B" = "B) Paris".

    A reference that is no single letter or digit ("yes") is compared as text, and one that lists
    several as a list. An answer that lists several ("A) or B") where one is right names none, so it
    is wrong. None is unknown: the answer has more to say of other choices, or speaks about the
    first ("A) is wrong, B").
    """
    said = tidy(answer)
    named = _CHOICE.fullmatch(said)
    more = named and named["rest"] and _MORE.match(named["rest"])
    if more and not _SEVERAL.fullmatch(said) and not same_text(reference, answer):
        return None
    return choice_key(reference) == choice_key(answer)


def choice_key(text: str) -> str:
    """Returns the letter or digit that a text names in small letters, or else its `text_key`.

    Of one that lists several, all of them: "C) and A" is "a,c".
    """
    text = tidy(text)
    if _SEVERAL.fullmatch(text):
        return ",".join(sorted(set(_LISTED.findall(text.casefold()))))
    named = _CHOICE.fullmatch(text)
    return named[1].casefold() if named else text_key(text)

"""Caps on what the math checker is asked to read, so that whether it is asked never takes a clock.

An answer beyond a cap is not wrong: nobody has looked. The caps are far above what answers to
exercises need; each one keeps out a family of expressions that takes seconds or gigabytes.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from math import comb

MAX_LENGTH = 300
"""Characters; parsing takes up to half a second at this length."""

MAX_NESTING = 8
"""Brackets of all kinds open at once; every level of parentheses costs 60 ms of parsing."""

MAX_DIGITS = 30
"""Digits in a row within an expression; plain numbers are compared without these caps."""

MAX_EXPONENT = 999
"""Product of the numbers in an exponent, and of the exponents of nested groups."""

MAX_TERMS = 500
"""Terms that powers of groups may have once expanded in as many letters as there are."""

MAX_FACTOR_DIGITS = 3
"""Digits in a row where there is a factorial or a binomial coefficient."""

MAX_BARS = 4
"""Vertical bars; with more, every way to pair them is tried."""


class Cap(StrEnum):
    """Which limit an expression exceeds."""

    LENGTH = "length"
    NESTING = "nesting"
    DIGITS = "digits"
    EXPONENT = "exponent"
    """A tower of numbers, or an exponent that makes numbers or expansions too long to write."""
    GROWTH = "growth"
    """A factorial or a binomial coefficient of something large, or of something to work out."""
    WORK = "work"
    """A sum, product, integral or limit that is still to be worked out."""
    BARS = "bars"


_WORK = re.compile(r"\\(?:sum|prod|coprod|int|iint|iiint|oint|lim|limsup|liminf)(?![a-z])|[∑∏∫]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_DIGITS = re.compile(r"\d+")
_EXPONENT_OF_EXPONENT = re.compile(r"\^\s*(?:\{[^{}]*\}|\w+)\s*\^")
_FACTORIAL_OF_WORK = re.compile(r"[)\]}!]\s*!|!\s*\^")


def cap_hit(text: str) -> Cap | None:
    """Returns the first cap that an expression exceeds, or None; depends on the text alone."""
    if len(text) > MAX_LENGTH:
        return Cap.LENGTH
    if _nesting(text) > MAX_NESTING:
        return Cap.NESTING
    if text.count("|") + text.count("\\vert") > MAX_BARS:
        return Cap.BARS
    if _longest_number(text) > MAX_DIGITS:
        return Cap.DIGITS
    if _WORK.search(text):
        return Cap.WORK
    if _grows(text):
        return Cap.GROWTH
    return Cap.EXPONENT if _exponents_too_large(text) else None


def _nesting(text: str) -> int:
    """Returns how many brackets are open at once; closing ones that close nothing do not count."""
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth = max(depth - 1, 0)
    return deepest


def _longest_number(text: str) -> int:
    """Returns the length of the longest row of digits."""
    return max(map(len, _DIGITS.findall(text)), default=0)


def _grows(text: str) -> bool:
    """Returns whether a factorial or binomial coefficient may be of something large."""
    if "choose" in text or _FACTORIAL_OF_WORK.search(text):
        return True
    chooses = "binom" in text
    if chooses and ("^" in text or "!" in text):
        return True
    return (chooses or "!" in text) and _longest_number(text) > MAX_FACTOR_DIGITS


def _exponents_too_large(text: str) -> bool:
    """Returns whether some power has too many digits, or too many terms once expanded."""
    if _EXPONENT_OF_EXPONENT.search(text):
        return True
    largest, of_groups = 1, 1
    for base, exponent in _powers(text):
        size = _size(exponent)
        if size > MAX_EXPONENT or "!" in exponent or _is_tower(exponent):
            return True
        if base in ")]}":
            of_groups *= size
        else:
            largest = max(largest, size)
    if largest * of_groups > MAX_EXPONENT:
        return True
    letters = {char for char in _COMMAND.sub("", text) if char.isalpha()}
    return of_groups > 1 and comb(of_groups + len(letters), len(letters)) > MAX_TERMS


def _powers(text: str) -> Iterator[tuple[str, str]]:
    """Yields the last character of the base and the exponent of every power, nested ones too."""
    for place, char in enumerate(text):
        if char == "^":
            yield text[:place].rstrip()[-1:] or " ", _operand(text[place + 1 :].lstrip())


def _operand(text: str) -> str:
    """Returns the group, number or letter that a text begins with; all of it if that is unclear."""
    if text[:1].isalpha():
        return text[0]
    number = re.match(r"-?\d+(?![\d.])", text)
    if number:
        return number.group()
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[: place + 1] if text[0] == "{" else text
    return text


def _size(exponent: str) -> int:
    """Returns the product of the numbers in an exponent, zeros left out."""
    size = 1
    for digits in _DIGITS.findall(exponent):
        size *= max(int(digits), 1)
    return size


def _is_tower(exponent: str) -> bool:
    """Returns whether an exponent holds a power of anything but a letter, or a power in a power."""
    return any(not base.isalpha() or "^" in inner for base, inner in _powers(exponent))

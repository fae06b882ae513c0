"""Parses generator specs, `scheme:name?key=value&key=value`, into typed values.

Values are percent-decoded; a plus sign stands for itself. A reader turns the text of one value into
its type, or raises ValueError with the rule that the text breaks ("must be ...").
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from treeward.search.errors import BadInput

Reader = Callable[[str], object]
"""Turns the text of a value into its type, or raises ValueError with the rule."""

SCHEMES = ("task", "gym")

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,18}(\.[0-9]{1,24})?(e[-+]?[0-9]{1,3})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Holds a spec taken apart; its values are still text."""

    scheme: str
    """`task` or `gym`."""

    name: str
    """The generator."""

    query: Mapping[str, str]
    """Decoded values by key, in the order given."""

    @property
    def source(self) -> str:
        """Returns the spec without its query, which is what its problems name as their source."""
        return f"{self.scheme}:{self.name}"


def is_spec(text: str) -> bool:
    """Tells a generator spec from the name of a file."""
    return text.startswith(tuple(f"{scheme}:" for scheme in SCHEMES))


def parse_spec(text: str) -> Spec:
    """Takes a spec apart.

    Raises:
        BadInput: The name is missing, or a part of the query is not one `key=value`.
    """
    scheme, _, rest = text.partition(":")
    name, _, query = rest.partition("?")
    if not name:
        raise BadInput(f"{text}: no generator is named; write {scheme}:NAME?n=200&seed=1")
    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        key = unquote(key)
        if not key or not equals:
            raise BadInput(
                f"{scheme}:{name}: {part!r} is not key=value; write ?key=value&key=value"
            )
        if key in values:
            raise BadInput(f"{scheme}:{name}: {key} is given twice; keep one of them")
        values[key] = unquote(value)
    return Spec(scheme=scheme, name=name, query=values)


def read_values(spec: Spec, readers: Mapping[str, Reader]) -> dict[str, object]:
    """Returns the typed values of a spec's query; keys that are not given are left out.

    Args:
        spec: What was given.
        readers: How to read each key that the generator knows.

    Raises:
        BadInput: A key is unknown, or a value breaks its rule.
    """
    values = {}
    for key, text in spec.query.items():
        if key not in readers:
            raise BadInput(f"{spec.source}: unknown key {key!r}; {nearest(key, readers)}")
        try:
            values[key] = readers[key](text)
        except ValueError as e:
            raise BadInput(f"{spec.source}: {key} {e}, got {text!r}") from e
    return values


def nearest(word: str, words: Iterable[str]) -> str:
    """Returns a hint at the valid word that is most like the one given, or at all of them."""
    words = list(words)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid ones are {', '.join(words)}"


def integer(low: int = -(10**18), high: int = 10**18) -> Reader:
    """Returns a reader of whole numbers from `low` to `high`, both included."""

    def read(text: str) -> int:
        if not _INTEGER.fullmatch(text):
            raise ValueError("must be a whole number")
        if not low <= int(text) <= high:
            raise ValueError(f"must be from {low} to {high}")
        return int(text)

    return read


def span(text: str) -> tuple[int, int]:
    """Reads a range `a..b` of whole numbers, both ends included; `a` alone stands for `a..a`."""
    low, dots, high = text.partition("..")
    ends = (low, high if dots else low)
    if not all(_INTEGER.fullmatch(end) for end in ends):
        raise ValueError("must be a range a..b of whole numbers")
    if int(ends[0]) > int(ends[1]):
        raise ValueError("must be a range a..b with a <= b")
    return int(ends[0]), int(ends[1])


def number(text: str) -> float:
    """Reads a finite number."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("must be a number")
    return float(text)


def boolean(text: str) -> bool:
    """Reads `true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def word(text: str) -> str:
    """Reads any text that is not empty."""
    if not text:
        raise ValueError("must not be empty")
    return text


def choice(*words: str) -> Reader:
    """Returns a reader of one of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return read


def items(reader: Reader) -> Reader:
    """Returns a reader of a list whose parts are set off by commas."""

    def read(text: str) -> list[object]:
        return [reader(part) for part in text.split(",")]

    return read

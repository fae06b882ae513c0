"""Reads settings: a TOML file, then `--set section.key=value`, then what the caller names."""

import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from treeward.search.errors import BadInput
from treeward.search.specs import nearest

Values = dict[str, Any]
"""Settings by dotted name, as TOML reads them."""

T = TypeVar("T")


def read_values(config: Path | None, assignments: Sequence[str]) -> Values:
    """Returns what a file and assignments say; assignments win, later ones over earlier ones.

    Raises:
        BadInput: The file cannot be read, or an assignment is not `section.key=value`.
    """
    values: Values = {}
    if config is not None:
        try:
            data = tomllib.loads(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise BadInput(f"--config {config}: {e}") from e
        for section, entries in data.items():
            if not isinstance(entries, dict):
                raise BadInput(
                    f"--config {config}: {section!r} must be a [section] with keys in it"
                )
            values |= {f"{section}.{key}": value for key, value in entries.items()}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or "." not in name:
            raise BadInput(f"--set {assignment!r}: must be section.key=value")
        values[name.strip()] = _parse(text.strip())
    return values


_BARE_POINT = re.compile(r"[+-]?(\.[0-9]+|[0-9]+\.)([eE][+-]?[0-9]+)?")
"""Numbers that TOML does not know: .8 and 1."""


def _parse(text: str) -> Any:
    """Returns text as the TOML value that it spells, or as it is."""
    if _BARE_POINT.fullmatch(text):
        return float(text)
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def check_names(values: Values, sections: Mapping[str, type]) -> None:
    """Refuses names that no section has.

    Raises:
        BadInput: Names the nearest valid setting.
    """
    valid = [
        f"{section}.{field.name}" for section, kind in sections.items() for field in fields(kind)
    ]
    for name in values:
        if name not in valid:
            raise BadInput(f"unknown setting {name!r}: {nearest(name, valid)}")


def build(kind: type[T], section: str, values: Values, **defaults: Any) -> T:
    """Returns a section's dataclass from the values with its prefix.

    Args:
        kind: A dataclass; its field types say what values may be.
        section: The prefix of its names, without the dot.
        values: Settings by dotted name; those of other sections are passed over.
        defaults: Take the place of the dataclass's own.

    Raises:
        BadInput: A value has the wrong type or breaks a rule of its section.
    """
    hints = typing.get_type_hints(kind)
    mine = {
        key: _convert(f"{section}.{key}", value, hints[key])
        for name, value in values.items()
        for at, _, key in [name.partition(".")]
        if at == section
    }
    return kind(**(defaults | mine))


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Returns a value as its field's type, or refuses it by name."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and issubclass(option, StrEnum) and isinstance(value, str):
            if value in set(option):
                return option(value)
            raise BadInput(
                f"{name}: no {value!r}; {nearest(value, [each.value for each in option])}"
            )
        if option is float and type(value) in (float, int):
            return _finite(name, value)
        if option is types.NoneType and value == "none":
            return None
        if type(value) is option:
            return value
    names = " or ".join("none" if each is types.NoneType else each.__name__ for each in options)
    raise BadInput(f"{name} must be {names}, got {value!r}")


def _finite(name: str, value: float) -> float:
    """Returns a number as the float that it can be written as; refuses infinity and the like."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise BadInput(f"{name} must be a finite number, got {value!r:.40}")
    return number


def flatten(section: str, settings: Any) -> Values:
    """Returns a section's fields by dotted name, as plain values."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {
        f"{section}.{key}": value.value if isinstance(value, StrEnum) else value
        for key, value in values.items()
    }

"""Reads problems from files and generators, and checks every one before anything else happens."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from treeward.search import arithmetic, gym
from treeward.search.errors import BadInput
from treeward.search.problem import Problem
from treeward.search.rows import FIELDS, NotJsonError, as_problem, parse_json
from treeward.search.specs import (
    Spec,
    choice,
    integer,
    is_spec,
    nearest,
    parse_spec,
    read_values,
    span,
    word,
)

_ARITHMETIC = {
    "n": integer(1, 1_000_000),
    "seed": integer(0),
    "steps": span,
    "numbers": span,
    "operators": word,
    "mod": integer(),
    "template": choice(*arithmetic.TEMPLATES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """Holds what was read."""

    problems: tuple[Problem, ...]
    """The good ones, in the order read; no two share an id."""

    skipped: tuple[str, ...] = ()
    """For each row left out, where it is and why."""


class Row(NamedTuple):
    """Holds one row of a file before it is checked."""

    where: str
    """What errors about it begin with."""

    value: object
    """What it holds; bytes are JSON still to be parsed."""


def read_problems(spec: str, *, limit: int | None = None, skip_bad: bool = False) -> ProblemSet:
    """Reads and checks problems from a file (JSON Lines, JSON, Parquet) or a generator.

    Args:
        spec: A file's name, `task:arithmetic?key=value&...` or `gym:NAME?key=value&...`; both
            make 100 problems with seed 0 unless told otherwise.
        limit: How many good problems to keep, the first ones; None for all. All are checked.
        skip_bad: Whether bad rows are left out and counted; otherwise the first is an error.

    Raises:
        BadInput: Nothing good can be read, or a row is bad and `skip_bad` is off.
        MissingExtra: A generator or a verifier needs an extra that is not installed.
    """
    check_limit(limit)
    if is_spec(spec):
        return ProblemSet(problems=tuple(_generate(parse_spec(spec))[:limit]))
    path = Path(spec)
    problems, skipped = _check_rows(read_file(path), path.name, skip_bad)
    if not problems:
        raise nothing_good(path, skipped, "problem")
    return ProblemSet(problems=tuple(problems[:limit]), skipped=tuple(skipped))


def check_limit(limit: int | None) -> None:
    """Raises BadInput for a number of problems that is none."""
    if limit is not None and limit < 1:
        raise BadInput(f"limit must be at least 1, got {limit!r}; leave it out to read all")


def nothing_good(path: Path, skipped: Sequence[str], what: str) -> BadInput:
    """Returns the error of a file without a good row.

    Args:
        path: The file.
        skipped: Why rows were left out.
        what: What is wanted, in the singular.
    """
    reason = f"every row is bad, the first: {skipped[0]}" if skipped else "is empty"
    return BadInput(f"{path}: {reason}; give at least one good {what}")


def _generate(spec: Spec) -> list[Problem]:
    """Makes the problems that a generator's spec asks for."""
    if spec.scheme == "gym":
        return gym.make_problems(spec)
    if spec.name != "arithmetic":
        raise BadInput(f"{spec.source}: no such task; {nearest(spec.name, ['arithmetic'])}")
    values = {"n": 100, "seed": 0, **read_values(spec, _ARITHMETIC)}
    # Each reader returns the type of its argument, which a dictionary cannot say.
    return arithmetic.make_problems(**values)  # type: ignore[arg-type]


def _check_rows(
    rows: Iterable[Row], source: str, skip_bad: bool
) -> tuple[list[Problem], list[str]]:
    """Returns the good problems, and for each bad row where it is and why."""
    problems: list[Problem] = []
    skipped: list[str] = []
    places: dict[str, str] = {}
    for where, value in rows:
        try:
            problem = as_problem(parsed(value), source)
            if problem.id in places:
                raise BadInput(
                    f"id {problem.id!r} is that of {places[problem.id]} too (a row without one "
                    "gets a hash of prompt and answer); drop a row or give it another id"
                )
        except BadInput as e:
            if not skip_bad:
                raise BadInput(f"{where}: {e} (--skip-bad leaves such rows out)") from e
            skipped.append(f"{where}: {e}")
        else:
            problems.append(problem)
            places[problem.id] = where
    return problems, skipped


def parsed(value: object) -> object:
    """Returns what a row holds, parsed."""
    try:
        return parse_json(value) if isinstance(value, bytes) else value
    except NotJsonError as e:
        raise BadInput(str(e)) from e


def read_file(
    path: Path,
    *,
    also: Sequence[str] = (),
    more: Mapping[str, Callable[[Path], Iterator[Row]]] = MappingProxyType({}),
) -> list[Row]:
    """Reads a file's rows.

    Args:
        path: JSON Lines, JSON or Parquet.
        also: Columns to read beside the fields of a problem.
        more: What reads files of further kinds, by the ends of their names.

    Raises:
        BadInput: The file as a whole cannot be read.
    """
    kinds: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".jsonl": _lines,
        ".ndjson": _lines,
        ".json": _list,
        ".parquet": partial(_table, wanted=FIELDS.union(also)),
        **more,
    }
    kind = kinds.get(path.suffix.lower())
    try:
        if path.is_dir():
            raise BadInput(f"{path}: is a folder; name a file in it")
        if path.stat().st_size == 0:
            raise BadInput(f"{path}: is empty; give at least one good problem")
        if kind is None:
            raise BadInput(f"{path}: its name must end in {', '.join(kinds)}; rename or convert it")
        return list(kind(path))
    except FileNotFoundError as e:
        raise BadInput(f"{path}: no such file; generators are task:NAME and gym:NAME") from e
    except OSError as e:
        raise BadInput(f"{path}: cannot be read: {_one_line(e)}; check the file") from e


def _lines(path: Path) -> Iterator[Row]:
    """Yields the lines of JSON Lines, not yet parsed; blank lines are no rows."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            yield Row(f"{path}:{number}", line)


def _list(path: Path) -> Iterator[Row]:
    """Yields the rows of a JSON file: a list, or an object with one list."""
    try:
        data = parse_json(path.read_bytes())
    except NotJsonError as e:
        raise BadInput(f"{path}:{e.line}: {e} (JSON Lines are named .jsonl)") from e
    parts = list(data.values()) if isinstance(data, dict) else [data]
    lists = [part for part in parts if isinstance(part, list)]
    if len(lists) != 1:
        raise BadInput(f"{path}: must hold a list of problems, or an object with one list")
    for number, value in enumerate(lists[0], start=1):
        yield Row(f"{path}: row {number}", value)


def _table(path: Path, wanted: Set[str]) -> Iterator[Row]:
    """Yields the rows of a Parquet file; columns that are not wanted are not read."""
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in wanted]
            rows = _as_written(file.read(columns=columns)).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError, KeyError) as e:
        raise BadInput(f"{path}: no readable Parquet: {_one_line(e)}; write it again") from e
    for number, value in enumerate(rows, start=1):
        yield Row(f"{path}: row {number}", value)


_SHORT_FLOATS: dict[pa.DataType, type] = {pa.float16(): np.float16, pa.float32(): np.float32}


def _as_written(table: pa.Table) -> pa.Table:
    """Returns a table whose short floats are the numbers that were written: .1, not .100000001."""
    for place, field in enumerate(table.schema):
        short = _SHORT_FLOATS.get(field.type)
        if short is not None:
            values = [v if v is None else float(str(short(v))) for v in table[place].to_pylist()]
            table = table.set_column(place, field.name, pa.array(values, pa.float64()))
    return table


def _one_line(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())

"""Writes query results as text, JSON, CSV or Arrow."""

import json
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pc

from treeward.export.console import clean, table
from treeward.search.errors import BadInput

_PLAN = ["explain_key", "explain_value"]
"""The columns of what EXPLAIN gives: drawings of many lines."""


def write_table(result: pa.Table, form: str, out: BinaryIO) -> None:
    """Writes a query's result; columns of one name are told apart as `x`, `x_1`, `x_2`.

    Args:
        result: The rows.
        form: `table`, `json` (a list of objects), `csv`, or `arrow` (an IPC stream). In `csv` text
            that a spreadsheet would run as a formula gets a quote before it.
        out: Where to.

    Raises:
        BadInput: A column holds a time outside the years 1 to 9999.
    """
    result = result.rename_columns(_unique(result.column_names))
    if form == "arrow":
        with pa.ipc.new_stream(out, result.schema) as stream:
            stream.write_table(result)
    elif form == "csv":
        pc.write_csv(_flat(result), out)
    elif form == "json":
        rows = [
            dict(zip(result.column_names, map(_plain, row), strict=True)) for row in _rows(result)
        ]
        out.write(json.dumps(rows, allow_nan=False, ensure_ascii=False).encode() + b"\n")
    elif result.column_names == _PLAN:
        for _, plan in _rows(result):
            out.write(("\n".join(map(clean, str(plan).splitlines())) + "\n").encode())
    else:
        out.write((table(result.column_names, [*_rows(result)]) + "\n").encode())
    out.flush()


def _unique(names: Sequence[str]) -> list[str]:
    """Returns the names of columns, later ones of the same name with a number that is free."""
    taken, unique = set(names), list[str]()
    for name in names:
        fresh, count = name, 0
        while fresh in unique or (count and fresh in taken):
            count += 1
            fresh = f"{name}_{count}"
        unique.append(fresh)
    return unique


def _rows(result: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(_values(result, name) for name in result.column_names), strict=True)


def _values(result: pa.Table, name: str) -> list[Any]:
    """Returns the values of a column as Python has them.

    Raises:
        BadInput: Python has no such value.
    """
    try:
        return list(result.column(name).to_pylist())
    except OverflowError as e:
        raise BadInput(
            f"query: column {name!r} holds a time outside the years 1 to 9999; cast it to VARCHAR"
        ) from e


def _plain(value: Any) -> Any:
    """Returns a value as JSON has it: other than finite numbers as null, other types as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int) else str(value)


def _flat(result: pa.Table) -> pa.Table:
    """Returns a table of columns that CSV has a place for; nested values become JSON text.

    Text that a spreadsheet would run as a formula gets a quote before it.
    """
    columns = [
        column
        if _is_flat(column.type)
        else pa.array(map(_text, _values(result, name)), pa.string())
        for name, column in zip(result.column_names, result.columns, strict=True)
    ]
    return pa.table(columns, names=result.column_names)


def _is_flat(kind: pa.DataType) -> bool:
    """Returns whether Arrow writes values of a type as CSV, none of which is free text."""
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    times = pa.types.is_temporal(kind) and not pa.types.is_interval(kind)
    return numbers or times or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _text(value: Any) -> str | None:
    """Returns a value as the text of a cell, None for null."""
    plain = _plain(value)
    if plain is None:
        return None
    text = plain if isinstance(plain, str) else json.dumps(plain, allow_nan=False)
    return "'" + text if text and text[0] in "=+-@\t\r" and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

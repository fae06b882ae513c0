"""Writes query results as text, JSON, CSV or Arrow."""

import json
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pc

from treeward.export.console import table


def write_table(result: pa.Table, form: str, out: BinaryIO) -> None:
    """Writes a query's result.

    Args:
        result: The rows.
        form: `table`, `json` (a list of objects), `csv`, or `arrow` (an IPC stream).
        out: Where to.
    """
    if form == "arrow":
        with pa.ipc.new_stream(out, result.schema) as stream:
            stream.write_table(result)
    elif form == "csv":
        pc.write_csv(_flat(result), out)
    elif form == "json":
        out.write(json.dumps(result.to_pylist(), default=str, ensure_ascii=False).encode() + b"\n")
    else:
        rows = [list(row.values()) for row in result.to_pylist()]
        out.write((table(result.column_names, rows) + "\n").encode())
    out.flush()


def _flat(result: pa.Table) -> pa.Table:
    """Returns a table without nested columns, which CSV has no place for: they become JSON text.

    Text that a spreadsheet would run as a formula gets a quote before it.
    """
    columns = [_flat_column(result.column(name)) for name in result.column_names]
    return pa.table(columns, names=result.column_names)


def _flat_column(column: Any) -> Any:
    if pa.types.is_nested(column.type):
        return pa.array(
            [None if v is None else json.dumps(v) for v in column.to_pylist()], pa.string()
        )
    if pa.types.is_string(column.type):
        return pa.array(
            [
                "'" + v if v and v[0] in "=+-@\t\r" and not _is_number(v) else v
                for v in column.to_pylist()
            ],
            pa.string(),
        )
    return column


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

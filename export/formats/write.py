"""Writes a dataset of ours again in a consumer's format, a batch of rows at a time."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from treeward.export.dataset_folder import ROW_GROUP, parquet_writer
from treeward.export.dataset_spec import Column, Row, Tally, schema_of
from treeward.export.formats.spec import FileType, Shape

BATCH = 4096
"""Rows that are held at once, ours and the format's."""


def reshape(
    data: Path, columns: tuple[Column, ...], shape: Shape, footer: Mapping[str, str], tally: Tally
) -> dict[str, int]:
    """Writes every split in a format in the place of ours; returns rows by split.

    Args:
        data: The folder with a Parquet file for each split.
        columns: Those of the format.
        shape: The format.
        footer: What Parquet files say of themselves.
        tally: Counts what the format cannot carry.
    """
    counts: dict[str, int] = {}
    for ours in sorted(data.glob("*.parquet")):
        own = data / f".{ours.name}.own"
        ours.rename(own)
        target = data / f"{ours.stem}.{shape.file_type.value}"
        rows = _converted(own, shape, tally)
        if shape.file_type is FileType.PARQUET:
            n_rows = _write_parquet(target, rows, schema_of(columns).with_metadata(footer))
        else:
            n_rows = _write_lines(target, rows)
        own.unlink()
        if n_rows:
            counts[ours.stem] = n_rows
        else:
            target.unlink()
    return counts


def _converted(path: Path, shape: Shape, tally: Tally) -> Iterator[list[Row]]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(BATCH, columns=sorted(shape.reads & set(_names(file)))):
            converted = (shape.convert(row, tally) for row in batch.to_pylist())
            yield [row for row in converted if row is not None]


def _names(file: pq.ParquetFile) -> list[str]:
    return list(file.schema_arrow.names)


def _write_parquet(path: Path, batches: Iterator[list[Row]], schema: pa.Schema) -> int:
    n_rows, waiting = 0, []
    with contextlib.closing(parquet_writer(path, schema)) as writer:
        for batch in batches:
            waiting.append(pa.Table.from_pylist(batch, schema=schema))
            n_rows += len(batch)
            if sum(table.num_rows for table in waiting) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=ROW_GROUP)
    return n_rows


def _write_lines(path: Path, batches: Iterator[list[Row]]) -> int:
    n_rows = 0
    with path.open("w", encoding="ascii", newline="\n") as file:
        for batch in batches:
            file.writelines(_line(row) for row in batch)
            n_rows += len(batch)
    return n_rows


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"

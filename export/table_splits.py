"""Writes the splits of a dataset from tables, in row groups of one size.

One thread writes while the caller's makes the next rows.
"""

import contextlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from treeward.export.dataset_folder import ROW_GROUP, parquet_writer
from treeward.export.dataset_spec import TRAIN

MOST_BYTES = 1 << 30
"""Text of a table in one piece; Arrow counts that of an array in 31 bits."""

_AHEAD = 2
"""Row groups that may wait to be written."""


def write_table_splits(
    folder: Path,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    footer: Mapping[str, str],
    split_of: Mapping[str, str],
) -> dict[str, int]:
    """Writes rows to the file of their split and returns how many went to each, by split.

    Where the tables begin and end leaves no trace in the files.

    Args:
        folder: Where the files go; a few row groups of each split are held in memory, and a table.
        schema: The columns; one of them is `problem_id`.
        tables: The rows.
        footer: What the files say of themselves.
        split_of: The split of each problem; empty where all rows go to `train`.
    """
    schema = schema.with_metadata(footer)
    counts = Counter[str]()
    writers: dict[str, pq.ParquetWriter] = {}
    writing: deque[Future[None]] = deque()
    # The pool ends before the files are closed, so that none is closed while it is written to.
    with contextlib.ExitStack() as files, ThreadPoolExecutor(max_workers=1) as pool:
        for split, rows in _groups(_split(tables, split_of)):
            if split not in writers:
                path = folder / f"{split}.parquet"
                writers[split] = files.enter_context(parquet_writer(path, schema))
            counts[split] += rows.num_rows
            writing.append(pool.submit(writers[split].write_table, rows, row_group_size=ROW_GROUP))
            if len(writing) > _AHEAD:
                writing.popleft().result()
        for each in writing:
            each.result()
    return dict(sorted(counts.items()))


def _groups(tables: Iterable[tuple[str, pa.Table]]) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of each split again as tables of one size, each column in one piece.

    The pages of a column in several pieces would depend on these.
    """
    waiting: dict[str, pa.Table] = {}
    for split, table in tables:
        rows = pa.concat_tables([waiting[split], table]) if split in waiting else table
        whole = rows.num_rows - rows.num_rows % ROW_GROUP
        for start in range(0, whole, ROW_GROUP):
            yield from ((split, part) for part in _small(rows.slice(start, ROW_GROUP)))
        waiting[split] = rows.slice(whole)
    for split, rows in waiting.items():
        if rows.num_rows:
            yield from ((split, part) for part in _small(rows))


def _small(rows: pa.Table) -> Iterator[pa.Table]:
    """Yields rows in one piece, or in halves of halves, until the text of each fits an array."""
    if rows.num_rows > 1 and rows.nbytes > MOST_BYTES and _text_bytes(rows) > MOST_BYTES:
        middle = rows.num_rows // 2
        yield from _small(rows.slice(0, middle))
        yield from _small(rows.slice(middle))
    else:
        yield rows.combine_chunks()


def _text_bytes(rows: pa.Table) -> int:
    """Returns the bytes of all texts, however the columns are cut into pieces."""
    total = 0
    for column in rows.columns:
        for piece in column.chunks:
            values = piece
            while pa.types.is_list(values.type):
                values = values.flatten()
            if pa.types.is_string(values.type):
                total += pc.sum(pc.binary_length(values)).as_py() or 0
    return total


def _split(
    tables: Iterable[pa.Table], split_of: Mapping[str, str]
) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of each table by split."""
    for table in tables:
        if split_of and table.num_rows:
            coded = table["problem_id"].combine_chunks().dictionary_encode()
            splits = [split_of[problem] for problem in coded.dictionary.to_pylist()]
            split_R = pa.array(splits).take(coded.indices)
            for split in sorted({*splits}):
                yield split, table.filter(pc.equal(split_R, split))
        elif table.num_rows:
            yield TRAIN, table

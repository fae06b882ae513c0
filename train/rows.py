"""Reads the Parquet files of a dataset, record by record, with the place where each stands."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from treeward.search.errors import BadInput


@dataclass(frozen=True, slots=True)
class Cell:
    """Says what a column holds, where it is not null."""

    words: str
    types: tuple[type, ...]
    listed: bool = False
    """Whether it holds lists of these; entries may be null."""

    def allows(self, value: object) -> bool:
        """Returns whether a value may stand there."""
        if not self.listed:
            return isinstance(value, self.types)
        return isinstance(value, list) and all(
            entry is None or isinstance(entry, self.types) for entry in value
        )


ANYTHING = Cell("anything", (object,))
TEXT, TEXTS = Cell("a text", (str,)), Cell("a list of texts", (str,), listed=True)
NUMBER = Cell("a number", (int, float))
NUMBERS = Cell("a list of numbers", (int, float), listed=True)
FLAGS = Cell("a list of true and false", (bool,), listed=True)
TURNS = Cell("a list of messages", (dict,), listed=True)


def parquet_files(data: Path, kind: str) -> list[Path]:
    """Returns a file, or a folder's: every `train*.parquet` below it, else every Parquet file.

    Args:
        data: The file or folder.
        kind: Which export makes one.

    Raises:
        BadInput: There is none.
    """
    if data.is_file():
        return [data]
    files = sorted(data.rglob("train*.parquet")) or sorted(data.rglob("*.parquet"))
    if not files:
        raise BadInput(f"{data}: no Parquet file or folder; `treeward export RUN {kind}` makes one")
    return files


def open_parquet(path: Path) -> pq.ParquetFile:
    """Opens a file; raises BadInput where it is no Parquet."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as e:
        raise BadInput(f"{path}: no Parquet file: {e}") from e


def check_messages(where: str, messages: Sequence[object]) -> None:
    """Raises BadInput unless every turn of a chat has a role and content; names where it stands."""
    for turn in messages:
        texts = [turn.get(name) for name in ("role", "content")] if isinstance(turn, dict) else [0]
        if not all(isinstance(text, str) for text in texts):
            raise BadInput(f"{where}: messages must have role and content, got {turn!r:.60}")


def records(
    data: Path, kind: str, columns: Mapping[str, Cell], *, nullable: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields where each record stands, and the record.

    Args:
        data: A file or folder.
        kind: Which export makes one.
        columns: Its columns that are read, and what each holds.
        nullable: Those of them that may be null.

    Raises:
        BadInput: There is no file, it lacks a column, or a value is missing or of another type.
    """
    for path in parquet_files(data, kind):
        with open_parquet(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in columns if name not in names]:
                raise BadInput(
                    f"{path}: no column {missing[0]}, so it is no {kind} dataset; "
                    f"`treeward export RUN {kind}` makes one"
                )
            index = 0
            for batch in file.iter_batches(columns=list(columns)):
                for record in batch.to_pylist():
                    where = f"{path}: row {index}"
                    for name, value in record.items():
                        if value is None and name not in nullable:
                            raise BadInput(f"{where}: {name} is null; leave that row out")
                        if value is not None and not columns[name].allows(value):
                            words = columns[name].words
                            raise BadInput(f"{where}: {name} must be {words}, got {value!r:.60}")
                    yield where, record
                    index += 1

"""What a format is made of: which kind it takes, its columns, and how a row of ours becomes one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from treeward.export.dataset_spec import Column, Dataset, ExportSettings, Row, Tally
from treeward.export.run_folder import RunFolder


class FileType(StrEnum):
    """How the files of a format are written."""

    PARQUET = "parquet"
    """One file a split, zstd."""
    JSONL = "jsonl"
    """One JSON object a line, ASCII: other characters are escaped."""


Convert = Callable[[Row, Tally], Row | None]
"""Makes a row of a format of one of ours; None, and a count why, where it cannot carry it."""

Asides = Callable[[Iterable[str]], Mapping[str, bytes]]
"""Makes the files that a consumer wants beside the data, by name, from the names of the splits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Says how one kind of dataset is written in one format."""

    columns: Callable[[Sequence[Column]], Sequence[Column]]
    """Gives the columns of the format from those of ours, which may depend on the template."""

    convert: Convert

    reads: frozenset[str]
    """The columns of ours that have a place in the format; the card lists the others as left."""

    says: str
    """What the columns are and what a consumer does with them; a paragraph for the card."""

    file_type: FileType = FileType.JSONL

    make: Callable[[RunFolder, ExportSettings, Tally], Dataset] | None = None
    """Makes rows to start from that the kind itself has not; None starts from the kind's."""

    asides: Asides | None = None
    """None where the consumer wants the data alone."""


def fixed(*columns: Column) -> Callable[[Sequence[Column]], Sequence[Column]]:
    """Returns columns that do not depend on ours."""
    return lambda _: columns

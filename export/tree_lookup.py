"""A table over the files of a run in which the rows of one tree are found without a search.

Ids of trees are hashes, so the smallest and largest id of a file say nothing of what is in it. The
manifests do: they name the trees of each part. A scan whose filter admits some named trees only
reads just their parts, and keeps what it read for the next question about them.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from treeward.export.schema import REPEATED, SCHEMAS, coded

Find = Callable[[str], Sequence[Path]]
"""Returns the files that hold a tree's rows; none for a tree that is not there."""

_MOST_NAMES = 16
_CACHE_ROWS = 1 << 17
"""Rows of trees that are kept, some 100 MB; one tree is kept whatever its size."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class _Found:
    """Stands for a scanner of rows that are read already: to scan them costs more than they do."""

    rows: pa.Table

    def to_reader(self) -> pa.RecordBatchReader:
        """Returns the rows as a stream."""
        return self.rows.to_reader()

    def to_table(self) -> pa.Table:
        """Returns the rows."""
        return self.rows


class TreeFiles(ds.FileSystemDataset):  # type: ignore[misc]  # pyarrow ships no types
    """Reads one table of a run; DuckDB calls `scanner` with what a query asks for."""

    def __init__(self, files: Sequence[Path], name: str, find: Find) -> None:
        """Opens no file yet.

        Args:
            files: The table's files, in order; at least one.
            name: The table, one of `schema.SCHEMAS`.
            find: Says which of the files hold a tree.
        """
        self._plain = SCHEMAS[name]
        codes = REPEATED.get(name, ())
        schema, layout = coded(self._plain, codes), checked_layout(codes)
        whole = ds.dataset([str(path) for path in files], schema=schema, format=layout)
        fragments = list(whole.get_fragments())
        super().__init__(fragments, schema, layout, whole.filesystem)
        self._fragments = dict(zip(files, fragments, strict=True))
        self._find = find
        self._trees: OrderedDict[str, pa.Table] = OrderedDict()
        self._kept = 0
        self._reading = Lock()

    def scanner(self, columns: Sequence[str] | None = None, **asked: Any) -> "ds.Scanner | _Found":
        """Returns what reads the rows that are asked for."""
        condition = asked.get("filter")
        names = trees_admitted(condition, self._plain)
        if condition is None or names is None:
            return super().scanner(columns=columns, **asked)
        # A query that scans a table twice asks from two threads; the second finds what is kept.
        with self._reading:
            tables = [self._rows(name) for name in names]
        if len(names) == 1 and _is_just(condition, names[0]):
            [rows] = tables
        else:
            rows = pa.concat_tables([self.schema.empty_table(), *tables]).filter(condition)
        return _Found(rows if columns is None else rows.select(columns))

    def _rows(self, tree: str) -> pa.Table:
        """Returns a tree's rows, all columns; none where there is no such tree."""
        if tree in self._trees:
            self._trees.move_to_end(tree)
            return self._trees[tree]
        found = [
            self._fragments[path].to_table(schema=self.schema, filter=pc.field("tree_id") == tree)
            for path in self._find(tree)
        ]
        rows = pa.concat_tables([self.schema.empty_table(), *found]).combine_chunks()
        self._trees[tree] = rows
        self._kept += rows.num_rows
        while self._kept > _CACHE_ROWS and len(self._trees) > 1:
            _, oldest = self._trees.popitem(last=False)
            self._kept -= oldest.num_rows
        return rows


def checked_layout(codes: Sequence[str] = ()) -> ds.ParquetFileFormat:
    """Returns the format of tables: Parquet whose pages are checked.

    Args:
        codes: Columns of text that are read as codes.
    """
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.ParquetFileFormat(dictionary_columns=codes, default_fragment_scan_options=checked)


def trees_admitted(condition: ds.Expression | None, schema: pa.Schema) -> list[str] | None:
    """Returns the trees outside of which a filter is false, or None where it may be true anywhere.

    The filter's text only suggests ids. Arrow proves them: it simplifies the filter given that the
    id lies before, between or behind those suggested, and must find it false in each of these gaps.
    """
    names = sorted({*_QUOTED.findall(str(condition))}) if condition is not None else []
    if not 0 < len(names) <= _MOST_NAMES:
        return None
    if len(names) == 1 and _is_just(condition, names[0]):
        return names
    tree = ds.field("tree_id")
    gaps = [tree < names[0], tree > names[-1]]
    gaps += [(tree > low) & (tree < high) for low, high in pairwise(names)]
    if _possible(condition, schema, gaps):
        return None
    points = _possible(condition, schema, [tree == name for name in names])
    return [names[point] for point in points]


def _is_just(condition: ds.Expression, tree: str) -> bool:
    """Returns whether a filter asks for all rows of one tree; True is certain."""
    return bool(condition.equals(ds.field("tree_id") == tree))


def _possible(
    condition: ds.Expression, schema: pa.Schema, guarantees: Sequence[ds.Expression]
) -> list[int]:
    """Returns the numbers of the guarantees under which a condition is not plainly false."""
    layout, disk = ds.ParquetFileFormat(), LocalFileSystem()
    places = [
        layout.make_fragment(str(number), filesystem=disk, partition_expression=guarantee)
        for number, guarantee in enumerate(guarantees)
    ]
    probe = ds.FileSystemDataset(places, schema, layout, disk)
    return [int(place.path) for place in probe.get_fragments(condition)]

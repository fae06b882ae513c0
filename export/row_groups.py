"""Reads columns of Parquet files a row group at a time, and keeps those that were read last."""

from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from treeward.export.parts import require_columns
from treeward.export.problems_file import first_line
from treeward.export.schema import REPEATED, SCHEMAS, coded
from treeward.export.tree_batch import Ints
from treeward.search.errors import DamagedData


class RowGroups:
    """Reads some columns of one table's files; pages are checked against their checksums."""

    def __init__(self, name: str, columns: Iterable[str], kept_rows: int = 0) -> None:
        """Opens no file yet.

        Args:
            name: The table, one of `schema.SCHEMAS`.
            columns: Which of its columns; those of `schema.REPEATED` are read as codes.
            kept_rows: Rows of groups that are kept; the one read last is, whatever its size.
        """
        self._name = name
        fields = [SCHEMAS[name].field(column) for column in dict.fromkeys(columns)]
        self._codes = [*REPEATED.get(name, ())]
        self._schema = coded(pa.schema(fields), self._codes)
        self._kept_rows = kept_rows
        self._file: tuple[Path, pq.ParquetFile] | None = None
        self._edges: dict[Path, Ints] = {}
        self._kept: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()

    @property
    def empty(self) -> pa.Table:
        """Returns a table without rows."""
        return self._schema.empty_table()

    def edges(self, path: Path) -> Ints:
        """Returns the rows at which the row groups of a file begin, and the number of its rows.

        Raises:
            DamagedData: It is not what was written.
        """
        if path not in self._edges:
            found = self._opened(path).metadata
            sizes = [found.row_group(at).num_rows for at in range(found.num_row_groups)]
            self._edges[path] = np.cumsum([0, *sizes])
        return self._edges[path]

    def whole(self, path: Path) -> pa.Table:
        """Returns all rows of a file, which are not kept.

        Raises:
            DamagedData: It is not what was written.
        """
        return self._read(path, range(len(self.edges(path)) - 1))

    def holding(self, path: Path, start_T: Ints, size_T: Ints) -> tuple[pa.Table, Ints]:
        """Returns row groups that hold some spans of a file's rows, and where the spans begin.

        Raises:
            DamagedData: The file is not what was written.
        """
        edges = self.edges(path)
        first_T = np.searchsorted(edges, start_T, side="right") - 1
        last_T = np.searchsorted(edges, start_T + size_T, side="left") - 1
        change = np.bincount(first_T, minlength=len(edges) + 1)
        change -= np.bincount(last_T + 1, minlength=len(edges) + 1)
        needed = np.flatnonzero(np.cumsum(change) > 0)
        # The groups of one span lie side by side, so all of it moves with the first of them.
        sizes = np.diff(edges)[needed]
        moved = np.cumsum(sizes) - sizes - edges[needed]
        table = pa.concat_tables([self._group(path, int(group)) for group in needed])
        return table, start_T + moved[np.searchsorted(needed, first_T)]

    def _group(self, path: Path, group: int) -> pa.Table:
        key = path, group
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        table = self._kept[key] = self._read(path, [group])
        rows = sum(kept.num_rows for kept in self._kept.values())
        while rows > self._kept_rows and len(self._kept) > 1:
            rows -= self._kept.popitem(last=False)[1].num_rows
        return table

    def _read(self, path: Path, groups: Iterable[int]) -> pa.Table:
        names = self._schema.names
        try:
            table = self._opened(path).read_row_groups([*groups], columns=names)
        except (OSError, pa.ArrowException) as e:
            raise _unreadable(path, e) from e
        for field in self._schema:
            if field.name not in table.column_names:
                if not field.nullable:
                    require_columns(path, self._name)
                    raise DamagedData(f"{path}: has no column {field.name}; restore it")
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
            if not field.nullable and table[field.name].null_count:
                raise DamagedData(f"{path}: column {field.name} has nulls; restore it")
            there = table.schema.field(field.name).type
            if there != field.type:
                raise DamagedData(
                    f"{path}: column {field.name} holds {there} and not {field.type}; restore it"
                )
        return table.select(names)

    def _opened(self, path: Path) -> pq.ParquetFile:
        """Returns an open file; the one before is closed once nothing reads it."""
        if self._file is None or self._file[0] != path:
            try:
                self._file = (
                    path,
                    pq.ParquetFile(
                        path, page_checksum_verification=True, read_dictionary=self._codes
                    ),
                )
            except (OSError, pa.ArrowException) as e:
                raise _unreadable(path, e) from e
            except KeyError as e:  # of a column that is to be read as codes
                require_columns(path, self._name)
                raise DamagedData(f"{path}: has not all its columns; restore it") from e
        return self._file[1]


def _unreadable(path: Path, error: Exception) -> DamagedData:
    return DamagedData(f"{path}: cannot be read: {first_line(error)}; restore it")

"""Parts: folders of finished trees, written aside and committed by one rename.

    RUN/.staging/<worker>-<sequence>/   while it is written; never read
    RUN/parts/<worker>-<sequence>/      trees, nodes and rollouts as Parquet, and manifest.json

What critics say later is committed the same way, below `scores/`, as parts of one table.

The manifest holds checksums and row counts, and which trees the part holds, so that a tree is found
without opening a table. What is not in `parts/` does not exist.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from treeward.export import disk
from treeward.export.durable import disk_errors, file_sha256, seal, unseal, write_file
from treeward.export.schema import SCHEMA_VERSION, SCHEMAS, SORT_KEYS
from treeward.search.errors import BadInput, DamagedData

ROW_GROUP = 16_384
"""Rows of a row group, at least, where a table has so many: what is read to find one tree."""
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """Says what one file of a part holds."""

    rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Says what a part holds."""

    files: Mapping[str, FileRecord]
    """By file name."""

    trees: tuple[str, ...]
    """Ids of its trees, sorted."""


def write_part(
    run: Path, worker: str, tables: Mapping[str, pa.Table], provenance: Mapping[str, str]
) -> Path:
    """Commits finished trees and returns their part; it appears whole or not at all.

    Args:
        run: The run folder.
        worker: Who writes; no two writers of a run share a name.
        tables: `trees`, `nodes` and `rollouts` with the columns of `schema`, in any row order.
        provenance: Where the rows come from; kept in each file's footer.

    Raises:
        BadInput: The folder cannot be written to.
        TreewardError: The disk is full or failed; nothing is left in `parts/`.
    """
    return commit(run, run / "parts", worker, tables, provenance)


def commit(
    run: Path,
    place: Path,
    worker: str,
    tables: Mapping[str, pa.Table],
    provenance: Mapping[str, str],
) -> Path:
    """Commits tables about some trees as the worker's next part in a place of the run.

    Args:
        run: The run folder.
        place: Where its parts are; made where missing.
        worker: As in `write_part`.
        tables: As in `write_part`; the first has all the trees.
        provenance: As in `write_part`.

    Raises:
        BadInput: The folder cannot be written to.
        TreewardError: The disk is full or failed; nothing is left in the place.
    """
    last = _last_sequence(place, worker)
    if last:
        tables = _not_in(place / part_name(worker, last), tables)
        if not any(table.num_rows for table in tables.values()):
            return place / part_name(worker, last)
    name = part_name(worker, last + 1)
    staged, part = run / ".staging" / name, place / name
    with disk_errors(run, f"cannot write part {name}"):
        disk.remove_tree(staged)
        disk.make_folder(staged)
        disk.make_folder(place)
        try:
            write_tables(staged, tables, provenance)
            disk.sync(staged)
            disk.rename(staged, part)
        except OSError:
            disk.remove_tree(staged)
            raise
        disk.sync(place)
    return part


def part_name(worker: str, sequence: int) -> str:
    """Returns the name of a worker's part."""
    return f"{worker}-{sequence:06d}"


def _last_sequence(place: Path, worker: str) -> int:
    """Returns the worker's last sequence number, or 0."""
    taken = [
        int(sequence)
        for owner, _, sequence in (part.name.rpartition("-") for part in parts_in(place))
        if owner == worker and sequence.isdigit()
    ]
    return max(taken, default=0)


def _not_in(part: Path, tables: Mapping[str, pa.Table]) -> Mapping[str, pa.Table]:
    """Returns tables without the trees of a part.

    A commit can be made and yet fail, in what comes after the rename; whoever then gives the same
    trees again must not commit them twice.
    """
    held = pa.array(read_manifest(part).trees, pa.string())
    if not any(pc.any(pc.is_in(table["tree_id"], held)).as_py() for table in tables.values()):
        return tables
    return {
        name: table.filter(pc.invert(pc.is_in(table["tree_id"], held)))
        for name, table in tables.items()
    }


def write_tables(
    folder: Path, tables: Mapping[str, pa.Table], provenance: Mapping[str, str]
) -> None:
    """Writes the files of a part into a folder and waits until they are on the disk."""
    files = {}
    for name, table in tables.items():
        path = folder / f"{name}.parquet"
        write_table(path, name, table, provenance)
        disk.sync(path)
        files[path.name] = {"rows": table.num_rows, "sha256": file_sha256(path)}
    trees = sorted(next(iter(tables.values()))["tree_id"].unique().to_pylist())
    manifest = {"schema_version": SCHEMA_VERSION, "files": files, "trees": trees}
    write_file(folder / MANIFEST, seal(manifest))


def write_table(path: Path, name: str, table: pa.Table, provenance: Mapping[str, str]) -> None:
    """Writes one table sorted, with the checksums and indexes that readers rely on."""
    schema = SCHEMAS[name]
    assert table.schema.equals(schema), f"{name}: {table.schema} is not {schema}"
    keys = [(key, "ascending") for key in SORT_KEYS[name]]
    footer = {f"treeward.{key}": value for key, value in provenance.items()}
    footer["treeward.schema_version"] = str(SCHEMA_VERSION)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.sort_by(keys).replace_schema_metadata(footer),
        sink,
        compression="zstd",
        row_group_size=row_group(table.num_rows),
        write_page_index=True,
        write_page_checksum=True,
        sorting_columns=pq.SortingColumn.from_ordering(schema, keys),
    )
    disk.write(path, memoryview(sink.getvalue()))


def row_group(rows: int) -> int:
    """Returns into how many rows each a table is split: as even as can be, none with too few."""
    return max(1, math.ceil(rows / max(1, rows // ROW_GROUP)))


def committed_parts(run: Path) -> list[Path]:
    """Returns the folders of a run's parts, by name."""
    return parts_in(run / "parts")


def parts_in(place: Path) -> list[Path]:
    """Returns the folders of the parts in a place of a run, by name."""
    return sorted(path for path in place.glob("*") if path.is_dir())


def read_manifest(part: Path) -> Manifest:
    """Reads what a part holds.

    Raises:
        BadInput: The part was written by a newer version.
        DamagedData: The manifest is missing or not what was written.
    """
    path = part / MANIFEST
    try:
        body = unseal(path, SCHEMA_VERSION)
    except OSError as e:
        reason = os.strerror(e.errno or 0)
        raise DamagedData(f"{path}: cannot be read: {reason}; restore it") from e
    files = {name: FileRecord(**record) for name, record in body["files"].items()}
    return Manifest(files=files, trees=tuple(body["trees"]))


def committed_trees(run: Path) -> dict[str, Path]:
    """Returns the part of every committed tree, by tree id; opens no table."""
    return trees_in(run / "parts")


def trees_in(place: Path) -> dict[str, Path]:
    """Returns the part of every tree in a place of a run, by tree id; opens no table."""
    return {tree: part for part in parts_in(place) for tree in read_manifest(part).trees}


RETIRED = ("n_right_last", "n_wrong_first")
"""Columns that earlier versions wrote."""


def require_columns(path: Path, name: str) -> None:
    """Refuses a table that was written before it had all its columns: null would be no unknown.

    Raises:
        BadInput: A column is missing.
        DamagedData: A column is missing and another is there that no version has.
    """
    try:
        there = pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        return  # Whoever reads the file says what is wrong with it.
    missing = [column for column in SCHEMAS[name].names if column not in there]
    strange = [column for column in there if column not in (*SCHEMAS[name].names, *RETIRED)]
    if missing and strange:
        raise DamagedData(
            f"{path}: has a column {strange[0]!r} in the place of {missing[0]!r}; restore the file"
        )
    if missing:
        raise BadInput(
            f"{path}: has no column {missing[0]!r}: an earlier version made it; generate it again"
        )

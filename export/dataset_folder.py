"""The folder of a dataset: written aside, then put in the place of the one before.

    OUT/README.md           the card
    OUT/croissant.json      the same facts for programs
    OUT/export.json         what it was made of, sealed; marks the folder as ours to replace
    OUT/data/train.parquet  a file for each split that has rows, or train.jsonl
    OUT/dataset_info.json   where the format wants it

An export replaces a former one of the same kind and format, and nothing else. Two renames do that:
whoever looks between them sees no folder, and a process that dies there leaves the former one
whole, as `.OUT.old`, beside it; the next export puts it back before it does anything else.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from treeward.export.dataset_mark import MARK
from treeward.export.dataset_spec import Kind, Row
from treeward.export.disk import sync
from treeward.export.durable import disk_errors, unseal
from treeward.export.schema import SCHEMA_VERSION
from treeward.search.errors import BadInput, DamagedData, TreewardError

CARD = "README.md"
CROISSANT = "croissant.json"
DATA = "data"
ASIDES = ("dataset_info.json",)
"""What a consumer may want beside the data."""

_CLAIM = ".treeward-export"
"""Marks a folder that an export is being written to as ours to empty."""

ROW_GROUP = 16_384


def check_replaceable(out: Path, kind: Kind, form: str | None = None) -> None:
    """Refuses a place that holds anything but a former export of the kind in the format.

    Raises:
        BadInput: It does.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise BadInput(f"{out}: is a file; move it away or give another folder")
    with disk_errors(out, "cannot read the folder"):
        found = {path.name for path in out.iterdir()}
    if not found:
        return
    former, wanted = _kind_of(out), _full_name(kind, form)
    if former is None:
        raise _no_export(out, min(found))
    if former != wanted:
        raise BadInput(f"{out}: holds a {former} export, not {wanted}; give another folder")
    if strange := found - {MARK, CARD, CROISSANT, DATA, *ASIDES}:
        raise BadInput(f"{out}: holds {min(strange)!r}, which no export made; move it away")


def _no_export(place: Path, found: str) -> BadInput:
    return BadInput(
        f"{place}: holds {found!r} and is no export; move it away or give another folder"
    )


def _kind_of(out: Path) -> str | None:
    """Returns the kind of export that a folder holds, or None if it holds none."""
    try:
        mark = unseal(out / MARK, SCHEMA_VERSION)
    except (OSError, DamagedData):
        return None
    return _full_name(mark.get("kind"), mark.get("settings", {}).get("format"))


def _full_name(kind: object, form: object) -> str:
    return str(kind) if form is None else f"{kind} ({form})"


@contextlib.contextmanager
def staged(out: Path, kind: Kind, form: str | None = None) -> Iterator[Path]:
    """Yields a folder beside `out` that takes its place at the end, if all went well.

    Args:
        out: The place; what `check_replaceable` allows there is replaced.
        kind: What will be in the folder.
        form: The format of that, None for our own.

    Raises:
        BadInput: The place cannot be written to, or it or a folder beside it that is needed holds
            what such an export may not replace.
        TreewardError: The disk is full or failed, or another export is under way here; what was
            there is still there.
    """
    half, old = out.with_name(f".{out.name}.half"), out.with_name(f".{out.name}.old")
    with disk_errors(out, "cannot write the dataset"), _claimed(half, out):
        try:
            if not out.exists() and _kind_of(old):
                old.rename(out)
            for place in (out, old):
                check_replaceable(place, kind, form)
            (half / DATA).mkdir()
            yield half
            (half / _CLAIM).unlink()
            for path in sorted(half.rglob("*")):
                sync(path)
            shutil.rmtree(old, ignore_errors=True)
            if out.exists():
                out.rename(old)
            try:
                half.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
            sync(out.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                _empty(half)
                half.rmdir()
            raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _claimed(half: Path, out: Path) -> Iterator[None]:
    """Holds a folder, without data at first, that no other process writes to.

    Raises:
        BadInput: It holds what no export made.
        TreewardError: Another process holds it.
    """
    half.mkdir(parents=True, exist_ok=True)
    folder = os.open(half, os.O_RDONLY)
    try:
        if not _locked(folder, half):
            raise TreewardError(f"{out}: another export is writing here; wait for it or stop it")
        found = {path.name for path in half.iterdir()}
        if found and _CLAIM not in found and _kind_of(half) is None:
            raise _no_export(half, min(found))
        _empty(half)
        (half / _CLAIM).touch()
        yield
    finally:
        os.close(folder)


def _empty(half: Path) -> None:
    """Removes what a folder holds; its mark goes last, so that whoever dies here leaves it ours."""
    for left in sorted(half.iterdir(), key=lambda path: path.name == _CLAIM):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _locked(folder: int, half: Path) -> bool:
    """Takes the lock of an open folder; returns whether it got it and the folder is still there."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    # Who held it until now may have put it in the place of `out`.
    return half.exists() and os.path.samestat(half.stat(), os.fstat(folder))


def write_splits(
    folder: Path,
    schema: pa.Schema,
    rows: Iterable[tuple[str, Row]],
    footer: Mapping[str, str],
) -> dict[str, int]:
    """Writes rows to the file of their split and returns how many went to each, by split.

    Args:
        folder: Where the files go; holds at most a row group of each split in memory.
        schema: The columns.
        rows: Each with the name of its split.
        footer: What the files say of themselves.
    """
    schema = schema.with_metadata(footer)
    counts: dict[str, int] = {}
    waiting: dict[str, list[Row]] = {}
    with contextlib.ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}

        def flush(split: str) -> None:
            table = pa.Table.from_pylist(waiting[split], schema=schema)
            writers[split].write_table(table, row_group_size=ROW_GROUP)
            waiting[split] = []

        for split, row in rows:
            if split not in writers:
                path = folder / f"{split}.parquet"
                writers[split] = stack.enter_context(parquet_writer(path, schema))
                waiting[split] = []
            waiting[split].append(row)
            counts[split] = counts.get(split, 0) + 1
            if len(waiting[split]) == ROW_GROUP:
                flush(split)
        for split in writers:
            if waiting[split]:
                flush(split)
    return dict(sorted(counts.items()))


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Returns what writes a file of a dataset.

    Statistics are kept of plain columns, since no reader has a use for those of the elements of
    lists. Reals, which take few values, get a dictionary; texts that come again lie near each
    other, where the compression finds them, in less time and less space.
    """
    plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
    leaves = [leaf for field in schema for leaf in _leaves(field.name, field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[name for name, kind in leaves if pa.types.is_floating(kind)],
        write_statistics=plain,
        write_page_index=True,
        write_page_checksum=True,
    )


def _leaves(name: str, kind: pa.DataType) -> list[tuple[str, pa.DataType]]:
    """Returns what Parquet calls the columns that a column is stored as, and their types."""
    if pa.types.is_list(kind):
        return _leaves(f"{name}.list.{kind.value_field.name}", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{name}.{field.name}", field.type)]
    return [(name, kind)]

"""Merges small parts of a run into larger ones; no row changes.

    RUN/.staging/parts/                 the parts as they will be: merged ones, links to the rest
    RUN/parts/merged-<digest>/          a part that was merged, named by its trees

The new parts are written whole beside the old, and one call to the operating system exchanges the
two folders: whoever opens the run before it finds the old parts, whoever opens it after it the new
ones. What critics said later is merged likewise, one folder a critic. Merged parts of several
shards never share a name, so that they can still be put into one folder.
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from treeward.export import disk
from treeward.export.durable import disk_errors
from treeward.export.parts import parts_in, read_manifest, write_tables
from treeward.export.run_folder import RunFolder, clear_staging, locked, open_run_folder
from treeward.export.schema import TABLES
from treeward.export.score_store import TABLE, score_sets
from treeward.export.verify import read_checked
from treeward.search.errors import DamagedData, TreewardError

WORKER = "merged"
PART_ROWS = 262_144
"""Rows of a part's largest table from which it is left as it is; some 100 MB while it is merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """Says how many parts there were and are, scores included."""

    before: int
    after: int

    def __str__(self) -> str:
        """Returns one line for a terminal."""
        if self.before == self.after:
            return f"{self.before} {'part' if self.before == 1 else 'parts'}, nothing to merge"
        return f"{self.before} parts merged into {self.after}"


def compact(path: Path) -> Compaction:
    """Merges the small parts of a run.

    Raises:
        BadInput: It is no run folder, or cannot be written to.
        DamagedData: A file of a part is not what was written; nothing was changed.
        TreewardError: Another process writes to the run, or the disk failed; the run is whole.
    """
    run = open_run_folder(path)
    before = after = 0
    with locked(path), disk_errors(path, "cannot merge parts"):
        clear_staging(path)
        places = [(path / "parts", TABLES), *((place, (TABLE,)) for place in score_sets(path))]
        for place, tables in places:
            before += len(parts_in(place))
            _merge(run, place, tables)
            after += len(parts_in(place))
    return Compaction(before=before, after=after)


def _merge(run: RunFolder, place: Path, tables: Sequence[str]) -> None:
    """Merges the small parts in one place."""
    groups = _groups(parts_in(place))
    if all(len(group) == 1 for group in groups):
        return
    staged = run.path / ".staging" / place.name
    disk.make_folder(staged)
    for file in (path for path in place.iterdir() if path.is_file()):
        disk.link(file, staged / file.name)
    for group in groups:
        if len(group) == 1:
            _link_part(group[0], staged / group[0].name)
            continue
        folder = staged / _name(group)
        disk.make_folder(folder)
        merged = {name: _read(group, name) for name in tables}
        write_tables(folder, merged, run.identity.versions)
    disk.sync(staged)
    _exchange(staged, place)
    # The old parts, which are staged now, may go only when the exchange is on the disk.
    disk.sync(place.parent)
    disk.sync(staged.parent)
    disk.remove_tree(staged)


def _exchange(staged: Path, place: Path) -> None:
    try:
        disk.exchange(staged, place)
    except OSError as e:
        if e.errno not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise
        raise TreewardError(
            f"{place}: the file system cannot exchange two folders at once; merge the parts of a "
            "copy on another one"
        ) from e


def _groups(parts: Sequence[Path]) -> list[list[Path]]:
    """Returns parts put together so that each group has enough rows; large ones stay alone."""
    groups: list[list[Path]] = []
    small: list[Path] = []
    rows = 0
    for part in parts:
        size = max(record.rows for record in read_manifest(part).files.values())
        if size >= PART_ROWS:
            groups.append([part])
            continue
        small.append(part)
        rows += size
        if rows >= PART_ROWS:
            groups.append(small)
            small, rows = [], 0
    return [*groups, small] if small else groups


def _name(parts: Sequence[Path]) -> str:
    """Returns the name of what some parts are merged into; no other trees have it."""
    trees = sorted(tree for part in parts for tree in read_manifest(part).trees)
    return f"{WORKER}-{blake2b(' '.join(trees).encode(), digest_size=8).hexdigest()}"


def _link_part(part: Path, to: Path) -> None:
    """Lets a part be in two folders at once."""
    disk.make_folder(to)
    for file in sorted(part.iterdir()):
        disk.link(file, to / file.name)
    disk.sync(to)


def _read(parts: Sequence[Path], name: str) -> pa.Table:
    """Returns the rows of one table in some parts."""
    found = []
    for part in parts:
        path = part / f"{name}.parquet"
        record = read_manifest(part).files.get(path.name)
        table = read_checked(path, name, record) if record else "not in the manifest"
        if isinstance(table, str):
            raise DamagedData(f"{path}: {table}; `treeward verify --set-aside` puts it away")
        found.append(table)
    return pa.concat_tables(found)

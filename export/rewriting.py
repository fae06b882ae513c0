"""Changes how a run's parts hold its trees, all at once.

    RUN/.staging/parts/      the parts as they will be: new ones, links to the rest

The new parts are written whole beside the old, and one call to the operating system exchanges the
two folders: whoever opens the run before it finds the old parts, whoever opens it after it the new
ones. Parts of what critics said are rewritten likewise, one folder a critic.
"""

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from treeward.export import disk
from treeward.export.parts import read_manifest, write_tables
from treeward.export.run_folder import RunFolder
from treeward.export.verify import read_checked
from treeward.search.errors import DamagedData, TreewardError


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPart:
    """Says what a part is made of."""

    name: str

    parts: Sequence[Path]
    """Where its rows are now."""

    without: Collection[str] = ()
    """Ids of trees that are left out."""


def rewrite(run: RunFolder, place: Path, tables: Sequence[str], parts: Sequence[NewPart]) -> None:
    """Exchanges the parts in one place of a locked run for others; what none names is gone.

    Args:
        run: The run.
        place: The folder that holds the parts.
        tables: What each part there holds.
        parts: What is to be there.

    Raises:
        DamagedData: A file of a part is not what was written; nothing was changed.
        TreewardError: The file system cannot do it; nothing was changed.
    """
    staged = run.path / ".staging" / place.name
    disk.make_folder(staged)
    for file in (path for path in place.iterdir() if path.is_file()):
        disk.link(file, staged / file.name)
    for part in parts:
        folder = staged / part.name
        disk.make_folder(folder)
        if len(part.parts) == 1 and not part.without:
            for file in sorted(part.parts[0].iterdir()):
                disk.link(file, folder / file.name)
            disk.sync(folder)
        else:
            rows = {name: _rows(part, name) for name in tables}
            write_tables(folder, rows, run.identity.versions)
    disk.sync(staged)
    _exchange(staged, place)
    # The old parts, which are staged now, may go only when the exchange is on the disk.
    disk.sync(place.parent)
    disk.sync(staged.parent)
    disk.remove_tree(staged)


def _rows(part: NewPart, name: str) -> pa.Table:
    """Returns the rows of one table that a part is to hold."""
    found = []
    for old in part.parts:
        path = old / f"{name}.parquet"
        record = read_manifest(old).files.get(path.name)
        table = read_checked(path, name, record) if record else "not in the manifest"
        if isinstance(table, str):
            raise DamagedData(f"{path}: {table}; `treeward verify --set-aside` puts it away")
        gone = pc.is_in(table["tree_id"], pa.array(sorted(part.without), pa.string()))
        found.append(table.filter(pc.invert(gone)) if part.without else table)
    return pa.concat_tables(found)


def _exchange(staged: Path, place: Path) -> None:
    try:
        disk.exchange(staged, place)
    except OSError as e:
        if e.errno not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise
        raise TreewardError(
            f"{place}: the file system cannot exchange two folders at once; do this to a copy of "
            "the run on another one"
        ) from e

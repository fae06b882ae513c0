"""Merges small parts of a run into larger ones; no row changes.

    RUN/parts/merged-<digest>/          a part that was merged, named by its trees

What critics said later is merged likewise, one folder a critic. Merged parts of several shards
never share a name, so that they can still be put into one folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from treeward.export.durable import disk_errors
from treeward.export.parts import parts_in, read_manifest
from treeward.export.rewriting import NewPart, rewrite
from treeward.export.run_folder import RunFolder, clear_staging, locked, open_run_folder
from treeward.export.schema import TABLES
from treeward.export.score_store import TABLE, score_sets

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
    parts = [
        NewPart(name=group[0].name if len(group) == 1 else _name(group), parts=group)
        for group in groups
    ]
    rewrite(run, place, tables, parts)


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

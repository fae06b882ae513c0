"""Recovery of a run with damaged parts: they are put away, and their problems have no tree again.

    RUN/damaged/<worker>-<sequence>/            a part that was set aside, as it was found
    RUN/damaged/<critic>-<worker>-<sequence>/   scores likewise: damaged, or of trees that are gone

No reader looks there. The same `generate` command grows the trees again, and `score` scores them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from treeward.export import disk
from treeward.export.durable import disk_errors
from treeward.export.parts import committed_parts, parts_in, read_manifest
from treeward.export.run_folder import locked
from treeward.export.score_store import score_sets
from treeward.export.verify import Finding, Level
from treeward.search.errors import DamagedData

PLACE = "damaged"


def set_aside(run: Path, findings: Sequence[Finding]) -> list[tuple[Path, Path]]:
    """Puts away the parts that are damaged, and scores of trees that are then gone.

    Args:
        run: The run folder.
        findings: What `verify_run` found there.

    Returns:
        Where each was and where it is now.

    Raises:
        TreewardError: Another process writes to the run, or the disk failed.
    """
    damaged = [finding.file for finding in findings if finding.level is Level.DAMAGE]
    with locked(run), disk_errors(run, "cannot set a damaged part aside"):
        moved = [
            (part, _put_away(run, part, part.name))
            for part in _holding(committed_parts(run), damaged)
        ]
        trees = {tree for part in committed_parts(run) for tree in read_manifest(part).trees}
        for place in score_sets(run):
            moved += [
                (part, _put_away(run, part, f"{place.name}-{part.name}"))
                for part in parts_in(place)
                if _holding([part], damaged) or not _trees(part) <= trees
            ]
    return moved


def _holding(parts: Iterable[Path], files: Sequence[Path]) -> list[Path]:
    """Returns the parts that hold one of the files."""
    return [part for part in parts if any(part in file.parents for file in files)]


def _trees(part: Path) -> set[str]:
    try:
        return set(read_manifest(part).trees)
    except DamagedData:
        return set()


def _put_away(run: Path, part: Path, name: str) -> Path:
    """Moves a part among the damaged ones, under a name that is free there."""
    place, number = run / PLACE / name, 1
    while place.exists():
        number += 1
        place = run / PLACE / f"{name}.{number}"
    disk.make_folder(place.parent)
    disk.rename(part, place)
    disk.sync(place.parent)
    disk.sync(part.parent)
    return place

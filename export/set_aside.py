"""Recovery of a run with damaged parts: they are put away, and their problems have no tree again.

    RUN/damaged/<worker>-<sequence>/            a part that was set aside, as it was found
    RUN/damaged/<critic>-<worker>-<sequence>/   scores likewise: damaged, or of trees that are gone

No reader looks there. The same `generate` command grows the trees again, and `score` scores them.
What a tree of a run with a budget may cost follows from the trees before it, so that such a run
goes on after its last whole block: whole parts that come later are put away too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from treeward.export import disk
from treeward.export.durable import disk_errors
from treeward.export.parts import committed_parts, parts_in, read_manifest
from treeward.export.run_folder import locked, open_run_folder
from treeward.export.score_store import score_sets
from treeward.export.verify import Finding, Level
from treeward.search.errors import DamagedData

PLACE = "damaged"
_BUDGET = "a run with a budget goes on after its last whole block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Says where a part was and where it is now."""

    part: Path
    place: Path
    why: str
    """Why a sound part was put away; empty for what is damaged, and for scores."""

    def __str__(self) -> str:
        """Returns one line."""
        return f"{self.part}: set aside as {self.place}" + (f" ({self.why})" if self.why else "")


def set_aside(run: Path, findings: Sequence[Finding]) -> list[Moved]:
    """Puts away the parts that are damaged, and scores of trees that are then gone.

    In a run with a budget, also the parts after the first damaged block.

    Args:
        run: The run folder.
        findings: What `verify_run` found there.

    Returns:
        What was put away, in this order.

    Raises:
        DamagedData: It is a run with a budget and its problems, which say what comes after the
            damage, are damaged too; nothing was put away.
        TreewardError: Another process writes to the run, or the disk failed.
    """
    damaged = [finding.file for finding in findings if finding.level is Level.DAMAGE]
    with locked(run), disk_errors(run, "cannot set a damaged part aside"):
        broken = _holding(committed_parts(run), damaged)
        later = _later(run, broken, damaged) if broken else []
        # Where this is cut off, there is still damage that says what else must go.
        moved = [_put_away(run, part, part.name, why=_BUDGET) for part in later]
        moved += [_put_away(run, part, part.name) for part in broken]
        trees = {tree for part in committed_parts(run) for tree in read_manifest(part).trees}
        for place in score_sets(run):
            moved += [
                _put_away(run, part, f"{place.name}-{part.name}")
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


def _later(run: Path, broken: Sequence[Path], damaged: Sequence[Path]) -> list[Path]:
    """Returns the sound parts that hold more than whole blocks before all that is missing."""
    folder = open_run_folder(run)
    settings = folder.identity.settings
    if settings.get("budget.tokens") is None:
        return []
    if folder.problems_path in damaged:
        raise DamagedData(f"{folder.problems_path}: damaged; restore it before parts are set aside")
    ids = [folder.identity.tree_id(problem.id) for problem in folder.problems()]
    block = int(settings["budget.block"] or 1)
    sound = {part: _trees(part) for part in committed_parts(run) if part not in broken}
    kept: dict[Path, set[str]] = {}
    fits = sound
    while fits != kept:
        kept = fits
        there = set().union(*kept.values())
        missing = next((at for at, tree in enumerate(ids) if tree not in there), None)
        whole = set(ids if missing is None else ids[: missing - missing % block])
        fits = {part: trees for part, trees in kept.items() if trees <= whole}
    return [part for part in sound if part not in kept]


def _put_away(run: Path, part: Path, name: str, *, why: str = "") -> Moved:
    """Moves a part among the damaged ones, under a name that is free there."""
    place, number = run / PLACE / name, 1
    while place.exists():
        number += 1
        place = run / PLACE / f"{name}.{number}"
    disk.make_folder(place.parent)
    disk.rename(part, place)
    disk.sync(place.parent)
    disk.sync(part.parent)
    return Moved(part=part, place=place, why=why)

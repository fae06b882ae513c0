"""The run folder: what identifies a run, who may write to it, and where its files are."""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treeward.export import disk
from treeward.export.durable import disk_errors, file_sha256, seal, unseal, write_file
from treeward.export.problems_file import count_sources, read_problems, write_problems
from treeward.export.schema import SCHEMA_VERSION
from treeward.search.errors import BadInput, SettingsConflict, TreewardError
from treeward.search.policy import Mode
from treeward.search.problem import Problem, differences
from treeward.search.settings import Algorithm

Setting = str | int | float | bool | None

CRITIC = "critic."
"""What the names of settings begin with that say which critics a run was grown with."""

_OWN = {".lock", ".staging", ".problems.parquet.half", ".run.json.half"}
_BEFORE_IDENTITY = {*_OWN, "parts", "journal", "problems.parquet"}
"""What a folder may hold whose making was interrupted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Says how one of a run's samplers draws; a row of the view `samplers`."""

    sampler_id: int
    """0 is the policy whose value is measured."""
    policy: str
    temperature: float
    top_p: float
    max_step_tokens: int
    max_rollout_tokens: int
    purpose: str
    """What its rollouts are for: `evidence`, or `steering` where no label reads them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Says what makes a run this run; saved as `run.json`."""

    settings: Mapping[str, Setting]
    """All that changes results, by dotted name: the seed, threads and the policy's fingerprint too.
    A run is never continued with others."""

    samplers: tuple[Sampler, ...]
    """They follow from the settings."""

    versions: Mapping[str, str]
    """Of treeward and the libraries that the run was begun with; recorded, never compared."""

    @property
    def is_deterministic(self) -> bool:
        """Returns whether no companion in a batch may change a reply's bits."""
        return self.settings.get("backend.mode") == Mode.DETERMINISTIC

    @property
    def has_critics(self) -> bool:
        """Returns whether the run was grown with critics, whose scores are in its nodes."""
        return any(name.startswith(CRITIC) for name in self.settings)

    @property
    def solutions_are_given(self) -> bool:
        """Returns whether the run is about solutions that were there, not its policy's own."""
        return self.settings.get("search.algorithm") == Algorithm.GIVEN

    def tree_id(self, problem_id: str) -> str:
        """Returns the id of a problem's tree in this run; no run with other settings has it."""
        return digest([digest(dict(self.settings)), problem_id])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Holds where a run is and what identifies it."""

    path: Path
    identity: Identity

    @property
    def journal(self) -> Path:
        """Returns the folder with replies of unfinished trees."""
        return self.path / "journal"

    @property
    def problems_path(self) -> Path:
        """Returns the file with the run's problems."""
        return self.path / "problems.parquet"

    def problems(self) -> tuple[Problem, ...]:
        """Reads the run's problems, in their order.

        Raises:
            DamagedData: The file is missing or not what was written.
        """
        return read_problems(self.problems_path)

    def problem_sources(self) -> Counter[str]:
        """Counts the run's problems by their source; reads nothing else of them.

        Raises:
            DamagedData: The file is missing or not what was written.
        """
        return count_sources(self.problems_path)


def digest(data: Any) -> str:
    """Returns 16 hex digits that stand for some plain data."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def open_run_folder(path: Path) -> RunFolder:
    """Opens a run folder for reading; changes nothing.

    Raises:
        BadInput: It is no run folder, or a newer version made it.
        DamagedData: Its run.json is not what was written.
    """
    if not path.is_dir():
        raise BadInput(f"{path}: no such run folder; `treeward generate` makes one")
    try:
        body = unseal(path / "run.json", SCHEMA_VERSION)
    except OSError as e:
        reason = os.strerror(e.errno or 0)
        inside = sorted(str(run.parent) for run in path.glob("*/run.json"))
        hint = f"; there is a run in it: {inside[0]}" if inside else ""
        raise BadInput(f"{path}: not a run folder: run.json: {reason}{hint}") from e
    identity = Identity(
        settings=body["settings"],
        samplers=tuple(Sampler(**sampler) for sampler in body["samplers"]),
        versions=body["versions"],
    )
    return RunFolder(path=path, identity=identity)


def problems_sha256(path: Path) -> str:
    """Returns the checksum that a run recorded for its problems.parquet."""
    return str(unseal(path / "run.json", SCHEMA_VERSION)["problems_sha256"])


@contextmanager
def writing(path: Path, identity: Identity, problems: Sequence[Problem]) -> Iterator[RunFolder]:
    """Makes a run folder, or takes up the one that is there, and keeps other writers out.

    Args:
        path: The run folder; made where missing.
        identity: What the run must be.
        problems: The run's problems, in order.

    Yields:
        The run folder, ready for parts and journal.

    Raises:
        BadInput: The path holds something else, or cannot be written to.
        SettingsConflict: The run there has other settings or problems; one difference a line.
        DamagedData: The run there is not what was written.
        TreewardError: Another process writes to the run, or the disk failed.
    """
    _refuse_foreign(path)
    with disk_errors(path, "cannot write the run folder"):
        disk.make_folder(path)
    with locked(path):
        if (path / "run.json").exists():
            _refuse_other(open_run_folder(path), identity, problems)
        with disk_errors(path, "cannot write the run folder"):
            _make_ready(path, identity, problems)
        yield open_run_folder(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps other writers out of a folder that is there.

    Raises:
        BadInput: The folder cannot be written to.
        TreewardError: Another process writes to the run, or the disk failed.
    """
    with disk_errors(path, "cannot write the run folder"):
        lock = disk.open_lock(path / ".lock")
    try:
        _lock(path, lock)
        yield
    finally:
        os.close(lock)


def _refuse_foreign(path: Path) -> None:
    """Refuses a folder that holds something, but no run."""
    if not path.is_dir() or (path / "run.json").exists():
        return
    with disk_errors(path, "cannot read the folder"):
        foreign = sorted(entry.name for entry in path.iterdir())
        foreign = [name for name in foreign if name not in _BEFORE_IDENTITY]
        parts = path / "parts"
        foreign += ["parts/"] if parts.is_dir() and any(parts.iterdir()) else []
    if foreign:
        raise BadInput(
            f"{path}: not a run folder: no run.json, but {foreign[0]!r}; give a new or empty folder"
        )


def _lock(path: Path, lock: int) -> None:
    """Takes the lock of a run, which ends with this process at the latest."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        raise TreewardError(
            f"{path}: process {owner or '?'} is writing to this run; wait for it or stop it"
        ) from e
    with disk_errors(path, "cannot write the lock"):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _make_ready(path: Path, identity: Identity, problems: Sequence[Problem]) -> None:
    """Clears what a dead writer left, and writes what is missing, run.json last."""
    clear_staging(path)
    for name in ("parts", "journal"):
        disk.make_folder(path / name)
    if (path / "run.json").exists():
        return
    write_problems(path / "problems.parquet", problems)
    body = {
        "schema_version": SCHEMA_VERSION,
        "settings": dict(identity.settings),
        "samplers": [asdict(sampler) for sampler in identity.samplers],
        "versions": dict(identity.versions),
        "problems_sha256": file_sha256(path / "problems.parquet"),
    }
    write_file(path / "run.json", seal(body))


def clear_staging(path: Path) -> None:
    """Empties the folder for what is half written; for whoever has the lock."""
    staging = path / ".staging"
    if staging.is_dir() and any(staging.iterdir()):
        # Parts that were exchanged for merged ones are there: first the exchange must be on the
        # disk.
        disk.sync(path)
        disk.sync(staging)
    disk.remove_tree(staging)
    disk.make_folder(staging)


def _refuse_other(run: RunFolder, identity: Identity, problems: Sequence[Problem]) -> None:
    """Refuses to continue a run as another one."""
    found = list(_differences(run.identity.settings, identity.settings))
    stored = run.problems()
    if len(stored) != len(problems):
        found.append(f"problems: run has {len(stored)}, asked for {len(problems)}")
    else:
        found += [
            f"problems: number {number} in the run is {ours.id!r}, asked for {theirs.id!r}"
            if ours.id != theirs.id
            else f"problems: number {number}, {ours.id!r}, differs in "
            + ", ".join(differences(ours, theirs))
            for number, (ours, theirs) in enumerate(zip(stored, problems, strict=True), start=1)
            if ours != theirs
        ][:1]
    if found:
        lines = "\n".join(["other settings made this run; take them, or another --out", *found])
        raise SettingsConflict(f"{run.path}: {lines}")


def _differences(there: Mapping[str, Setting], asked: Mapping[str, Setting]) -> Iterator[str]:
    """Yields one line for each setting that differs, by name."""
    for name in sorted({*there, *asked}):
        if name not in asked:
            yield f"{name}: run has {there[name]!r}, asked for none"
        elif name not in there:
            yield f"{name}: run has none, asked for {asked[name]!r}"
        elif there[name] != asked[name]:
            yield f"{name}: run has {there[name]!r}, asked for {asked[name]!r}"

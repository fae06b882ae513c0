"""Small parts become large ones: the rows stay, at every moment the old or the new are there."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.faulty_disk import Died, Fault, FaultyDisk, on
from tests.test_set_aside import Says, damage
from tests.test_store_faults import IDENTITY, grow, tables

from treeward.export import compact, disk, part_writer
from treeward.export.compact import Compaction
from treeward.export.parts import committed_parts, committed_trees, parts_in, read_manifest
from treeward.export.queries import connected
from treeward.export.run_folder import open_run_folder, writing
from treeward.export.scores import score_run
from treeward.export.set_aside import set_aside
from treeward.export.verify import verify_run
from treeward.search.errors import DamagedData, TreewardError

Command = Callable[..., Any]
FAULTS = [*Fault]


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_writer, "PART_NODES", 1)
        yield


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of several parts, with scores in several parts."""
    path = tmp_path / "run"
    make(path)
    return path


def make(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("treeward.export.scores._PART_NODES", 5)
        grow(path)
        score_run(path, Says())
    assert len(committed_parts(path)) > 2
    assert len(score_parts(path)) > 1


def score_parts(path: Path) -> list[Path]:
    return [part for place in parts_in(path / "scores") for part in parts_in(place)]


def rows(path: Path) -> dict[str, pa.Table]:
    with connected(open_run_folder(path)) as connection:
        scores = connection.sql("FROM scores ORDER BY tree_id, node_id").to_arrow_table()
    return {**tables(path), "scores": scores}


def test_the_rows_stay_and_the_parts_are_few(run: Path, treeward: Command) -> None:
    truth, trees = rows(run), committed_trees(run).keys()
    before = len(committed_parts(run)) + len(score_parts(run))
    done = treeward("compact", run)
    assert done.code == 0
    assert done.out == f"{run}: {before} parts merged into 2\n"
    (part,), (scores,) = committed_parts(run), score_parts(run)
    assert re.fullmatch("merged-[0-9a-f]{16}", part.name)
    assert scores.name == part.name
    assert committed_trees(run).keys() == trees
    assert rows(run) == truth
    assert verify_run(run) == ()
    assert treeward("compact", run).out == f"{run}: 2 parts, nothing to merge\n"
    assert compact.compact(run) == Compaction(before=2, after=2)


def test_large_parts_are_linked_and_not_written_again(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = rows(run)
    files = [read_manifest(part).files.values() for part in committed_parts(run)]
    sizes = [max(record.rows for record in each) for each in files]
    monkeypatch.setattr(compact, "PART_ROWS", max(sizes) + 1)
    compact.compact(run)
    names = [part.name for part in committed_parts(run)]
    assert 1 < len(names) < len(sizes)
    by_size = sorted(committed_parts(run), key=lambda part: (part / "nodes.parquet").stat().st_size)
    kept = by_size[-1] / "nodes.parquet"
    inode = kept.stat().st_ino
    damage_and_grow_again(run, by_size[0])
    compact.compact(run)
    assert kept.stat().st_ino == inode
    assert rows(run) == truth
    assert verify_run(run)[0].level == "info"  # the part that was set aside


def damage_and_grow_again(run: Path, part: Path) -> None:
    damage(part / "nodes.parquet")
    set_aside(run, verify_run(run))
    grow(run)
    score_run(run, Says())


def test_a_run_goes_on_after_it(tmp_path: Path) -> None:
    grow(tmp_path / "whole")
    truth = tables(tmp_path / "whole")
    path = tmp_path / "run"
    with on(FaultyDisk(at=75, fault=Fault.CRASH)), pytest.raises(Died):
        grow(path)
    assert 0 < len(committed_trees(path)) < truth["trees"].num_rows
    journal = {file.name: file.read_bytes() for file in (path / "journal").iterdir()}
    compact.compact(path)
    assert {file.name: file.read_bytes() for file in (path / "journal").iterdir()} == journal
    grow(path)
    assert tables(path) == truth
    assert verify_run(path) == ()


def test_a_file_system_that_cannot_exchange_folders_is_said_so(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))

    monkeypatch.setattr(disk, "exchange", refuse)
    parts = committed_parts(run)
    with pytest.raises(
        TreewardError, match="cannot exchange two folders at once; do this to a copy"
    ):
        compact.compact(run)
    assert committed_parts(run) == parts
    assert verify_run(run)[0].level == "info"


def test_damage_is_not_merged(run: Path) -> None:
    parts = committed_parts(run)
    damage(parts[1] / "rollouts.parquet")
    with pytest.raises(DamagedData, match=r"main-000002/rollouts.parquet: .*--set-aside"):
        compact.compact(run)
    assert committed_parts(run) == parts


def test_it_is_refused_under_a_writer_and_keeps_writers_out(run: Path) -> None:
    problems = open_run_folder(run).problems()
    with (
        writing(run, IDENTITY, problems),
        pytest.raises(TreewardError, match="is writing to this run"),
    ):
        compact.compact(run)
    refused: list[str] = []

    def others() -> None:
        ways: dict[str, Callable[[], object]] = {
            "generate": lambda: grow(run),
            "score": lambda: score_run(run, Says()),
            "compact": lambda: compact.compact(run),
            "set aside": lambda: set_aside(run, ()),
        }
        for name, other in ways.items():
            with pytest.raises(TreewardError, match="is writing to this run"):
                other()
            refused.append(name)

    with on(FaultyDisk(at=5, fault=Fault.EIO, at_fault=others)), pytest.raises(TreewardError):
        compact.compact(run)
    assert len(refused) == 4


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The changes of the disk that it takes."""
    path = tmp_path_factory.mktemp("counted") / "run"
    make(path)
    with on(FaultyDisk()) as counted:
        compact.compact(path)
    assert {"link", "exchange", "rename", "sync", "write"} <= {*counted.made}
    return counted.made


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
def test_a_fault_at_any_change_leaves_the_old_parts_or_the_new(
    tmp_path: Path, changes: list[str], fault: Fault
) -> None:
    make(tmp_path / "run")
    truth = rows(tmp_path / "run")
    places = [number for number, name in enumerate(changes) if fault.can_be_at(name)]
    # One in 30, another for each fault.
    for number in places[3 * FAULTS.index(fault) + 5 :: 30]:
        path = tmp_path / str(number)
        subprocess.run(["cp", "-r", tmp_path / "run", path], check=True)
        before = len(committed_parts(path))
        with on(FaultyDisk(at=number, fault=fault)), suppress(TreewardError, Died):
            compact.compact(path)
        assert len(committed_parts(path)) in (before, 1)
        assert rows(path) == truth
        assert all(finding.level == "info" for finding in verify_run(path))
        compact.compact(path)
        assert rows(path) == truth
        assert verify_run(path) == ()


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_leaves_the_old_parts_or_the_new(run: Path, moment: int) -> None:
    truth = rows(run)
    program = "import sys; from treeward.export.compact import compact; print(flush=True); "
    program += "from pathlib import Path; compact(Path(sys.argv[1]))"
    child = subprocess.Popen([sys.executable, "-c", program, str(run)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(1)
    time.sleep(0.01 * moment)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert rows(run) == truth
    compact.compact(run)
    assert rows(run) == truth
    assert verify_run(run) == ()

"""A run folder is one run: made whole, never continued as another, written by one process."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treeward.export.durable import seal
from treeward.export.problems_file import read_problems, write_problems
from treeward.export.run_folder import Identity, Sampler, open_run_folder, writing
from treeward.export.schema import SCHEMA_VERSION
from treeward.search.errors import BadInput, DamagedData, SettingsConflict, TreewardError
from treeward.search.problem import Message, Problem

SAMPLER = Sampler(
    sampler_id=0,
    policy="nano",
    temperature=0.7,
    top_p=1.0,
    max_step_tokens=24,
    max_rollout_tokens=96,
    purpose="evidence",
)
SETTINGS = {"run.seed": 3, "search.rollouts": 8, "policy.temperature": 0.1, "search.limit": None}
IDENTITY = Identity(settings=SETTINGS, samplers=(SAMPLER,), versions={"torch": "2.13.0"})
PROBLEMS = (
    Problem(id="one", prompt="1 + 1", answer="2", solution=("1 + 1 = 2",), source="file"),
    Problem(id="two", prompt="hi", messages=(Message("user", "hi"),), metadata='{"a": 1}'),
)

text = st.text()
problems = st.builds(
    Problem,
    id=text,
    prompt=text,
    messages=st.none() | st.lists(st.builds(Message, text, text), max_size=2).map(tuple),
    answer=st.none() | text,
    verifier=text,
    source=text,
    solution=st.none() | st.lists(text, max_size=3).map(tuple),
    metadata=text,
)


@settings(max_examples=40)
@given(given_problems=st.lists(problems, max_size=4))
def test_problems_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, given_problems: list[Problem]
) -> None:
    path = tmp_path_factory.getbasetemp() / "problems.parquet"
    write_problems(path, given_problems)
    assert read_problems(path) == tuple(given_problems)


def test_a_problem_that_no_file_can_keep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="lone surrogate"):
        write_problems(tmp_path / "problems.parquet", [Problem(id="a", prompt="\ud800")])
    assert list(tmp_path.iterdir()) == []


def test_a_run_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    with writing(path, IDENTITY, PROBLEMS) as run:
        assert run.identity == IDENTITY
    run = open_run_folder(path)
    assert (run.identity, run.problems()) == (IDENTITY, PROBLEMS)


def test_the_same_run_is_taken_up_and_its_files_stay(tmp_path: Path) -> None:
    with writing(tmp_path, IDENTITY, PROBLEMS):
        pass
    before = {name: (tmp_path / name).read_bytes() for name in ("run.json", "problems.parquet")}
    (tmp_path / ".staging" / "half").mkdir()
    (tmp_path / "journal" / "t.jsonl").write_bytes(b"")
    newer = replace(IDENTITY, versions={"torch": "2.14.0"})
    with writing(tmp_path, newer, PROBLEMS) as run:
        assert run.identity == IDENTITY
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not (tmp_path / ".staging" / "half").exists()
    assert (tmp_path / "journal" / "t.jsonl").exists()


def test_other_settings_are_refused_line_by_line(tmp_path: Path) -> None:
    with writing(tmp_path, IDENTITY, PROBLEMS):
        pass
    asked = {"run.seed": 3, "search.rollouts": 16, "policy.temperature": 0.1, "search.c": 1.5}
    with (
        pytest.raises(SettingsConflict) as conflict,
        writing(tmp_path, replace(IDENTITY, settings=asked), PROBLEMS[:1]),
    ):
        pass
    assert str(conflict.value).splitlines()[1:] == [
        "search.c: run has none, asked for 1.5",
        "search.limit: run has None, asked for none",
        "search.rollouts: run has 8, asked for 16",
        "problems: run has 2, asked for 1",
    ]
    assert open_run_folder(tmp_path).identity == IDENTITY


def test_another_problem_is_refused(tmp_path: Path) -> None:
    with writing(tmp_path, IDENTITY, PROBLEMS):
        pass
    other = (PROBLEMS[0], replace(PROBLEMS[1], answer="3"))
    with (
        pytest.raises(SettingsConflict, match="problems: number 2, 'two', differs in answer"),
        writing(tmp_path, IDENTITY, other),
    ):
        pass


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(BadInput, match=r"not a run folder.*'thesis\.tex'"),
        writing(tmp_path, IDENTITY, PROBLEMS),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_folder_around_a_run_says_where_the_run_is(tmp_path: Path) -> None:
    with writing(tmp_path / "run", IDENTITY, PROBLEMS):
        pass
    with pytest.raises(BadInput) as caught:
        open_run_folder(tmp_path)
    assert str(caught.value).endswith(f"there is a run in it: {tmp_path / 'run'}")


def test_making_it_may_be_interrupted_anywhere(
    file_size_limit: Callable[[int], AbstractContextManager[None]], tmp_path: Path
) -> None:
    for size in range(20, 6000, 300):
        try:
            with file_size_limit(size), writing(tmp_path, IDENTITY, PROBLEMS):
                break
        except TreewardError:
            with pytest.raises(BadInput, match="not a run folder"):
                open_run_folder(tmp_path)
    assert size > 320, "no write was refused"
    assert open_run_folder(tmp_path).problems() == PROBLEMS


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "newer", "edited"])
def test_what_is_no_run_is_said_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("")
    elif kind != "missing":
        with writing(path, IDENTITY, PROBLEMS):
            pass
    if kind == "empty":
        (path / "run.json").unlink()
    if kind == "newer":
        (path / "run.json").write_bytes(seal({"schema_version": SCHEMA_VERSION + 1}))
    if kind == "edited":
        made = (path / "run.json").read_text()
        (path / "run.json").write_text(made.replace('"search.rollouts": 8', '"search.rollouts": 9'))
    with pytest.raises(DamagedData if kind == "edited" else BadInput) as refused:
        open_run_folder(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture
def no_privileges() -> Iterator[None]:
    """Root may write everywhere; for the test, it becomes somebody who may not."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.usefixtures("no_privileges")
@pytest.mark.parametrize("path", ["/sys/run", "/dev/null/run", "/dev/null"])
def test_a_place_that_cannot_be_written_to_is_bad_input(path: str) -> None:
    with (
        pytest.raises(BadInput, match=f"^{path}: cannot write the run folder: ") as refused,
        writing(Path(path), IDENTITY, PROBLEMS),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_a_read_only_run_cannot_be_taken_up(request: pytest.FixtureRequest) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        run = Path(place) / "run"
        with writing(run, IDENTITY, PROBLEMS):
            pass
        run.chmod(0o555)
        (run / ".lock").chmod(0o444)
        request.getfixturevalue("no_privileges")
        assert open_run_folder(run).problems() == PROBLEMS
        with (
            pytest.raises(BadInput, match="cannot write the run folder: Permission denied"),
            writing(run, IDENTITY, PROBLEMS),
        ):
            pass
        os.seteuid(os.getuid())
        run.chmod(0o755)


_HOLDER = """
import fcntl, os, sys, time
lock = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
os.ftruncate(lock, 0)
os.pwrite(lock, f"{os.getpid()}\\n".encode(), 0)
print("held", flush=True)
time.sleep(600)
"""


def test_one_writer_at_a_time_until_it_dies(tmp_path: Path) -> None:
    with (
        writing(tmp_path, IDENTITY, PROBLEMS),
        pytest.raises(TreewardError, match=f"process {os.getpid()} is writing"),
        writing(tmp_path, IDENTITY, PROBLEMS),
    ):
        pass
    command = [sys.executable, "-c", _HOLDER, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            with (
                pytest.raises(TreewardError, match=f"process {holder.pid} is writing"),
                writing(tmp_path, IDENTITY, PROBLEMS),
            ):
                pass
        finally:
            holder.kill()
    with writing(tmp_path, IDENTITY, PROBLEMS):
        pass

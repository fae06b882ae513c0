"""A run that is killed goes on in the middle of its trees and ends with the same rows."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from treeward.export.generate import generate
from treeward.export.journal import read_entries
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import connected
from treeward.export.run_folder import open_run_folder
from treeward.search.forest import Progress

PROBLEMS = "task:arithmetic?n=6&seed=3"
SETTINGS = ("search.simulations=4", "search.rollouts=4")
OPTIONS = Options(problems=PROBLEMS, assignments=SETTINGS)
ORDER = {"trees": "tree_id", "nodes": "tree_id, pre", "rollouts": "tree_id, rollout_id"}


def tables(run: Path) -> dict[str, pa.Table]:
    with connected(open_run_folder(run)) as connection:
        return {
            name: connection.sql(f"SELECT * FROM {name} ORDER BY {order}").to_arrow_table()
            for name, order in ORDER.items()
        }


def kill_at(replies: int, problems: str, run: Path, *options: str) -> None:
    """Starts `generate` and kills it when its journal holds so many replies."""
    command = [sys.executable, "-m", "treeward.cli", "generate", problems, "--out", str(run)]
    command += ["--concurrency", "2", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        files = list((run / "journal").glob("*"))
        if sum(file.read_bytes().count(b"\n") for file in files) >= replies:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    generate(make_plan(OPTIONS), run, concurrency=64)
    return tables(run)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_rows_do_not_depend_on_concurrency(
    tmp_path: Path, undisturbed: dict[str, pa.Table], concurrency: int
) -> None:
    generate(make_plan(OPTIONS), tmp_path, concurrency=concurrency)
    assert tables(tmp_path) == undisturbed


@pytest.mark.parametrize("replies", [3, 17])
def test_a_killed_run_asks_for_no_recorded_reply_again(
    tmp_path: Path, undisturbed: dict[str, pa.Table], replies: int
) -> None:
    kill_at(replies, PROBLEMS, tmp_path, *(f"--set={setting}" for setting in SETTINGS))

    recorded = sum(len(read_entries(file)[0]) for file in (tmp_path / "journal").glob("*"))
    assert recorded >= replies
    seen: list[Progress] = []
    generate(make_plan(OPTIONS), tmp_path, concurrency=5, watch=lambda now, _: seen.append(now))
    assert seen[-1].replayed == recorded
    assert tables(tmp_path) == undisturbed
    assert not any((tmp_path / "journal").iterdir())

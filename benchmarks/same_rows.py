"""Shows that a run's rows depend neither on concurrency nor on being killed.

    python benchmarks/same_rows.py

Grows 32 trees with the embedded model in deterministic mode at concurrency 1, 8 and 64 and compares
every column of every table. Then kills runs with SIGKILL at ten moments at which the journal holds
replies, resumes each, and compares again; a resumed run must ask for no recorded reply.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.generate import generate
from treeward.export.journal import read_entries
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import connected
from treeward.export.run_folder import open_run_folder
from treeward.search.forest import Progress

TABLES = {"trees": "tree_id", "nodes": "tree_id, pre", "rollouts": "tree_id, rollout_id"}


SETTINGS = ("prompt.template=nano", "search.simulations=8")


def options_of(a: argparse.Namespace) -> Options:
    """Returns what every run is asked for."""
    return Options(problems=a.problems, policy=a.policy, deterministic=True, assignments=SETTINGS)


def read_tables(run: Path) -> dict[str, pa.Table]:
    """Returns every table of a run, all columns, rows in their documented order."""
    with connected(open_run_folder(run)) as connection:
        return {
            name: connection.sql(f"SELECT * FROM {name} ORDER BY {order}").to_arrow_table()
            for name, order in TABLES.items()
        }


def assert_same(run: Path, other: dict[str, pa.Table]) -> str:
    """Compares all columns of all tables; returns how many cells were equal."""
    cells = 0
    for name, table in read_tables(run).items():
        for column in table.column_names:
            ours, theirs = table[column], other[name][column]
            assert ours.equals(theirs), f"{run}: {name}.{column} differs"
            cells += len(ours)
    return f"{cells:,} cells equal"


def journal_keys(run: Path) -> dict[str, set[str]]:
    """Returns the keys of the recorded replies, by tree."""
    files = sorted((run / "journal").glob("*.jsonl"))
    return {file.stem: set(read_entries(file)[0]) for file in files}


def kill_when(run: Path, command: list[str], replies: int) -> int:
    """Starts a run and kills it once its journal holds that many replies; returns how many."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            lines = sum(file.read_bytes().count(b"\n") for file in (run / "journal").glob("*"))
            if lines >= replies:
                break
            time.sleep(0.002)
        assert process.poll() is None, "the run ended before it was killed"
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the kill hit no living process"
    return sum(map(len, journal_keys(run).values()))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="nano")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--problems", default="task:arithmetic?n=32&seed=11")
    a = parser.parse_args()
    plan = make_plan(options_of(a))
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        generate(plan, base / "c64", concurrency=64)
        undisturbed = read_tables(base / "c64")
        requests = sum(
            pc.sum(undisturbed["trees"][name]).as_py() for name in ("n_nodes", "n_rollouts")
        )
        print(f"32 trees, {requests:,} nodes and rollouts, undisturbed at concurrency 64")
        for concurrency in (1, 8):
            run = base / f"c{concurrency}"
            generate(plan, run, concurrency=concurrency)
            print(f"concurrency {concurrency}: {assert_same(run, undisturbed)}")
        for number in range(a.kills):
            kill_and_resume(base / f"killed-{number}", a, undisturbed, number)


def kill_and_resume(
    run: Path, a: argparse.Namespace, undisturbed: dict[str, pa.Table], number: int
) -> None:
    """Kills a run in the middle, resumes it, and compares its rows."""
    command = [sys.executable, "-m", "treeward.cli", "generate", a.problems, "--out", str(run)]
    command += ["--policy", a.policy, "--deterministic", "--concurrency", "8"]
    command += [f"--set={setting}" for setting in SETTINGS]
    recorded = kill_when(run, command, replies=5 + 25 * number)
    before = journal_keys(run)
    seen: list[Progress] = []
    plan = make_plan(options_of(a))
    generate(plan, run, concurrency=8, watch=lambda progress, _: seen.append(progress))
    replayed = seen[-1].replayed
    in_journal = sum(map(len, before.values()))
    assert replayed == in_journal, f"{in_journal} replies recorded, {replayed} taken from there"
    print(
        f"killed with {recorded} replies in the journal; resumed with {replayed} of them asked for "
        f"again 0 times, {seen[-1].asked} new: {assert_same(run, undisturbed)}"
    )


if __name__ == "__main__":
    main()

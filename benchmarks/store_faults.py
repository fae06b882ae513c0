"""Lets every change of the disk in a run fail, in every way, and kills runs at random moments.

    python benchmarks/store_faults.py --stride 1
    python benchmarks/store_faults.py --kills 100

The checks are those of tests/test_store_faults.py, which tries a sample: what was committed is
there, nothing is torn, and going on gives the rows of an undisturbed run. The journal makes the
same two changes for each reply; of those, one in `--stride` is tried.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

sys.path.append(str(Path(__file__).parents[1]))
from tests import test_store_faults as store
from tests.faulty_disk import Fault, FaultyDisk, on

from treeward.export import part_writer
from treeward.export.parts import committed_trees
from treeward.export.verify import verify_run
from treeward.search.problem import Problem

PART_NODES = 80
KILLS_A_RUN = 10


def problems_of(trees: int) -> list[Problem]:
    """Returns the run's problems."""
    return [Problem(id=f"p{n}", prompt=f"{n}", answer="1") for n in range(trees)]


def sweep(folder: Path, trees: int, stride: int, faults: list[Fault]) -> None:
    """Tries every fault at every change, or one in so many of the journal's."""
    problems = problems_of(trees)
    with on(FaultyDisk()) as counted:
        store.grow(folder / "whole", problems)
    check = store.Checks(store.tables(folder / "whole"), problems)
    parts = len(list((folder / "whole" / "parts").iterdir()))
    print(f"{trees} trees in {parts} parts: {len(counted.made)} changes of the disk", flush=True)
    for fault in faults:
        replies, tried = 0, 0
        for number, name in enumerate(counted.made):
            replies += name.startswith("journal.")
            if not fault.can_be_at(name) or (name.startswith("journal.") and replies % stride):
                continue
            path, kept = folder / f"{fault.name}-{number}", open_files()
            check(path, number, fault)
            # What a process that died leaves open, the kernel closes.
            for descriptor in open_files() - kept:
                os.close(descriptor)
            shutil.rmtree(path)
            tried += 1
        print(f"{fault.name:8} at {tried} changes: nothing lost, nothing torn", flush=True)


def open_files() -> set[int]:
    """Returns this process's descriptors of files on the disk."""
    return {int(each.name) for each in Path("/proc/self/fd").iterdir() if each.is_file()}


def kill(folder: Path, trees: int, kills: int, seed: int) -> None:
    """Kills runs at random moments, each so often that it gets somewhere, then lets it end."""
    problems = problems_of(trees)
    start = time.perf_counter()
    store.grow(folder / "whole", problems)
    truth, whole = store.tables(folder / "whole"), time.perf_counter() - start
    rng = random.Random(seed)
    died, runs = 0, 0
    while died < kills:
        path = folder / f"killed-{runs}"
        runs += 1
        for _ in range(KILLS_A_RUN):
            before = committed_trees(path).keys() if path.exists() else set()
            child = subprocess.Popen(
                [sys.executable, __file__, "--trees", str(trees), "--only-grow", str(path)],
                stdout=subprocess.PIPE,
            )
            assert child.stdout is not None
            child.stdout.read(1)
            time.sleep(rng.uniform(0, whole * 1.1))
            os.kill(child.pid, signal.SIGKILL)
            killed = child.wait() == -signal.SIGKILL
            child.stdout.close()
            died += killed
            assert before <= committed_trees(path).keys()
            if not killed or died == kills:
                break
        store.grow(path, problems)
        assert store.tables(path) == truth
        assert verify_run(path) == ()
        shutil.rmtree(path)
    print(f"{died} SIGKILLs in {runs} runs of {trees} trees: the rows of an undisturbed run")


@click.command()
@click.option("--trees", default=50)
@click.option("--stride", default=50, help="1 tries every change of the journal too.")
@click.option("--fault", "names", multiple=True, help="Only these.")
@click.option("--kills", default=0, help="Kill so often instead.")
@click.option("--seed", default=1, help="Of the moments.")
@click.option("--only-grow", type=click.Path(path_type=Path), hidden=True)
def main(
    trees: int,
    stride: int,
    names: tuple[str, ...],
    kills: int,
    seed: int,
    only_grow: Path | None,
) -> None:
    """Measures and prints."""
    part_writer.PART_NODES = PART_NODES
    if only_grow is not None:
        sys.stdout.write(".")
        sys.stdout.flush()
        with ThreadPoolExecutor(1) as aside:
            store.grow(only_grow, problems_of(trees), aside)
        return
    with tempfile.TemporaryDirectory() as folder:
        if kills:
            kill(Path(folder), trees, kills, seed)
        else:
            chosen = [Fault[name] for name in names] or [*Fault]
            sweep(Path(folder), trees, stride, chosen)


if __name__ == "__main__":
    main()

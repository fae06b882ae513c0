"""Shows what many trees leave in memory, and what a tree costs by its simulations.

    python benchmarks/forest_memory.py

A scripted policy, `mcts`, journal, evidence, parts: everything that a run does but a model. Memory
is the process's resident set, each time after a garbage collection, beside the trees done so far.
"""

import argparse
import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from treeward.critics.verifier import AnswerVerifier
from treeward.export.columns import Origin
from treeward.export.journal import Journal
from treeward.export.part_writer import PartWriter
from treeward.export.run_folder import Identity, writing
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.scripted import ScriptedPolicy
from treeward.search.settings import SearchSettings
from treeward.search.tree import Tree

STEPS = [(f"{number:03}\n", 1 / 512) for number in range(512)]
ENDS = [("Answer: 1\n", 0.5), ("Answer: 0\n", 0.5)]
IN_FLIGHT = 256
COSTED = 32
"""Trees whose cost is measured, of each size."""


def script(_: str, text: str) -> list[tuple[str, float]]:
    """Returns numbers, and an answer after six of them: no tree runs out of what to expand."""
    return ENDS if text.count("\n") == 6 else STEPS


def grow(problems: Sequence[Problem], simulations: int, done: Callable[[], None]) -> None:
    """Grows a tree for each problem into a run that is thrown away."""
    policy = ScriptedPolicy(script)
    reader = Reader(Template(name="numbers"), policy.tokens)
    settings = SearchSettings(simulations=simulations, rollouts=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        AnswerVerifier({problem.verifier for problem in problems}) as verifier,
        writing(
            Path(folder) / "run", Identity(settings={}, samplers=(), versions={}), problems
        ) as run,
        ThreadPoolExecutor(1) as aside,
    ):
        journal = Journal(run.journal)
        origin = Origin(reader=reader, search="mcts", policy="scripted", seed=0)
        writer = PartWriter(run, journal, tree_id, origin, aside)
        growing = Forest(
            search=partial(mcts, settings=settings),
            samplers=[PolicySampler(policy=policy, settings=PolicySettings())],
            reader=reader,
            verifier=verifier,
            recorder=journal,
            seed=0,
            tree_id=tree_id,
        )

        def finished(tree: Tree) -> None:
            writer.add(tree)
            done()

        asyncio.run(grow_forest(growing, Plan(iter(problems), IN_FLIGHT), finished))
        writer.commit()


def tree_id(problem: Problem) -> str:
    """Returns a problem's id, which is its number."""
    return problem.id


def problems_of(n: int) -> list[Problem]:
    """Returns numbered problems."""
    return [
        Problem(id=f"p{number}", prompt=f"problem {number}", answer="1", verifier="number")
        for number in range(n)
    ]


def resident_mb() -> float:
    """Returns the process's resident set in MB, without garbage."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trees", type=int, default=10_000, help="0 for their cost alone")
    parser.add_argument("--simulations", type=int, default=4)
    a = parser.parse_args()
    if a.trees:
        show_memory(a.trees, a.simulations)
    show_cost()


def show_memory(trees: int, simulations: int) -> None:
    """Prints the resident set as trees are done."""
    seen: list[float] = []
    count = 0

    def note() -> None:
        nonlocal count
        count += 1
        if count % max(1, trees // 20) == 0:
            seen.append(resident_mb())
            print(f"{count:6,} trees  {seen[-1]:6.0f} MB", flush=True)

    grow(problems_of(trees), simulations, note)
    later = np.array(seen[len(seen) // 4 :])
    slope = np.polyfit(np.arange(len(later)), later, 1)[0] * 20 / trees
    print(
        f"after the first quarter: {slope * 1e6:+.0f} bytes a tree, {np.ptp(later):.0f} MB in all"
    )


def show_cost() -> None:
    """Prints what a tree costs, as many of each size."""
    print("simulations  ms a tree  ms a simulation")
    for simulations in (4, 16, 64, 256):
        start = time.process_time()
        grow(problems_of(COSTED), simulations, lambda: None)
        spent = (time.process_time() - start) / COSTED * 1000
        print(f"{simulations:11}  {spent:9.1f}  {spent / simulations:.2f}", flush=True)


if __name__ == "__main__":
    main()

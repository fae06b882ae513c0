"""Measures learned critics against the truth, and against rollouts counted for the same purpose.

    python benchmarks/critics.py --out runs/critics

Searches problems of `task:arithmetic` with `nano`, trains critics on what was counted there, and
asks them about nodes of other problems, whose values are known from many fresh rollouts. Prints how
well the values are calibrated, how large their error is beside that of n counted rollouts, what
hard targets give instead of counts, and what one pass for a whole prefix saves.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from labels import Rows, fresh_values, pick_nodes
from numpy.typing import NDArray

from treeward.critics.calibration import calibrate
from treeward.critics.learned import LearnedCritic, load_critics
from treeward.critics.progress import Count, unbiased_progress
from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.run_folder import open_run_folder
from treeward.export.status import run_status
from treeward.export.truth import read_trees
from treeward.search.critic import Prefix
from treeward.search.models import NANO, resolve_model
from treeward.search.problem import Problem
from treeward.train.critic_settings import CriticSettings, Targets
from treeward.train.critics import train_critics

Reals = NDArray[np.float64]
TRIES = 2
"""Half of the rollouts that a prefix has, by default."""


def search(out: Path, problems: str, settings: Sequence[str]) -> Plan:
    """Grows the trees of a run and returns its plan."""
    options = Options(
        problems=problems,
        algorithm="rollouts",
        deterministic=False,
        assignments=tuple(settings),
    )
    plan = make_plan(options)
    print(generate(plan, out, concurrency=64))
    run = open_run_folder(out)
    print(f"{problems}: {run_status(run).policy_tokens:,} policy tokens")
    return plan


class Truth(NamedTuple):
    """What is known of some prefixes of a run."""

    prefixes: list[Prefix]
    fresh: Reals
    """The share of right ones among fresh rollouts from each."""
    steps: NDArray[np.int64]
    """The places of those that end with a step."""
    progress: Reals
    """Of these steps, for the best of TRIES, from fresh rollouts before and behind them."""


def truth(out: Path, plan: Plan, n_nodes: int, fresh: int) -> Truth:
    """Returns prefixes of a run and what fresh rollouts say of them."""
    trees = read_trees(open_run_folder(out))
    texts = {(n["tree_id"], n["node_id"]): n["step_text"] for tree in trees for n in tree}
    nodes: Rows = pick_nodes(trees, n_nodes)
    problems = {problem.id: problem for problem in plan.problems}
    prefixes = [
        Prefix(
            problem=problems[node["problem_id"]],
            steps=tuple(texts[node["tree_id"], at] for at in node["path"][1:]),
        )
        for node in nodes
    ]
    steps = [at for at, node in enumerate(nodes) if node["token_ids"]]
    before = [
        {**nodes[at], "prefix_ids": nodes[at]["prefix_ids"][: -len(nodes[at]["token_ids"])]}
        for at in steps
    ]
    found = asyncio.run(fresh_values(plan, nodes, fresh))
    start = asyncio.run(fresh_values(plan, before, fresh))
    pairs = zip((found[steps] * fresh).round(), (start * fresh).round(), strict=True)
    progress = [
        unbiased_progress(Count(int(child), fresh), Count(int(parent), fresh), TRIES)
        for child, parent in pairs
    ]
    return Truth(prefixes, found, np.array(steps), np.array(progress))


def counted_error(fresh: Reals, n_fresh: int, n: float) -> float:
    """Returns the mean squared error of the posterior mean (k + 1/2) / (n + 1), in closed form.

    Of a node with value p it is (n p (1 - p) + (1/2 - p)^2) / (n + 1)^2, and
    (1/2 - p)^2 = 1/4 - p (1 - p).
    """
    spread = np.mean(fresh * (1 - fresh)) * n_fresh / (n_fresh - 1)
    return float((n * spread + 0.25 - spread) / (n + 1) ** 2)


def learned_error(said: Reals, fresh: Reals, n_fresh: int) -> float:
    """Returns the mean squared error against the values: that against fresh shares, less theirs."""
    noise = np.mean(fresh * (1 - fresh)) / (n_fresh - 1)
    return float(np.mean((said - fresh) ** 2) - noise)


def worth(error: float, fresh: Reals, n_fresh: int) -> float:
    """Returns how many counted rollouts have this mean squared error."""
    grid = np.arange(0, 256, 0.1)
    errors = np.array([counted_error(fresh, n_fresh, n) for n in grid])
    return float(grid[np.argmax(errors <= error)]) if error >= errors[-1] else float("inf")


def describe(name: str, critics: LearnedCritic, true: Truth, n_fresh: int) -> str:
    """Returns a line of what a set of critics is worth."""
    scores = [scores[-1] for scores in critics.score(true.prefixes)]
    said, fresh = np.array([score.value for score in scores], dtype=float), true.fresh
    rose = np.array([scores[at].progress for at in true.steps], dtype=float)
    ids = [prefix.problem.id for prefix in true.prefixes]
    problems = np.unique(ids, return_inverse=True)[1]
    found = calibrate(said, fresh * n_fresh, np.full(len(fresh), float(n_fresh)), problems)
    assert found is not None
    error = learned_error(said, fresh, n_fresh)
    return (
        f"{name}: ECE {found.ece:.3f} (noise {found.ece_noise:.3f}), "
        f"AUC {found.auc or float('nan'):.3f}, bias {np.mean(said - fresh):+.3f}, "
        f"RMSE {max(error, 0) ** 0.5:.3f}, "
        f"worth {worth(error, fresh, n_fresh):.1f} rollouts; "
        f"progress: mean {rose.mean():+.3f} (true {true.progress.mean():+.3f}), "
        f"correlation {np.corrcoef(rose, true.progress)[0, 1]:.3f}"
    )


def passes_a_second(critics: LearnedCritic, seconds: float) -> tuple[float, float]:
    """Returns prefixes of 8 steps scored a second: in one pass each, and in one pass a step."""
    steps = tuple(f"{at + 11}+1={at + 12}" for at in range(8))
    prefix = Prefix(Problem(id="timed", prompt="11 +1 +1 +1 +1 +1 +1 +1 +1"), steps)
    apart = [Prefix(prefix.problem, steps[:n]) for n in range(len(steps) + 1)]
    rates = []
    for asks in ([[prefix]], [[one] for one in apart]):
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            for ask in asks:
                critics.score(ask)
            done += 1
        rates.append(done / (time.perf_counter() - started))
    return rates[0], rates[1]


def train(data: Path, out: Path, targets: Targets, seed: int, steps: int) -> LearnedCritic:
    """Returns critics with a seed of their own; what was begun before goes on, or is done."""
    settings = CriticSettings(targets=targets, seed=seed, steps=steps, eval_every=100)
    nano = resolve_model(NANO, out).path
    print(train_critics(data, nano, out, settings, resume=out.exists(), progress=lambda _: None))
    return load_critics(out)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/critics"))
    parser.add_argument("--problems", type=int, default=4000)
    parser.add_argument("--rollouts", type=int, default=4)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--fresh", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    a = parser.parse_args()
    settings = (f"search.rollouts={a.rollouts}", f"search.width={a.width}")
    search(a.out / "run", f"task:arithmetic?n={a.problems}&seed=5", settings)
    export_dataset(
        open_run_folder(a.out / "run"), Kind.CRITIC, a.out / "data", ExportSettings(validation=0.05)
    )
    held_out = f"task:arithmetic?n={a.nodes // 2}&seed=424242"
    plan = search(a.out / "held-out", held_out, ("search.rollouts=1", "search.width=2"))
    true = truth(a.out / "held-out", plan, a.nodes, a.fresh)
    print(f"{len(true.prefixes)} nodes of other problems, {a.fresh} fresh rollouts each:")
    for n in (2, 4, 8, 16):
        print(f"{n:2d} counted rollouts: RMSE {counted_error(true.fresh, a.fresh, n) ** 0.5:.3f}")
    critics = None
    for seed in range(a.seeds):
        for targets in (Targets.HARD, Targets.COUNTS):
            out = a.out / f"critics-{targets}-{seed}"
            critics = train(a.out / "data", out, targets, seed, a.steps)
            print(describe(f"{targets}, seed {seed}", critics, true, a.fresh))
    if critics:
        whole, apart = passes_a_second(critics, seconds=2)
        print(
            f"prefixes of 8 steps a second: {whole:.0f} in one pass each, {apart:.0f} in one pass "
            f"a step ({whole / apart:.1f} times)"
        )


if __name__ == "__main__":
    main()

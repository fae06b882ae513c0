r"""Measures how often each search finds the right answer for the same policy tokens.

    treeward generate 'task:arithmetic?n=1200&seed=5&steps=6..6' --search rollouts \
        --set search.width=2 --set search.rollouts=4 --set policy.temperature=1.5 --out runs/taught
    treeward export runs/taught critic --out data/taught
    treeward train critics data/taught --model nano --out models/taught
    python benchmarks/searches.py --critics models/taught

Problems without their reference, so that no search can see which answer is right, and others than
the critics learned from; `--policy` is the one that these learned from. A budget is what N whole
solutions a problem cost, whose majority is the other side. Every search has one setting for how
much it spends; it is fitted to the budget on the first problems, and what it came to on all is
printed. Intervals are by problem over all seeds.

`--ablation` adds AlphaLLM's parts to `mcts` one by one (Tian et al. 2024, table 3), with references
to judge fast rollouts by. It prints how many problems some solution in the tree solves, for equal
tokens, fast ones included; the other side is as many lone solutions.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from critic_search import Rows, blind, interval, right, rows
from numpy.typing import NDArray

from treeward.export.answers import Way, best, likeliest, majority, most_visited, weighted
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.search.settings import Algorithm

Reals = NDArray[np.float64]
_NODES = (
    "SELECT problem_id, node_id, path, visits, q, answer, is_terminal, n_samples, creation, "
    "logprob, token_ids FROM nodes ORDER BY tree_id, node_id"
)
_ROLLOUTS = (
    "SELECT t.problem_id, r.node_id, r.answer, r.logprob, r.token_ids, r.sampler_id "
    "FROM rollouts r JOIN trees t USING (tree_id) ORDER BY tree_id, rollout_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """Holds a search and how an answer is read off its trees."""

    name: str
    algorithm: Algorithm
    scale: str
    """The setting that says how much it spends."""

    settings: tuple[str, ...]
    ways: tuple[Way, ...] = ()
    """None where a right solution in the tree is all that is asked for."""


_JUDGED = ("search.critic_outcome=1",)
CONTENDERS = (
    Contender(
        name="best_of_n",
        algorithm=Algorithm.BEST_OF_N,
        scale="search.width",
        settings=_JUDGED,
        ways=(majority, likeliest, best, weighted),
    ),
    Contender(
        name="beam",
        algorithm=Algorithm.BEAM,
        scale="beam.beams",
        settings=(*_JUDGED, "search.rollouts=0", "search.width=4", "search.wave=64"),
        ways=(likeliest, best, weighted),
    ),
    Contender(
        name="mcts",
        algorithm=Algorithm.MCTS,
        scale="search.simulations",
        settings=(*_JUDGED, "search.rollouts=1", "search.width=4"),
        ways=(likeliest, most_visited, best, weighted),
    ),
    Contender(
        name="adaptive",
        algorithm=Algorithm.ADAPTIVE,
        scale="search.simulations",
        settings=(*_JUDGED, "search.rollouts=1", "search.width=1"),
        ways=(likeliest, most_visited, best, weighted),
    ),
)
"""Critics alone say what nodes are worth, since the searches have no references. The rollouts of
`mcts` and `adaptive` are solutions that vote: a tree of few expansions reaches no end by itself."""

LONE = Contender(
    name="lone solutions", algorithm=Algorithm.BEST_OF_N, scale="search.width", settings=_JUDGED
)
PARTS = {
    "mcts": ("search.rollouts=1", "search.width=4", "search.critic_value=1"),
    "+ adaptive width": ("mcts.width_max=8",),
    "+ progress": ("search.critic_progress=1",),
    "+ fast rollouts": ("fast.rollouts=2", "fast.temperature=0.5"),
    "+ grouping": ("mcts.group_distance=0.25",),
}
"""What each line of the ablation adds to those above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Holds what a search came to, over all seeds."""

    tokens: float
    """Policy tokens a problem."""

    right: dict[str, Reals]
    """By way, how often each problem's answer is right; [problems]."""


def ablation() -> list[Contender]:
    """Returns `mcts` with more and more parts."""
    settings: tuple[str, ...] = ()
    variants = []
    for name, added in PARTS.items():
        settings += added
        variants.append(
            Contender(
                name=name, algorithm=Algorithm.MCTS, scale="search.simulations", settings=settings
            )
        )
    return variants


def tokens(run: Path) -> int:
    """Returns what was generated for a run, fast rollouts included."""
    sql = "SELECT sum(policy_tokens + fast_tokens)::BIGINT AS n FROM trees"
    return int(rows(run, sql)[0]["n"])


def plan(a: argparse.Namespace, contender: Contender, scale: int, seed: int) -> Plan:
    """Returns what a run of a contender at one scale would be."""
    settings = (
        *contender.settings,
        f"{contender.scale}={scale}",
        f"policy.temperature={a.temperature}",
        *a.set,
    )
    options = Options(
        problems=a.problems,
        policy=a.policy,
        algorithm=contender.algorithm,
        critics=a.critics,
        seed=seed,
        deterministic=False,
        assignments=settings,
    )
    return make_plan(options)


def grow(a: argparse.Namespace, contender: Contender, scale: int, seed: int, first: int) -> Path:
    """Grows the trees of the first problems, blind where there are ways; returns the folder."""
    wanted = plan(a, contender, scale, seed)
    wanted = replace(wanted, problems=wanted.problems[:first])
    run: Path = a.out / f"{contender.name.replace(' ', '-')}-{scale}-{seed}-{first}"
    done = generate(blind(wanted) if contender.ways else wanted, run, concurrency=64)
    if done.left:
        raise SystemExit(done.exit_code(None))
    return run


def fit(a: argparse.Namespace, contender: Contender, budget: float) -> int:
    """Returns the scale at which the first problems cost about as many tokens each."""
    scale = 8
    for _ in range(3):
        spent = tokens(grow(a, contender, scale, 0, a.pilot)) / a.pilot
        scale = max(1, round(scale * budget / spent))
    return scale


def answers(run: Path, problems: Plan, way: Way) -> dict[str, str]:
    """Returns the answer found to each problem that got one."""
    nodes, rollouts = (_by_problem(run, sql) for sql in (_NODES, _ROLLOUTS))
    said = {p.id: way(p.verifier, nodes[p.id], rollouts[p.id]) for p in problems.problems}
    return {problem: answer for problem, answer in said.items() if answer is not None}


def _by_problem(run: Path, sql: str) -> dict[str, Rows]:
    found: dict[str, Rows] = defaultdict(list)
    for row in rows(run, sql):
        found[row["problem_id"]].append(row)
    return found


def measure(a: argparse.Namespace, contender: Contender, scale: int) -> Result:
    """Returns what a search comes to at one scale."""
    spent: list[float] = []
    good: dict[str, list[Reals]] = {way.__name__: [] for way in contender.ways}
    for seed in range(a.seeds):
        problems = plan(a, contender, scale, seed)
        run = grow(a, contender, scale, seed, len(problems.problems))
        spent.append(tokens(run) / len(problems.problems))
        for way in contender.ways:
            good[way.__name__].append(right(problems, answers(run, problems, way)))
        if not contender.ways:
            good.setdefault("solved", []).append(solved(run, problems))
    means = {name: np.mean(of_seeds, axis=0) for name, of_seeds in good.items()}
    return Result(tokens=float(np.mean(spent)), right=means)


def solved(run: Path, problems: Plan) -> Reals:
    """Returns for each problem whether its tree has a right solution."""
    found = {row["problem_id"]: row["solved"] for row in rows(run, "FROM trees")}
    return np.array([found[p.id] for p in problems.problems], dtype=float)


def compare(a: argparse.Namespace, contenders: Sequence[Contender], solutions: int) -> None:
    """Prints what every search comes to for the tokens of so many solutions."""
    first = contenders[0]
    base = measure(a, first, solutions)
    baseline = base.right[majority.__name__ if first.ways else "solved"]
    print(f"{solutions} solutions, {base.tokens:,.0f} policy tokens a problem")
    for contender in contenders:
        scale = solutions if contender is first else fit(a, contender, base.tokens)
        result = base if contender is first else measure(a, contender, scale)
        for name, good in result.right.items():
            print(
                f"  {contender.name:18}{name:14}{scale:4d}{result.tokens / base.tokens:6.2f} "
                f"of the tokens: {interval(good)}, difference {interval(good - baseline)}",
                flush=True,
            )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--critics", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/searches"))
    parser.add_argument("--problems", default="task:arithmetic?n=200&seed=616161&steps=6..6")
    parser.add_argument("--policy", default="nano")
    parser.add_argument("--ablation", action="store_true", help="of the parts of mcts")
    parser.add_argument("--temperature", type=float, default=1.5)
    parser.add_argument("--solutions", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pilot", type=int, default=20, help="problems that scales are fitted on")
    parser.add_argument("--set", nargs="*", default=[], help="settings of all searches")
    a = parser.parse_args()
    contenders = [LONE, *ablation()] if a.ablation else CONTENDERS
    a.out /= "ablation" if a.ablation else "answers"
    for solutions in a.solutions:
        compare(a, contenders, solutions)


if __name__ == "__main__":
    main()

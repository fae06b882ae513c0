"""Measures what critics are worth to a search that spends the same policy tokens.

    python benchmarks/critic_search.py --critics DIR

Answers: problems without their reference, so that no search can see which answer is right. The same
search, once alone and once steered by critics, both with rollouts; the answer that most complete
solutions give, and the one whose solutions have the highest sum of outcome scores. Step values:
problems with their reference and few rollouts a node; the value counted, the one that critics give,
and both together as the search takes them, against many fresh rollouts from the same nodes.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from labels import fresh_values, pick_nodes
from numpy.typing import NDArray

from treeward.critics.learned import LearnedCritic, load_critics
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder
from treeward.export.truth import read_trees
from treeward.search.critic import Prefix
from treeward.search.leaf_value import leaf_value
from treeward.search.verdicts import Verdict

Reals = NDArray[np.float64]
Rows = list[dict[str, Any]]
_NODES = "SELECT tree_id, problem_id, node_id, path, step_text, is_terminal, answer, n_samples "
_ROLLOUTS = "SELECT tree_id, node_id, text, answer FROM rollouts WHERE answer IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Solution:
    """Holds a complete solution with an answer, and how often it came."""

    problem_id: str
    steps: tuple[str, ...]
    answer: str
    times: int


def rows(run: Path, sql: str) -> Rows:
    """Returns the rows of a query."""
    found: Rows = run_query(open_run_folder(run), sql).to_pylist()
    return found


def tokens(run: Path) -> int:
    """Returns what the policy generated for a run."""
    return int(rows(run, "SELECT sum(policy_tokens)::BIGINT AS n FROM trees")[0]["n"])


def blind(plan: Plan) -> Plan:
    """Returns a plan that does not know the answers."""
    return replace(plan, problems=tuple(replace(p, answer=None) for p in plan.problems))


def grow(a: argparse.Namespace, name: str, critics: Path | None) -> Path:
    """Grows a run without references and returns its folder."""
    settings: tuple[str, ...] = (
        f"search.rollouts={a.rollouts}",
        f"search.simulations={a.simulations}",
    )
    if critics:
        settings += ("search.critic_outcome=1",)
    options = Options(problems=a.problems, critics=critics, assignments=settings)
    run: Path = a.out / name
    generate(blind(make_plan(options)), run, concurrency=64)
    return run


def solutions(run: Path) -> list[Solution]:
    """Returns the complete solutions of a run: ends in its trees, and rollouts."""
    nodes = {(n["tree_id"], n["node_id"]): n for n in rows(run, f"{_NODES} FROM nodes")}

    def steps(node: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(nodes[node["tree_id"], at]["step_text"] for at in node["path"][1:])

    counts: Counter[tuple[str, tuple[str, ...], str]] = Counter()
    for node in nodes.values():
        if node["is_terminal"] and node["answer"] is not None:
            counts[node["problem_id"], steps(node), node["answer"]] += node["n_samples"]
    for rollout in rows(run, _ROLLOUTS):
        node = nodes[rollout["tree_id"], rollout["node_id"]]
        rest = tuple(rollout["text"].splitlines(keepends=True))
        counts[node["problem_id"], steps(node) + rest, rollout["answer"]] += 1
    return [Solution(*key, times=times) for key, times in counts.items()]


def votes(found: list[Solution], weights: Reals) -> dict[str, str]:
    """Returns for each problem the answer with the highest sum of weights."""
    sums: dict[str, Counter[str]] = {}
    for solution, weight in zip(found, weights, strict=True):
        sums.setdefault(solution.problem_id, Counter())[solution.answer] += weight * solution.times
    return {problem: min(of, key=lambda x: (-of[x], x)) for problem, of in sums.items()}


def outcome_scores(plan: Plan, critics: LearnedCritic, found: list[Solution]) -> Reals:
    """Returns what critics think of each solution."""
    problems = {problem.id: problem for problem in plan.problems}
    prefixes = [Prefix(problems[solution.problem_id], solution.steps) for solution in found]
    said: list[float] = []
    for start in range(0, len(prefixes), 256):
        for scores in critics.score(prefixes[start : start + 256]):
            outcome = scores[-1].outcome
            assert outcome is not None
            said.append(outcome)
    return np.array(said)


def right(plan: Plan, answers: dict[str, str]) -> Reals:
    """Returns for each problem whether its answer is right; none is not."""
    with plan.make_verifier() as verifier:
        return np.array([
            p.id in answers and verifier.judge(p, answers[p.id]).verdict is Verdict.RIGHT
            for p in plan.problems
        ], dtype=float)  # fmt: skip


def interval(values: Reals) -> str:
    """Returns a mean with its 90 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.05, 0.95])
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def compare_answers(a: argparse.Namespace, critics: LearnedCritic) -> None:
    """Prints how often each way finds the right answer."""
    plan = make_plan(Options(problems=a.problems))
    runs = {"alone": grow(a, "alone", None), "steered": grow(a, "steered", a.critics)}
    budget, baseline = tokens(runs["alone"]), None
    print(f"answers of {len(plan.problems)} problems, {budget:,} policy tokens alone")
    for name, run in runs.items():
        found = solutions(run)
        ways = {
            "most solutions": np.ones(len(found)),
            "outcome scores": outcome_scores(plan, critics, found),
        }
        for way, weights in ways.items():
            good = right(plan, votes(found, weights))
            baseline = good if baseline is None else baseline
            print(
                f"  {name:8}{tokens(run) / budget:5.2f} of the tokens, {way}: {interval(good)}, "
                f"difference {interval(good - baseline)}"
            )


def compare_values(a: argparse.Namespace, critics: LearnedCritic) -> None:
    """Prints the error of step values against fresh rollouts, by node."""
    for rollouts in a.counted:
        settings: tuple[str, ...] = (f"search.rollouts={rollouts}",)
        plan = make_plan(Options(problems=a.problems, assignments=settings, deterministic=False))
        run = a.out / f"values-{rollouts}"
        generate(plan, run, concurrency=64)
        trees = read_trees(open_run_folder(run))
        texts = {(n["tree_id"], n["node_id"]): n["step_text"] for tree in trees for n in tree}
        nodes = pick_nodes(trees, a.nodes)
        problems = {problem.id: problem for problem in plan.problems}
        prefixes = [
            Prefix(
                problems[node["problem_id"]],
                tuple(texts[node["tree_id"], at] for at in node["path"][1:]),
            )
            for node in nodes
        ]
        fresh = asyncio.run(fresh_values(plan, nodes, a.fresh))
        said = [scores[-1].value for scores in critics.score(prefixes)]
        counts = [(node["n_right"], node["n_rollouts"]) for node in nodes]
        ways = {
            "counted": [(k + 0.5) / (n + 1) for k, n in counts],
            "critics": said,
            "both": [leaf_value(k, n, c, a.weight) for (k, n), c in zip(counts, said, strict=True)],
        }
        noise = fresh * (1 - fresh) / (a.fresh - 1)
        errors = {name: (np.array(v) - fresh) ** 2 - noise for name, v in ways.items()}
        mean = np.mean([n for _, n in counts])
        print(f"squared error of {len(nodes)} step values, {mean:.1f} rollouts a node counted")
        for name, error in errors.items():
            versus = interval(error - errors["counted"])
            print(f"  {name:8}{interval(error)}, difference to counted {versus}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--critics", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/critic_search"))
    parser.add_argument("--problems", default="task:arithmetic?n=200&seed=515151")
    parser.add_argument("--rollouts", type=int, default=2)
    parser.add_argument("--simulations", type=int, default=8)
    parser.add_argument("--counted", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--weight", type=float, default=1.0, help="rollouts that critics weigh")
    parser.add_argument("--nodes", type=int, default=400)
    parser.add_argument("--fresh", type=int, default=64)
    a = parser.parse_args()
    critics = load_critics(a.critics)
    compare_answers(a, critics)
    compare_values(a, critics)


if __name__ == "__main__":
    main()

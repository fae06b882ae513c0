"""Measures what critics are worth to a search that spends the same policy tokens.

    python benchmarks/critic_search.py --critics DIR

Answers: problems without their reference, so that no search can see which answer is right; one side
has rollouts and takes the answer that most of them gave, the other has critics and none, and takes
the end with the highest outcome score. Step values: the same problems with their reference; the
value counted by rollouts and the one that critics give, against the task's oracle at each step.
"""

import argparse
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from treeward.export.generate import generate
from treeward.export.plan import Options, Plan, make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder
from treeward.export.scores import score_run
from treeward.search.verdicts import Verdict

Rows = list[dict[str, Any]]
_ENDS = "SELECT problem_id, answer, outcome_critic, value_critic FROM nodes WHERE is_terminal"
_VOTES = """
SELECT t.problem_id, r.answer FROM rollouts r JOIN trees t USING (tree_id)
UNION ALL SELECT problem_id, answer FROM nodes, range(n_samples) WHERE is_terminal
"""
_STEPS = """
SELECT tree_id, value, value_critic, oracle_prefix_correct::DOUBLE AS truth FROM nodes
WHERE NOT is_terminal AND oracle_prefix_correct IS NOT NULL
AND value IS NOT NULL AND value_critic IS NOT NULL
"""


def rows(run: Path, sql: str) -> Rows:
    """Returns the rows of a query."""
    found: Rows = run_query(open_run_folder(run), sql).to_pylist()
    return found


def blind(plan: Plan) -> Plan:
    """Returns a plan that does not know the answers."""
    return replace(plan, problems=tuple(replace(p, answer=None) for p in plan.problems))


def grow(a: argparse.Namespace, name: str, *settings: str, critics: Path | None = None) -> Path:
    """Grows a run without references and returns its folder."""
    options = Options(problems=a.problems, critics=critics, assignments=settings)
    run: Path = a.out / name
    print(f"{name}: {generate(blind(make_plan(options)), run, concurrency=64)}")
    return run


def tokens(run: Path) -> int:
    """Returns what the policy generated for a run."""
    return int(rows(run, "SELECT sum(policy_tokens)::BIGINT AS n FROM trees")[0]["n"])


def voted(run: Path) -> dict[str, str]:
    """Returns for each problem the answer that most rollouts and ends gave."""
    votes: dict[str, Counter[str]] = {}
    for row in rows(run, _VOTES):
        if row["answer"] is not None:
            votes.setdefault(row["problem_id"], Counter())[row["answer"]] += 1
    return {problem: min(of, key=lambda x: (-of[x], x)) for problem, of in votes.items()}


def judged(run: Path) -> dict[str, str]:
    """Returns for each problem the answer of the end that critics think most of."""
    best: dict[str, tuple[float, str]] = {}
    for row in rows(run, _ENDS):
        score = row["outcome_critic"]
        score = row["value_critic"] if score is None else score
        if row["answer"] is not None and score is not None:
            best[row["problem_id"]] = max(
                best.get(row["problem_id"], (-1.0, "")), (score, row["answer"])
            )
    return {problem: answer for problem, (_, answer) in best.items()}


def right(plan: Plan, answers: dict[str, str]) -> np.ndarray[Any, Any]:
    """Returns for each problem whether its answer is right; none is not."""
    with plan.make_verifier() as verifier:
        return np.array([
            p.id in answers and verifier.judge(p, answers[p.id]).verdict is Verdict.RIGHT
            for p in plan.problems
        ], dtype=float)  # fmt: skip


def interval(values: np.ndarray[Any, Any]) -> str:
    """Returns a mean with its 90 % bootstrap interval over problems."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.05, 0.95])
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def step_errors(a: argparse.Namespace) -> None:
    """Prints the squared error of both values against the oracle, by tree."""
    run = a.out / "steps"
    plan = make_plan(Options(problems=a.problems, assignments=(f"search.rollouts={a.rollouts}",)))
    generate(plan, run, concurrency=64)
    critic = make_plan(Options(problems=a.problems, critics=a.critics)).critic
    assert critic is not None
    score_run(run, critic)
    errors: dict[str, list[tuple[float, float]]] = {}
    for row in rows(run, _STEPS):
        pair = ((row["value"] - row["truth"]) ** 2, (row["value_critic"] - row["truth"]) ** 2)
        errors.setdefault(row["tree_id"], []).append(pair)
    means = np.array([np.mean(pairs, axis=0) for pairs in errors.values()])
    print(f"squared error of step values to the oracle, mean over {len(means)} trees")
    print(f"  {a.rollouts} rollouts  {interval(means[:, 0])}")
    print(f"  critics     {interval(means[:, 1])}")
    print(f"  difference  {interval(means[:, 1] - means[:, 0])}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--critics", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/critic_search"))
    parser.add_argument("--problems", default="task:arithmetic?n=100&seed=515151")
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--simulations", type=int, nargs="+", default=[16, 32, 64, 128])
    a = parser.parse_args()
    plan = make_plan(Options(problems=a.problems))
    plain = grow(a, "rollouts", f"search.rollouts={a.rollouts}", "search.simulations=4")
    budget, baseline = tokens(plain), right(plan, voted(plain))
    print(json.dumps({"policy tokens": budget}), f"vote of rollouts {interval(baseline)}")
    for count in a.simulations:
        settings = ("search.rollouts=0", f"search.simulations={count}")
        run = grow(a, f"critics-{count}", *settings, critics=a.critics)
        for name, answers in (("critics", judged(run)), ("vote of ends", voted(run))):
            found = right(plan, answers)
            print(
                f"{count} simulations, {tokens(run) / budget:.2f} of the tokens: {name} "
                f"{interval(found)}, difference {interval(found - baseline)}"
            )
        if tokens(run) >= budget:
            break
    step_errors(a)


if __name__ == "__main__":
    main()

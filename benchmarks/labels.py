"""Measures labels against the truth: `task:arithmetic` knows of every step whether it is right.

    python benchmarks/labels.py --out runs/labels

Prints precision and recall of "this prefix is wrong" under the default label rule, how often the
first wrong step is found, and how well `value` and its interval agree with fresh rollouts from the
same nodes. Fresh rollouts have seeds that no search has.
"""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from treeward.export.generate import generate
from treeward.export.labels import Label, load_rule
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.run_folder import open_run_folder
from treeward.export.status import run_status
from treeward.export.truth import Confusion, Node, compare, is_wrong, read_trees
from treeward.search.backends import open_policy
from treeward.search.growing import count_outcomes
from treeward.search.policy import Ask, PolicySampler
from treeward.search.problem import Problem
from treeward.search.reader import Reader
from treeward.search.requests import Kind
from treeward.search.verdicts import Verifier

Rows = list[Node]
FRESH_SEED = 1 << 40


def score_labels(trees: list[Rows], min_rollouts: int) -> list[str]:
    """Returns what the labels get right, as lines."""
    rule = load_rule("any_success", min_rollouts=min_rollouts)
    lines = [
        f"{name}: {describe(compare(trees, rule, inner=inner))}"
        for name, inner in (("prefixes inside the trees", True), ("ends of solutions too", False))
    ]
    found = wrong = clean = right = 0
    for nodes in trees:
        row_of = {node["node_id"]: row for row, node in enumerate(nodes)}
        errors = [is_wrong(node) for node in nodes]
        said = [label is Label.WRONG for label in rule.label(nodes)]
        for node in nodes:
            if node["is_terminal"]:
                path = [row_of[at] for at in node["path"][1:]]
                first = first_true([errors[row] for row in path])
                same = first == first_true([said[row] for row in path])
                wrong, found = wrong + (first >= 0), found + (first >= 0 and same)
                right, clean = right + (first < 0), clean + (first < 0 and same)
    return [
        *lines,
        f"first error: at the right step in {found} of {wrong} wrong solutions "
        f"({found / wrong:.3f}); none in {clean} of {right} right ones ({clean / right:.3f})",
    ]


def describe(counts: Confusion) -> str:
    """Returns precision and recall with the counts behind them."""
    return (
        f"precision {counts.precision:.3f} ({counts.said_and_so} of {counts.said}), "
        f"recall {counts.recall:.3f} ({counts.said_and_so} of {counts.so})"
    )


def first_true(flags: list[bool]) -> int:
    """Returns the place of the first that holds, or -1."""
    return next((place for place, flag in enumerate(flags) if flag), -1)


async def fresh_values(plan: Plan, nodes: Rows, rollouts: int) -> NDArray[np.float64]:
    """Returns the share of right ones among fresh rollouts from each node."""
    policy = open_policy(plan.model, plan.backend)
    sampler = PolicySampler(policy=policy, settings=plan.sampling)
    reader = plan.reader(policy.tokens)
    problems = {problem.id: problem for problem in plan.problems}
    places = [(problems[node["problem_id"]], tuple(node["prefix_ids"])) for node in nodes]
    with plan.make_verifier() as verifier:
        values = await fresh_shares(sampler, reader, verifier, places, rollouts, FRESH_SEED)
    await policy.close()
    return values


async def fresh_shares(
    sampler: PolicySampler,
    reader: Reader,
    verifier: Verifier,
    places: Sequence[tuple[Problem, tuple[int, ...]]],
    n: int,
    seed: int,
) -> NDArray[np.float64]:
    """Returns the share of right ones among n fresh rollouts from each prefix of a problem.

    Args:
        sampler: Draws them.
        reader: Reads what it draws.
        verifier: Judges that.
        places: Problems, each with the ids of a prefix.
        n: Rollouts from each.
        seed: Of the first; all have seeds of their own.
    """

    async def measure(at: int, problem: Problem, prefix_ids: tuple[int, ...]) -> float:
        seeds = tuple(seed + at * n + index for index in range(n))
        ask = Ask(
            prompt_ids=reader.prompt_ids(problem),
            prefix_ids=prefix_ids,
            kind=Kind.ROLLOUT,
            seeds=seeds,
            settings=sampler.settings,
            rule=reader.template.rule,
            stick_to=problem.id,
        )
        draws = await sampler.policy.draw(ask)
        done = reader.judge(verifier, problem, prefix_ids, draws, seeds)
        right, known = count_outcomes(done)
        return right / known

    return np.array(await asyncio.gather(*(measure(at, *place) for at, place in enumerate(places))))


def pick_nodes(trees: list[Rows], n: int) -> Rows:
    """Returns inner nodes drawn without replacement, with the ids of their whole prefix."""
    inner = []
    for nodes in trees:
        steps = {node["node_id"]: node["token_ids"] for node in nodes}
        for node in nodes:
            if not node["is_terminal"] and node["n_rollouts"]:
                ids = [token for at in node["path"] for token in steps[at]]
                inner.append({**node, "prefix_ids": ids})
    chosen = np.random.default_rng(0).choice(len(inner), size=min(n, len(inner)), replace=False)
    return [inner[at] for at in sorted(chosen)]


def score_values(nodes: Rows, fresh: NDArray[np.float64], rollouts: int) -> list[str]:
    """Returns how `value` agrees with fresh rollouts, as lines."""
    value = np.array([node["value"] for node in nodes])
    low = np.array([node["value_low"] for node in nodes])
    high = np.array([node["value_high"] for node in nodes])
    bins = np.minimum((value * 5).astype(int), 4)
    lines = ["value in      nodes  mean value  fresh rollouts"]
    error = 0.0
    for at in range(5):
        inside = bins == at
        if inside.any():
            said, so = value[inside].mean(), fresh[inside].mean()
            error += inside.mean() * abs(said - so)
            band = f"[{at / 5:.1f}, {at / 5 + 0.2:.1f})"
            lines.append(f"{band}  {inside.sum():9d}  {said:10.3f}  {so:14.3f}")
    covered = ((low <= fresh) & (fresh <= high)).mean()
    return [
        *lines,
        f"calibration error {error:.3f}; bias {np.mean(value - fresh):+.3f}; root mean square "
        f"error {np.sqrt(np.mean((value - fresh) ** 2)):.3f}; the 90 % interval holds "
        f"{covered:.3f} of the shares of {rollouts}",
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    parser.add_argument("--problems", default="task:arithmetic?n=300&seed=424242")
    parser.add_argument("--search", default="rollouts")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--fresh", type=int, default=256)
    a = parser.parse_args()
    settings = (f"search.rollouts={a.rollouts}", f"search.width={a.width}")
    options = Options(problems=a.problems, algorithm=a.search, assignments=settings)
    plan = make_plan(options)
    print(generate(plan, a.out, concurrency=64))
    run = open_run_folder(a.out)
    trees = read_trees(run)
    tokens = run_status(run).policy_tokens
    print(f"{len(trees)} trees, {tokens:,} policy tokens, {a.rollouts} rollouts a node")
    for line in score_labels(trees, min_rollouts=8):
        print(line)
    nodes = pick_nodes(trees, a.nodes)
    for line in score_values(nodes, asyncio.run(fresh_values(plan, nodes, a.fresh)), a.fresh):
        print(line)


if __name__ == "__main__":
    main()

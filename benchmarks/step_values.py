"""Measures the values that labels give to steps against many fresh rollouts from the same steps.

    python benchmarks/step_values.py
    python benchmarks/step_values.py --policy smollm2-135m-instruct \
        --problems 'task:arithmetic?n=12&steps=2..3&numbers=0..20&template=words&seed=41' \
        --tokens 80 --width 2 --truth 256 --nodes 24 --seeds 1

Every way of `first_errors.py` gets the same solutions and is asked about the same prefixes of them;
`mcts` makes prefixes of its own, and each of its lines counts those of the sample that it made.
`k/n` and `value` are strict evidence, `value` with a prior; `value_tree` is the tree's. Errors
are squared, less what the truth's own noise adds to them, as means over problems with 90 %
intervals by problem, and over the prefixes about which the way knows something: `known` says how
many those are. The last column is by how much the error of the tree's is less, in pairs. Tokens are
all of a solution's, its own included.

The last lines say how many tokens strict evidence needs for an error as small, read off between the
numbers of rollouts that were tried.
"""

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from first_errors import AMOUNTS, Halves, Nothing, Posterior, Shepherd, Way, examine, solutions
from labels import Rows, fresh_values
from scipy.special import stdtrit

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import tree_values
from treeward.critics.value import posterior_mean
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.search import forest
from treeward.search.backends import open_policy
from treeward.search.forest import Forest, grow_forest
from treeward.search.policy import PolicySampler
from treeward.search.reader import Reader
from treeward.search.tokens import load_tokens
from treeward.search.tree import Tree
from treeward.train.estimates import Estimate, mean

Place = tuple[str, tuple[int, ...]]
"""A problem's id, and the token ids of a prefix of some solution."""
ESTIMATES = ("k/n", "value", "value_tree")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Holds what a way found out in all seeds."""

    said: dict[Place, tuple[float, float, float]]
    """What each prefix is worth by `ESTIMATES`; NaN where nothing is known."""
    tokens: float
    """A solution, its own included."""


def read_values(trees: Sequence[Tree], reader: Reader) -> dict[Place, tuple[float, float, float]]:
    """Returns what is known of every prefix inside some trees but the bare problem."""
    said = {}
    for tree in trees:
        evidence = strict_evidence(tree, reader.cut)
        right, known = evidence.n_right.astype(float), evidence.n_rollouts.astype(float)
        value_tree = tree_values(tree, evidence, as_is=True).value
        with np.errstate(invalid="ignore"):
            share = right / known
        value = np.where(known > 0, posterior_mean(right, known), np.nan)
        for node in range(1, len(tree)):
            if not tree.is_terminal(node):
                place = (tree.problem.id, tuple(tree.prefix_ids(node)))
                said[place] = (float(share[node]), float(value[node]), float(value_tree[node]))
    return said


def on_solutions(plans: Sequence[Plan], way: Way, width: int, reader: Reader) -> Run:
    """Returns what a way finds out about the solutions that it is given."""
    results = [result for plan in plans for result in examine(plan, width, way)]
    trees = [result.survey.tree for result in results]
    count = sum(len(solutions(tree)) for tree in trees)
    tokens = sum(tree.policy_tokens for tree in trees) / count
    return Run(said=read_values(trees, reader), tokens=tokens)


def by_search(plans: Sequence[Plan], reader: Reader) -> Run:
    """Returns what a search finds out about prefixes of its own; tokens are a tree's."""
    trees: list[Tree] = []

    async def grow(plan: Plan) -> None:
        policy, identity = open_policy(plan.model, plan.backend), plan.identity
        with plan.make_verifier() as verifier:
            growing = Forest(
                search=plan.make_search(reader, verifier),
                samplers=[PolicySampler(policy=policy, settings=plan.sampling)],
                reader=reader,
                verifier=verifier,
                recorder=Nothing(),
                seed=plan.seed,
                tree_id=lambda problem: identity.tree_id(problem.id),
            )
            await grow_forest(growing, forest.Plan(iter(plan.problems), 64), trees.append)
        await policy.close()

    for plan in plans:
        asyncio.run(grow(plan))
    return Run(
        said=read_values(trees, reader),
        tokens=sum(tree.policy_tokens for tree in trees) / len(trees),
    )


def pick(places: Sequence[Place], n: int) -> list[Place]:
    """Returns some prefixes drawn without replacement."""
    places = sorted(places)
    chosen = np.random.default_rng(0).choice(len(places), min(n, len(places)), replace=False)
    return [places[at] for at in sorted(chosen)]


def truth_of(plan: Plan, places: Sequence[Place], rollouts: int) -> dict[Place, float]:
    """Returns the share of right ones among fresh rollouts from each prefix."""
    rows: Rows = [{"problem_id": problem, "prefix_ids": ids} for problem, ids in places]
    return dict(zip(places, asyncio.run(fresh_values(plan, rows, rollouts)), strict=True))


def errors(
    run: Run, truth: dict[Place, float], rollouts: int, known: int
) -> Iterator[tuple[Estimate, float]]:
    """Yields the squared error of each estimate, and the share of prefixes that it knows.

    Args:
        run: What is said.
        truth: What is so, by some rollouts.
        rollouts: How many.
        known: Which of `ESTIMATES` must know a prefix for it to be counted for any.
    """
    for which in range(len(ESTIMATES)):
        by_problem: dict[str, list[float]] = {}
        count = 0
        for place, so in truth.items():
            said = run.said.get(place, (np.nan,) * len(ESTIMATES))
            count += not np.isnan(said[which])
            if not np.isnan(said[which]) and not np.isnan(said[known]):
                noise = so * (1 - so) / (rollouts - 1)
                by_problem.setdefault(place[0], []).append((said[which] - so) ** 2 - noise)
        yield mean([float(np.mean(each)) for each in by_problem.values()]), count / len(truth)


def describe(name: str, run: Run, truth: dict[Place, float], rollouts: int) -> list[float | None]:
    """Prints a line, and returns the errors in the order of `ESTIMATES`."""
    found = list(errors(run, truth, rollouts, known=0))
    cells = "  ".join(f"{shown(error):24}" for error, _ in found)
    shares = " ".join(f"{share:.2f}" for _, share in found)
    print(f"{name:30}  {run.tokens:7.0f}  {shares}  {cells}  {gain(run, truth)}", flush=True)
    return [error.value for error, _ in found]


def gain(run: Run, truth: dict[Place, float]) -> str:
    """Returns how much less the squared error of the tree's evidence is than that of strict one.

    On the same prefixes, as a mean over problems with a 90 % interval.
    """
    by_problem: dict[str, list[float]] = {}
    for place, so in truth.items():
        strict, _, tree = run.said.get(place, (np.nan,) * len(ESTIMATES))
        if not np.isnan(strict):
            by_problem.setdefault(place[0], []).append((strict - so) ** 2 - (tree - so) ** 2)
    means = np.array([np.mean(each) for each in by_problem.values()])
    half = stdtrit(len(means) - 1, 0.95) * means.std(ddof=1) / np.sqrt(len(means))
    return f"{means.mean():+.5f} +- {half:.5f} ({len(means)} problems)"


def shown(error: Estimate) -> str:
    """Returns an error with its interval."""
    if error.value is None or error.low is None or error.high is None:
        return "unknown"
    return f"{error.value:.4f} [{error.low:.4f}, {error.high:.4f}]"


def tokens_for(error: float, tokens: Sequence[float], strict: Sequence[float]) -> str:
    """Returns the tokens for which strict evidence has an error, between those that were tried."""
    if error >= strict[0]:
        return f"no more than {tokens[0]:.0f}"
    if error < strict[-1]:
        return f"more than {tokens[-1]:.0f}"
    # np.interp wants rising places, and errors fall with tokens.
    logs = np.interp(-np.log(error), -np.log(strict), np.log(tokens))
    return f"{np.exp(logs):.0f}"


def compare(tokens: Sequence[float], found: Sequence[Sequence[float | None]]) -> None:
    """Prints what strict evidence would cost for the errors of the tree's."""
    rows = [(spent, e[0], e[2]) for spent, e in zip(tokens, found, strict=True) if e[0] and e[2]]
    spent, strict, tree = (list(column) for column in zip(*rows, strict=True))
    lowest = list(np.minimum.accumulate(strict))
    for cost, error in zip(spent, tree, strict=True):
        needed = tokens_for(error, spent, lowest)
        print(f"  value_tree at {cost:.0f} tokens: error {error:.4f}; k/n needs {needed}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", default="task:arithmetic?n=60&seed=41")
    parser.add_argument("--policy", default="nano")
    parser.add_argument("--tokens", type=int, default=96, help="of a solution, at most")
    parser.add_argument(
        "--width", type=int, default=4, help="solutions a problem, samples an expansion"
    )
    parser.add_argument("--truth", type=int, default=4096, help="fresh rollouts a prefix")
    parser.add_argument("--nodes", type=int, default=200, help="prefixes with a truth")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--rollouts", type=int, nargs="+", default=[2, 4, 8, 16, 32], help="from every step"
    )
    parser.add_argument("--simulations", type=int, default=8, help="expansions of mcts")
    parser.add_argument("--part", choices=("given", "mcts", "both"), default="both")
    a = parser.parse_args()
    plans = [plan_of(a, seed) for seed in range(a.seeds)]
    reader = plans[0].reader(load_tokens(plans[0].model.path))
    cells = "  ".join(f"{name:24}" for name in ESTIMATES)
    print(f"{'':30}   tokens  known           {cells}  k/n - value_tree", flush=True)
    if a.part in ("given", "both"):
        show_given(a, plans, reader)
    if a.part in ("mcts", "both"):
        show_mcts(a, plans[0], reader)


def show_given(a: argparse.Namespace, plans: Sequence[Plan], reader: Reader) -> None:
    """Prints what the ways say about given solutions."""
    print("on given solutions")
    measures = {f"Math-Shepherd, k = {k}": Shepherd(k=k) for k in a.rollouts}
    others: dict[str, Way] = {
        "OmegaPRM, k = 8": Halves(k=8, first=False),
        "OmegaPRM, k = 8, first success": Halves(k=8, first=True),
        **{
            f"posterior, {amount}": Posterior(settings=settings)
            for amount, settings in AMOUNTS.items()
        },
    }
    truth: dict[Place, float] = {}
    costs, rows = [], []
    for name, way in (measures | others).items():
        run = on_solutions(plans, way, a.width, reader)
        # The first way asks about every prefix of every solution.
        truth = truth or truth_of(plans[0], pick(list(run.said), a.nodes), a.truth)
        found = describe(name, run, truth, a.truth)
        if name in measures:
            costs.append(run.tokens)
            rows.append(found)
    compare(costs, rows)


def show_mcts(a: argparse.Namespace, plan: Plan, reader: Reader) -> None:
    """Prints what trees say about prefixes of their own."""
    print("mcts, a tree")
    runs = [
        by_search([searching(a, seed, k) for seed in range(a.seeds)], reader) for k in a.rollouts
    ]
    # Drawn from all that any of them made, those that one made are a fair sample of its own.
    truth = truth_of(plan, pick(list(set().union(*(run.said for run in runs))), a.nodes), a.truth)
    rows = [
        describe(f"mcts, {k} rollouts a node", run, truth, a.truth)
        for k, run in zip(a.rollouts, runs, strict=True)
    ]
    compare([run.tokens for run in runs], rows)


def plan_of(a: argparse.Namespace, seed: int, *settings: str, algorithm: str | None = None) -> Plan:
    """Returns what a seed is sampled with."""
    options = Options(
        problems=a.problems,
        policy=a.policy,
        deterministic=False,
        seed=seed,
        algorithm=algorithm,
        assignments=(
            "backend.threads=1",
            f"policy.max_rollout_tokens={a.tokens}",
            *settings,
        ),
    )
    return make_plan(options)


def searching(a: argparse.Namespace, seed: int, rollouts: int) -> Plan:
    """Returns a search with so many rollouts a node."""
    settings = (
        f"search.rollouts={rollouts}",
        f"search.simulations={a.simulations}",
        f"search.width={a.width}",
    )
    return plan_of(a, seed, *settings, algorithm="mcts")


if __name__ == "__main__":
    main()

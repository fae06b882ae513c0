"""What tokens buy where they go by what is known: rollouts a prefix gets, and tokens a tree gets.

    python benchmarks/spending.py

With `nano` on arithmetic, three seeds: error of `value` at a sample of prefixes, whose truth is 256
other rollouts each, for as many rollouts from every prefix, for rollouts that stop by what they say
(`rollouts.width`), and for a budget over all trees (`--budget-tokens`). All ways of a seed sample
the same solutions, so their prefixes are the same. "fixed" beside an error is what as many rollouts
from every prefix would have for the same tokens, between the two numbers of them that are nearest.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from evidence import Forgetful
from labels import fresh_shares
from numpy.typing import NDArray

from treeward.critics.evidence import strict_evidence
from treeward.critics.standing import standing_of
from treeward.critics.value import interval, posterior_mean
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.search import forest
from treeward.search.backends import open_policy
from treeward.search.forest import Forest, grow_forest
from treeward.search.policy import Ask, Draw, LogprobAsk, Policy, PolicySampler
from treeward.search.problem import Problem
from treeward.search.rollouts import rollouts
from treeward.search.settings import SearchSettings
from treeward.search.spending import BudgetSettings, Funds, grow_on_budget
from treeward.search.stopping import RolloutsSettings
from treeward.search.tree import ROOT, Tree

Reals = NDArray[np.float64]
TRUTH_SEED = 1 << 40
FIXED_NUMBER = RolloutsSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Holds how many rollouts a prefix gets."""

    name: str
    most: int
    own: RolloutsSettings = FIXED_NUMBER
    budget_of: int | None = None
    """Spends what so many rollouts from every prefix cost; None has no budget."""


FIXED = [Way(name=f"{n} from every prefix", most=n) for n in (2, 4, 8, 16, 32)]
STOPPING = [
    Way(name=f"until {width} wide, 64 at most", most=64, own=RolloutsSettings(width=width))
    for width in (0.5, 0.4, 0.3)
]
BUDGETS = [
    Way(
        name=f"budget of {n} a prefix, until .2 wide",
        most=64,
        own=RolloutsSettings(width=0.2, batch=2),
        budget_of=n,
    )
    for n in (4, 8, 16)
]


class Remembering:
    """Satisfies `Policy`: draws nothing twice, since all ways draw with the same seeds."""

    def __init__(self, policy: Policy) -> None:
        """Takes what draws."""
        self._policy = policy
        self._drawn: dict[int, Draw] = {}
        self.tokens, self.identity = policy.tokens, policy.identity

    async def draw(self, ask: Ask) -> list[Draw]:
        """Returns what is known, and asks for the rest."""
        new = tuple(seed for seed in ask.seeds if seed not in self._drawn)
        if new:
            fields = {name: getattr(ask, name) for name in ask.__slots__}
            draws = await self._policy.draw(Ask(**(fields | {"seeds": new})))
            self._drawn |= zip(new, draws, strict=True)
        return [self._drawn[seed] for seed in ask.seeds]

    async def logprobs(self, ask: LogprobAsk) -> list[float]:
        """Passes an ask on."""
        return await self._policy.logprobs(ask)

    async def close(self) -> None:
        """Closes the policy."""
        await self._policy.close()


async def grow(
    growing: Forest, problems: Sequence[Problem], way: Way, tokens: int | None
) -> list[Tree]:
    """Returns a tree of each problem, in their order."""
    plan = forest.Plan(problems=iter(problems), concurrency=64)
    search = SearchSettings(width=4, rollouts=way.most, wave=4)
    growing = Forest(
        **{name: getattr(growing, name) for name in growing.__slots__ if name != "search"},
        search=partial(rollouts, settings=search, cut=growing.reader.cut, own=way.own),
    )
    trees: list[Tree] = []
    if tokens is None:
        await grow_forest(growing, plan, trees.append)
    else:
        judge = partial(standing_of, cut=growing.reader.cut, settings=BudgetSettings(tokens=tokens))
        funds = Funds(tokens=tokens, block=256, appraise=judge)
        await grow_on_budget(growing, plan, funds, trees.extend)
    place = {problem.id: at for at, problem in enumerate(problems)}
    return sorted(trees, key=lambda tree: place[tree.problem.id])


async def grow_all(
    growing: Forest, problems: Sequence[Problem], ways: Sequence[Way]
) -> list[list[Tree]]:
    """Returns the trees of each way; a budget is what a way before it spent."""
    spent: dict[int, int] = {}
    grown = []
    for way in ways:
        tokens = None if way.budget_of is None else spent[way.budget_of]
        grown.append(await grow(growing, problems, way, tokens))
        if way.own.fixed:
            spent[way.most] = tokens_of(grown[-1])
    return grown


def tokens_of(trees: Sequence[Tree]) -> int:
    """Returns what the policy generated for some trees."""
    return sum(tree.policy_tokens for tree in trees)


def inner_nodes(tree: Tree) -> list[int]:
    """Returns the prefixes that are asked about: neither the root nor ends of solutions."""
    return [node for node in range(ROOT + 1, len(tree)) if not tree.is_terminal(node)]


def counts(trees: Sequence[Tree], growing: Forest) -> tuple[Reals, Reals]:
    """Returns k and n of all prefixes that are asked about."""
    k, n = [], []
    for tree in trees:
        evidence = strict_evidence(tree, growing.reader.cut)
        k.append(evidence.n_right[inner_nodes(tree)])
        n.append(evidence.n_rollouts[inner_nodes(tree)])
    return np.concatenate(k).astype(float), np.concatenate(n).astype(float)


def at_equal_tokens(tokens: float, fixed: Sequence[tuple[float, float]]) -> str:
    """Returns the error of as many rollouts from every prefix for so many tokens."""
    known = sorted(fixed)
    if not known[0][0] <= tokens <= known[-1][0]:
        return "    "
    logs = np.log(known)
    return f"{np.exp(np.interp(np.log(tokens), logs[:, 0], logs[:, 1])):.4f}"


@dataclass(frozen=True, slots=True)
class Found:
    """Holds what one way came to with one seed."""

    way: Way
    tokens: float
    """A prefix."""
    errors: Reals
    """Squared errors of `value` at the sampled prefixes; where nothing is known it is 1/2."""
    covers: NDArray[np.bool_]
    """Whether the 90 % interval has the truth."""
    null: float
    """The share of prefixes without any rollout."""


async def examine(seed: int, n_problems: int, n_nodes: int, n_truth: int) -> list[Found]:
    """Returns what each way comes to."""
    options = Options(
        problems=f"task:arithmetic?n={n_problems}&seed={900 + seed}",
        seed=seed,
        deterministic=False,
        assignments=("backend.threads=1",),
    )
    plan = make_plan(options)
    policy = Remembering(open_policy(plan.model, plan.backend))
    reader = plan.reader(policy.tokens)
    ways = [*FIXED, *STOPPING, *BUDGETS]
    with plan.make_verifier() as verifier:
        growing = Forest(
            search=partial(rollouts, settings=SearchSettings(), cut=reader.cut),
            samplers=[PolicySampler(policy=policy, settings=plan.sampling)],
            reader=reader,
            verifier=verifier,
            recorder=Forgetful(),
            seed=plan.seed,
            tree_id=lambda problem: problem.id,
        )
        grown = await grow_all(growing, plan.problems, ways)
        places = [(tree, node) for tree in grown[0] for node in inner_nodes(tree)]
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(places), size=min(n_nodes, len(places)), replace=False))
        some = [places[at] for at in chosen]
        asked = [(tree.problem, tree.prefix_ids(node)) for tree, node in some]
        (sampler,) = growing.samplers
        V = await fresh_shares(sampler, reader, verifier, asked, n_truth, TRUTH_SEED)
    await policy.close()
    found = []
    for way, trees in zip(ways, grown, strict=True):
        k, n = counts(trees, growing)
        value = posterior_mean(k, n)[chosen]
        low, high = (end[chosen] for end in interval(k, n))
        covers = (low <= V) & (high >= V)
        tokens = tokens_of(trees) / len(n)
        found.append(Found(way, tokens, (value - V) ** 2, covers, float(np.mean(n == 0))))
    return found


def nano(seeds: int, problems: int, nodes: int, truths: int) -> None:
    """Prints what stopping is worth with a real model."""
    runs = [asyncio.run(examine(seed, problems, nodes, truths)) for seed in range(seeds)]
    print(
        f"nano: {seeds} seeds of {problems} problems, {nodes} nodes each against {truths} rollouts"
    )
    print(f"{'':38} tokens a  squared error [90 %]     fixed    by seed              covers  null")
    fixed: list[tuple[float, float]] = []
    for column in zip(*runs, strict=True):
        way = column[0].way
        tokens = float(np.mean([row.tokens for row in column]))
        errors = np.concatenate([row.errors for row in column])
        draws = np.random.default_rng(0).choice(errors, size=(2000, len(errors))).mean(axis=1)
        low, high = np.quantile(draws, [0.05, 0.95])
        fixed += [(tokens, float(errors.mean()))] if way.own.fixed else []
        each = ", ".join(f"{row.errors.mean():.4f}" for row in column)
        covers = np.concatenate([row.covers for row in column]).mean()
        print(
            f"{way.name:38} {tokens:7.1f}   {errors.mean():.4f} [{low:.4f}, {high:.4f}]  "
            f"{at_equal_tokens(tokens, fixed)}   {each}  {covers:.3f}  "
            f"{np.mean([row.null for row in column]):.3f}"
        )


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--nodes", type=int, default=100, help="a seed")
    parser.add_argument("--truth", type=int, default=256, help="rollouts a node")
    a = parser.parse_args()
    began = time.monotonic()
    nano(a.seeds, a.problems, a.nodes, a.truth)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

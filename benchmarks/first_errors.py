"""Finds the first wrong step of the same solutions in several ways, beside the truth.

    python benchmarks/first_errors.py
    python examples/nano/make.py --long 11 --out runs/long
    python benchmarks/first_errors.py --policy runs/long/model \
        --problems 'task:arithmetic?n=100&steps=12..16&mod=11&numbers=0..10' --tokens 200

Every way gets the same solutions, `--width` a problem. Math-Shepherd (Wang et al. 2024) asks k
rollouts after every step and takes the first without a success; OmegaPRM (Luo et al. 2024) halves
wrong solutions with k rollouts at a middle, or up to k until the first success; the posterior is
`search/first_error.py`, with the prior that `export --rule posterior` learns from the run: of how
samples end and of how sure the policy was of their steps; without rollouts; and without being told
how sure it was.

The truth is the task's: the first step that is not what was due. Accuracies are means over
problems, all seeds together, with intervals by problem; F1 is ProcessBench's, the harmonic mean of
both. Tokens are those of rollouts after the solutions, which all ways share; seconds are the
processor's and the solutions' too.

A wrong step need not matter: the policy can miswrite an operand and state the right result. No
rollout can find that, so `grave` counts only the errors whose step states a wrong result. `luck` is
the share of right ones among rollouts from wrong prefixes; only Math-Shepherd asks all of them
alike.
"""

import argparse
import asyncio
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.search import forest
from treeward.search.arithmetic import chain_of, judge_steps
from treeward.search.backends import open_policy
from treeward.search.error_grid import learn_prior, without
from treeward.search.first_error import Beliefs
from treeward.search.forest import Forest, grow_forest
from treeward.search.localise import LocaliserSettings, find_by_halves, find_by_posterior
from treeward.search.policy import Policy, PolicySampler
from treeward.search.reader import Reader
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Request, Search
from treeward.search.samples import Ids, Samples, TreeSamples
from treeward.search.survey import Survey
from treeward.search.tokens import load_tokens
from treeward.search.tree import Tree
from treeward.search.verdicts import Verifier
from treeward.train.estimates import Estimate, share

AMOUNTS = {
    "the defaults": LocaliserSettings(),
    ".8, least .03": LocaliserSettings(confidence=0.8, least=0.03),
    ".99, least .0003": LocaliserSettings(confidence=0.99, least=0.0003),
}
"""How much is asked."""

Path = tuple[int, ...]
Found = dict[Path, int]
"""Of each solution, the nodes from the root on, how many of its steps are held to be right."""


class Nothing:
    """A recorder that keeps nothing."""

    def known(self, tree_id: str, key: str) -> Reply | None:
        """Returns nothing."""

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        """Keeps nothing."""


class Way(Protocol):
    """Asks for rollouts and returns what it found."""

    def __call__(self, survey: Survey) -> Generator[list[Request], list[Reply], Found]:
        """Returns the way at work."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Shepherd:
    """Rollouts after every step."""

    k: int

    def __call__(self, survey: Survey) -> Generator[list[Request], list[Reply], Found]:
        """Asks and finds."""
        tree, paths = survey.tree, solutions(survey.tree)
        inner = sorted({node for path in paths for node in path[1:-1]})
        if inner:
            yield from survey.roll(inner, self.k)

        def dead(node: int) -> bool:
            return tree.terminal_value(node) == 0.0 if node in ends else not survey.right[node]

        ends = {path[-1] for path in paths}
        return {
            path: next((at - 1 for at, node in enumerate(path) if at and dead(node)), len(path) - 1)
            for path in paths
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """Binary search on wrong solutions; right ones are taken to be right throughout."""

    k: int
    first: bool
    """Whether a middle is left at its first success."""

    def __call__(self, survey: Survey) -> Generator[list[Request], list[Reply], Found]:
        """Asks and finds."""
        found: Found = {}
        for path in solutions(survey.tree):
            found[path] = len(path) - 1
            if survey.tree.terminal_value(path[-1]) == 0.0:
                wave = 1 if self.first else None
                found[path] = yield from find_by_halves(survey, path, self.k, wave=wave)
        return found


class Unsure(Samples):
    """Is never told how likely a step is."""

    def step(
        self, parent: int, step_ids: Ids, logprob: float | None, *, taken: int, end: bool | None
    ) -> int:
        """Takes a step without it."""
        return super().step(parent, step_ids, None, taken=taken, end=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Rollouts where they tell most."""

    settings: LocaliserSettings
    deaf: bool = False
    """Whether it is kept from how sure the policy was of its steps."""

    def __call__(self, survey: Survey) -> Generator[list[Request], list[Reply], Found]:
        """Asks; what is found is seen when all trees are there."""
        if self.deaf:
            survey.drawn = TreeSamples(survey.tree, survey.cut, Unsure())
            survey.beliefs = Beliefs(samples=survey.drawn.samples)
            survey.note()
        for path in solutions(survey.tree):
            yield from find_by_posterior(survey, path, self.settings)
        return {}


def solutions(tree: Tree) -> list[Path]:
    """Returns the paths of all solutions."""
    return [tuple(tree.path(node)) for node in range(len(tree)) if tree.is_terminal(node)]


@dataclass(frozen=True, slots=True)
class Result:
    """Holds what a way found in one tree."""

    survey: Survey
    found: Found
    tokens: int
    rollouts: int
    seconds: float
    """Of the processor: the tree's even share of what all of them took."""


def examine(plan: Plan, width: int, way: Way) -> list[Result]:
    """Returns what a way finds in the solutions of each problem."""
    found_in: dict[str, tuple[Survey, Found, int, int]] = {}
    policy = open_policy(plan.model, plan.backend)
    reader = plan.reader(policy.tokens)

    def search(tree: Tree) -> Growth:
        survey = Survey(tree, reader.cut)
        yield from survey.sample_solutions(width)
        tokens, rollouts = tree.policy_tokens, len(tree.rollouts.node)
        found = yield from way(survey)
        tokens, rollouts = tree.policy_tokens - tokens, len(tree.rollouts.node) - rollouts
        found_in[tree.problem.id] = survey, found, tokens, rollouts

    start = time.process_time()
    with plan.make_verifier() as verifier:
        asyncio.run(_grow(plan, policy, reader, verifier, search))
    seconds = (time.process_time() - start) / len(plan.problems)
    return [Result(*found_in[problem.id], seconds) for problem in plan.problems]


async def _grow(
    plan: Plan, policy: Policy, reader: Reader, verifier: Verifier, search: Search
) -> None:
    identity = plan.identity
    growing = Forest(
        search=search,
        samplers=[PolicySampler(policy=policy, settings=plan.sampling)],
        reader=reader,
        verifier=verifier,
        recorder=Nothing(),
        seed=plan.seed,
        tree_id=lambda problem: identity.tree_id(problem.id),
    )
    await grow_forest(growing, forest.Plan(iter(plan.problems), 256), lambda _: None)
    await policy.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Holds one solution."""

    problem: int
    hit: bool
    """Whether the place found is the true one."""
    wrong: bool
    """Whether it has a wrong step."""
    grave: bool
    """Whether its first wrong step states a wrong result."""
    tries: int
    """Rollouts with a verdict from its wrong prefixes."""
    lucky: int
    """Of these, those that ended right."""


def cases(results: Sequence[Result], reader: Reader) -> Iterator[Case]:
    """Yields all solutions with what was found, one result a problem."""
    refit = learn_prior(np.array([result.survey.beliefs.evidence() for result in results]))
    for number, result in enumerate(results):
        tree, beliefs = result.survey.tree, result.survey.beliefs
        beliefs.prior_G = without(refit, beliefs.evidence()[None], len(results))[0]
        chain = chain_of(tree.problem)
        assert chain is not None, "a task that judges steps"
        for path in solutions(tree):
            texts = [reader.text(tree.nodes.step_ids[node]) for node in path[1:]]
            truth = judge_steps(tree.problem, texts) or []
            first = next((at for at, step in enumerate(truth) if not step.prefix), len(truth))
            found = result.found.get(path)
            if found is None:
                found = int(beliefs.first_error(result.survey.steps(path)).argmax())
            due = [*map(str, chain.results()), None][first : first + 1]
            stated = texts[first].strip().rpartition("=")[2] if first < len(texts) else None
            yield Case(
                problem=number,
                hit=found == first,
                wrong=first < len(truth),
                grave=due != [stated],
                tries=sum(result.survey.known[node] for node in path[first + 1 :]),
                lucky=sum(result.survey.right[node] for node in path[first + 1 :]),
            )


def accuracy(found: Sequence[Case]) -> Estimate:
    """Returns the share of hits as a mean over problems."""
    hits: dict[int, list[bool]] = {}
    for case in found:
        hits.setdefault(case.problem, []).append(case.hit)
    return share([float(np.mean(each)) for each in hits.values()], len(found))


def describe(name: str, seeds: Sequence[Sequence[Result]], reader: Reader) -> str:
    """Returns a line with accuracies, and what a solution cost."""
    found = [case for results in seeds for case in cases(results, reader)]
    wrong = [case for case in found if case.wrong]
    grave = [case for case in wrong if case.grave]
    clean = [case for case in found if not case.wrong]
    of_wrong, of_grave, of_clean = map(accuracy, (wrong, grave, clean))
    every = [result for results in seeds for result in results]
    tokens = sum(result.tokens for result in every) / len(found)
    rollouts = sum(result.rollouts for result in every) / len(found)
    seconds = sum(result.seconds for result in every) / len(found)
    tries, lucky = sum(case.tries for case in found), sum(case.lucky for case in found)
    f1 = harmonic_mean(of_wrong.value, of_clean.value)
    return (
        f"{name:30}  {of_wrong}  {number(of_grave.value)}  {number(of_clean.value)}  "
        f"{number(f1)}  {tokens:6.0f}  {rollouts:5.1f}  {seconds:7.3f}  "
        f"{number(lucky / tries if tries else None)}  "
        f"({len(wrong)} wrong, {len(grave)} grave, {len(clean)} right)"
    )


def harmonic_mean(a: float | None, b: float | None) -> float | None:
    """Returns the harmonic mean of two shares; None where one is unknown."""
    if a is None or b is None:
        return None
    return 2 * a * b / (a + b) if a + b else 0.0


def number(value: float | None) -> str:
    """Returns a share for a table."""
    return "unknown" if value is None else f"{value:.3f}"


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", default="task:arithmetic?n=200&seed=31")
    parser.add_argument("--policy", default="nano")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=96, help="of a solution, at most")
    parser.add_argument("--width", type=int, default=4, help="solutions a problem")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="ways with this in their names")
    a = parser.parse_args()
    ways: dict[str, Way] = {
        "Math-Shepherd, k = 8": Shepherd(k=8),
        "Math-Shepherd, k = 16": Shepherd(k=16),
        "OmegaPRM, k = 8": Halves(k=8, first=False),
        "OmegaPRM, k = 8, first success": Halves(k=8, first=True),
        **{
            f"{how}, {amount}": Posterior(settings=settings, deaf=how == "rollouts alone")
            for how in ("posterior", "rollouts alone")
            for amount, settings in AMOUNTS.items()
        },
        "posterior, no rollouts": Posterior(settings=LocaliserSettings(least=99.0)),
    }
    print(f"{'':30}  first error [90 %]    grave  right  F1     tokens  rollouts  seconds  luck")
    for name, way in ways.items():
        if a.only in name:
            plans = [plan_of(a, seed) for seed in range(a.seeds)]
            seeds = [examine(plan, a.width, way) for plan in plans]
            reader = plans[0].reader(load_tokens(plans[0].model.path))
            print(describe(name, seeds, reader), flush=True)


def plan_of(a: argparse.Namespace, seed: int) -> Plan:
    """Returns what the solutions of a seed are sampled with."""
    assignments = (
        "backend.threads=1",
        f"policy.temperature={a.temperature}",
        f"policy.max_rollout_tokens={a.tokens}",
    )
    return make_plan(
        Options(
            problems=a.problems,
            policy=a.policy,
            deterministic=False,
            seed=seed,
            assignments=assignments,
        )
    )


if __name__ == "__main__":
    main()

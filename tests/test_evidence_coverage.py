"""How often intervals cover, over the nodes of forests grown in a world of random difficulty.

The seeds are fixed, so a pass repeats. Rollouts of different nodes are independent given the
nodes, so the probability that another seed would fail can be worked out: below 1 in 500 for each.
"""

import asyncio
import hashlib
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pytest

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import tree_values
from treeward.critics.value import interval
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.omega import OmegaSettings, omega
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Reply
from treeward.search.requests import Search
from treeward.search.rollouts import rollouts
from treeward.search.scripted import ScriptedPolicy
from treeward.search.settings import SearchSettings
from treeward.search.tree import Tree
from treeward.search.verdicts import Judgement, Reason

STEPS = 4


@cache
def script(prompt: str, text: str) -> list[tuple[str, float]]:
    """Three next steps; one in eight prefixes is dead below, and one in eight certain."""
    noise = hashlib.blake2b(f"{prompt.strip()}|{text}".encode(), digest_size=16).digest()
    fate = text[-2:-1]
    if len(text) == 2 * (STEPS - 1):
        right = {"x": 0.0, "z": 1.0}.get(fate, (noise[0] + 0.5) / 256)
        return [(f"Answer: {end}\n", p) for end, p in ((1, right), (0, 1 - right)) if p]
    weights = [1 + byte for byte in noise[:3]]
    names = [fate] if fate in "xz" and fate else [*"ab", {0: "x", 1: "z"}.get(noise[3] % 4, "c")]
    total = sum(weights[: len(names)])
    return [(f"{name}\n", weight / total) for name, weight in zip(names, weights, strict=False)]


@cache
def value(prompt: str, text: str) -> float:
    if "Answer" in text:
        return float("Answer: 1" in text)
    return sum(p * value(prompt, text + step) for step, p in script(prompt, text))


class SameText:
    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        return Judgement(Reason.MATCH if answer == problem.answer else Reason.MISMATCH, answer)


class Forgetful:
    def known(self, tree_id: str, key: str) -> Reply | None:
        return None

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        pass


POLICY = ScriptedPolicy(script)
READER = Reader(Template(name="test"), POLICY.tokens)
SETTINGS = SearchSettings(simulations=6, width=3, rollouts=8)
SEARCHES: dict[str, Search] = {
    "mcts": partial(mcts, settings=SETTINGS),
    "rollouts": partial(rollouts, settings=SETTINGS, cut=READER.cut),
}
FEW: dict[str, Search] = {
    "four solutions": partial(
        rollouts, settings=replace(SETTINGS, width=4, rollouts=0), cut=READER.cut
    ),
    "two solutions and two rollouts": partial(
        rollouts, settings=replace(SETTINGS, width=2, rollouts=2), cut=READER.cut
    ),
    "mcts, one rollout": partial(mcts, settings=replace(SETTINGS, width=2, rollouts=1)),
    "omega": partial(omega, settings=SETTINGS, own=OmegaSettings(), cut=READER.cut),
}
"""Searches that leave few draws at a node."""


@dataclass(frozen=True)
class Columns:
    """The nodes of a forest that are no ends."""

    truth: np.ndarray
    k: np.ndarray
    n: np.ndarray
    tree: np.ndarray
    low: np.ndarray
    high: np.ndarray
    expanded: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        return (self.truth >= 0.05) & (self.truth <= 0.95)


@cache
def forest(search: str) -> Columns:
    """The nodes of 250 trees, 1,300 to 2,700."""
    forest = Forest(
        search=(SEARCHES | FEW)[search],
        samplers=[PolicySampler(policy=POLICY, settings=PolicySettings())],
        reader=READER,
        verifier=SameText(),
        recorder=Forgetful(),
        seed=1,
        tree_id=lambda problem: problem.id,
    )
    rows: list[np.ndarray] = []

    def examine(tree: Tree) -> None:
        evidence = strict_evidence(tree, READER.cut)
        found = tree_values(tree, evidence, as_is=True)
        texts = [READER.text(tree.prefix_ids(node)) for node in range(len(tree))]
        columns = (
            [value(tree.problem.prompt, text) for text in texts],
            evidence.n_right,
            evidence.n_rollouts,
            found.value,
            found.low,
            found.high,
            [bool(children) for children in tree.nodes.children],
        )
        inside = [not tree.is_terminal(node) for node in range(len(tree))]
        rows.append(np.array(columns, dtype=float)[:, inside])

    problems = (Problem(id=str(i), prompt=f"{search} {i}", answer="1") for i in range(250))
    asyncio.run(grow_forest(forest, Plan(problems=problems, concurrency=4), examine))
    return Columns(*np.concatenate(rows, axis=1))


@pytest.mark.parametrize("search", SEARCHES)
def test_strict_intervals_cover_nine_in_ten(search: str) -> None:
    nodes = forest(search)
    low, high = interval(nodes.k, nodes.n)
    covered = (low <= nodes.truth) & (nodes.truth <= high)
    assert 0.87 <= covered[nodes.middle].mean() <= 0.93
    assert covered[~nodes.middle].mean() >= 0.9


@pytest.mark.parametrize("search", SEARCHES)
def test_tree_intervals_cover_nine_in_ten_and_are_narrower(search: str) -> None:
    nodes = forest(search)
    covered = (nodes.low <= nodes.truth) & (nodes.truth <= nodes.high)
    wider = nodes.expanded > 0
    assert 0.86 <= covered[nodes.middle & wider].mean() <= 0.96
    low, high = interval(nodes.k, nodes.n)
    assert (nodes.high - nodes.low)[wider].mean() < 0.95 * (high - low)[wider].mean()


@pytest.mark.parametrize("search", FEW)
def test_tree_intervals_of_few_draws_cover_nine_in_ten_or_more(search: str) -> None:
    nodes = forest(search)
    known = nodes.n > 0
    covered = (nodes.low - 1e-9 <= nodes.truth) & (nodes.truth <= nodes.high + 1e-9)
    assert known[nodes.middle].sum() > 400
    assert 0.92 <= covered[nodes.middle & known].mean() <= 0.98
    assert covered[~nodes.middle & known].mean() >= 0.97


@pytest.mark.parametrize("search", SEARCHES)
def test_tree_evidence_errs_less_from_the_same_tokens(search: str) -> None:
    nodes = forest(search)
    wider = nodes.expanded > 0
    strict = ((nodes.k / nodes.n - nodes.truth) ** 2)[wider].mean()
    assert ((nodes.tree - nodes.truth) ** 2)[wider].mean() < 0.85 * strict

"""Measures what the evidence of a tree is worth, on a policy whose values are known exactly.

    python benchmarks/evidence.py [--trees 1000] [--seed 0]

The other sides are printed beside: k / n of the same tree, the search's own q, and lone rollouts
that cost as many tokens.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import click
import numpy as np
import scripted_world as world
from numpy.typing import NDArray

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import tree_values
from treeward.critics.value import interval, posterior_mean
from treeward.search.adaptive import adaptive, seeded
from treeward.search.beam import BeamSettings, beam
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.growing import absorb_rollouts, ask_rollouts, cut_rollout
from treeward.search.mcts import mcts
from treeward.search.mcts_settings import MctsSettings
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Kind, ask
from treeward.search.rollouts import rollouts
from treeward.search.scripted import ScriptedPolicy
from treeward.search.settings import SearchSettings
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason, Verdict

Reals = NDArray[np.float64]
POLICY = ScriptedPolicy(world.script)
READER = Reader(Template(name="world"), POLICY.tokens)
FRESH = 8
"""Rollouts that the search for mistakes asks for at each node it makes."""


class SameText:
    """Satisfies `Verifier`."""

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        """Returns a match for the very text."""
        return Judgement(Reason.MATCH if answer == problem.answer else Reason.MISMATCH, answer)


class Forgetful:
    """Satisfies `Recorder`."""

    def known(self, tree_id: str, key: str) -> Reply | None:
        """Returns nothing."""

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        """Keeps nothing."""


def grow(search: Callable[[Tree], Growth], trees: int, seed: int) -> list[Tree]:
    """Returns trees of as many problems."""
    forest = Forest(
        search=search,
        samplers=[PolicySampler(policy=POLICY, settings=PolicySettings())],
        reader=READER,
        verifier=SameText(),
        recorder=Forgetful(),
        seed=seed,
        tree_id=lambda problem: problem.id,
    )
    problems = (Problem(id=str(i), prompt=f"{seed}/{i}", answer="1") for i in range(trees))
    grown: list[Tree] = []
    asyncio.run(grow_forest(forest, Plan(problems=problems, concurrency=1), grown.append))
    return grown


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """Holds what is known about the nodes of many trees that are no ends; one entry a node."""

    tree: NDArray[np.int64]
    truth: Reals
    k: Reals
    n: Reals
    passed: Reals
    """Rollouts among n that started above."""
    q: Reals
    value: Reals
    low: Reals
    high: Reals
    n_effective: Reals
    root: NDArray[np.bool_]
    expanded: NDArray[np.bool_]
    tokens: Reals
    """That the node's whole tree cost."""
    rollout_tokens: Reals
    """Mean length of the rollouts that started here."""

    def where(self, chosen: NDArray[np.bool_]) -> "Nodes":
        """Returns some of the nodes."""
        return Nodes(**{field.name: getattr(self, field.name)[chosen] for field in fields(self)})


def examine(trees: list[Tree]) -> Nodes:
    """Returns the evidence of all nodes beside their true values."""
    columns = [_examine(index, tree) for index, tree in enumerate(trees)]
    return Nodes(**{name: np.concatenate([c[name] for c in columns]) for name in columns[0]})


def _examine(index: int, tree: Tree) -> dict[str, NDArray[Any]]:
    evidence = strict_evidence(tree, READER.cut)
    from_tree = tree_values(tree, evidence, as_is=True)
    lengths: list[list[int]] = [[] for _ in range(len(tree))]
    for node, completion in zip(tree.rollouts.node, tree.rollouts.completion, strict=True):
        assert completion is not None, "a scripted policy's call never fails"
        lengths[node].append(len(completion.token_ids))
    visits = np.array(tree.nodes.visits, dtype=float)
    columns = {
        "tree": np.full(len(tree), index),
        "truth": np.array([truth(tree, node) for node in range(len(tree))]),
        "k": evidence.n_right.astype(float),
        "n": evidence.n_rollouts.astype(float),
        "passed": evidence.n_rollouts - evidence.started_right - evidence.started_wrong,
        "q": np.array(tree.nodes.value_sum) / np.where(visits > 0, visits, np.nan),
        "value": from_tree.value,
        "low": from_tree.low,
        "high": from_tree.high,
        "n_effective": from_tree.n_effective,
        "root": np.arange(len(tree)) == ROOT,
        "expanded": np.array([bool(children) for children in tree.nodes.children]),
        "tokens": np.full(len(tree), float(tree.policy_tokens)),
        "rollout_tokens": np.array([np.mean(of) if of else np.nan for of in lengths]),
    }
    inner = np.array([not tree.is_terminal(node) for node in range(len(tree))])
    return {name: column[inner] for name, column in columns.items()}


def truth(tree: Tree, node: int) -> float:
    """Returns the exact value of a node."""
    return world.value(tree.problem.prompt, READER.text(tree.prefix_ids(node)))


def per_tree(nodes: Nodes, what: Reals) -> str:
    """Returns the mean over nodes with its standard error, trees being independent."""
    place = np.unique(nodes.tree, return_inverse=True)[1]
    sums, counts = np.bincount(place, what), np.bincount(place)
    mean = sums.sum() / counts.sum()
    error = np.sqrt(((sums - mean * counts) ** 2).sum()) / counts.sum()
    return f"{mean:+.4f} +- {error:.4f} (z {mean / error:+.1f})" if error else f"{mean:+.4f}"


def covered(low: Reals, high: Reals, nodes: Nodes) -> str:
    """Returns how often intervals cover, for values in [.05, .95] and for the others."""
    inside = (low <= nodes.truth) & (nodes.truth <= high)
    middle = (nodes.truth >= 0.05) & (nodes.truth <= 0.95)
    return f"{inside[middle].mean():.1%} / {inside[~middle].mean():.1%}"


def show(name: str, nodes: Nodes) -> None:
    """Prints what the evidence of one forest is worth."""
    middle = (nodes.truth >= 0.05) & (nodes.truth <= 0.95)
    certain = ((nodes.truth == 0) | (nodes.truth == 1)).mean()
    print(f"\n{name}: {nodes.root.sum()} trees, {len(nodes.truth)} nodes inside them,")
    print(f"  {middle.mean():.0%} with values in [.05, .95], {certain:.0%} exactly 0 or 1")
    print("  strict evidence")
    print(f"    its 90 % interval covers        {covered(*interval(nodes.k, nodes.n), nodes)}")
    print(f"    k - n V, mean over nodes        {per_tree(nodes, nodes.k - nodes.n * nodes.truth)}")
    if nodes.passed.any():
        through = nodes.where(nodes.passed > 0)
        share = through.passed.sum() / through.n.sum()
        print(f"    of it from rollouts from above  {share:.0%}, where there are any")
    print("  tree evidence (value_tree)")
    print(f"    value - V, all nodes            {per_tree(nodes, nodes.value - nodes.truth)}")
    for what, chosen in (
        ("roots", nodes.root),
        ("all expanded nodes", nodes.expanded),
    ):
        _compare(what, nodes.where(chosen))


def _compare(what: str, nodes: Nodes) -> None:
    strict = (nodes.k / nodes.n - nodes.truth) ** 2
    posterior = (posterior_mean(nodes.k, nodes.n) - nodes.truth) ** 2
    tree = (nodes.value - nodes.truth) ** 2
    print(f"  at {what}: {len(nodes.truth)} nodes")
    print(
        f"    squared error of k/n            {strict.mean():.4f} (of value, its posterior mean:"
        f" {posterior.mean():.4f})"
    )
    print(
        f"    squared error of value_tree     {tree.mean():.4f}, {tree.mean() / strict.mean():.2f}"
        " times that of k/n, from the same tokens"
    )
    print(f"      the difference                {per_tree(nodes, tree - strict)}")
    print(f"    k/n - V                         {per_tree(nodes, nodes.k / nodes.n - nodes.truth)}")
    print(f"    value_tree - V                  {per_tree(nodes, nodes.value - nodes.truth)}")
    if np.isfinite(nodes.q).all():
        print(f"    q - V                           {per_tree(nodes, nodes.q - nodes.truth)}")
    print(f"    its 90 % interval covers        {covered(nodes.low, nodes.high, nodes)}")
    print(
        f"    n, n_effective (medians)        {np.median(nodes.n):.0f},"
        f" {np.median(nodes.n_effective):.1f}"
    )
    lone, alike = _lone_rollouts(nodes)
    print(
        f"    squared error of k/n had all the tree's tokens gone to these nodes: {lone:.4f}{alike}"
    )


def _lone_rollouts(nodes: Nodes) -> tuple[float, str]:
    """Returns the squared error of k/n had the tree's tokens gone to these nodes alone, evenly."""
    _, place, counts = np.unique(nodes.tree, return_inverse=True, return_counts=True)
    n = nodes.tokens / counts[place] / nodes.rollout_tokens
    return float((nodes.truth * (1 - nodes.truth) / n).mean()), f" (n = {np.median(n):.0f})"


def find_mistakes(tree: Tree) -> Growth:
    """Splits the first wrong rollout because it is wrong, and asks at each of its steps."""
    requests = [ask(tree, ROOT, Kind.ROLLOUT, FRESH)]
    replies = yield requests
    absorb_rollouts(tree, requests, replies)
    wrong = [
        index
        for index, drawn in enumerate(replies[0].completions)
        if drawn.judgement and drawn.judgement.verdict is Verdict.WRONG
    ]
    for index in wrong[:1]:
        path = cut_rollout(tree, index, READER.cut, creation=Creation.CHOSEN)
        requests = ask_rollouts(tree, path[:-1], FRESH)
        absorb_rollouts(tree, requests, (yield requests))


def show_chosen(trees: list[Tree]) -> None:
    """Prints what a rollout that was chosen for its outcome would do to the evidence."""
    nodes = examine(trees)
    made = nodes.where(~nodes.root)
    print(f"\na wrong rollout is split because it is wrong: {len(made.truth)} nodes")
    print(f"    k/n - V, strict                 {per_tree(made, made.k / made.n - made.truth)}")
    counted = made.k / (made.n + 1)
    print(f"    k/n - V, that rollout counted   {per_tree(made, counted - made.truth)}")


@click.command()
@click.option(
    "--trees", type=click.IntRange(100), default=1000, show_default=True, help="A search."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, help="A search; all where left out.")
def main(trees: int, seed: int, only: tuple[str, ...]) -> None:
    """Prints all measurements."""
    began = time.monotonic()
    usual = SearchSettings()
    greedy = SearchSettings(wave=1, rollouts=3, c=0.3)
    single = SearchSettings(simulations=32, width=1)
    narrow, widening = SearchSettings(width=2), MctsSettings(width_max=8)
    searches: dict[str, Callable[[Tree], Growth]] = {
        "mcts (the defaults: 8 rollouts a node)": partial(mcts, settings=usual),
        "mcts, greedy (3 rollouts a node, c = .3)": partial(mcts, settings=greedy),
        "rollouts (the defaults: 4 solutions, 8 rollouts a prefix)": partial(
            rollouts, settings=usual, cut=READER.cut
        ),
        "beam (the defaults: 4 beams of 4 samples, 8 rollouts a node)": partial(
            beam, settings=usual, own=BeamSettings()
        ),
        "adaptive (32 samples one by one, 8 rollouts a node)": partial(
            adaptive, settings=single, chances=seeded(seed)
        ),
        "mcts, 2 samples an expansion": partial(mcts, settings=narrow),
        "mcts, 2 samples an expansion, widths that adapt up to 8": partial(
            mcts, settings=narrow, own=widening
        ),
        "mcts, greedy, 2 samples an expansion, widths that adapt up to 8": partial(
            mcts, settings=replace(greedy, width=2), own=widening
        ),
    }
    for index, (name, search) in enumerate(searches.items()):
        if not only or name.split()[0].strip(",") in only:
            # Searches have problems of their own; 3 is the one that splits mistakes.
            show(name, examine(grow(search, trees, seed + index + (index > 2))))
    if not only:
        show_chosen(grow(find_mistakes, trees, seed + 3))
    print(f"\n{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

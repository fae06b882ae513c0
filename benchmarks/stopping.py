"""What it does to estimates that rollouts stop by what they say, on a policy with known values.

    python benchmarks/stopping.py

Bias of k / n and of `value`, and how often the 90 % interval covers, for as many rollouts from
every prefix, for rollouts that stop by what they say (`rollouts.width`, `rollouts.threshold`), and
for a budget over all trees; and how far `value_tree` of roots is off. "outward" is how much farther
from 1/2 an estimate lies than the value. "fixed" is the error that as many rollouts from every
prefix would have for the same tokens.
"""

import argparse
import asyncio
import time
from functools import partial

import numpy as np
from evidence import POLICY, READER, Forgetful, SameText, truth
from numpy.typing import NDArray
from spending import (
    BUDGETS,
    FIXED,
    STOPPING,
    Remembering,
    Way,
    at_equal_tokens,
    counts,
    grow_all,
    inner_nodes,
    tokens_of,
)

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import tree_values
from treeward.critics.value import interval, posterior_mean
from treeward.search.forest import Forest
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.rollouts import rollouts
from treeward.search.settings import SearchSettings
from treeward.search.stopping import RolloutsSettings
from treeward.search.tree import ROOT, Tree

Reals = NDArray[np.float64]
LABELS = [
    Way(name="until above or below .5", most=64, own=RolloutsSettings(threshold=0.5)),
    Way(
        name="until above or below .5, level .99",
        most=64,
        own=RolloutsSettings(threshold=0.5, level=0.99),
    ),
    Way(name="until one is right", most=64, own=RolloutsSettings(threshold=0.0)),
]
WAYS = [*FIXED, *STOPPING, *LABELS, *BUDGETS]


def grow(trees: int, seed: int) -> tuple[Forest, list[list[Tree]]]:
    """Returns the trees of each way, and what they were grown with."""
    growing = Forest(
        search=partial(rollouts, settings=SearchSettings(), cut=READER.cut),
        samplers=[
            PolicySampler(
                policy=Remembering(POLICY), settings=PolicySettings(max_rollout_tokens=64)
            )
        ],
        reader=READER,
        verifier=SameText(),
        recorder=Forgetful(),
        seed=seed,
        tree_id=lambda problem: problem.id,
    )
    problems = [Problem(id=str(i), prompt=f"{seed}/{i}", answer="1") for i in range(trees)]
    return growing, asyncio.run(grow_all(growing, problems, WAYS))


def line(k: Reals, n: Reals, V: Reals) -> str:
    """Returns what becomes of estimates whose truths are V."""
    mid = (V >= 0.05) & (V <= 0.95)
    value, (low, high) = posterior_mean(k, n), interval(k, n)
    share = np.where(n > 0, k / np.maximum(n, 1), 0.5)
    covers, outward = (low <= V) & (high >= V), np.sign(V - 0.5)
    same_side = (value > 0.5) == (V > 0.5)
    return (
        f"{np.mean(share - V):+.4f} {np.mean(value - V):+.4f}   "
        f"{np.mean(outward * (share - V)):+.4f} {np.mean(outward * (value - V)):+.4f}   "
        f"{covers[mid].mean():.3f} / {covers[~mid].mean():.3f}   {same_side[mid].mean():.3f}"
    )


def at_roots(trees: list[Tree]) -> str:
    """Returns how far `value_tree` of roots is off, and its standard error."""
    found = [
        tree_values(tree, strict_evidence(tree, READER.cut), as_is=True).value[ROOT]
        for tree in trees
    ]
    off = np.array(found) - [truth(tree, ROOT) for tree in trees]
    return f"{off.mean():+.4f} +- {off.std(ddof=1) / len(off) ** 0.5:.4f}"


def main() -> None:
    """Prints a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    began = time.monotonic()
    growing, grown = grow(a.trees, a.seed)
    V = np.array([truth(tree, node) for tree in grown[0] for node in inner_nodes(tree)])
    print(f"{a.trees} trees, {len(V)} prefixes; mid: values in [.05, .95]")
    print(
        f"{'':40} tokens a   squared error   bias            outward         covers 90 %     "
        f"side of .5  value_tree\n{'':40} prefix     value  (fixed)   k/n     value     k/n     "
        "value     mid / others    right, mid  of roots, bias"
    )
    fixed: list[tuple[float, float]] = []
    for way, trees in zip(WAYS, grown, strict=True):
        k, n = counts(trees, growing)
        error = float(np.mean((posterior_mean(k, n) - V) ** 2))
        tokens = tokens_of(trees) / len(V)
        fixed += [(tokens, error)] if way.own.fixed else []
        print(
            f"{way.name:40} {tokens:7.1f}    {error:.4f} {at_equal_tokens(tokens, fixed):8} "
            f"{line(k, n, V)}       {at_roots(trees)}"
        )
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

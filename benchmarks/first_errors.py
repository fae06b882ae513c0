"""Finds the first wrong step of the same solutions in several ways, beside the truth.

    python benchmarks/first_errors.py --problems 'task:arithmetic?n=100&seed=31'
"""

import argparse
import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from treeward.export.plan import Options, Plan, make_plan
from treeward.search import forest
from treeward.search.arithmetic import judge_steps
from treeward.search.forest import Forest, grow_forest
from treeward.search.localise import LocaliserSettings, find_by_halves, find_by_posterior
from treeward.search.reader import Reader
from treeward.search.replies import Reply
from treeward.search.requests import Growth
from treeward.search.survey import Survey
from treeward.search.transformers_policy import TransformersPolicy
from treeward.search.tree import ROOT, Tree
from treeward.search.verdicts import Verdict


class Nothing:
    """A recorder that keeps nothing."""

    def known(self, tree_id: str, key: str) -> Reply | None:
        return None

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        """Keeps nothing."""


Found = dict[tuple[int, ...], int]
"""Of each solution, as the path of its nodes, how many steps are held to be right."""


def paths_of(tree: Tree) -> list[list[int]]:
    return [tree.path(node) for node in range(len(tree)) if tree.is_terminal(node)]


def shepherd(survey: Survey, k: int, found: Found) -> Growth:
    tree = survey.tree
    paths = paths_of(tree)
    inner = sorted({node for path in paths for node in path[1:] if not tree.is_terminal(node)})
    yield from survey.roll(inner, k) if inner else iter(())
    for path in paths:
        dead = [at for at, node in enumerate(path) if at and (not survey.right[node] if not tree.is_terminal(node) else tree.terminal_value(node) == 0.0)]
        found[tuple(path)] = (dead[0] - 1) if dead else len(path) - 1


def halves(survey: Survey, k: int, wave: int | None, found: Found) -> Growth:
    tree = survey.tree
    for path in paths_of(tree):
        if tree.terminal_value(path[-1]) == 0.0:
            found[tuple(path)] = yield from find_by_halves(survey, path, k, wave=wave)
        else:
            found[tuple(path)] = len(path) - 1


def posterior(survey: Survey, settings: LocaliserSettings, found: Found) -> Growth:
    tree = survey.tree
    for path in paths_of(tree):
        yield from find_by_posterior(survey, path, settings)
    for path in paths_of(tree):
        found[tuple(path)] = int(survey.beliefs.first_error(path).argmax())


def run(plan: Plan, width: int, way: Callable[[Survey, Found], Growth]):
    results = []

    def search(tree: Tree) -> Growth:
        survey, found = Survey(tree, reader.cut), {}
        yield from survey.sample_solutions(width)
        paths = paths_of(tree)
        before = tree.policy_tokens
        asked = len(tree.rollouts.node)
        yield from way(survey, found)
        truths = {}
        for path in paths:
            truth = judge_steps(tree.problem, [reader.text(tree.nodes.step_ids[n]) for n in path[1:]])
            wrong = [at for at, t in enumerate(truth) if not t.prefix]
            truths[tuple(path)] = wrong[0] if wrong else len(path) - 1
        results.append((tree, before, tree.policy_tokens - before, len(tree.rollouts.node) - asked, found, truths, survey))

    async def go():
        nonlocal reader
        growing = Forest(search=search, policy=policy, reader=reader, verifier=verifier, recorder=Nothing(), sampling=plan.sampling, seed=plan.seed, tree_id=plan.tree_id)
        await grow_forest(growing, forest.Plan(iter(plan.problems), 256), lambda tree: None)
        await policy.close()

    policy = TransformersPolicy(plan.model.path, plan.model.fingerprint, plan.backend)
    reader = plan.reader(policy.tokens)
    with plan.make_verifier() as verifier:
        asyncio.run(go())
    return results


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", default="task:arithmetic?n=100&seed=31")
    parser.add_argument("--policy", default="nano")
    parser.add_argument("--only", default="")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--confidences", default="0.8,0.9,0.95")
    parser.add_argument("--most", type=int, default=32)
    a = parser.parse_args()
    plan = make_plan(Options(problems=a.problems, policy=a.policy, deterministic=False, assignments=("backend.threads=1",)))
    ways = {
        "shepherd k=8": partial(shepherd, 8),
        "shepherd k=16": partial(shepherd, 16),
        "omega k=8": partial(halves, 8, None),
        "omega k=8, first success": partial(halves, 8, 1),
        "omega k=32, first success": partial(halves, 32, 1),
    }
    ways = {n: (lambda s, f, w=w: w.func(s, *w.args, f)) for n, w in ways.items()}
    for c in map(float, a.confidences.split(",")):
        ways[f"posterior {c}"] = lambda s, f, c=c: posterior(s, LocaliserSettings(confidence=c, most=a.most), f)
    for name, way in ((n, w) for n, w in ways.items() if a.only in n):
        results = run(plan, a.width, way)
        hit = {True: [], False: []}
        for tree, before, tokens, rolled, found, truths, survey in results:
            for path, truth in truths.items():
                hit[truth < len(path) - 1].append(found[path] == truth)
        right = np.mean([sum(v == Verdict.RIGHT for v in [c.judgement.verdict for c in t.rollouts.completion[:a.width]]) / a.width for t, *_ in results])
        error, clean = np.mean(hit[True]), np.mean(hit[False])
        tokens = sum(r[2] for r in results)
        n = len(hit[True]) + len(hit[False])
        print(f"{name:28} error {error:.3f} ({len(hit[True])}) clean {clean:.3f} ({len(hit[False])}) F1 {2*error*clean/(error+clean):.3f} tokens {tokens:,} rollouts/solution {sum(r[3] for r in results)/n:.1f} pass {right:.3f}", flush=True)


if __name__ == "__main__":
    main()

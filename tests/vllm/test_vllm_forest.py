"""Trees grown with vLLM hold what the policy said, and as much evidence as with transformers."""

import asyncio
import math
from functools import partial
from pathlib import Path

import pytest
from tests.fakes import Memory
from tests.vllm.drawing import TEMPLATE

from treeward.critics.evidence import strict_evidence
from treeward.critics.verifier import AnswerVerifier
from treeward.search.arithmetic import make_problems
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.policy import Policy, PolicySampler, PolicySettings
from treeward.search.reader import Reader
from treeward.search.requests import Search
from treeward.search.rollouts import rollouts
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings
from treeward.search.tree import ROOT, Tree
from treeward.search.verdicts import Reason, Verdict
from treeward.search.vllm_policy import VllmPolicy

PROBLEMS = make_problems(n=8, seed=11)
SETTINGS = SearchSettings(simulations=6, width=16, rollouts=4)
SAMPLING = PolicySettings(max_step_tokens=24, max_rollout_tokens=96)


def grow(policy: Policy, *, by_rollouts: bool) -> dict[str, Tree]:
    reader = Reader(TEMPLATE, policy.tokens)
    search: Search = partial(mcts, settings=SETTINGS)
    if by_rollouts:
        search = partial(rollouts, settings=SETTINGS, cut=reader.cut)
    trees: dict[str, Tree] = {}
    with AnswerVerifier(["number"]) as verifier:
        forest = Forest(
            search=search,
            samplers=[PolicySampler(policy=policy, settings=SAMPLING)],
            reader=reader,
            verifier=verifier,
            recorder=Memory(),
            seed=5,
            tree_id=lambda problem: problem.id,
        )

        async def go() -> None:
            async with asyncio.timeout(300):
                plan = Plan(problems=iter(PROBLEMS), concurrency=8)
                await grow_forest(forest, plan, lambda tree: trees.update({tree.problem.id: tree}))

        asyncio.run(go())
    assert trees.keys() == {problem.id for problem in PROBLEMS}
    return trees


@pytest.mark.parametrize("by_rollouts", [False, True], ids=["mcts", "rollouts"])
def test_evidence_is_what_the_rollouts_say(policy: VllmPolicy, by_rollouts: bool) -> None:
    reader = Reader(TEMPLATE, policy.tokens)
    for tree in grow(policy, by_rollouts=by_rollouts).values():
        assert len(tree) > 1
        assert not any(tree.nodes.failure)
        tokens = 0
        outcomes = {node: [0, 0] for node in range(len(tree))}
        for start, drawn in zip(tree.rollouts.node, tree.rollouts.completion, strict=True):
            assert drawn is not None
            assert drawn.judgement is not None
            tokens += len(drawn.token_ids)
            solution = tree.prefix_ids(start) + drawn.token_ids
            answer = TEMPLATE.answer_in(reader.text(solution))
            assert (drawn.finish is Finish.LENGTH) == (drawn.judgement.reason is Reason.LENGTH)
            right = drawn.finish is Finish.END and answer == tree.problem.answer
            assert (drawn.judgement.verdict is Verdict.RIGHT) == right
            if start != ROOT:
                outcomes[start][right] += 1
        evidence = strict_evidence(tree, reader.cut)
        for node, (n_wrong, n_right) in outcomes.items():
            if node != ROOT:
                assert evidence.started_right[node] == n_right
                assert evidence.started_wrong[node] == n_wrong
            steps = [tree.nodes.step_ids[at] for at in tree.path(node)[1:]]
            assert reader.cut(tree.prefix_ids(node)) == steps
        if by_rollouts:
            assert tree.policy_tokens == tokens


def test_problems_are_solved_as_often_as_with_transformers(policy: VllmPolicy, nano: Path) -> None:
    """The difference of two sums of 8 x 16 rollouts; over 5 standard deviations by chance in
    less than one of a million runs, since each sum's variance is at most 128 / 4."""
    settings = TransformersSettings(dtype="float32", threads=1)
    plain = TransformersPolicy(nano, "fingerprint", settings)
    try:
        expected = n_right_at_root(grow(plain, by_rollouts=True))
    finally:
        asyncio.run(plain.close())
    n_right = n_right_at_root(grow(policy, by_rollouts=True))
    assert abs(n_right - expected) < 5 * math.sqrt(2 * 128 / 4)
    assert 0.1 < n_right / 128 < 0.95, "nano solves some of them"


def n_right_at_root(trees: dict[str, Tree]) -> int:
    drawn = [
        completion
        for tree in trees.values()
        for start, completion in zip(tree.rollouts.node, tree.rollouts.completion, strict=True)
        if start == ROOT and completion is not None
    ]
    assert len(drawn) == 128
    return sum(
        completion.judgement is not None and completion.judgement.verdict is Verdict.RIGHT
        for completion in drawn
    )

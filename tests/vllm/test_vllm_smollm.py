"""A model that people use runs too: subword tokens, grouped heads, a prompt of many blocks."""

import asyncio
import os
from dataclasses import replace

import pytest
from tests.vllm.drawing import SETTINGS, draws_of

from treeward.search.arithmetic import make_problems
from treeward.search.models import cache_root, resolve_model
from treeward.search.policy import Ask, PolicySettings
from treeward.search.requests import Kind
from treeward.search.smollm import NAME
from treeward.search.steps import Finish
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings
from treeward.search.vllm_policy import VllmPolicy


def test_smollm_draws_steps_as_with_transformers() -> None:
    model = resolve_model(NAME, cache_root(os.environ))
    template = model.default_template
    policy = VllmPolicy(model.path, model.fingerprint, replace(SETTINGS, context=1024))
    (problem,) = make_problems(n=1, seed=3)
    ask = Ask(
        prompt_ids=template.render(problem, policy.tokens),
        prefix_ids=(),
        kind=Kind.ROLLOUT,
        seeds=tuple(range(8)),
        settings=PolicySettings(temperature=0.8, max_step_tokens=40, max_rollout_tokens=120),
        rule=template.rule,
        stick_to="p",
    )
    steps = replace(ask, kind=Kind.SAMPLE)
    solutions, firsts = draws_of(policy, [ask, steps])
    cached = policy.engine.cached_tokens
    asyncio.run(policy.close())
    assert Finish.STEP in {draw.finish for draw in firsts} <= {Finish.STEP, Finish.END}
    # The same seeds: a sampled step is how the rollout of its seed begins.
    for step, solution in zip(firsts, solutions, strict=True):
        assert solution.token_ids[: len(step.token_ids)] == step.token_ids
    # Sixteen continuations of one prompt read it once, but for the block that it ends in.
    assert cached == 15 * ((len(ask.prompt_ids) - 1) // 32 * 32)

    plain = TransformersPolicy(
        model.path, model.fingerprint, TransformersSettings(dtype="float32", threads=1)
    )
    # Sampled steps are few here, so many are common to both backends: these have one probability.
    (others,) = draws_of(plain, [replace(steps, seeds=tuple(range(100, 132)))])
    asyncio.run(plain.close())
    expected = {draw.token_ids: draw.logprob for draw in others}
    common = [draw for draw in firsts if draw.token_ids in expected]
    assert common
    for draw in common:
        assert draw.logprob == pytest.approx(expected[draw.token_ids], abs=1e-3)

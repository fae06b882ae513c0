"""vLLM draws what the transformers backend would draw, of the same model."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from scipy.stats import chi2_contingency
from tests.vllm.drawing import SETTINGS, asks_for, draw_all, draws_of, given, ids_of

from treeward.search.errors import BadInput, CallFailed
from treeward.search.policy import Ask, Draw, Policy
from treeward.search.requests import Kind
from treeward.search.steps import Budget, Finish, Stepper, cut
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings
from treeward.search.vllm_policy import VllmPolicy


def finishes(ask: Ask, draw: Draw, policy: Policy) -> list[Finish | None]:
    """What each token of a draw completes, read from the prefix on."""
    room = ask.settings.max_rollout_tokens - len(ask.prefix_ids)
    budget = Budget(step=ask.settings.max_step_tokens, total=room)
    stepper = Stepper.after(ask.prefix_ids, policy.tokens, ask.rule, budget)
    return [stepper.feed(token) for token in draw.token_ids]


def test_a_draw_ends_with_the_token_that_completes_what_was_asked_for(policy: VllmPolicy) -> None:
    asks = asks_for(policy.tokens, 30) + asks_for(policy.tokens, 30, max_step_tokens=9)
    asks += asks_for(policy.tokens, 30, max_rollout_tokens=40)
    ends = set()
    for ask, draws in zip(asks, draws_of(policy, asks), strict=True):
        assert len(draws) == len(ask.seeds)
        for draw in draws:
            *before, last = finishes(ask, draw, policy)
            assert last is draw.finish
            goes_on = {None} if ask.kind is Kind.SAMPLE else {None, Finish.STEP}
            assert set(before) <= goes_on
            assert ask.kind is Kind.SAMPLE or last is not Finish.STEP
            ends.add((ask.kind, last))
            ids = (*ask.prefix_ids, *draw.token_ids)
            steps = cut(ids, policy.tokens, ask.rule)
            assert sum(steps, ()) == ids
            if draw.finish is Finish.STEP:
                assert policy.tokens.text_of(draw.token_ids).endswith(ask.rule.delimiter)
    assert {(Kind.SAMPLE, Finish.STEP), (Kind.SAMPLE, Finish.LENGTH)} < ends
    assert {(Kind.ROLLOUT, Finish.END), (Kind.ROLLOUT, Finish.LENGTH)} < ends


def plain_logprob(model: transformers.PreTrainedModel, ask: Ask, draw: Draw) -> float:
    """The reference: one pass over the whole sequence, at temperature 1 and without top-p."""
    before = [*ask.prompt_ids, *ask.prefix_ids]
    ids = torch.tensor([[*before, *draw.token_ids]])
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(before) - 1 : -1].double().numpy()
    logprobs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    return float(logprobs[range(len(draw.token_ids)), list(draw.token_ids)].sum())


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.7}, {"temperature": 0.7, "top_p": 0.8}])
def test_log_probabilities_are_those_of_the_plain_model(
    policy: VllmPolicy, nano: Path, sampling: dict[str, Any]
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(nano, dtype="float32")
    asks = asks_for(policy.tokens, 24, **sampling)
    for ask, draws in zip(asks, draws_of(policy, asks), strict=True):
        for draw in draws:
            assert draw.logprob == pytest.approx(plain_logprob(model, ask, draw), abs=1e-4)


def test_what_is_given_is_as_likely_as_what_is_drawn(policy: VllmPolicy) -> None:
    """While others are drawn; the last call does not fit."""
    asks = asks_for(policy.tokens, 12)
    drawn = [
        (ask, each) for ask, of in zip(asks, draws_of(policy, asks), strict=True) for each in of
    ]
    calls = [given(ask.prompt_ids + ask.prefix_ids, draw.token_ids) for ask, draw in drawn]
    long = given((2,), (3,) * 100_000)

    async def go() -> list[Any]:
        told = (policy.logprobs(call) for call in [*calls, long])
        return await asyncio.gather(*told, *map(policy.draw, asks), return_exceptions=True)

    found = asyncio.run(go())
    for told, (_, draw) in zip(found, drawn, strict=False):
        assert len(told) == len(draw.token_ids)
        assert sum(told) == pytest.approx(draw.logprob, abs=1e-4)
    assert isinstance(found[len(calls)], CallFailed)
    assert all(isinstance(draws, list) for draws in found[len(calls) + 1 :])


def test_equal_seeds_give_equal_draws(policy: VllmPolicy) -> None:
    """Alone and again alone, eight at once and four and four, and in company.

    In company it is no promise; in float32 a token of nano flips about once in a million.
    """
    asks = asks_for(policy.tokens, 4, samples=8, temperature=1.3)
    alone = [draws_of(policy, [ask])[0] for ask in asks]
    assert [draws_of(policy, [ask])[0] for ask in asks] == alone
    halves = [replace(ask, seeds=ask.seeds[at : at + 4]) for ask in asks for at in (0, 4)]
    firsts, seconds = (ids_of(draws_of(policy, halves[at::2])) for at in (0, 1))
    assert [a + b for a, b in zip(firsts, seconds, strict=True)] == ids_of(alone)
    together = draws_of(policy, [*asks, *asks_for(policy.tokens, 20)])
    assert ids_of(together[: len(asks)]) == ids_of(alone)
    others = draws_of(policy, [replace(ask, seeds=tuple(range(8))) for ask in asks])
    assert ids_of(others) != ids_of(alone), "seeds matter"


def same_distribution(one: Counter[str], other: Counter[str]) -> float:
    """The p-value of one distribution behind both; what is seen less than 20 times counts as one.

    Under it the chance of less than p is about p: 1e-6 is a false alarm in a million.
    """
    often = [text for text, n in (one + other).items() if n >= 20]
    columns = [(one[text], other[text]) for text in often]
    rare = (one.total() - sum(n for n, _ in columns), other.total() - sum(n for _, n in columns))
    columns += [rare] if any(rare) else []
    assert len(columns) >= 3, "the node has steps to choose from"
    return float(chi2_contingency(columns).pvalue)


@pytest.fixture(scope="module")
def plain(nano: Path) -> Iterator[TransformersPolicy]:
    settings = TransformersSettings(dtype="float32", threads=1)
    opened = TransformersPolicy(nano, "fingerprint", settings)
    yield opened
    asyncio.run(opened.close())


@pytest.mark.parametrize("sampling", [{"temperature": 1.5}, {"temperature": 1.6, "top_p": 0.95}])
def test_first_steps_are_as_frequent_as_with_transformers(
    policy: VllmPolicy, plain: TransformersPolicy, sampling: dict[str, Any]
) -> None:
    ask = asks_for(policy.tokens, 1, **sampling)[0]

    def steps(of: Policy, asked: Ask, first_seed: int) -> Counter[str]:
        starts = range(first_seed, first_seed + 2000, 100)
        asks = [replace(asked, seeds=tuple(range(at, at + 100))) for at in starts]
        draws = [draw for some in draws_of(of, asks) for draw in some]
        return Counter(of.tokens.text_of(draw.token_ids) for draw in draws)

    expected = steps(plain, ask, 10**6)
    assert same_distribution(steps(policy, ask, 0), expected) > 1e-6
    colder = replace(ask, settings=replace(ask.settings, temperature=1.1))
    assert same_distribution(steps(policy, colder, 0), expected) < 1e-6, "it would be noticed"


def test_asks_in_flight_are_decoded_in_one_batch(policy: VllmPolicy) -> None:
    asks = asks_for(policy.tokens, 16, samples=4)
    assert sum(len(ask.seeds) for ask in asks) == SETTINGS.slots
    before = policy.engine.steps
    draws = [draw for some in draws_of(policy, asks) for draw in some]
    longest = max(len(draw.token_ids) for draw in draws)
    # Those that come while the first are decoded join at the next step.
    assert longest <= policy.engine.steps - before <= longest + 5


def test_more_than_fit_wait_and_join_as_others_end(policy: VllmPolicy) -> None:
    asks = asks_for(policy.tokens, 60, samples=8)
    before = policy.engine.steps
    draws = [draw for some in draws_of(policy, asks) for draw in some]
    n_tokens = sum(len(draw.token_ids) for draw in draws)
    # Full but for the last rows: without joining, each round would take as long as its longest.
    assert policy.engine.steps - before <= n_tokens / SETTINGS.slots + 96


def test_nothing_is_sampled_beyond_the_end(policy: VllmPolicy) -> None:
    """A row is in a step for each of its tokens: nothing is computed and thrown away."""
    ask = replace(asks_for(policy.tokens, 1)[0], kind=Kind.SAMPLE)
    before = policy.engine.steps
    (draws,) = draws_of(policy, [ask])
    assert policy.engine.steps - before == max(len(draw.token_ids) for draw in draws)


def test_a_prefix_is_read_once(policy: VllmPolicy) -> None:
    asks = [ask for ask in asks_for(policy.tokens, 40) if len(ask.prompt_ids + ask.prefix_ids) > 32]
    for ask in asks[:3]:
        other = replace(ask, seeds=tuple(range(8)))
        engine = policy.engine
        draws_of(policy, [ask])
        prompt, cached = engine.prompt_tokens, engine.cached_tokens
        draws_of(policy, [other])
        length = len(ask.prompt_ids + ask.prefix_ids)
        assert engine.prompt_tokens - prompt == 8 * length
        # Whole blocks of 32; the last token is always read, since it says what comes next.
        assert engine.cached_tokens - cached == 8 * ((length - 1) // 32 * 32)


def test_what_does_not_fit_the_context_is_a_failed_call(policy: VllmPolicy) -> None:
    fits, too_long = (
        replace(asks_for(policy.tokens, 1, max_rollout_tokens=n)[0], kind=Kind.ROLLOUT)
        for n in (96, 512)
    )
    results = draw_all(policy, [too_long, fits, replace(too_long, kind=Kind.SAMPLE)])
    assert isinstance(results[0], CallFailed)
    assert results[0].kind == "context_length"
    assert "the model has 512" in results[0].message
    assert isinstance(results[1], list)
    assert isinstance(results[2], list)


def test_no_seeds_are_no_draws(policy: VllmPolicy) -> None:
    assert draws_of(policy, [replace(asks_for(policy.tokens, 1)[0], seeds=())]) == [[]]


@pytest.mark.parametrize("temperature", [0.005, 2.5])
def test_temperatures_that_vllm_does_not_sample_at_are_refused(
    policy: VllmPolicy, temperature: float
) -> None:
    asks = asks_for(policy.tokens, 1, temperature=temperature)
    rule = rf"temperature must be from 0\.01 to 2\.0 with vLLM, got {temperature}"
    with pytest.raises(BadInput, match=rule):
        draws_of(policy, asks)


def test_running_out_of_memory_fails_the_calls_under_way_only(
    policy: VllmPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asks = asks_for(policy.tokens, 12, samples=8)
    expected = draws_of(policy, asks)
    executor = policy.engine._llm.engine_core.engine_core.model_executor  # type: ignore[attr-defined]  # vLLM's own
    execute = executor.execute_model
    left = 0

    def broken(*args: object, **kwargs: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            raise MemoryError("no room\nmore")
        return execute(*args, **kwargs)

    monkeypatch.setattr(executor, "execute_model", broken)
    # After the first failure nothing is kept, so the second round reads prefixes when it fails.
    for fails_at in (1, 1, 3):
        left = fails_at
        results = draw_all(policy, asks)
        lost = [result for result in results if isinstance(result, CallFailed)]
        assert {(each.kind, each.message) for each in lost} == {("out_of_memory", "no room")}
        assert len(lost) + sum(isinstance(result, list) for result in results) == len(asks)
    assert ids_of(draws_of(policy, asks)) == ids_of(expected)

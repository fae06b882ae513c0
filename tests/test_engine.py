"""The engine draws what the model says, however its rows are batched, kept and evicted."""

import asyncio
import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from treeward.search import engine as engine_module
from treeward.search import shared_beginnings, transformers_policy
from treeward.search.attention import Shared
from treeward.search.engine import Engine, EngineSettings
from treeward.search.errors import BadInput, CallFailed
from treeward.search.jobs import Job
from treeward.search.kv_cache import Chunk, PrefixCache, SlotCache
from treeward.search.network import Network
from treeward.search.policy import Ask, Draw, LogprobAsk, Mode, PolicySettings, SomeFailed
from treeward.search.requests import Kind
from treeward.search.sampling import uniforms
from treeward.search.steps import Budget, Finish, Stepper, StepRule
from treeward.search.tokens import Tokens, load_tokens
from treeward.search.transformers_policy import (
    TransformersPolicy,
    TransformersSettings,
    load_model,
)

CHARACTERS = "\n 0123456789+-*/=A"
VOCABULARY = 37
"""Odd, and more than the tokenizer has."""

SMALL = EngineSettings(slots=5, chunk=4, prefill_rows=3, bucket=16)
EXACT = EngineSettings(slots=5, chunk=4, prefill_rows=3, bucket=16, mode=Mode.DETERMINISTIC)


def save_model(folder: Path, config: transformers.PreTrainedConfig) -> Path:
    """Saves a model with random weights and a tokenizer of characters."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    ids = {"<unk>": 0, "<eos>": 1, **{char: at for at, char in enumerate(CHARACTERS, start=2)}}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.add_special_tokens(["<unk>", "<eos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "eos_token_id": 1,
    "bos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module", params=[4, 2], ids=["all-heads", "grouped-heads"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.LlamaConfig(**SHAPE, num_key_value_heads=request.param)
    return save_model(tmp_path_factory.mktemp("model"), config)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def asks_for(tokens: Tokens, n: int, **sampling: Any) -> list[Ask]:
    """Asks of both kinds, with prompts of many lengths that share beginnings."""
    rng = random.Random(0)
    asks = []
    for place in range(n):
        prompt = "12 *3 -4 +7 *2 -1"[: rng.randrange(1, 17)] + "\n"
        steps = ["12*3=36\n", "36-4=32\n", "32+7=39\n"][: rng.randrange(4)]
        asks.append(
            Ask(
                prompt_ids=tuple(tokens.encode_prompt(prompt)),
                prefix_ids=tuple(tokens.encode("".join(steps))),
                kind=Kind.ROLLOUT if place % 2 else Kind.SAMPLE,
                seeds=tuple(rng.randrange(2**63) for _ in range(1 + place % 4)),
                settings=PolicySettings(
                    **{"max_step_tokens": 12, "max_rollout_tokens": 45} | sampling
                ),
                rule=StepRule(answer_mark="A"),
                stick_to="p",
            )
        )
    return asks


def rollout(tokens: Tokens, **sampling: Any) -> Ask:
    return replace(asks_for(tokens, 1, **sampling)[0], kind=Kind.ROLLOUT)


def drawn_plainly(model: Any, tokens: Tokens, ask: Ask, seed: int) -> Draw:
    """The reference: the whole sequence through the model for every token, noise as promised."""
    ids: list[int] = []
    total = 0.0
    room = ask.settings.max_rollout_tokens - len(ask.prefix_ids)
    budget = Budget(step=ask.settings.max_step_tokens, total=room)
    stepper = Stepper.after(ask.prefix_ids, tokens, ask.rule, budget)
    while True:
        inputs = torch.tensor([[*ask.prompt_ids, *ask.prefix_ids, *ids]])
        with torch.inference_mode():
            logits = model(input_ids=inputs).logits[0, -1].double().numpy()
        logprobs = logits - np.logaddexp.reduce(logits)
        weights = np.exp((logits - logits.max()) / ask.settings.temperature)
        noise = uniforms(np.array([seed], np.uint64), np.array([len(ids)], np.uint64))[0]
        token = int(np.searchsorted(np.cumsum(weights / weights.sum()), noise, side="right"))
        ids.append(token)
        total += float(logprobs[token])
        finish = stepper.feed(token)
        if finish is not None and not (finish is Finish.STEP and ask.kind is Kind.ROLLOUT):
            return Draw(tuple(ids), total, finish)


Result = list[Draw] | BaseException


def run(engine: Engine, asks: Sequence[Ask], at_once: int = 64) -> list[Result]:
    """What an engine replies to asks of which so many are under way at once."""
    results: dict[int, Result] = {}
    left = list(range(len(asks)))[::-1]
    under_way: set[int] = set()
    while left or engine.busy:
        while left and len(under_way) < at_once:
            place = left.pop()

            def done(result: Result, place: int = place) -> None:
                assert place not in results, "every ask is answered once"
                results[place] = result
                under_way.discard(place)

            under_way.add(place)
            engine.add(Job(ask=asks[place], done=done))
        if engine.busy:
            engine.tick()
    return [results[place] for place in range(len(asks))]


def engine_of(folder: Path, settings: EngineSettings) -> Engine:
    mode = TransformersSettings(mode=settings.mode, threads=1)
    return Engine(load_model(folder, mode), load_tokens(folder), settings)


@pytest.mark.parametrize("settings", [SMALL, EXACT], ids=["normal", "deterministic"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_draws_are_those_of_the_plain_model(
    folder: Path, settings: EngineSettings, temperature: float
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokens = load_tokens(folder)
    asks = asks_for(tokens, 14, temperature=temperature)
    expected = [[drawn_plainly(model, tokens, ask, seed) for seed in ask.seeds] for ask in asks]
    finishes = {draw.finish for draws in expected for draw in draws}
    assert finishes == set(Finish), "the asks end in all ways"
    for draws, reference in zip(run(engine_of(folder, settings), asks), expected, strict=True):
        assert not isinstance(draws, BaseException)
        for draw, plain in zip(draws, reference, strict=True):
            assert (draw.token_ids, draw.finish) == (plain.token_ids, plain.finish)
            assert draw.logprob == pytest.approx(plain.logprob, abs=1e-4)


def test_rows_that_are_read_together_draw_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokens = load_tokens(folder)
    asks = asks_for(tokens, 14)
    expected = [[drawn_plainly(model, tokens, ask, seed) for seed in ask.seeds] for ask in asks]
    for name, value in (("STEP", 1), ("SPLIT", 0), ("EACH", 0)):
        monkeypatch.setattr(shared_beginnings, name, value)
    found: list[Shared | None] = []

    def find(*args: Any) -> Shared | None:
        found.append(shared_beginnings.find_shared(*args))
        return found[-1]

    monkeypatch.setattr(engine_module, "find_shared", find)
    for draws, reference in zip(run(engine_of(folder, SMALL), asks), expected, strict=True):
        assert not isinstance(draws, BaseException)
        for draw, plain in zip(draws, reference, strict=True):
            assert (draw.token_ids, draw.finish) == (plain.token_ids, plain.finish)
            assert draw.logprob == pytest.approx(plain.logprob, abs=1e-4)
    assert {len(shared.leaders) > 1 for shared in found if shared} == {False, True}
    count = len(found)
    run(engine_of(folder, EXACT), asks)
    assert len(found) == count, "deterministic passes read every row by itself"


def test_deterministic_bits_do_not_depend_on_companions(folder: Path) -> None:
    """Token ids and exact log-probabilities, for batch sizes, orders and caches of all kinds."""
    tokens = load_tokens(folder)
    asks = asks_for(tokens, 12) + asks_for(tokens, 12, max_rollout_tokens=60, top_p=0.9)
    expected = run(engine_of(folder, EXACT), asks, at_once=1)
    for at_once in (8, 64):
        order = random.Random(at_once).sample(range(len(asks)), len(asks))
        results = run(engine_of(folder, EXACT), [asks[place] for place in order], at_once)
        assert results == [expected[place] for place in order]
    forgetful = EngineSettings(
        **{name: getattr(EXACT, name) for name in ("slots", "chunk", "prefill_rows", "bucket")},
        mode=Mode.DETERMINISTIC,
        prefix_cache_bytes=1,
    )
    assert run(engine_of(folder, forgetful), asks, at_once=8) == expected
    one_by_one = [
        Ask(**{name: getattr(ask, name) for name in ask.__slots__} | {"seeds": (seed,)})
        for ask in asks
        for seed in ask.seeds
    ]
    alone = run(engine_of(folder, EXACT), one_by_one, at_once=13)
    whole = [draw for draws in expected if isinstance(draws, list) for draw in draws]
    assert [draws[0] for draws in alone if isinstance(draws, list)] == whole


class Passes:
    """Counts the rows and tokens that a network's passes read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoded_rows: list[int] = []
        self.prefilled_tokens = 0
        forward = Network.forward

        def counting(
            network: Network, ids: torch.Tensor, *args: Any, **kwargs: Any
        ) -> torch.Tensor:
            if any(isinstance(arg, SlotCache) for arg in args):
                self.decoded_rows.append(len(ids))
            else:
                self.prefilled_tokens += ids.numel()
            return forward(network, ids, *args, **kwargs)

        monkeypatch.setattr(Network, "forward", counting)


def test_slots_are_as_long_as_their_rows_and_no_longer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass reads no more than what its longest row needs and what slots grow and shrink by."""
    room: list[tuple[int, int]] = []
    set_pass = SlotCache.set_pass

    def noting(cache: SlotCache, positions: torch.Tensor) -> None:
        room.append((int(positions.max()) + 1, cache.room))
        set_pass(cache, positions)

    asks = asks_for(load_tokens(folder), 14)
    expected = run(engine_of(folder, SMALL), asks)
    monkeypatch.setattr(SlotCache, "set_pass", noting)
    monkeypatch.setattr(engine_module, "_GROWTH", 4)
    for draws, others in zip(run(engine_of(folder, SMALL), asks), expected, strict=True):
        assert isinstance(draws, list)
        assert isinstance(others, list)
        assert [draw.token_ids for draw in draws] == [draw.token_ids for draw in others]
    assert all(need <= there < need + 3 * 4 for need, there in room)
    changes = {after - before for (_, before), (_, after) in pairwise(room)}
    assert min(changes) < 0 < max(changes)


def test_slots_keep_what_they_hold_when_their_room_changes() -> None:
    cache = SlotCache((2, 4, 3, 5), torch.float32, "cpu")
    cache.make_room(6, 0)
    chunks = [Chunk(kv_L2JTD=torch.randn(2, 2, 3, 6, 5), logits_V=torch.zeros(0)) for _ in range(2)]
    for slot, chunk in enumerate(chunks):
        cache.fill(slot, [chunk])
    cache.make_room(9, 2)
    assert cache.room == 9
    for slot, chunk in enumerate(chunks):
        assert torch.equal(cache.copy(slot, 6).kv_L2JTD, chunk.kv_L2JTD)
    cache.make_room(4, 1)
    assert torch.equal(cache.copy(0, 4).kv_L2JTD, chunks[0].kv_L2JTD[:, :, :, :4])


def test_finished_rows_leave_and_their_slots_are_used_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    asks = asks_for(load_tokens(folder), 20)
    results = run(engine_of(folder, SMALL), asks)
    draws = [draw for draws in results if isinstance(draws, list) for draw in draws]
    assert len(draws) > 4 * SMALL.slots
    # The first token comes from the prefix; each other one needs a row of a pass, and what several
    # draws of an ask begin with needs it once.
    assert sum(passes.decoded_rows) == sum(map(n_beginnings, results))
    assert max(passes.decoded_rows) == SMALL.slots
    # Slots are full until the last rows: fewer passes are short than the longest row has tokens.
    assert sum(rows < SMALL.slots for rows in passes.decoded_rows) <= 45


def n_beginnings(draws: Result) -> int:
    """How many different beginnings of at least one token the draws of an ask go on from."""
    assert isinstance(draws, list)
    return len({draw.token_ids[:n] for draw in draws for n in range(1, len(draw.token_ids))})


@pytest.mark.parametrize("settings", [SMALL, EXACT], ids=["normal", "deterministic"])
def test_what_draws_have_in_common_is_computed_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: EngineSettings
) -> None:
    passes = Passes(monkeypatch)
    asks = [
        replace(ask, seeds=tuple(range(8)))
        for ask in asks_for(load_tokens(folder), 6, temperature=0.4)
    ]
    results = run(engine_of(folder, settings), asks)
    n_tokens = sum(len(d.token_ids) for draws in results if isinstance(draws, list) for d in draws)
    rows = sum(map(n_beginnings, results))
    assert rows < 0.8 * n_tokens
    if settings is SMALL:
        assert sum(passes.decoded_rows) == rows
    # Six asks with eight rows on five slots: most branches wait with a copy before they go on.
    one_by_one = [replace(ask, seeds=(seed,)) for ask in asks for seed in ask.seeds]
    alone = run(engine_of(folder, settings), one_by_one, at_once=1)
    together = [draw for draws in results if isinstance(draws, list) for draw in draws]
    for draws, draw in zip(alone, together, strict=True):
        assert isinstance(draws, list)
        assert draws[0].token_ids == draw.token_ids
        exact = settings is EXACT
        assert draws[0].logprob == (
            draw.logprob if exact else pytest.approx(draw.logprob, abs=1e-4)
        )


def test_a_prefix_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Passes(monkeypatch)
    ask = asks_for(load_tokens(folder), 4)[3]
    many = [ask, *(asks_for(load_tokens(folder), 4)[3] for _ in range(5))]
    engine = engine_of(folder, SMALL)
    run(engine, many)
    length = len(ask.prompt_ids) + len(ask.prefix_ids)
    assert passes.prefilled_tokens == length
    run(engine, many)
    assert passes.prefilled_tokens == length


def test_new_asks_are_read_when_slots_come_free(folder: Path) -> None:
    """Twenty asks and five slots: five are read at once, and others only when few still wait."""
    engine = engine_of(folder, SMALL)
    asks = [replace(ask, seeds=(1,)) for ask in asks_for(load_tokens(folder), 20)]
    asks = [replace(ask, prompt_ids=(2 + place, *ask.prompt_ids)) for place, ask in enumerate(asks)]
    results: list[Result] = []
    for ask in asks:
        engine.add(Job(ask=ask, done=results.append))
    lengths = [len(ask.prompt_ids + ask.prefix_ids) for ask in asks]
    engine.tick()
    assert engine.read_tokens == sum(lengths[:5])
    while engine.busy:
        read = next(n for n in range(21) if sum(lengths[:n]) == engine.read_tokens)
        assert read - len(results) <= SMALL.slots + SMALL.prefill_rows + SMALL.slots
        engine.tick()
    assert len(results) == 20
    assert engine.read_tokens == sum(lengths)


def test_what_does_not_fit_the_context_is_a_failed_call(folder: Path) -> None:
    engine = engine_of(folder, SMALL)
    tokens = load_tokens(folder)
    fits, too_long = (rollout(tokens, max_rollout_tokens=n) for n in (100, 128))
    only_a_step = replace(too_long, kind=Kind.SAMPLE)
    results = run(engine, [too_long, fits, only_a_step])
    assert isinstance(results[0], CallFailed)
    assert results[0].kind == "context_length"
    assert "the model has 128" in results[0].message
    assert isinstance(results[1], list)
    assert isinstance(results[2], list)


def test_no_seeds_are_no_draws(folder: Path) -> None:
    ask = asks_for(load_tokens(folder), 1)[0]
    nothing = Ask(**{name: getattr(ask, name) for name in ask.__slots__} | {"seeds": ()})
    assert run(engine_of(folder, SMALL), [nothing]) == [[]]


def test_a_row_that_fails_costs_no_other(folder: Path) -> None:
    tokens = load_tokens(folder)
    results: list[Result] = []
    job = Job(ask=replace(rollout(tokens), seeds=(5, 6, 7)), done=results.append)
    first, second, third = job.start(tokens)
    second.fail(CallFailed("engine", "it broke"))
    (end,) = tokens.eos_ids
    for row in (third, first):
        assert not results
        assert not row.extend(end, -0.5)
    (failed,) = results
    assert isinstance(failed, SomeFailed)
    assert (failed.kind, failed.message) == ("engine", "it broke")
    assert {seed: draw.token_ids for seed, draw in failed.draws.items()} == {5: (end,), 7: (end,)}


def test_logits_that_are_not_numbers_are_a_failed_call(folder: Path) -> None:
    settings = TransformersSettings(threads=1)
    model = load_model(folder, settings)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    asks = asks_for(load_tokens(folder), 5)
    results = run(Engine(model, load_tokens(folder), SMALL), asks)
    assert [getattr(result, "kind", None) for result in results] == ["not_a_number"] * 5


# The policy: the engine on a thread of its own.


async def drawn_by(policy: TransformersPolicy, asks: Sequence[Ask], at_once: int) -> list[Result]:
    gate = asyncio.Semaphore(at_once)

    async def one(ask: Ask) -> list[Draw]:
        async with gate:
            return await policy.draw(ask)

    async with asyncio.timeout(60):
        return await asyncio.gather(*map(one, asks), return_exceptions=True)


def policy_of(folder: Path, mode: Mode = Mode.NORMAL) -> TransformersPolicy:
    settings = TransformersSettings(threads=1, mode=mode, slots=8)
    return TransformersPolicy(folder, "fingerprint", settings)


@pytest.mark.parametrize("mode", Mode)
def test_weights_are_laid_out_where_bits_may_differ(
    folder: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[torch.nn.Module] = []
    monkeypatch.setattr(transformers_policy, "pack_linear", packed.append)
    asyncio.run(policy_of(folder, mode).close())
    assert len(packed) == (mode is Mode.NORMAL)


def test_the_policy_replies_alike_whatever_is_under_way(folder: Path) -> None:
    async def go() -> list[list[Result]]:
        results = []
        for at_once in (1, 8, 64):
            policy = policy_of(folder, Mode.DETERMINISTIC)
            asks = asks_for(policy.tokens, 30)
            results.append(await drawn_by(policy, asks, at_once))
            await policy.close()
        return results

    for one, other in pairwise(asyncio.run(go())):
        assert all(isinstance(draws, list) for draws in one)
        assert one == other


def test_an_error_of_the_engine_reaches_all_who_wait(folder: Path) -> None:
    error = ZeroDivisionError("bug")

    async def go() -> None:
        policy = policy_of(folder)
        asks = asks_for(policy.tokens, 3)

        def broken() -> None:
            raise error

        policy.engine.tick = broken  # type: ignore[method-assign]  # a bug, injected
        assert await drawn_by(policy, asks, at_once=3) == [error] * 3
        assert await drawn_by(policy, asks[:1], at_once=1) == [error]
        async with asyncio.timeout(10):
            await policy.close()

    asyncio.run(go())


def test_running_out_of_memory_fails_the_calls_under_way_only(folder: Path) -> None:
    async def go() -> None:
        policy = policy_of(folder)
        asks = asks_for(policy.tokens, 3)
        expected = await drawn_by(policy, asks, at_once=3)
        tick = policy.engine.tick
        fails = [True]

        def broken() -> None:
            if fails.pop():
                raise torch.OutOfMemoryError("no room\nmore")
            policy.engine.tick = tick  # type: ignore[method-assign]
            tick()

        fails.insert(0, False)
        policy.engine.tick = broken  # type: ignore[method-assign]  # injected
        lost = await drawn_by(policy, asks[:1], at_once=1)
        assert isinstance(lost[0], CallFailed)
        assert (lost[0].kind, lost[0].message) == ("out_of_memory", "no room")
        assert await drawn_by(policy, asks, at_once=3) == expected
        await policy.close()

    asyncio.run(go())


def test_a_closed_policy_refuses_and_does_not_hang(folder: Path) -> None:
    async def go() -> None:
        policy = policy_of(folder)
        ask = asks_for(policy.tokens, 1)[0]
        async with asyncio.timeout(10):
            waiting = asyncio.create_task(policy.draw(ask))
            await waiting
            await policy.close()
            with pytest.raises(CallFailed, match="closed"):
                await policy.draw(ask)
            await policy.close()

    asyncio.run(go())


def test_a_deterministic_policy_is_known_by_all_that_decides_its_bits(folder: Path) -> None:
    async def identity(mode: Mode) -> dict[str, str | int]:
        policy = policy_of(folder, mode)
        await policy.close()
        return policy.identity

    exact = asyncio.run(identity(Mode.DETERMINISTIC))
    assert exact["fingerprint"] == "fingerprint"
    assert exact["dtype"] == "float32"
    assert exact.keys() >= {"slots", "threads", "torch", "transformers"}
    assert "slots" not in asyncio.run(identity(Mode.NORMAL))


# Which models it runs.

TEXT = TransformersSettings(threads=1)


def test_models_whose_logits_are_scaled_are_refused(tmp_path: Path) -> None:
    shape = SHAPE | {"num_key_value_heads": 2, "logits_scaling": 8.0, "pad_token_id": 0}
    says = r"neither scale nor cap their logits; this 'granite' does"
    with pytest.raises(BadInput, match=says):
        load_model(save_model(tmp_path, transformers.GraniteConfig(**shape)), TEXT)


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    config = transformers.MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=50)
    engine = engine_of(save_model(tmp_path, config), SMALL)
    long, short = (rollout(load_tokens(tmp_path), max_rollout_tokens=n) for n in (50, 33))
    results = run(engine, [long, short])
    assert isinstance(results[0], CallFailed)
    assert isinstance(results[1], list)


def test_other_architectures_are_refused_by_name(tmp_path: Path) -> None:
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=8, n_layer=1, n_head=1)
    with pytest.raises(BadInput, match="this 'gpt2'"):
        load_model(save_model(tmp_path, config), TEXT)


@pytest.mark.parametrize("damage", ["lacking", "truncated", "other shapes"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    config = transformers.LlamaConfig(**SHAPE, num_key_value_heads=2)
    folder = save_model(tmp_path, config)
    weights = folder / "model.safetensors"
    written = json.loads((folder / "config.json").read_text())
    if damage == "lacking":
        written["num_hidden_layers"] = 3
    elif damage == "other shapes":
        written["intermediate_size"] = 64
    else:
        weights.write_bytes(weights.read_bytes()[:-40])
    (folder / "config.json").write_text(json.dumps(written))
    with pytest.raises(BadInput) as raised:
        load_model(folder, TEXT)
    assert str(raised.value).startswith(f"{folder}: ")
    assert "\n" not in str(raised.value)


# What is kept of prefixes.


def chunk(numbers: int) -> Chunk:
    """A chunk of so many numbers, the logits included."""
    kv = torch.zeros((1, 2, 1, 1, numbers // 2))
    return Chunk(kv_L2JTD=kv, logits_V=torch.zeros(numbers % 2))


def test_the_longest_unused_prefixes_are_dropped() -> None:
    cache = PrefixCache(max_bytes=4 * 10)
    cache.put((1,), chunk(5))
    cache.put((2,), chunk(5))
    assert cache.get((1,)) is not None
    cache.put((3,), chunk(4))
    assert cache.get((2,)) is None
    assert cache.get((1,)) is not None
    for _ in range(9):
        cache.put((3,), chunk(4))
    assert cache.get((1,)) is not None, "a chunk counts once"
    cache.put((4,), chunk(100))
    assert cache.get((4,)) is not None, "the newest stays, whatever its size"
    assert cache.get((1,)) is None
    assert (cache.hits, cache.misses) == (4, 2)


def given(prompt: Sequence[int], ids: Sequence[int]) -> LogprobAsk:
    return LogprobAsk(prompt_ids=tuple(prompt), ids=tuple(ids), stick_to="p")


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_given_is_as_likely_as_what_is_drawn(folder: Path, mode: Mode) -> None:
    async def go() -> None:
        policy = policy_of(folder, mode)
        asks = asks_for(policy.tokens, 12)
        calls, drawn = [], []
        for ask, draws in zip(asks, await drawn_by(policy, asks, at_once=12), strict=True):
            assert isinstance(draws, list)
            drawn += draws
            calls += [given(ask.prompt_ids + ask.prefix_ids, draw.token_ids) for draw in draws]
        told = await asyncio.gather(*map(policy.logprobs, calls))
        for each, draw in zip(told, drawn, strict=True):
            assert len(each) == len(draw.token_ids)
            assert sum(each) == pytest.approx(draw.logprob, abs=1e-3)
        assert await policy.logprobs(calls[0]) == told[0], "whatever is under way"
        await policy.close()

    asyncio.run(go())


def test_given_tokens_have_the_plain_models_log_probabilities(folder: Path) -> None:
    """More of them than are looked at together; the last that fits, and one more."""
    ids = [2 + at * at % 15 for at in range(128)]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    logprobs = model(torch.tensor([ids])).logits[0].detach().log_softmax(-1)

    async def go() -> None:
        policy = policy_of(folder)
        found = await policy.logprobs(given(ids[:3], ids[3:]))
        assert found == pytest.approx(
            [float(logprobs[at - 1, ids[at]]) for at in range(3, 128)], abs=1e-4
        )
        with pytest.raises(CallFailed, match="129 positions needed, the model has 128"):
            await policy.logprobs(given(ids[:3], [*ids[3:], 2]))
        await policy.close()

    asyncio.run(go())


def test_logits_that_are_no_numbers_say_nothing_of_given_tokens(folder: Path) -> None:
    async def go() -> None:
        policy = policy_of(folder)
        head = policy.engine._network._head
        head.weight.data = head.weight.data * math.inf  # type: ignore[attr-defined]
        with pytest.raises(CallFailed, match="not numbers"):
            await policy.logprobs(given([3, 4], [5, 6]))
        await policy.close()

    asyncio.run(go())

"""Draws from servers are those of a backend in process; how calls are made and given up."""

import asyncio
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from tests.fake_server import (
    Event,
    FakeServer,
    Reply,
    Token,
    Wire,
    chunk_of,
    events_of,
    serving,
    sound,
)
from tests.http_fakes import (
    Time,
    ask_for,
    drawn,
    expected,
    expected_draw,
    policy_of,
    says,
    script,
    status,
)

from treeward.search.errors import CallFailed
from treeward.search.http_calls import Caller
from treeward.search.http_settings import HttpSettings
from treeward.search.policy import Ask, Draw, LogprobAsk, PolicySettings
from treeward.search.requests import Kind
from treeward.search.steps import Finish, StepRule


@pytest.mark.parametrize("at_once", [1, 3, 100], ids="{} tokens an event".format)
@pytest.mark.parametrize("kind", [Kind.SAMPLE, Kind.ROLLOUT])
def test_draws_are_those_of_a_backend_in_process(kind: Kind, at_once: int) -> None:
    """Whatever the server sends beyond the end is dropped."""
    ask = ask_for(kind, range(40))
    server = FakeServer(sound(says, at_once=at_once))
    with serving(server):
        (draws,) = drawn(policy_of([server.url], Time()), ask)
    assert draws == expected(ask)
    assert {draw.finish for draw in expected(ask)} >= {Finish.END, Finish.LENGTH}
    assert sorted(body["seed"] for body in server.bodies) == [*range(40)]
    assert all(body["prompt"] == [*b"Q\ngo\n"] for body in server.bodies)


def test_a_thought_may_hold_the_delimiter() -> None:
    def thinks(prompt: tuple[int, ...], seed: int) -> Iterable[Token]:
        return [(token, -1.0) for token in b"<think>\n\n</think>A1\nmore"]

    ask = ask_for(seeds=[1])
    ask = Ask(
        **{name: getattr(ask, name) for name in Ask.__slots__}
        | {"rule": StepRule(answer_mark="A", think=True)}
        | {"settings": PolicySettings(max_step_tokens=40, max_rollout_tokens=60)}
    )
    server = FakeServer(sound(thinks))
    with serving(server):
        (draws,) = drawn(policy_of([server.url], Time()), ask)
    assert draws == [Draw(tuple(b"<think>\n\n</think>A1\n"), -20.0, Finish.END)]


def test_nobody_listens() -> None:
    server = FakeServer(sound(says))
    with serving(server):
        url = server.url
    (failed,) = drawn(policy_of([url], Time(), retries=1), ask_for())
    assert isinstance(failed, CallFailed)
    assert failed.kind == "connection"


async def hangs(body: Event, wire: Wire) -> None:
    await wire.begin()
    await wire.event(next(events_of(body, says)))
    await wire.until_left()


async def keeps_alive(body: Event, wire: Wire) -> None:
    """Sends bytes, and empty events, but no token after the first."""
    await wire.begin()
    await wire.event(next(events_of(body, says)))
    while True:
        await asyncio.sleep(0.02)
        await wire.chunk(": keep-alive\n\n")
        await wire.event(chunk_of(body, 1, [], None))


async def never_begins(_: Event, wire: Wire) -> None:
    await wire.until_left()


@pytest.mark.parametrize("fault", [hangs, keeps_alive, never_begins])
def test_a_call_without_new_tokens_is_given_up(fault: Reply) -> None:
    ask = ask_for(seeds=[4])
    server = FakeServer(script(fault, sound(says)))
    with serving(server):
        (draws,) = drawn(policy_of([server.url], Time(), timeout=0.3), ask)
        assert draws == expected(ask)
        server.reply = fault
        (failed,) = drawn(policy_of([server.url], Time(), timeout=0.3, retries=0), ask)
    assert isinstance(failed, CallFailed)
    assert failed.kind == "timeout"


def test_a_slow_call_goes_on_while_tokens_come() -> None:
    """The reply takes over twice as long as the deadline, which each token puts off."""

    async def slow(body: Event, wire: Wire) -> None:
        await wire.begin()
        for event in events_of(body, says):
            await asyncio.sleep(0.2)
            await wire.event(event)
        await wire.event("[DONE]")
        await wire.end()

    ask = ask_for(
        seeds=[next(s for s in range(99) if len(expected_draw(ask_for(), s).token_ids) == 8)]
    )
    server = FakeServer(slow)
    with serving(server):
        (draws,) = drawn(policy_of([server.url], Time(), timeout=0.7, retries=0), ask)
    assert draws == expected(ask)


def test_leaving_a_stream_ends_the_work() -> None:
    """A rollout ends with its answer, which the server cannot know; it sees the client leave."""
    left: list[bool] = []

    async def goes_on(body: Event, wire: Wire) -> None:
        await wire.begin()
        for event in events_of({**body, "max_tokens": 10**6}, says):
            await wire.event(event)
            await asyncio.sleep(0.001)
            if wire.reader.at_eof():
                left.append(True)
                return

    ask = ask_for(Kind.ROLLOUT, range(4))
    server = FakeServer(goes_on)
    with serving(server):
        (draws,) = drawn(policy_of([server.url], Time()), ask)
        assert draws == expected(ask)
        for _ in range(500):
            if server.in_flight:
                asyncio.run(asyncio.sleep(0.01))
        assert server.in_flight == 0


@pytest.mark.parametrize(("kind", "longest"), [(Kind.ROLLOUT, 24), (Kind.SAMPLE, 53)])
def test_an_ask_that_does_not_fit_the_context_is_not_sent(kind: Kind, longest: int) -> None:
    """Of 64 positions the prefix takes 3, and a step 8 or the rest of a solution 37."""
    server = FakeServer(sound(says))
    asks = [replace(ask_for(kind), prompt_ids=tuple(b"Q" * n)) for n in (longest, longest + 1)]
    with serving(server):
        fits, failed = drawn(policy_of([server.url], Time()), *asks)
    assert isinstance(fits, list)
    assert isinstance(failed, CallFailed)
    assert failed.kind == "context_length"
    assert {tuple(body["prompt"]) for body in server.bodies} == {(81,) * longest + tuple(b"go\n")}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7.5"}, 7.5),
        (
            {
                "retry_after": "Wed, 21 Oct 2026 07:28:40 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            40.0,
        ),
    ],
    ids=["seconds", "date"],
)
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_honoured(code: int, headers: dict[str, str], seconds: float) -> None:
    time = Time()
    asked: list[float] = []

    async def note(_: Event, __: Wire) -> None:
        asked.append(time.now)

    async def told(body: Event, wire: Wire) -> None:
        await note(body, wire)
        await status(code, **headers)(body, wire)

    async def fine(body: Event, wire: Wire) -> None:
        await note(body, wire)
        await sound(says)(body, wire)

    ask = ask_for(seeds=[4])
    server = FakeServer(script(told, told, fine))
    with serving(server):
        (draws,) = drawn(policy_of([server.url], time), ask)
    assert draws == expected(ask)
    assert all(after - before >= seconds for before, after in pairwise(asked))


def test_pauses_grow_and_are_spread() -> None:
    """Each pause is anywhere below a bound that doubles: 1, 2, 4, ... 30 seconds."""
    caller = Caller(["http://127.0.0.1:9/v1"], HttpSettings(), jitter=random.Random(0))
    pauses = [[caller.pause(attempt) for attempt in range(1, 8)] for _ in range(50)]
    bounds = [1, 2, 4, 8, 16, 30, 30]
    for bound, column in zip(bounds, zip(*pauses, strict=True), strict=True):
        # 50 uniform draws miss both outer quarters with probability 2 * .75 ** 50 < 2e-6.
        assert 0 <= min(column) < bound / 4
        assert 3 * bound / 4 < max(column) <= bound
    assert 0 <= caller.pause(10**6) <= 30


ASK = LogprobAsk(prompt_ids=tuple(b"Q\n"), ids=tuple(b"go\n"), stick_to="p")
TOLD = [-0.5, -0.25, -2.0]


def told(body: Event, logprobs: Sequence[float] = TOLD, **fields: object) -> Event:
    """What vLLM says of a prompt: nothing of its first token."""
    of_each = zip(body["prompt"], [-9.0] * 2 + [*logprobs], strict=False)
    said = [{str(token): {"logprob": each, "rank": 1}} for token, each in of_each]
    choice = {"prompt_token_ids": body["prompt"], "prompt_logprobs": [None, *said[1:]]}
    return {"choices": [choice | fields]}


def replies(**fields: object) -> Reply:
    async def reply(body: Event, wire: Wire) -> None:
        await wire.plain(200, json.dumps(told(body, **fields)))  # type: ignore[arg-type]

    return reply


def logprobs_from(*first: Reply, retries: int = 2) -> tuple[list[float] | CallFailed, FakeServer]:
    """What a server says that replies so at first, then soundly."""
    server = FakeServer(script(*first, replies()))
    with serving(server):

        async def go() -> list[float] | CallFailed:
            policy = policy_of([server.url], Time(), retries=retries)
            try:
                return await policy.logprobs(ASK)
            except CallFailed as e:
                return e
            finally:
                await policy.close()

        return asyncio.run(go()), server


def test_a_server_says_how_likely_given_tokens_are() -> None:
    found, server = logprobs_from()
    assert found == TOLD
    (body,) = server.bodies
    assert (body["prompt"], body["prompt_logprobs"]) == ([*b"Q\ngo\n"], 0)
    assert (body["max_tokens"], body["stream"]) == (1, False)


@pytest.mark.parametrize(
    "fault",
    [
        status(503),
        replies(prompt_token_ids=[*b"Q\nup\n"]),
        replies(prompt_logprobs=[None, {}]),
        replies(logprobs=[-0.5, -0.25, 0.5]),
        replies(logprobs=[-0.5, -0.25, float("nan")]),
        replies(logprobs=[-0.5, -0.25, -9999.0]),
        replies(logprobs=[-0.5]),
    ],
    ids=[
        "busy",
        "other ids",
        "too few",
        "no log-probability",
        "no number",
        "impossible",
        "cut short",
    ],
)
def test_what_a_server_says_of_given_tokens_is_checked(fault: Reply) -> None:
    found, server = logprobs_from(fault)
    assert found == TOLD
    assert len(server.bodies) == 2
    failed, _ = logprobs_from(fault, fault, retries=1)
    assert isinstance(failed, CallFailed)


def test_a_server_that_says_nothing_of_given_tokens_is_asked_once() -> None:
    failed, server = logprobs_from(replies(prompt_logprobs=None))
    assert isinstance(failed, CallFailed)
    assert failed.kind == "bad_reply"
    assert "does not tell the log-probabilities" in failed.message
    assert len(server.bodies) == 1


def test_what_is_given_and_does_not_fit_is_not_sent() -> None:
    server = FakeServer(replies())
    with serving(server):

        async def go() -> None:
            policy = policy_of([server.url], Time())
            with pytest.raises(CallFailed, match="65 positions needed, the model has 64"):
                await policy.logprobs(replace(ASK, ids=tuple(range(62))))
            await policy.close()

        asyncio.run(go())
    assert not server.bodies

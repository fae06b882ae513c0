"""Whatever servers do, a draw is what was asked for, or the call failed and says why."""

import asyncio
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
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
from tests.fakes import Exact, Memory

from treeward.export.columns import Origin, tree_tables
from treeward.search.errors import CallFailed
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.http_policy import HttpPolicy
from treeward.search.http_replicas import Clock, Sleep
from treeward.search.http_settings import HttpService, HttpSettings, Served
from treeward.search.mcts import mcts
from treeward.search.policy import Ask, Draw, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.requests import Kind
from treeward.search.settings import SearchSettings
from treeward.search.steps import Budget, Finish, Stepper, StepRule
from treeward.search.tokens import byte_tokens
from treeward.search.tree import Tree

TOKENS = byte_tokens()
END = 256
RULE = StepRule(answer_mark="A")


def says(prompt: tuple[int, ...], seed: int) -> Iterator[Token]:
    """Steps without end; what comes next depends on the seed and on what stands before."""
    text = bytes(prompt)
    while True:
        rng = random.Random(f"{seed}:{text!r}")
        step = rng.choice([b"go\n", b"up\n", b"x" * 12 + b"\n", b"A0\n", b"A1\n", b"."])
        text += step
        for token in (END,) if step == b"." else step:
            yield token, -rng.random()


def ask_for(kind: Kind = Kind.SAMPLE, seeds: Sequence[int] = (1, 2, 3), word: str = "p") -> Ask:
    return Ask(
        prompt_ids=tuple(b"Q\n"),
        prefix_ids=tuple(b"go\n"),
        kind=kind,
        seeds=tuple(seeds),
        settings=PolicySettings(max_step_tokens=8, max_rollout_tokens=40),
        rule=RULE,
        stick_to=word,
    )


def expected(ask: Ask) -> list[Draw]:
    """What a backend in process draws from the same model: cut where the step rule says."""
    return [_expected(ask, seed) for seed in ask.seeds]


def _expected(ask: Ask, seed: int) -> Draw:
    budget = Budget(step=8, total=40 - len(ask.prefix_ids))
    stepper = Stepper.after(ask.prefix_ids, TOKENS, ask.rule, budget)
    ids, logprob = [], 0.0
    for token, each in says(ask.prompt_ids + ask.prefix_ids, seed):
        ids.append(token)
        logprob += each
        finish = stepper.feed(token)
        if finish is not None and not (finish is Finish.STEP and ask.kind is Kind.ROLLOUT):
            return Draw(tuple(ids), logprob, finish)
    raise AssertionError


class Time:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        wake = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, wake)


def policy_of(urls: Sequence[str], time: Time, **settings: float | int) -> HttpPolicy:
    service = HttpService(
        urls=tuple(urls),
        served=Served(name="m", root="/m", context=64),
        settings=HttpSettings(**{"timeout": 10.0, **settings}),  # type: ignore[arg-type] # by name
    )
    clock: Clock = time.clock
    sleep: Sleep = time.sleep
    return HttpPolicy(service, TOKENS, "f", jitter=random.Random(0), clock=clock, sleep=sleep)


def drawn(policy: HttpPolicy, *asks: Ask) -> list[list[Draw] | BaseException]:
    """What comes of some asks at once; fails if that takes 20 seconds."""

    async def run() -> list[list[Draw] | BaseException]:
        async with asyncio.timeout(20):
            results = await asyncio.gather(*map(policy.draw, asks), return_exceptions=True)
            await policy.close()
            return results

    return asyncio.run(run())


def script(*replies: Reply) -> Reply:
    """Gives each call the next reply; the last one goes on."""
    left = list(replies)

    async def reply(body: Event, wire: Wire) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(body, wire)

    return reply


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


def status(code: int, **headers: str) -> Reply:
    async def reply(_: Event, wire: Wire) -> None:
        await wire.plain(code, json.dumps({"error": {"message": "no\nmore"}}), **headers)

    return reply


def spoiled(change: Callable[[list[Event]], list[Event]]) -> Reply:
    """Replies with the events of a sound server, changed."""

    async def reply(body: Event, wire: Wire) -> None:
        await wire.stream(change(list(events_of(body, says))))

    return reply


def with_choice(**fields: object) -> Reply:
    def change(events: list[Event]) -> list[Event]:
        events[1]["choices"][0].update(fields)
        return events

    return spoiled(change)


async def truncated_json(body: Event, wire: Wire) -> None:
    await wire.begin()
    await wire.event(next(events_of(body, says)))
    await wire.event('{"choices": [{"index": 0, "token_')
    await wire.event("[DONE]")
    await wire.end()


async def breaks_off(body: Event, wire: Wire) -> None:
    await wire.begin()
    await wire.event(next(events_of(body, says)))
    await wire.chunk('data: {"choices": [{"index"')
    await wire.break_off()


async def ends_in_the_middle(body: Event, wire: Wire) -> None:
    await wire.begin()
    await wire.event(next(events_of(body, says)))
    await wire.end()


async def done_too_soon(body: Event, wire: Wire) -> None:
    await wire.stream([next(events_of(body, says))])


async def hangs_up(_: Event, wire: Wire) -> None:
    await wire.break_off()


async def no_http(_: Event, wire: Wire) -> None:
    await wire.raw(b"hello\r\n\r\n")
    await wire.break_off()


async def no_stream(body: Event, wire: Wire) -> None:
    await wire.plain(200, json.dumps({"choices": [{"text": "A1\n"}]}))


async def reports_an_error(body: Event, wire: Wire) -> None:
    error: Event = {"error": {"message": "engine died", "code": 500}}
    await wire.stream([next(events_of(body, says)), error])


FAULTS: list[tuple[str, Reply, str]] = [
    ("429", status(429), "http_429"),
    ("500", status(500), "http_500"),
    ("502", status(502), "http_502"),
    ("503", status(503), "http_503"),
    ("408", status(408), "http_408"),
    ("truncated JSON", truncated_json, "bad_reply"),
    ("breaks off", breaks_off, "connection"),
    ("ends in the middle", ends_in_the_middle, "truncated"),
    ("done too soon", done_too_soon, "truncated"),
    ("hangs up", hangs_up, "connection"),
    ("no HTTP", no_http, "connection"),
    ("no stream", no_stream, "connection"),
    ("reports an error", reports_an_error, "http_500"),
    ("an event twice", spoiled(lambda events: [events[0], *events]), "bad_reply"),
    ("an event left out", spoiled(lambda events: [events[0], *events[2:]]), "bad_reply"),
    ("events swapped", spoiled(lambda e: [e[0], e[2], e[1], *e[3:]]), "bad_reply"),
    ("the reply twice", spoiled(lambda events: events[:-1] * 2), "bad_reply"),
    ("two choices", spoiled(lambda e: [{**e[0], "choices": e[0]["choices"] * 2}]), "bad_reply"),
    ("no counts", spoiled(lambda e: [{"choices": e[0]["choices"]}]), "bad_reply"),
    ("another event", spoiled(lambda _: [{"hello": 1}]), "bad_reply"),
    ("no object", spoiled(lambda _: [7]), "bad_reply"),  # type: ignore[list-item] # the point
    ("no ids", with_choice(token_ids=None), "bad_reply"),
    ("an unknown id", with_choice(token_ids=[257]), "bad_reply"),
    ("no log-probability", with_choice(logprobs={"token_logprobs": []}), "bad_reply"),
    ("NaN", with_choice(logprobs={"token_logprobs": [float("nan")]}), "bad_reply"),
    ("a logit", with_choice(logprobs={"token_logprobs": [3.5]}), "bad_reply"),
    ("null", with_choice(logprobs={"token_logprobs": [None]}), "bad_reply"),
    ("another prompt", with_choice(prompt_token_ids=[1, 2, 3, 4, 5]), "bad_reply"),
    ("ends at its own length", with_choice(finish_reason="length"), "bad_reply"),
    ("ends where no step does", with_choice(finish_reason="stop"), "bad_reply"),
    ("is aborted", with_choice(finish_reason="abort"), "bad_reply"),
]


@pytest.mark.parametrize(("fault", "kind"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_that_passes_leaves_no_trace(fault: Reply, kind: str) -> None:
    """Two calls fail, and the draw is the one of an undisturbed call with the same seed."""
    server = FakeServer(script(fault, fault, sound(says)))
    ask = ask_for(seeds=[4])
    with serving(server):
        (draws,) = drawn(policy_of([server.url], Time(), retries=2), ask)
    assert draws == expected(ask)
    assert len(server.bodies) == 3
    assert server.bodies[0] == server.bodies[1] == server.bodies[2]


@pytest.mark.parametrize(("fault", "kind"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_that_stays_is_a_failed_call_with_its_kind(fault: Reply, kind: str) -> None:
    server = FakeServer(fault)
    with serving(server):
        (failed,) = drawn(policy_of([server.url], Time(), retries=3), ask_for(seeds=[4]))
    assert isinstance(failed, CallFailed)
    assert failed.kind == kind
    assert server.url in failed.message
    assert "\n" not in failed.message
    assert len(server.bodies) == 4


@pytest.mark.parametrize("code", [400, 401, 404, 422])
def test_what_cannot_pass_is_not_tried_again(code: int) -> None:
    server = FakeServer(status(code))
    with serving(server):
        (failed,) = drawn(policy_of([server.url], Time()), ask_for(seeds=[4]))
    assert isinstance(failed, CallFailed)
    assert (failed.kind, len(server.bodies)) == (f"http_{code}", 1)
    assert failed.message == f"{server.url}: status {code}: no (attempt 1)"


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

    ask = ask_for(seeds=[next(s for s in range(99) if len(_expected(ask_for(), s).token_ids) == 8)])
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


def test_an_ask_that_does_not_fit_the_context_is_not_sent() -> None:
    server = FakeServer(sound(says))
    long = Ask(
        **{name: getattr(ask_for(), name) for name in Ask.__slots__}
        | {"prompt_ids": tuple(b"Q" * 25)}
    )
    with serving(server):
        (failed,) = drawn(policy_of([server.url], Time()), long)
    assert isinstance(failed, CallFailed)
    assert failed.kind == "context_length"
    assert server.bodies == []


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
    policy = policy_of(["http://127.0.0.1:9/v1"], Time())
    pauses = [[policy._pause(attempt) for attempt in range(1, 8)] for _ in range(50)]
    bounds = [1, 2, 4, 8, 16, 30, 30]
    for bound, column in zip(bounds, zip(*pauses, strict=True), strict=True):
        # 50 uniform draws miss both outer quarters with probability 2 * .75 ** 50 < 2e-6.
        assert 0 <= min(column) < bound / 4
        assert 3 * bound / 4 < max(column) <= bound


READER = Reader(Template(name="t", answer="A{answer}", rule=RULE), TOKENS)
PROBLEMS = [Problem(id=f"p{n}", prompt=f"{n}", answer="1") for n in range(6)]


def grow(policy: HttpPolicy) -> dict[str, Tree]:
    trees: dict[str, Tree] = {}
    forest = Forest(
        search=partial(mcts, settings=SearchSettings(simulations=4, width=3, rollouts=4)),
        policy=policy,
        reader=READER,
        verifier=Exact(),
        recorder=Memory(),
        sampling=PolicySettings(max_step_tokens=8, max_rollout_tokens=40),
        seed=7,
        tree_id=lambda problem: problem.id,
    )

    async def run() -> None:
        async with asyncio.timeout(60):
            plan = Plan(problems=iter(PROBLEMS), concurrency=6)
            await grow_forest(forest, plan, lambda tree: trees.update({tree.problem.id: tree}))
            await policy.close()

    asyncio.run(run())
    return trees


def test_no_failure_of_a_server_becomes_a_verdict() -> None:
    server = FakeServer(status(500))
    with serving(server):
        trees = grow(policy_of([server.url], Time(), retries=1))
    assert len(trees) == len(PROBLEMS)
    origin = Origin(reader=READER, search="mcts", policy="m", seed=7, prover_k=None)
    for tree in trees.values():
        tables = tree_tables(tree, "t", origin)
        rollouts = tables["rollouts"].select(["verdict", "verdict_reason"]).to_pylist()
        assert len(rollouts) == 4
        assert all(
            each == {"verdict": "unknown", "verdict_reason": "call_failed"} for each in rollouts
        )
        (root,) = tables["nodes"].to_pylist()
        assert (root["n_rollouts"], root["n_unknown"], root["value"]) == (0, 4, None)
        assert tables["trees"]["error_kind"].to_pylist() == ["http_500"]


@pytest.mark.parametrize("calls", [2, 4, 7, 11, 16, 25, 40, 80])
def test_a_server_may_die_at_any_moment(calls: int) -> None:
    """What came before stays, what was asked after is unknown, and all of it can be written."""
    bodies: list[Event] = []

    async def dies(body: Event, wire: Wire) -> None:
        bodies.append(body)
        await (sound(says) if len(bodies) <= calls else hangs_up)(body, wire)

    server = FakeServer(dies)
    with serving(server):
        trees = grow(policy_of([server.url], Time(), retries=1))
    origin = Origin(reader=READER, search="mcts", policy="m", seed=7, prover_k=None)
    drawn_at = {(tuple(body["prompt"]), body["seed"]) for body in bodies[:calls]}
    for tree in trees.values():
        tables = tree_tables(tree, "t", origin)
        for row in tables["rollouts"].to_pylist():
            assert (row["verdict_reason"] == "call_failed") == (row["token_ids"] is None)
            if row["token_ids"]:
                prompt = READER.prompt_ids(tree.problem) + tree.prefix_ids(row["node_id"])
                assert (prompt, row["seed"]) in drawn_at


def test_trees_grown_on_servers_that_misbehave_are_those_grown_in_peace() -> None:
    """Each call meets a fault with probability 0.4: 9 in a row, which fail it, with 0.4 ** 9.

    That is 3e-4 a call; the faults are drawn with a fixed seed.
    """
    peaceful = FakeServer(sound(says, at_once=2))
    rng = random.Random(3)
    faults = [reply for _, reply, _ in FAULTS]

    async def misbehaves(body: Event, wire: Wire) -> None:
        await (rng.choice(faults) if rng.random() < 0.4 else sound(says))(body, wire)

    unruly = [FakeServer(misbehaves) for _ in range(3)]
    with serving(peaceful, *unruly):
        undisturbed = grow(policy_of([peaceful.url], Time()))
        urls = [server.url for server in unruly]
        assert grow(policy_of(urls, Time(), retries=20)) == undisturbed
    asked = sum(len(server.bodies) for server in unruly)
    assert asked > 1.3 * len(peaceful.bodies), "there were faults"
    found = [c.judgement for t in undisturbed.values() for c in t.rollouts.completion if c]
    assert {judgement.verdict for judgement in found if judgement} == {"right", "wrong"}

"""Whatever servers do, a draw is what was asked for, or the call failed and says why."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from tests.fake_server import Event, FakeServer, Reply, Wire, events_of, serving, sound
from tests.fakes import Exact, Memory
from tests.http_fakes import (
    RULE,
    TOKENS,
    Time,
    ask_for,
    drawn,
    expected,
    hangs_up,
    policy_of,
    says,
    script,
    status,
)

from treeward.export.columns import Origin, tree_tables
from treeward.search.errors import CallFailed
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.growing import absorb_rollouts, ask_rollouts
from treeward.search.http_policy import HttpPolicy
from treeward.search.mcts import mcts
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.requests import Growth, Search
from treeward.search.settings import SearchSettings
from treeward.search.tree import ROOT, Tree


def spoiled(change: Callable[[list[Event]], list[Event]]) -> Reply:
    """Replies with the events of a sound server, changed."""

    async def reply(body: Event, wire: Wire) -> None:
        await wire.stream(change(list(events_of(body, says))))

    return reply


def misread(events: list[Event]) -> list[Event]:
    events[0]["usage"]["prompt_tokens"] += 1
    return events


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


async def no_http(_: Event, wire: Wire) -> None:
    await wire.raw(b"hello\r\n\r\n")
    await wire.break_off()


async def no_stream(body: Event, wire: Wire) -> None:
    await wire.plain(200, json.dumps({"choices": [{"text": "A1\n"}]}))


async def reports_an_error(body: Event, wire: Wire) -> None:
    error: Event = {"error": {"message": "engine died", "code": 500}}
    await wire.stream([next(events_of(body, says)), error])


async def broken_compression(_: Event, wire: Wire) -> None:
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
    await wire.raw(f"{head}content-length: 9\r\n\r\nno gzip!!".encode())


def with_usage(n: str) -> Reply:
    """Counts tokens in a number that JSON can write and that no count is."""

    async def reply(body: Event, wire: Wire) -> None:
        event = json.dumps(next(events_of(body, says)))
        await wire.begin()
        await wire.event(event.replace('"completion_tokens": 1', f'"completion_tokens": {n}'))
        await wire.event("[DONE]")
        await wire.end()

    return reply


async def a_thousand_deep(_: Event, wire: Wire) -> None:
    await wire.begin()
    await wire.event("[" * 100_000 + "]" * 100_000)
    await wire.end()


async def an_error_a_thousand_deep(_: Event, wire: Wire) -> None:
    await wire.plain(500, "[" * 100_000 + "]" * 100_000)


async def half_a_letter(_: Event, wire: Wire) -> None:
    await wire.plain(400 + 29, '{"error": {"message": "\\ud800 busy"}}')


async def half_a_reason(body: Event, wire: Wire) -> None:
    event = json.dumps(next(events_of(body, says)))
    await wire.begin()
    await wire.event(event.replace('"finish_reason": null', '"finish_reason": "\\ud800"'))
    await wire.end()


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
    ("broken compression", broken_compression, "bad_reply"),
    ("a count without end", with_usage("1e999"), "bad_reply"),
    ("a count and a half", with_usage("1.5"), "bad_reply"),
    ("a thousand deep", a_thousand_deep, "bad_reply"),
    ("an error a thousand deep", an_error_a_thousand_deep, "http_500"),
    ("half a letter", half_a_letter, "http_429"),
    ("half a letter as the reason", half_a_reason, "bad_reply"),
    ("half an id", with_choice(token_ids=[103.5]), "bad_reply"),
    ("no counts", spoiled(lambda e: [{"choices": e[0]["choices"]}]), "bad_reply"),
    ("another prompt's length", spoiled(misread), "bad_reply"),
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
    assert failed.message.encode()
    assert len(server.bodies) == 4


@pytest.mark.parametrize("code", [400, 401, 404, 422])
def test_what_cannot_pass_is_not_tried_again(code: int) -> None:
    server = FakeServer(status(code))
    with serving(server):
        (failed,) = drawn(policy_of([server.url], Time()), ask_for(seeds=[4]))
    assert isinstance(failed, CallFailed)
    assert (failed.kind, len(server.bodies)) == (f"http_{code}", 1)
    assert failed.message == f"{server.url}: status {code}: no (attempt 1)"


READER = Reader(Template(name="t", answer="A{answer}", rule=RULE), TOKENS)
PROBLEMS = [Problem(id=f"p{n}", prompt=f"{n}", answer="1") for n in range(6)]


ORIGIN = Origin(reader=READER, search="mcts", policy="m", seed=7, prover_k=None)
MCTS: Search = partial(mcts, settings=SearchSettings(simulations=4, width=3, rollouts=4))


def grow(
    policy: HttpPolicy, search: Search = MCTS, problems: Sequence[Problem] = PROBLEMS
) -> dict[str, Tree]:
    trees: dict[str, Tree] = {}
    forest = Forest(
        search=search,
        samplers=[
            PolicySampler(
                policy=policy, settings=PolicySettings(max_step_tokens=8, max_rollout_tokens=40)
            )
        ],
        reader=READER,
        verifier=Exact(),
        recorder=Memory(),
        seed=7,
        tree_id=lambda problem: problem.id,
    )

    async def run() -> None:
        async with asyncio.timeout(60):
            plan = Plan(problems=iter(problems), concurrency=6)
            await grow_forest(forest, plan, lambda tree: trees.update({tree.problem.id: tree}))
            await policy.close()

    asyncio.run(run())
    return trees


def test_no_failure_of_a_server_becomes_a_verdict() -> None:
    server = FakeServer(status(500))
    with serving(server):
        trees = grow(policy_of([server.url], Time(), retries=1))
    assert len(trees) == len(PROBLEMS)
    for tree in trees.values():
        tables = tree_tables(tree, "t", ORIGIN)
        rollouts = tables["rollouts"].select(["verdict", "verdict_reason"]).to_pylist()
        assert len(rollouts) == 4
        assert all(
            each == {"verdict": "unknown", "verdict_reason": "call_failed"} for each in rollouts
        )
        (root,) = tables["nodes"].to_pylist()
        assert (root["n_rollouts"], root["n_unknown"], root["value"]) == (0, 4, None)
        assert tables["trees"]["error_kind"].to_pylist() == ["http_500"]


def test_what_came_beside_a_failure_is_kept_as_what_it_is() -> None:
    """The server fails one seed of eight; the rows of the others are those of a sound server."""
    problem, n = [PROBLEMS[0]], 8

    def search(tree: Tree) -> Growth:
        requests = ask_rollouts(tree, [ROOT], n)
        absorb_rollouts(tree, requests, (yield requests))

    def rows(server: FakeServer) -> tuple[list[Event], Event, Event]:
        with serving(server):
            (tree,) = grow(policy_of([server.url], Time(), retries=1), search, problem).values()
        tables = tree_tables(tree, "t", ORIGIN)
        (row,), (root,) = tables["trees"].to_pylist(), tables["nodes"].to_pylist()
        return tables["rollouts"].to_pylist(), row, root

    whole, _, _ = rows(FakeServer(sound(says)))
    bad = whole[3]["seed"]

    async def fails_one(body: Event, wire: Wire) -> None:
        await (status(500) if body["seed"] == bad else sound(says))(body, wire)

    server = FakeServer(fails_one)
    rollouts, tree, root = rows(server)
    assert [row | {"rollout_id": 0} for row in rollouts[:-1]] == [
        row | {"rollout_id": 0} for row in whole if row["seed"] != bad
    ]
    assert {row["verdict"] for row in rollouts[:-1]} == {"right", "wrong"}
    lost = {"verdict": "unknown", "verdict_reason": "call_failed", "token_ids": None, "seed": None}
    assert rollouts[-1].items() >= lost.items()
    assert (root["n_rollouts"], root["n_unknown"]) == (n - 1, 1)
    assert tree["policy_tokens"] == sum(row["n_tokens"] for row in rollouts[:-1])
    assert (tree["status"], tree["error_kind"]) == ("incomplete", "http_500")
    assert len(server.bodies) == n + 1, "only what failed was tried again"


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
    drawn_at = {(tuple(body["prompt"]), body["seed"]) for body in bodies[:calls]}
    for tree in trees.values():
        tables = tree_tables(tree, "t", ORIGIN)
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

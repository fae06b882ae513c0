"""Two of vLLM's own API servers: what comes through them, who asks whom, and what is lost."""

import asyncio
import itertools
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.conftest import Ran
from tests.vllm.drawing import TEMPLATE, asks_for, draws_of, given, ids_of
from tests.vllm.serving import Server, serving

import treeward as library
from treeward.export.api import Run
from treeward.search.backends import prepare
from treeward.search.http_policy import HttpPolicy
from treeward.search.http_probe import require_able
from treeward.search.http_replicas import Replicas
from treeward.search.http_settings import HttpService, HttpSettings
from treeward.search.models import ModelFolder
from treeward.search.policy import Ask, Draw
from treeward.search.readers import read_problems
from treeward.search.tokens import load_tokens
from treeward.search.vllm_policy import VllmPolicy

Rows = list[dict[str, Any]]

PROBLEMS = "task:arithmetic?n=6&seed={}"
SETTINGS = ("search.simulations=4", "search.width=2", "search.rollouts=3")

ROLLOUTS = """SELECT problem_id, rollouts.seed, token_ids, verdict, verdict_reason
    FROM rollouts JOIN trees USING (tree_id)"""


@pytest.fixture(scope="module")
def servers(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with serving(nano, tmp_path_factory.mktemp("logs"), 2) as started:
        yield started


@pytest.fixture(scope="module")
def problems(servers: list[Server]) -> str:
    """Problems of which each server has two trees or more: their ports decide, and are drawn."""

    def shared(spec: str) -> bool:
        homes = [home(servers, problem.id) for problem in read_problems(spec).problems]
        return all(homes.count(server.url) >= 2 for server in servers)

    return next(filter(shared, map(PROBLEMS.format, itertools.count(5))))


def policy_of(servers: Sequence[Server]) -> str:
    return ",".join(server.url for server in servers)


def service_of(servers: Sequence[Server]) -> tuple[HttpService, ModelFolder]:
    asked, cache = policy_of(servers), Path("unused")
    model, running = prepare(asked, None, HttpSettings(), deterministic=None, cache=cache)
    assert isinstance(running, HttpService)
    return running, model


def drawn(servers: Sequence[Server], asks: Sequence[Ask]) -> list[list[Draw]]:
    """What servers reply to asks that are under way together; none may fail."""
    service, model = service_of(servers)

    async def go() -> list[list[Draw]]:
        tokens = load_tokens(model.path)
        policy = HttpPolicy(service, tokens, model.fingerprint, jitter=random.Random(0))
        async with asyncio.timeout(300):
            found = await asyncio.gather(*map(policy.draw, asks))
        await policy.close()
        return found

    return asyncio.run(go())


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_p": 0.8}])
def test_a_seed_draws_what_it_draws_in_process(
    servers: list[Server], policy: VllmPolicy, sampling: dict[str, Any]
) -> None:
    """In float32 a token of nano flips about once in a million."""
    asks = asks_for(policy.tokens, 24, **sampling)
    found, expected = drawn(servers, asks), draws_of(policy, asks)
    assert ids_of(found) == ids_of(expected)
    for draws, others in zip(found, expected, strict=True):
        for draw, other in zip(draws, others, strict=True):
            assert draw.finish is other.finish
            assert draw.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_servers_say_how_likely_given_tokens_are(servers: list[Server], policy: VllmPolicy) -> None:
    asks = asks_for(policy.tokens, 12, samples=1)
    calls = [
        given(ask.prompt_ids + ask.prefix_ids, draw.token_ids)
        for ask, (draw,) in zip(asks, draws_of(policy, asks), strict=True)
    ]
    service, model = service_of(servers)

    async def go() -> list[list[float]]:
        remote = HttpPolicy(service, policy.tokens, model.fingerprint, jitter=random.Random(0))
        found = await asyncio.gather(*map(remote.logprobs, calls))
        await remote.close()
        return found

    async def here() -> list[list[float]]:
        return await asyncio.gather(*map(policy.logprobs, calls))

    for one, other in zip(asyncio.run(go()), asyncio.run(here()), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_the_least_temperature_draws_the_most_probable_tokens(
    servers: list[Server], nano: Path
) -> None:
    """A token .3 nats less probable has e^-30 of its chance; log-probabilities are at 1."""
    model = transformers.AutoModelForCausalLM.from_pretrained(nano, dtype="float32")
    asks = asks_for(load_tokens(nano), 12, samples=1, temperature=0.01)
    for ask, (draw,) in zip(asks, drawn(servers, asks), strict=True):
        before = [*ask.prompt_ids, *ask.prefix_ids]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*before, *draw.token_ids]])).logits
        logprobs = logits[0, len(before) - 1 : -1].double().log_softmax(dim=-1).numpy()
        chosen = logprobs[range(len(draw.token_ids)), list(draw.token_ids)]
        assert np.all(chosen > logprobs.max(axis=-1) - 0.3)
        assert draw.logprob == pytest.approx(chosen.sum(), abs=1e-4)


def grow(servers: Sequence[Server], problems: str, out: Path, *settings: str) -> Run:
    assignments = [*SETTINGS, *settings]
    return library.generate(problems, out, policy=policy_of(servers), assignments=assignments)


def rows(run: Run, statement: str) -> Rows:
    found: Rows = run.sql(statement).to_pylist()
    return found


@pytest.fixture(scope="module")
def counted(
    servers: list[Server], problems: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, list[int]]:
    """A run to which nothing happened, and the prompt tokens of it that each server counted.

    Every run begins with the same checks of both servers; their tokens are none of it.
    """
    service, model = service_of(servers)
    before = settled(servers)
    require_able(service, load_tokens(model.path))
    checked = settled(servers)
    run = grow(servers, problems, tmp_path_factory.mktemp("runs") / "calm")
    found = settled(servers)
    return run, (np.subtract(found, checked) - np.subtract(checked, before)).tolist()


@pytest.fixture(scope="module")
def calm(counted: tuple[Run, list[int]]) -> Run:
    return counted[0]


def settled(servers: Sequence[Server]) -> list[int]:
    """Prompt tokens by server, once none has counted any for a while."""
    last: list[int] = []
    while (now := [server.prompt_tokens() for server in servers]) != last:
        last = now
        time.sleep(0.5)
    return last


def test_a_tree_asks_one_server_and_each_sample_once(
    servers: list[Server], problems: str, nano: Path, counted: tuple[Run, list[int]]
) -> None:
    """Prompt tokens that each server has counted are those of its own trees' samples, exactly."""
    run, found = counted
    expected = {server.url: 0 for server in servers}
    for problem, tokens in prompt_tokens_asked(run, problems, nano).items():
        expected[home(servers, problem)] += tokens
    assert found == list(expected.values())
    assert all(found), "both have trees"


def prompt_tokens_asked(run: Run, problems: str, nano: Path) -> dict[str, int]:
    """By problem, the tokens of prompt and prefix summed over its samples and rollouts."""
    tokens = load_tokens(nano)
    prompts = {
        problem.id: len(TEMPLATE.render(problem, tokens))
        for problem in read_problems(problems).problems
    }
    found = dict.fromkeys(prompts, 0)
    starts: dict[tuple[str, int], int] = {}
    for node in rows(run, "SELECT * FROM nodes ORDER BY tree_id, depth"):
        problem, parent = node["problem_id"], node["parent_id"]
        starts[problem, node["node_id"]] = prompts[problem]
        if parent is not None:
            starts[problem, node["node_id"]] = starts[problem, parent] + node["n_tokens"]
            found[problem] += node["n_samples"] * starts[problem, parent]
    for rollout in rows(run, "SELECT problem_id, node_id FROM rollouts JOIN trees USING (tree_id)"):
        found[rollout["problem_id"]] += starts[rollout["problem_id"], rollout["node_id"]]
    return found


def home(servers: Sequence[Server], word: str) -> str:
    """The base URL that calls with a word go to."""
    urls = [server.url for server in servers]

    async def go() -> str:
        async with Replicas(urls, 1, clock=time.monotonic, sleep=asyncio.sleep).turn(word) as url:
            return url

    return asyncio.run(go())


@contextmanager
def amid(server: Server, signal_number: signal.Signals) -> Iterator[threading.Event]:
    """Sends a server a signal once it has read some prompts of the run inside."""
    sent, over = threading.Event(), threading.Event()
    start = server.prompt_tokens()

    def watch() -> None:
        while not over.wait(0.05):
            if server.prompt_tokens() > start + 500:
                server.send(signal_number)
                sent.set()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def assert_same_evidence(run: Run, calm: Run) -> None:
    """Nothing is unknown, and the rows are those of a run to which nothing happened.

    But for one tree: in other company a token of nano flips about once in a million.
    """
    assert rows(run, "SELECT DISTINCT status FROM trees") == [{"status": "ok"}]
    by_problem: list[dict[str, Rows]] = [defaultdict(list), defaultdict(list)]
    for each, found in zip((run, calm), by_problem, strict=True):
        for row in rows(each, f"{ROLLOUTS} ORDER BY ALL"):
            assert row["verdict"] in ("right", "wrong")
            found[row["problem_id"]].append(row)
    ours, theirs = by_problem
    assert ours.keys() == theirs.keys()
    assert sum(ours[problem] != theirs[problem] for problem in theirs) <= 1


def test_the_trees_of_a_server_that_hangs_go_to_the_other(
    servers: list[Server], problems: str, calm: Run, tmp_path: Path
) -> None:
    """Its port still takes connections, and nothing comes: the deadline is on tokens."""
    with amid(servers[0], signal.SIGSTOP) as sent:
        try:
            run = grow(servers, problems, tmp_path / "run", "backend.timeout=4")
        finally:
            servers[0].send(signal.SIGCONT)
    assert sent.is_set()
    assert_same_evidence(run, calm)


def test_what_a_killed_server_loses_is_asked_again_or_a_failure(
    servers: list[Server],
    problems: str,
    calm: Run,
    treeward: Callable[..., Ran],
    tmp_path: Path,
) -> None:
    """The last test: it kills one server in mid-run, then the one that is left."""
    with amid(servers[0], signal.SIGKILL) as sent:
        run = grow(servers, problems, tmp_path / "run")
    assert sent.is_set()
    assert_same_evidence(run, calm)

    left, out = servers[1], tmp_path / "lost"
    settings = ("backend.retries=0", *SETTINGS)
    options = [part for setting in settings for part in ("--set", setting)]
    with amid(left, signal.SIGKILL) as sent:
        ran = treeward("generate", problems, "--policy", left.url, *options, "--out", out)
    assert sent.is_set()
    assert ran.code == 4, ran.err
    lost = library.open_run(out)
    kinds = rows(lost, "SELECT DISTINCT error_kind FROM trees WHERE status != 'ok'")
    assert {row["error_kind"] for row in kinds} <= {"connection", "truncated"}
    assert kinds
    known = {row["seed"]: row for row in rows(calm, ROLLOUTS)}
    found = rows(lost, ROLLOUTS)
    unknown = [row for row in found if row["verdict"] == "unknown"]
    assert {row["verdict_reason"] for row in unknown} == {"call_failed"}
    n_same = sum(known.get(row["seed"]) == row for row in found if row not in unknown)
    assert n_same >= len(found) - len(unknown) - 8, "a flipped token is in few rows"

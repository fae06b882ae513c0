"""A server is used if it can do what evidence needs, and refused with the reason if it cannot."""

import asyncio
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Ran
from tests.fake_server import Event, FakeServer, Reply, Wire, chunk_of, serving, usage_of

from treeward.search.backends import SETTINGS_OF, Backend, choose_backend, open_policy, prepare
from treeward.search.errors import BadInput, TreewardError
from treeward.search.http_probe import Finding, probe, require_able
from treeward.search.http_service import find_service
from treeward.search.http_settings import (
    HttpService,
    HttpSettings,
    Served,
    http_identity_of,
    read_urls,
)
from treeward.search.models import NANO, resolve_model
from treeward.search.tokens import byte_tokens

NANO_FOLDER = str(resolve_model(NANO, Path("unused")).path)
ONCE = HttpSettings(retries=0)
DEAD = "http://127.0.0.1:9/v1"
CHECKS = ["token ids in and out", "exact continuation", "log-probabilities", "seeds", "tokenizer"]

Said = Callable[[Event, bytes, int], tuple[int, float, float]]
"""Given a call, the text so far and the place: a token, its log-probability and the best one."""


def says(body: Event, text: bytes, _: int) -> tuple[int, float, float]:
    # As a sharp model is: certain of its first token, of others less.
    best = -0.01 if len(text) == 4 else -random.Random(f"{text!r}").random()
    return random.Random(f"{body['seed']}{text!r}").randrange(256), best - 0.5, best


def processed(body: Event, text: bytes, place: int) -> tuple[int, float, float]:
    token, logprob, best = says(body, text, place)
    return token, logprob / body["temperature"], best / body["temperature"]


def cut_to_nucleus(body: Event, text: bytes, place: int) -> tuple[int, float, float]:
    token, logprob, best = says(body, text, place)
    return (token, logprob, best) if body["top_p"] == 1 else (token, -0.01, -0.01)


def certain(body: Event, text: bytes, place: int) -> tuple[int, float, float]:
    return says(body, text, place)[0], 0.0, 0.0


def puts_it_in_a_chat(body: Event, text: bytes, place: int) -> tuple[int, float, float]:
    return says(body, b"user: " + text[: len(text) - place] + b" bot: " + text[-place:], place)


def knows_one_seed(body: Event, text: bytes, place: int) -> tuple[int, float, float]:
    return says({**body, "seed": 0}, text, place)


def forgets_the_seed() -> Said:
    calls = itertools.count()
    return lambda body, text, place: says({**body, "seed": next(calls)}, text, place)


def stops_early(body: Event, text: bytes, place: int) -> tuple[int, float, float]:
    if place == 2:
        raise StopIteration
    return says(body, text, place)


def replying(said: Said, change: Callable[[Event], None] = lambda event: None) -> Reply:
    async def reply(body: Event, wire: Wire) -> None:
        text, events = bytes(body["prompt"]), []
        for place in range(body["max_tokens"]):
            try:
                token, logprob, best = said(body, text, place)
            except StopIteration:
                break
            text += bytes([token])
            reason = "length" if place + 1 == body["max_tokens"] else None
            events.append(chunk_of(body, place, [(token, logprob)], reason, best))
        events.append({"choices": [], "usage": usage_of(body, len(events))})
        for event in events:
            change(event)
        await wire.stream(events)

    return reply


def dropping(*path: str) -> Reply:
    """Replies soundly but for one field of the choice."""

    def change(event: Event) -> None:
        if event["choices"]:
            at: Any = event["choices"][0]
            for name in path[:-1]:
                at = at[name]
            at.pop(path[-1], None)

    return replying(says, change)


def uncounted(event: Event) -> None:
    event.pop("usage")


async def no_stream(body: Event, wire: Wire) -> None:
    await wire.plain(200, '{"choices": [{"text": "12"}]}')


async def wants_text(body: Event, wire: Wire) -> None:
    await wire.plain(422, '{"detail": "prompt must be a string"}')


def found_by(server: FakeServer) -> list[Finding]:
    with serving(server):
        return probe(server.url, "m", byte_tokens(), ONCE)


@pytest.mark.parametrize("encode", [byte_tokens().encode, None])
def test_a_sound_server_passes_every_check(encode: Callable[[str], list[int]] | None) -> None:
    findings = found_by(FakeServer(replying(says), encode=encode))
    assert [(found.name, found.ok) for found in findings] == [(name, True) for name in CHECKS]
    assert ("not compared" in findings[-1].finding) == (encode is None)


UNABLE = {
    "text only": (dropping("token_ids"), 0, "token_ids"),
    "does not count": (replying(says, uncounted), 0, "usage"),
    "does not stream": (no_stream, 0, "text/event-stream"),
    "takes text only": (wants_text, 0, "status 422"),
    "does not tell the prompt": (dropping("prompt_token_ids"), 0, "which token ids"),
    "stops early": (replying(stops_early), 0, "gave 2 tokens where 4 were asked for"),
    "no others' log-probabilities": (dropping("logprobs", "top_logprobs"), 0, "other tokens"),
    "no log-probabilities": (dropping("logprobs"), 0, "logprobs"),
    "at the sampler's temperature": (replying(processed), 2, "--logprobs-mode raw_logprobs"),
    "after top-p": (replying(cut_to_nucleus), 2, "--logprobs-mode raw_logprobs"),
    "chat": (replying(puts_it_in_a_chat), 1, "where they were given"),
    "always certain": (replying(certain), 2, "none of 8 most probable tokens is less than"),
    "one seed": (replying(knows_one_seed), 3, "other seeds gave the same"),
    "no seed": (replying(forgets_the_seed()), 3, "the same seed gave other"),
}


@pytest.mark.parametrize(("reply", "at", "reason"), UNABLE.values(), ids=UNABLE)
def test_a_server_that_cannot_is_told_from_one_that_can(reply: Reply, at: int, reason: str) -> None:
    findings = found_by(FakeServer(reply))
    assert [found.ok for found in findings] == [True] * at + [False]
    assert findings[-1].name == CHECKS[at]
    assert reason in findings[-1].finding


def test_a_server_that_is_busy_for_a_moment_is_asked_again() -> None:
    """Every kind of call meets one 503: the list of models, a completion, the tokenizer."""
    busy = {"/v1/models": 1, "/v1/completions": 1, "/tokenize": 1}
    server = FakeServer(replying(says), encode=byte_tokens().encode, busy=busy)
    with serving(server):
        service = find_service((server.url,), "m", HttpSettings())
        findings = probe(server.url, "m", byte_tokens(), service.settings)
    assert [(found.name, found.ok) for found in findings] == [(name, True) for name in CHECKS]
    assert findings[-1].finding == "the same as the local one"
    assert set(busy.values()) == {0}


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/v1/models", "{}: cannot be reached (status 503: busy (attempt 2))"),
        ("/v1/completions", "{} does not answer: token ids in and out: status 503: busy"),
        ("/tokenize", "{} does not answer: tokenizer: status 503: busy"),
    ],
)
def test_a_server_that_stays_busy_is_no_bad_input(
    treeward: Callable[..., Ran], tmp_path: Path, path: str, line: str
) -> None:
    card = {"id": NANO_FOLDER, "root": NANO_FOLDER, "max_model_len": 4096}
    server = FakeServer(replying(says), card, byte_tokens().encode, busy={path: 99})
    with serving(server):
        asked = ["--policy", server.url, "--set", "backend.retries=1"]
        ran = treeward("generate", "task:arithmetic?n=1", "--out", tmp_path / "run", *asked)
    assert ran.code == 1
    assert line.format(server.url) in ran.err


def test_another_tokenizer_is_refused() -> None:
    server = FakeServer(replying(says), encode=lambda text: [1 + ord(char) for char in text])
    service = HttpService(
        urls=("",), served=Served(name="m", root=None, context=None), settings=HttpSettings()
    )
    with serving(server), pytest.raises(BadInput, match=r"backend\.tokenizer") as caught:
        require_able(
            HttpService(urls=(server.url,), served=service.served, settings=service.settings),
            byte_tokens(),
        )
    assert server.url in str(caught.value)


def test_all_servers_must_serve_the_model_that_was_named() -> None:
    card = {"id": "m", "root": "/m", "max_model_len": 64}
    one, same, other = (FakeServer(replying(says)) for _ in range(3))
    one.card = same.card = card
    other.card = card | {"root": "/another"}
    with serving(one, same, other):
        urls = (one.url, same.url)
        served = Served(name="m", root="/m", context=64)
        both = HttpService(urls=urls, served=served, settings=ONCE)
        assert find_service(urls, "m", ONCE) == both
        assert find_service(urls, None, ONCE) == both
        with pytest.raises(BadInput, match="give servers of one model"):
            find_service((one.url, other.url), "m", ONCE)
        with pytest.raises(BadInput, match="serves m; --model 'n' is not one"):
            find_service((one.url,), "n", ONCE)
        with pytest.raises(BadInput, match="is this the base URL"):
            find_service((one.url + "/v2",), "m", ONCE)
        with pytest.raises(TreewardError, match="cannot be reached"):
            find_service((DEAD,), "m", ONCE)


def test_a_server_that_does_not_answer_is_left_out_with_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = FakeServer(replying(says)), FakeServer(replying(says))
    with serving(one, other):
        service = find_service((DEAD, one.url, other.url), "m", ONCE)
    assert service.urls == (one.url, other.url)
    (line,) = caplog.messages
    assert line.startswith(f"{DEAD}: cannot be reached (ConnectError")
    assert line.endswith("its trees go to the others until the command is started anew")
    with pytest.raises(TreewardError, match=f"{DEAD}: cannot.*; {one.url}: cannot") as caught:
        find_service((DEAD, one.url), "m", ONCE)
    assert caught.value.exit_code == 1


def test_servers_are_found_beside_a_loop_that_runs() -> None:
    """As in a notebook."""

    async def look(url: str) -> HttpService:
        return find_service((url,), "m", ONCE)

    server = FakeServer(replying(says))
    with serving(server):
        assert asyncio.run(look(server.url)).urls == (server.url,)


def test_other_servers_of_the_same_model_are_the_same_policy() -> None:
    def identity(url: str, root: str, **settings: Any) -> dict[str, str | int]:
        served = Served(name="m", root=root, context=64)
        service = HttpService(urls=(url,), served=served, settings=HttpSettings(**settings))
        return http_identity_of("f", service)

    one = identity("http://a/v1", "/m")
    assert one == identity("http://b/v1", "/m", timeout=1.0, retries=0, max_in_flight=1)
    assert one != identity("http://a/v1", "/n")


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ("http://", "must be a base URL"),
        ("http://host:1/v1,nano", "must be a base URL"),
        ("http://host:1/v1?x=1", "must be a base URL"),
        ("http://host:1/v1,", "must be a base URL"),
        ("http://host:8000", "did you mean 'http://host:8000/v1'"),
        ("http://host:x/v1", "must be a base URL"),
        ("http://host:99999/v1", "must be a base URL"),
        ("http://[::1/v1", "must be a base URL"),
        ("http://ho st/v1", "must be a base URL"),
        ("http://host\x07/v1", "must be a base URL"),
        ("http://a/v1,http://b/v1,http://a/v1/", "listed twice"),
    ],
)
def test_what_is_no_list_of_base_urls(policy: str, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        read_urls(policy)


def test_an_address_that_is_none_is_one_line() -> None:
    with pytest.raises(BadInput, match=r"http://999\.1\.1\.1/v1"):
        find_service(("http://999.1.1.1/v1",), None, ONCE)


def test_several_urls() -> None:
    assert read_urls("http://a:1/v1, https://b/x/v1/") == ("http://a:1/v1", "https://b/x/v1")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--policy", "nano", "--backend", "http"], "give its base URL"),
        (["--policy", "http://a/v1", "--backend", "transformers"], "is a server"),
        (["--policy", "nano", "--model", "m"], "names a model of a server"),
        (["--policy", "http://a/v1", "--deterministic"], "batches of what there happens to be"),
        (["--policy", "http://a/v1", "--set", "backend.slots=8"], "of the transformers backend"),
        (["--set", "backend.retries=8"], "of the http backend; this is transformers"),
        (["--policy", "http://a/v1", "--set", "backend.retries=-1"], "backend.retries must be at"),
        (["--policy", "http://a/v1", "--set", "backend.timeout=0"], "backend.timeout must be gr"),
        (["--policy", "http://a/v1", "--set", "backend.max_in_flight=0"], "max_in_flight must be"),
        (["--policy", "http://a/v1", "--set", "backend.retrys=1"], "backend.retries"),
    ],
)
def test_what_does_not_go_together(
    treeward: Callable[..., Ran], tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    ran = treeward("generate", "task:arithmetic?n=1", "--out", tmp_path / "run", *arguments)
    assert ran.code == 2
    assert complaint in ran.err
    assert not (tmp_path / "run").exists()


def test_the_tokenizer_is_asked_for_where_the_name_is_none() -> None:
    server = FakeServer(replying(says))
    cache = Path("unused")
    with serving(server):
        with pytest.raises(BadInput, match=r"tokenizer of 'm'.*--set backend\.tokenizer"):
            prepare(server.url, None, HttpSettings(), deterministic=None, cache=cache)
        settings = HttpSettings(tokenizer=NANO_FOLDER)
        model, running = prepare(server.url, "m", settings, deterministic=None, cache=cache)
        assert (model.name, str(model.path), model.default_template.name) == (
            "m",
            NANO_FOLDER,
            NANO,
        )
        server.reply = wants_text
        with pytest.raises(BadInput, match=f"{server.url} cannot be used: token ids in and out"):
            open_policy(model, running)


def test_backends_are_chosen_by_what_the_policy_is() -> None:
    assert choose_backend("auto", "http://a/v1") is Backend.HTTP
    assert choose_backend("auto", "nano") is Backend.TRANSFORMERS
    assert SETTINGS_OF.keys() == set(Backend)
    with pytest.raises(
        BadInput, match="--backend must be auto, transformers or vllm or http, got 'tgi'"
    ):
        choose_backend("tgi", "nano")


def test_doctor_shows_what_servers_can_do(treeward: Callable[..., Ran]) -> None:
    able, unable = FakeServer(replying(says)), FakeServer(wants_text)
    busy = FakeServer(replying(says), busy={"/v1/completions": 99})
    with serving(able, unable, busy):
        ran = treeward("doctor", "--json", "--policy", f"{able.url},{unable.url},{busy.url}")
    assert ran.code == 0
    said = ("serves m, 4096 positions", "prompt must be a string", "try again later")
    for word in (*CHECKS[:4], *said):
        assert word in ran.out

"""Finds out whether servers can do what evidence needs.

A server is taken at its replies, not at its name: each check asks for a few tokens and compares.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx2

from treeward.search.errors import BadInput, TreewardError
from treeward.search.http_asking import Asker, asking, is_silent
from treeward.search.http_calls import require_ok, stream
from treeward.search.http_protocol import PLAIN, Fault, read_event
from treeward.search.http_settings import HttpService, HttpSettings
from treeward.search.tokens import Tokens

_PROMPT = (3, 4, 5, 6)
"""Ids that every vocabulary has. What they stand for does not matter."""

_TEXT = "12 + 3\n"
_PLACES = 8
"""Tokens that are looked at in a row."""

_HOT = {"temperature": 2.0}
_NARROW = {"temperature": 0.5, "top_p": 0.1}
_NEAR = 0.1
"""Nats by which a log-probability may differ when it is computed in another batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Holds one thing that was found out about a server."""

    name: str
    ok: bool
    finding: str
    silent: bool = False
    """Whether the server did not answer, which says nothing of what it can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """Holds a whole completion."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    best: tuple[float, ...]
    """The largest log-probability at each position."""


def require_able(service: HttpService, tokens: Tokens) -> None:
    """Checks that every server can be used.

    Raises:
        BadInput: One cannot; says why.
        TreewardError: One does not answer.
    """
    for url in service.urls:
        for found in probe(url, service.served.name, tokens, service.settings):
            said = f"{found.name}: {found.finding}"
            if found.silent:
                raise TreewardError(
                    f"{url} does not answer: {said}; try again later, or leave it out of --policy"
                )
            if not found.ok:
                raise BadInput(f"{url} cannot be used: {said}")


def probe(url: str, model: str, tokens: Tokens | None, settings: HttpSettings) -> list[Finding]:
    """Returns what a server can do; after a failure nothing more is looked at.

    Args:
        url: Its base URL.
        model: The name it serves the model by.
        tokens: The model's, to be compared with the server's; None compares nothing.
        settings: How it is asked.
    """
    found: list[Finding] = []
    with asking(url, settings) as asker:
        for name, check in _checks(_Server(asker, model), tokens):
            try:
                finding = Finding(name=name, ok=True, finding=check())
            except Fault as fault:
                said = fault.message.removeprefix(f"{url}: ")
                finding = Finding(name=name, ok=False, finding=said, silent=is_silent(fault))
            found.append(finding)
            if not finding.ok:
                break
    return found


class _Server:
    """Asks one server."""

    def __init__(self, asker: Asker, model: str) -> None:
        self._asker = asker
        self._model = model

    def complete(self, prompt: Sequence[int], n: int, **others: Any) -> _Reply:
        """Returns `n` tokens after a prompt.

        Raises:
            Fault: It does not reply as it must.
        """
        call = {"model": self._model, "prompt": list(prompt), "max_tokens": n, "logprobs": 1}
        body = PLAIN | {"temperature": 1.0, "top_p": 1.0, "seed": 1} | call | others
        return self._asker.ask(lambda client: self._read(client, body, prompt, n))

    async def _read(
        self, client: httpx2.AsyncClient, body: dict[str, Any], prompt: Sequence[int], n: int
    ) -> _Reply:
        """Reads a stream to its end."""
        ids: list[int] = []
        logprobs: list[float] = []
        best: list[float] = []
        url = f"{self._asker.url}/completions"
        async with aclosing(stream(client, url, body)) as events:
            async for data in events:
                event = read_event(data)
                if event.prompt_ids not in (None if ids else tuple(prompt), None):
                    raise Fault("bad_reply", "went on from other token ids than were sent")
                if not ids and event.token_ids and event.prompt_ids is None:
                    raise Fault("bad_reply", "does not tell which token ids it went on from")
                ids += event.token_ids
                logprobs += event.logprobs
                best += _best(data) if event.token_ids else []
                if event.n_completion != len(ids) or event.n_prompt != len(prompt):
                    raise Fault("bad_reply", "counts other tokens than it sends or was sent")
        if not len(ids) == len(best) == n:
            raise Fault("bad_reply", f"gave {len(ids)} tokens where {n} were asked for")
        return _Reply(token_ids=tuple(ids), logprobs=tuple(logprobs), best=tuple(best))

    def encode(self, text: str) -> list[int] | None:
        """Returns the ids of a text without special tokens; None where the server has no say.

        Raises:
            Fault: It does not answer.
        """
        url = f"{self._asker.url.removesuffix('/v1')}/tokenize"
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}

        async def call(client: httpx2.AsyncClient) -> httpx2.Response:
            response = await client.post(url, json=body)
            require_ok(response, response.text)
            return response

        try:
            return [int(token) for token in self._asker.ask(call).json()["tokens"]]
        except Fault as fault:
            if fault.overloaded or not fault.kind.startswith("http_"):
                raise
            return None
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return None


def _best(data: str) -> list[float]:
    """Returns the largest log-probability at each position of an event."""
    try:
        (choice,) = json.loads(data)["choices"]
        return [max(map(float, top.values())) for top in choice["logprobs"]["top_logprobs"]]
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as e:
        raise Fault("bad_reply", f"gives no log-probabilities of other tokens ({e!r})") from e


def _checks(server: _Server, tokens: Tokens | None) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yields the checks, each a name and a call that says what it found or raises a `Fault`."""
    yield "token ids in and out", lambda: _check_ids(server)
    yield "exact continuation", lambda: _check_continuation(server)
    yield "log-probabilities", lambda: _check_logprobs(server)
    yield "seeds", lambda: _check_seeds(server)
    if tokens is not None:
        yield "tokenizer", lambda: _check_tokenizer(server, tokens)


def _check_ids(server: _Server) -> str:
    reply = server.complete(_PROMPT, 4)
    return f"{len(reply.token_ids)} ids, their log-probabilities and counts, in a stream"


def _check_continuation(server: _Server) -> str:
    """Compares what follows tokens that were generated with what follows them when given."""
    whole = server.complete(_PROMPT, _PLACES, **_HOT)
    for at in range(1, _PLACES):
        (again,) = server.complete(_PROMPT + whole.token_ids[:at], 1, **_HOT).best
        if abs(again - whole.best[at]) > _NEAR:
            raise Fault(
                "bad_reply",
                f"after the same {at} tokens, the most probable one has {whole.best[at]:.3f} where "
                f"they were generated and {again:.3f} where they were given",
            )
    return "a prefix that is given goes on as one that was generated"


def _check_logprobs(server: _Server) -> str:
    """Looks at the most probable tokens: how tokens are sampled must not change what they have.

    Where the model is certain they have 0 in any case, so it looks at several places.
    """
    ids = server.complete(_PROMPT, _PLACES, **_HOT).token_ids
    least = 0.0
    for at in range(_PLACES):
        prompt = _PROMPT + ids[:at]
        (plain,) = server.complete(prompt, 1).best
        least = min(least, plain)
        for sampler in (_HOT, _NARROW):
            (other,) = server.complete(prompt, 1, **sampler).best
            if abs(other - plain) > _NEAR:
                raise Fault(
                    "bad_reply",
                    f"they change with the sampler, from {plain:.3f} to {other:.3f} with "
                    f"{sampler}; start the server with --logprobs-mode raw_logprobs",
                )
    if least > -2 * _NEAR:
        raise Fault("bad_reply", f"none of {_PLACES} most probable tokens is less than certain")
    return "at temperature 1, whatever the sampler"


def _check_seeds(server: _Server) -> str:
    drawn = [
        server.complete(_PROMPT, _PLACES, **_HOT, seed=seed).token_ids for seed in (1, 1, 2, 3)
    ]
    if drawn[0] != drawn[1]:
        raise Fault("bad_reply", "the same seed gave other tokens")
    if drawn[1] == drawn[2] == drawn[3]:
        raise Fault("bad_reply", "other seeds gave the same tokens")
    return "a seed gives its tokens again"


def _check_tokenizer(server: _Server, tokens: Tokens) -> str:
    theirs, ours = server.encode(_TEXT), tokens.encode(_TEXT)
    if theirs is None:
        return "not compared: the server has no /tokenize"
    if theirs != ours:
        raise Fault(
            "bad_reply",
            f"{_TEXT!r} is {theirs} there and {ours} here; give the model's own tokenizer with "
            "--set backend.tokenizer=FOLDER",
        )
    return "the same as the local one"

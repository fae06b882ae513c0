"""Finds out what servers serve, and whether they can do what evidence needs.

A server is taken at its replies, not at its name: each check asks for a few tokens and compares.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2

from treeward.search.errors import BadInput, TreewardError
from treeward.search.http_protocol import DONE, PLAIN, Fault, fault_of_status, read_event
from treeward.search.http_settings import HttpService, Served
from treeward.search.tokens import Tokens

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """Holds a whole completion."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    best: tuple[float, ...]
    """The largest log-probability at each position."""


def find_served(urls: Sequence[str], name: str | None) -> Served:
    """Returns the model that all servers serve by a name.

    Args:
        urls: Their base URLs.
        name: The model's name; None takes the only one there is.

    Raises:
        TreewardError: A server cannot be reached.
        BadInput: A server does not serve it, or serves another by that name.
    """
    with _client() as client:
        found = [_served_by(client, url, name) for url in urls]
    for url, served in zip(urls, found, strict=True):
        if served != found[0]:
            raise BadInput(
                f"{url} serves {served} and {urls[0]} serves {found[0]}; give servers of one model"
            )
    return found[0]


def _client() -> httpx2.Client:
    return httpx2.Client(timeout=60.0, trust_env=False)


def _served_by(client: httpx2.Client, url: str, name: str | None) -> Served:
    try:
        response = client.get(f"{url}/models")
        cards = response.raise_for_status().json()["data"]
        models = [
            Served(
                name=str(card["id"]),
                root=_optional(card, "root", str),
                context=_optional(card, "max_model_len", int),
            )
            for card in cards
        ]
    except httpx2.InvalidURL as e:
        raise BadInput(f"policy {url!r} is no URL: {e}") from e
    except httpx2.TransportError as e:
        raise TreewardError(f"{url}: cannot be reached ({type(e).__name__}: {e})") from e
    except (
        *(httpx2.HTTPError, RecursionError),
        *(AttributeError, KeyError, TypeError, ValueError),
    ) as e:
        raise BadInput(f"{url}/models lists no models ({e}); is this the base URL?") from e
    names = ", ".join(model.name for model in models)
    chosen = [model for model in models if name is None or model.name == name]
    if len(chosen) != 1:
        wanted = "say which model with --model" if name is None else f"--model {name!r} is not one"
        raise BadInput(f"{url} serves {names or 'nothing'}; {wanted}")
    return chosen[0]


def _optional(card: dict[str, Any], name: str, kind: type[T]) -> T | None:
    """Returns a field of a model's card, None where it is not there."""
    value = card.get(name)
    if value is not None and type(value) is not kind:
        raise TypeError(f"{name} is {value!r:.40}")
    return value


def require_able(service: HttpService, tokens: Tokens) -> None:
    """Checks that every server can be used.

    Raises:
        BadInput: One cannot; says why.
    """
    for url in service.urls:
        for found in probe(url, service.served.name, tokens):
            if not found.ok:
                raise BadInput(f"{url} cannot be used: {found.name}: {found.finding}")


def probe(url: str, model: str, tokens: Tokens | None) -> list[Finding]:
    """Returns what a server can do; after a failure nothing more is looked at.

    Args:
        url: Its base URL.
        model: The name it serves the model by.
        tokens: The model's, to be compared with the server's; None compares nothing.
    """
    found: list[Finding] = []
    with _client() as client:
        server = _Server(client, url, model)
        for name, check in _checks(server, tokens):
            try:
                finding = Finding(name=name, ok=True, finding=check())
            except Fault as fault:
                finding = Finding(name=name, ok=False, finding=fault.message)
            except httpx2.HTTPError as e:
                finding = Finding(name=name, ok=False, finding=f"{type(e).__name__}: {e}")
            found.append(finding)
            if not finding.ok:
                break
    return found


class _Server:
    """Asks one server."""

    def __init__(self, client: httpx2.Client, url: str, model: str) -> None:
        self._client = client
        self._url = url
        self._model = model

    def complete(self, prompt: Sequence[int], n: int, **others: Any) -> _Reply:
        """Returns `n` tokens after a prompt.

        Raises:
            Fault: It does not reply as it must.
        """
        call = {"model": self._model, "prompt": list(prompt), "max_tokens": n, "logprobs": 1}
        body = PLAIN | {"temperature": 1.0, "top_p": 1.0, "seed": 1} | call | others
        ids: list[int] = []
        logprobs: list[float] = []
        best: list[float] = []
        for data in self._stream(body):
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

    def _stream(self, body: dict[str, Any]) -> Iterator[str]:
        with self._client.sse(f"{self._url}/completions", method="POST", json=body) as stream:
            if stream.response.status_code != httpx2.codes.OK:
                stream.response.read()
                raise fault_of_status(stream.response.status_code, stream.response.text)
            for event in stream:
                if event.data == DONE:
                    return
                yield event.data
        raise Fault("truncated", "the stream broke off")

    def encode(self, text: str) -> list[int] | None:
        """Returns the ids of a text without special tokens; None where the server has no say."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        response = self._client.post(f"{self._url.removesuffix('/v1')}/tokenize", json=body)
        if response.status_code != httpx2.codes.OK:
            return None
        try:
            return [int(token) for token in response.json()["tokens"]]
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

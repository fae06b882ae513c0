"""A policy that asks servers over HTTP; see `http_protocol` for what a server must be able to do.

A continuation is one call with its own seed, so that it depends on the seed alone as far as the
server can keep that: servers compute calls in batches of what there happens to be, and a token's
last bits can differ with the batch. A call that failed is made again from its beginning; what
came of the attempt before is dropped, so nothing counts twice.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from treeward.search.errors import CallFailed
from treeward.search.forest import together
from treeward.search.http_protocol import (
    DONE,
    Fault,
    Reading,
    body_of,
    fault_of_status,
    logprob_body,
    read_event,
    read_logprobs,
)
from treeward.search.http_replicas import Clock, Replicas, Sleep, doubled
from treeward.search.http_settings import HttpService, http_identity_of
from treeward.search.jobs import too_long
from treeward.search.policy import Ask, Draw, LogprobAsk, draws_of
from treeward.search.tokens import Tokens

T = TypeVar("T")
Call = Callable[[str, asyncio.Timeout], Awaitable[T]]
"""Given a base URL and its deadline, asks the server there once."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class HttpPolicy:
    """Samples from servers of one model; satisfies `Policy`."""

    def __init__(
        self,
        service: HttpService,
        tokens: Tokens,
        fingerprint: str,
        *,
        jitter: random.Random,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Connects to nobody yet.

        Args:
            service: The model behind its servers.
            tokens: The model's.
            fingerprint: What the local tokenizer hashes to; part of the identity.
            jitter: Spreads attempts over time; no draw depends on it.
            clock: Seconds, for when a server may be asked again.
            sleep: Waits some seconds.
        """
        self._service = service
        self._settings = service.settings
        self._tokens = tokens
        self._fingerprint = fingerprint
        self._jitter = jitter
        self._sleep = sleep
        most = self._settings.max_in_flight
        self.replicas = Replicas(service.urls, most, clock=clock, sleep=sleep)
        # Our own deadline covers whole calls, and `Replicas` says how many there are. Servers are
        # asked where their URLs say, not through what the environment calls a proxy.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=most)
        self._client = httpx2.AsyncClient(timeout=None, limits=limits, trust_env=False)

    @property
    def tokens(self) -> Tokens:
        """Returns what its token ids stand for."""
        return self._tokens

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns what its replies depend on, as far as servers tell."""
        return http_identity_of(self._fingerprint, self._service)

    async def draw(self, ask: Ask) -> list[Draw]:
        """Returns one continuation for each seed.

        Raises:
            SomeFailed: Some of them could not be had, and the others are here.
            CallFailed: None could be had in as many attempts as there may be. The kind is what
                befell the last of the first: `connection`, `timeout` (no new token for too long),
                `truncated`, `bad_reply` (it contradicts itself or what was asked) or `http_429`
                and so on; or `context_length` where the model's context is too short.
        """
        self._check_room(ask.positions)
        draws = draws_of(ask, await together(self._draw_one(ask, seed) for seed in ask.seeds))
        if isinstance(draws, CallFailed):
            raise draws
        return draws

    async def logprobs(self, ask: LogprobAsk) -> list[float]:
        """Returns the log-probability of each id.

        Raises:
            CallFailed: As above; `bad_reply` also where a server does not tell.
        """
        self._check_room(ask.positions + 1)  # servers draw a token
        body = logprob_body(self._service.served.name, ask)

        async def call(url: str, _: asyncio.Timeout) -> list[float]:
            response = await self._client.post(f"{url}/completions", json=body)
            _require_ok(response, response.text)
            return read_logprobs(response.text, ask)

        return await self._persist(ask.stick_to, call)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    def _check_room(self, positions: int) -> None:
        """Raises CallFailed where the model's context is known to be too short."""
        context = self._service.served.context
        if context is not None and (failure := too_long(positions, context)):
            raise failure

    async def _draw_one(self, ask: Ask, seed: int) -> Draw | CallFailed:
        body = body_of(self._service.served.name, ask, seed, self._tokens)

        def call(url: str, deadline: asyncio.Timeout) -> Awaitable[Draw]:
            return self._read(url, body, Reading(ask, self._tokens), deadline)

        try:
            return await self._persist(ask.stick_to, call)
        except CallFailed as e:
            return e

    async def _persist(self, stick_to: str, call: Call[T]) -> T:
        """Makes a call again until it succeeds, as often as the settings say."""
        attempt = 0
        while True:
            try:
                async with self.replicas.turn(stick_to) as url:
                    return await self._attempt(url, call)
            except Fault as fault:
                attempt += 1
                if not fault.passing or attempt > self._settings.retries:
                    message = f"{fault.message} (attempt {attempt})"
                    raise CallFailed(fault.kind, message) from fault
            await self._sleep(self._pause(attempt))

    def _pause(self, attempt: int) -> float:
        """Returns the seconds before the next attempt: full jitter below a doubling bound."""
        bound = doubled(_FIRST_PAUSE, attempt, most=_LONGEST_PAUSE)
        return self._jitter.uniform(0.0, bound)

    async def _attempt(self, url: str, call: Call[T]) -> T:
        """Returns what one call brings; whatever else happens is a `Fault`."""
        allowed = self._settings.timeout
        try:
            async with asyncio.timeout(allowed) as deadline:
                return await call(url, deadline)
        except TimeoutError as e:
            message = f"{url}: no new token for {allowed:g} s"
            raise Fault("timeout", message, overloaded=True) from e
        except httpx2.DecodingError as e:
            raise Fault("bad_reply", f"{url}: {type(e).__name__}: {e}") from e
        except httpx2.TransportError as e:
            raise Fault("connection", f"{url}: {type(e).__name__}: {e}") from e
        except Fault as fault:
            fault.message = f"{url}: {fault.message}"
            raise

    async def _read(
        self, url: str, body: dict[str, Any], reading: Reading, deadline: asyncio.Timeout
    ) -> Draw:
        """Reads a stream to its end, or until there is all that was asked for.

        Leaving early closes the connection, which ends the work on the server. Only tokens put the
        deadline off: a server can keep a connection alive and do nothing.
        """
        loop = asyncio.get_running_loop()
        async with self._client.sse(f"{url}/completions", method="POST", json=body) as stream:
            response = stream.response
            if response.status_code != httpx2.codes.OK:
                _require_ok(response, (await response.aread()).decode("utf-8", "replace"))
            async for each in stream:
                if each.data == DONE:
                    break
                event = read_event(each.data)
                reading.feed(event)
                if event.token_ids:
                    deadline.reschedule(loop.time() + self._settings.timeout)
                if reading.draw is not None and event.token_ids and event.finish_reason is None:
                    return reading.draw
            else:
                raise Fault("truncated", "the stream broke off")
        if reading.draw is None:
            raise Fault("truncated", "the stream ended before the continuation did")
        return reading.draw


def _require_ok(response: httpx2.Response, text: str) -> None:
    """Raises a Fault where a reply is no success."""
    if response.status_code != httpx2.codes.OK:
        raise fault_of_status(response.status_code, text, _retry_after(response))


def _retry_after(response: httpx2.Response) -> float | None:
    """Returns the seconds that a reply's Retry-After names: a number, or a date by its own Date."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        sent = parsedate_to_datetime(response.headers["date"])
        return max(0.0, (parsedate_to_datetime(value) - sent).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None

"""A policy that asks servers over HTTP; see `http_protocol` for what a server must be able to do.

A continuation is one call with its own seed, so that it depends on the seed alone as far as the
server can keep that: servers compute calls in batches of what there happens to be, and a token's
last bits can differ with the batch. A call that failed is made again from its beginning; what
came of the attempt before is dropped, so nothing counts twice.
"""

import asyncio
import random
import time
from collections.abc import Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

from treeward.search.errors import CallFailed
from treeward.search.forest import together
from treeward.search.http_calls import Call, Caller, require_ok, stream
from treeward.search.http_protocol import (
    Fault,
    Reading,
    body_of,
    logprob_body,
    read_event,
    read_logprobs,
)
from treeward.search.http_replicas import Clock, Sleep
from treeward.search.http_settings import HttpService, http_identity_of
from treeward.search.jobs import too_long
from treeward.search.policy import Ask, Draw, LogprobAsk, draws_of
from treeward.search.tokens import Tokens

T = TypeVar("T")


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
        self._timeout = service.settings.timeout
        self._tokens = tokens
        self._fingerprint = fingerprint
        self._caller = Caller(
            service.urls, service.settings, jitter=jitter, clock=clock, sleep=sleep
        )
        self._client = self._caller.client

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
            require_ok(response, response.text)
            return read_logprobs(response.text, ask)

        return await self._persist(ask.stick_to, call)

    async def close(self) -> None:
        """Closes the connections."""
        await self._caller.close()

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
        """Returns what a call brings in the end."""
        try:
            return await self._caller.persist(stick_to, call)
        except Fault as fault:
            raise CallFailed(fault.kind, fault.message) from fault

    async def _read(
        self, url: str, body: dict[str, Any], reading: Reading, deadline: asyncio.Timeout
    ) -> Draw:
        """Reads a stream to its end, or until there is all that was asked for.

        Leaving early closes the connection, which ends the work on the server. Only tokens put the
        deadline off: a server can keep a connection alive and do nothing.
        """
        loop = asyncio.get_running_loop()
        async with aclosing(stream(self._client, f"{url}/completions", body)) as events:
            async for data in events:
                event = read_event(data)
                reading.feed(event)
                if event.token_ids:
                    deadline.reschedule(loop.time() + self._timeout)
                if reading.draw is not None and event.token_ids and event.finish_reason is None:
                    return reading.draw
        if reading.draw is None:
            raise Fault("truncated", "the stream ended before the continuation did")
        return reading.draw

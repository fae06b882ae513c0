"""Makes calls to servers again until they succeed, or until it is not worth trying any more."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from treeward.search.http_protocol import DONE, Fault, fault_of_status
from treeward.search.http_replicas import Clock, Replicas, Sleep, doubled
from treeward.search.http_settings import HttpSettings

T = TypeVar("T")
Call = Callable[[str, asyncio.Timeout], Awaitable[T]]
"""Given a base URL and its deadline, asks the server there once."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class Caller:
    """Calls servers of one model."""

    def __init__(
        self,
        urls: Sequence[str],
        settings: HttpSettings,
        *,
        jitter: random.Random,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Connects to nobody yet.

        Args:
            urls: The servers' base URLs.
            settings: How often and how long a call is tried.
            jitter: Spreads attempts over time.
            clock: Seconds, for when a server may be asked again.
            sleep: Waits some seconds.
        """
        self._settings = settings
        self._jitter = jitter
        self._sleep = sleep
        most = settings.max_in_flight
        self._replicas = Replicas(urls, most, clock=clock, sleep=sleep)
        # Our own deadline covers whole calls, and `Replicas` says how many there are. Servers are
        # asked where their URLs say, not through what the environment calls a proxy.
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=most)
        self.client = httpx2.AsyncClient(timeout=None, limits=limits, trust_env=False)

    async def persist(self, stick_to: str, call: Call[T]) -> T:
        """Makes a call again until it succeeds, as often as the settings say.

        Args:
            stick_to: Calls with the same word go to the same server while that can be asked.
            call: Asks a server once.

        Raises:
            Fault: What befell the last attempt.
        """
        attempt = 0
        while True:
            try:
                async with self._replicas.turn(stick_to) as url:
                    return await self._attempt(url, call)
            except Fault as fault:
                attempt += 1
                if not fault.passing or attempt > self._settings.retries:
                    fault.message += f" (attempt {attempt})"
                    raise
            await self._sleep(self.pause(attempt))

    def pause(self, attempt: int) -> float:
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

    async def close(self) -> None:
        """Closes the connections."""
        await self.client.aclose()


async def stream(client: httpx2.AsyncClient, url: str, body: Any) -> AsyncGenerator[str, None]:
    """Yields the events of a stream to its end; closing it ends the work on the server.

    Raises:
        Fault: The reply is no success, or the stream breaks off.
    """
    async with client.sse(url, method="POST", json=body) as events:
        response = events.response
        if response.status_code != httpx2.codes.OK:
            require_ok(response, (await response.aread()).decode("utf-8", "replace"))
        async for each in events:
            if each.data == DONE:
                return
            yield each.data
    raise Fault("truncated", "the stream broke off")


def require_ok(response: httpx2.Response, text: str) -> None:
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

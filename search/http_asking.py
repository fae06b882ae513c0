"""Asks one server from code that waits, with retries for as long as a person would wait.

It works where an event loop runs on the thread, as in a notebook: calls have a loop of their own.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

from treeward.search.http_calls import Caller
from treeward.search.http_protocol import Fault
from treeward.search.http_settings import HttpSettings

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a call of a few tokens may take, attempts and the pauses between them together."""
_RETRIES = 3
"""Attempts after the first that a call may have, however many the settings allow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks one server."""

    url: str
    caller: Caller
    portal: BlockingPortal

    def ask(self, call: Callable[[httpx2.AsyncClient], Awaitable[T]]) -> T:
        """Returns what a call brings.

        Raises:
            Fault: What befell it; see `is_silent`.
        """
        return self.portal.call(self._persist, call)

    async def _persist(self, call: Callable[[httpx2.AsyncClient], Awaitable[T]]) -> T:
        last = Fault("timeout", f"{self.url}: no reply for {PATIENCE:g} s", overloaded=True)

        async def once(_: str, __: asyncio.Timeout) -> T:
            nonlocal last
            try:
                return await call(self.caller.client)
            except httpx2.SSEError as e:
                raise Fault("bad_reply", str(e), passing=False) from e
            except Fault as fault:
                # Who speaks another language does so when asked again.
                fault.passing = is_silent(fault)
                last = fault
                raise

        try:
            async with asyncio.timeout(PATIENCE):
                return await self.caller.persist("", once)
        except TimeoutError as e:
            raise last from e


def is_silent(fault: Fault) -> bool:
    """Returns whether a server did not answer; else it did, and the answer is no use."""
    return fault.passing and fault.kind != "bad_reply"


@contextmanager
def asking(url: str, settings: HttpSettings) -> Iterator[Asker]:
    """Connects to a server for some calls.

    Args:
        url: Its base URL.
        settings: How often calls are tried at most.
    """
    few = replace(settings, retries=min(settings.retries, _RETRIES), timeout=PATIENCE)
    with start_blocking_portal() as portal:
        caller = Caller((url,), few, jitter=random.Random())
        try:
            yield Asker(url=url, caller=caller, portal=portal)
        finally:
            portal.call(caller.close)

"""Servers of one model: which of them a call goes to, and how many calls each has at once.

Calls with the same word go to the same server, for its prefix cache: each word has its own order of
servers (rendezvous hashing, Thaler and Ravishankar 1998), so that where one drops out only its own
words move. How many calls a server has at once follows TCP (RFC 5681): doubling until the first
sign of too much, then one more a round, and half at each such sign.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from treeward.search.http_protocol import ALIVE, Fault

_FIRST_LIMIT = 16
_STRIKES = 3
_FIRST_REST = 2.0
_LONGEST_REST = 60.0
_LONGEST_WAIT = 600.0

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


def doubled(first: float, times: int, *, most: float) -> float:
    """Returns `first` doubled so many times, and at most `most`."""
    return min(most, first * 2.0 ** min(times, 1000))


@dataclass(slots=True, eq=False)
class Replica:
    """Holds what is known about one server."""

    url: str
    most: int
    """Calls that it may have at once."""

    limit: float = field(init=False)
    """Calls that it may have for now; from 1 to `most`."""

    threshold: float = field(init=False)
    """The limit up to which each success adds one."""

    in_flight: int = 0
    waiting: deque[asyncio.Future[bool]] = field(default_factory=deque)
    """Calls that want a place; they are told whether they have one or must choose again."""

    cuts: int = 0
    """Times the limit was halved. A call under way since before is no sign of too much now."""

    strikes: int = 0
    """Failures since the last success."""

    rests: int = 0
    """Times it was set aside since the last success."""

    closed_until: float = float("-inf")
    """When it may be asked again, by the clock."""

    def __post_init__(self) -> None:
        """Starts with few calls."""
        self.limit = float(min(_FIRST_LIMIT, self.most))
        self.threshold = float(self.most)

    async def place(self) -> bool:
        """Waits for a place and takes it; False where the server was set aside meanwhile."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self._admit()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self.leave()
            raise

    def leave(self) -> None:
        """Gives a place back."""
        self.in_flight -= 1
        self._admit()

    def _admit(self) -> None:
        while self.waiting and self.in_flight < int(self.limit):
            future = self.waiting.popleft()
            if not future.done():
                self.in_flight += 1
                future.set_result(True)

    def succeed(self) -> None:
        """Counts a success; there is no more room where the room there is was not used."""
        self.strikes = self.rests = 0
        if self.in_flight >= int(self.limit):
            more = 1.0 if self.limit < self.threshold else 1.0 / self.limit
            self.limit = min(float(self.most), self.limit + more)

    def fail(self, fault: Fault, *, cuts: int, now: float) -> None:
        """Counts a failure. A server that has too much to do and says so is not broken.

        Args:
            fault: What happened.
            cuts: What `cuts` was when the call was sent.
            now: The time by the clock.
        """
        if fault.overloaded and cuts == self.cuts:
            self.limit = self.threshold = max(1.0, self.limit / 2)
            self.cuts += 1
        if fault.retry_after is not None:
            self._close(now + min(fault.retry_after, _LONGEST_WAIT))
        elif fault.passing and fault.kind != ALIVE and now >= self.closed_until:
            self.strikes += 1
            if self.strikes >= _STRIKES:
                self._close(now + doubled(_FIRST_REST, self.rests, most=_LONGEST_REST))
                self.rests += 1

    def _close(self, until: float) -> None:
        self.closed_until = max(self.closed_until, until)
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(False)


class Replicas:
    """Sends calls to servers."""

    def __init__(self, urls: Sequence[str], most: int, *, clock: Clock, sleep: Sleep) -> None:
        """Takes the base URLs, the calls that each may have at once, and what time is."""
        self.all = [Replica(url, most) for url in urls]
        self._clock = clock
        self._sleep = sleep

    @asynccontextmanager
    async def turn(self, word: str) -> AsyncIterator[str]:
        """Waits for the turn of a call and gives the base URL it goes to.

        A `Fault` raised inside counts as the server's failure, a normal end as its success.

        Args:
            word: Calls with the same word go to the same server while that can be asked.
        """
        replica = await self._enter(word)
        cuts = replica.cuts
        try:
            yield replica.url
        except Fault as fault:
            replica.fail(fault, cuts=cuts, now=self._clock())
            raise
        else:
            replica.succeed()
        finally:
            replica.leave()

    async def _enter(self, word: str) -> Replica:
        order = sorted(self.all, key=lambda replica: _rank(replica.url, word))
        while True:
            now = self._clock()
            replica = next((each for each in order if each.closed_until <= now), None)
            if replica is None:
                await self._sleep(min(each.closed_until for each in order) - now)
            elif await replica.place():
                return replica


def _rank(url: str, word: str) -> bytes:
    name = word.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(name, key=hashlib.sha256(url.encode()).digest()).digest()

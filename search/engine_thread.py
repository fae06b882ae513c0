"""Runs an engine on a thread of its own and lets coroutines wait for what it draws."""

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import torch

from treeward.search.errors import CallFailed
from treeward.search.jobs import Job, LogprobJob
from treeward.search.policy import Ask, Draw, LogprobAsk
from treeward.search.tokens import Tokens


class Ticking(Protocol):
    """An engine: takes jobs at any time and advances all of them with each tick."""

    @property
    def busy(self) -> bool:
        """Returns whether anything is under way."""
        ...

    def add(self, job: Job | LogprobJob) -> None:
        """Takes a job."""
        ...

    def tick(self) -> None:
        """Adds a token to whatever is under way."""
        ...

    def clear(self) -> None:
        """Forgets all that is under way, after a tick that ran out of memory."""
        ...


E = TypeVar("E", bound=Ticking)
Done = Callable[[Any], None]


class EngineThread(Generic[E]):
    """Serves asks with an engine. Not safe to share between event loops."""

    def __init__(self, opened: AbstractContextManager[E]) -> None:
        """Starts the thread and opens the engine there.

        Args:
            opened: Is entered and left on the thread, so that whatever a library keeps for each
                thread is where the engine runs.

        Raises:
            Exception: What opening raises.
        """
        self._inbox: queue.SimpleQueue[Job | LogprobJob | None] = queue.SimpleQueue()
        self._under_way: set[Job | LogprobJob] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        ready: Future[E] = Future()
        self._serving = self._thread.submit(self._serve, opened, ready)
        self._serving.add_done_callback(self._end)
        either: list[Future[Any]] = [ready, self._serving]
        wait(either, return_when=FIRST_COMPLETED)
        if not ready.done():
            self._thread.shutdown()
            self._serving.result()
        self.engine = ready.result()

    async def serve(self, job_of: Callable[[Done], Job | LogprobJob]) -> Any:
        """Returns what a job comes to.

        Args:
            job_of: Makes it of what it is to call when it is done.

        Raises:
            CallFailed: The engine refuses the ask, or is closed.
            Exception: What broke the engine.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def settle(result: Any) -> None:
            if future.done():
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        def done(result: Any) -> None:
            self._under_way.discard(job)
            loop.call_soon_threadsafe(settle, result)

        job = job_of(done)
        self._under_way.add(job)
        self._inbox.put(job)
        if self._serving.done():
            self._end(self._serving)
        return await future

    async def close(self) -> None:
        """Closes the engine once it has nothing to do."""
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.shutdown)

    def _end(self, serving: Future[None]) -> None:
        """Tells everyone who waits why nobody serves them any more."""
        for job in list(self._under_way):
            job.done(serving.exception() or CallFailed("engine", "the policy is closed"))

    def _serve(self, opened: AbstractContextManager[E], ready: Future[E]) -> None:
        with opened as engine:
            ready.set_result(engine)
            while self._take(engine):
                self._tick(engine)

    def _take(self, engine: E) -> bool:
        """Hands over what has come; waits where there is nothing to do. False means the end."""
        while not self._inbox.empty() or not engine.busy:
            job = self._inbox.get()
            if job is None:
                return False
            if job in self._under_way:  # else it was lost before the engine saw it
                engine.add(job)
        return True

    def _tick(self, engine: E) -> None:
        try:
            engine.tick()
        except (torch.OutOfMemoryError, MemoryError) as e:
            # Everything under way shares the pass that failed; what comes later may fit.
            engine.clear()
            for lost in list(self._under_way):
                lost.done(CallFailed("out_of_memory", str(e).partition("\n")[0]))


class EnginePolicy(Generic[E]):
    """A policy whose engine runs in this process; satisfies `Policy`."""

    def __init__(
        self, tokens: Tokens, identity: dict[str, str | int], opened: AbstractContextManager[E]
    ) -> None:
        """Starts the engine's thread; see `EngineThread`.

        Args:
            tokens: What its token ids stand for.
            identity: What its replies depend on.
            opened: The engine.
        """
        self._tokens = tokens
        self._identity = identity
        self._thread = EngineThread(opened)

    @property
    def engine(self) -> E:
        """Returns what serves the asks."""
        return self._thread.engine

    @property
    def tokens(self) -> Tokens:
        """Returns what its token ids stand for."""
        return self._tokens

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns what its replies depend on."""
        return self._identity

    async def draw(self, ask: Ask) -> list[Draw]:
        """Returns one continuation for each seed.

        Raises:
            CallFailed: The ask does not fit the model's context, or the engine broke.
            BadInput: The engine does not sample with such settings.
        """
        draws: list[Draw] = await self._thread.serve(lambda done: Job(ask=ask, done=done))
        return draws

    async def logprobs(self, ask: LogprobAsk) -> list[float]:
        """Returns the log-probability of each id.

        Raises:
            CallFailed: The ask does not fit the model's context, or the engine broke.
        """
        told: list[float] = await self._thread.serve(lambda done: LogprobJob(ask=ask, done=done))
        return told

    async def close(self) -> None:
        """Ends the thread once it has nothing to do, and lets go of the engine."""
        await self._thread.close()

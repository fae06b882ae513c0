"""Asks a critic for scores, on a thread of its own; those who wait are served together."""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

from treeward.search.critic import Critic, Prefix, Scores
from treeward.search.errors import CallFailed, TreewardError
from treeward.search.replies import Failure

TOGETHER = 64
"""Prefixes that a critic is given at once, at most."""

_LEAST = {"value": 0.0, "progress": -1.0, "outcome": 0.0}
_REFUSALS = (TreewardError, ValueError, RuntimeError)
"""What a critic may raise about a prefix: too long, or out of memory."""

Scored = list[Scores] | Failure


def score_each(critic: Critic, prefixes: Sequence[Prefix], *, alone: bool) -> list[Scored]:
    """Returns for each prefix its scores, or why there are none; one that fails costs no other.

    Args:
        critic: What is asked.
        prefixes: About what; `TOGETHER` at most are handed over at once.
        alone: Whether each is handed over by itself, so that no companion can change its bits.
    """
    size = 1 if alone else TOGETHER
    return [
        scored
        for first in range(0, len(prefixes), size)
        for scored in _score_batch(critic, prefixes[first : first + size])
    ]


def _score_batch(critic: Critic, prefixes: Sequence[Prefix]) -> Iterator[Scored]:
    try:
        scores = critic.score(prefixes)
    except _REFUSALS as e:
        if len(prefixes) == 1:
            yield _failure(e)
            return
        for prefix in prefixes:
            yield from _score_batch(critic, [prefix])
        return
    for prefix, of_prefix in zip(prefixes, scores, strict=True):
        yield _checked(prefix, of_prefix)


def _failure(error: Exception) -> Failure:
    if isinstance(error, CallFailed):
        return Failure(error.kind, error.message)
    return Failure("critic", " ".join(str(error).split()) or type(error).__name__)


def _checked(prefix: Prefix, scores: list[Scores]) -> Scored:
    """Returns scores that are what they must be, or says what is wrong with them."""
    if len(scores) != 1 + len(prefix.steps):
        return Failure(
            "critic", f"{len(scores)} scores for a problem and {len(prefix.steps)} steps"
        )
    if scores[0].progress is not None or scores[0].outcome is not None:
        return Failure("critic", "progress and outcome of a bare problem must be None")
    for of_step in scores:
        for name, least in _LEAST.items():
            score = getattr(of_step, name)
            if score is not None and not least <= score <= 1:
                return Failure("critic", f"{name} is {score!r}; it must lie in [{least:g}, 1]")
    return scores


@dataclass(slots=True, eq=False)
class _Waiting:
    """Someone who waits for scores."""

    prefixes: Sequence[Prefix]
    scored: Sequence[Scored] | None = None


class CriticThread:
    """Scores prefixes for whoever awaits them. Not safe to share between event loops."""

    def __init__(self, critic: Critic, *, alone: bool) -> None:
        """Starts no work yet.

        Args:
            critic: What is asked, always from one and the same thread.
            alone: Whether each prefix is handed over by itself.
        """
        self._critic = critic
        self._alone = alone
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="critic")
        self._turn = asyncio.Lock()
        self._waiting: list[_Waiting] = []

    async def score(self, prefixes: Sequence[Prefix]) -> tuple[Scores | Failure, ...]:
        """Returns the scores of each prefix after its last step, or why there are none."""
        mine = _Waiting(prefixes)
        self._waiting.append(mine)
        while mine.scored is None:
            async with self._turn:
                # Whoever served the others while we waited for our turn may have served us.
                if mine.scored is None:
                    await self._serve()
        return tuple([said if isinstance(said, Failure) else said[-1] for said in mine.scored])

    async def _serve(self) -> None:
        """Serves those who have waited longest; nobody is forgotten where this is cancelled."""
        await asyncio.sleep(0)  # others ask in the same turn of the loop
        ends = list(accumulate(len(waiting.prefixes) for waiting in self._waiting))
        batch = self._waiting[: max(1, bisect_right(ends, TOGETHER))]
        scored = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._score, [prefix for waiting in batch for prefix in waiting.prefixes]
        )
        del self._waiting[: len(batch)]
        for waiting, end in zip(batch, ends, strict=False):
            waiting.scored = scored[end - len(waiting.prefixes) : end]

    def _score(self, prefixes: Sequence[Prefix]) -> list[Scored]:
        return score_each(self._critic, prefixes, alone=self._alone)

    async def close(self) -> None:
        """Ends the thread; no `score` is under way or follows."""
        await asyncio.to_thread(self._thread.shutdown)

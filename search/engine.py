"""Decodes many continuations at once with a transformers model; knows nothing of threads.

Each tick prefills what is new, then adds one token to every row. A row's prefix is computed in
chunks that are kept by their tokens, so the samples of one node share one prefill and the next
request there needs none. A row that ends gives its slot to the next one in the same tick.

In deterministic mode a row's bits depend on its own ask alone: every pass has a fixed number of
rows, empty ones padded, and reads a number of positions that follows from the row's own ask. Then a
row meets the same kernels with the same shapes whatever its companions are. The number of rows is a
multiple of `VECTOR`: elementwise kernels compute what is left over after whole vectors by another
formula (SiLU's last bit differs with AVX-512), and then the slot would matter.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel

from treeward.search.errors import CallFailed
from treeward.search.kv_cache import PrefixCache, SlotCache
from treeward.search.network import Network
from treeward.search.policy import Ask, Draw, Mode
from treeward.search.prefill import VECTOR, Prefiller
from treeward.search.requests import Kind
from treeward.search.sampling import draw_tokens, uniforms
from treeward.search.steps import Budget, Finish, Stepper
from treeward.search.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Shapes of the passes. In deterministic mode they are part of what replies depend on."""

    mode: Mode = Mode.NORMAL
    slots: int = 64
    """Rows decoded at once, for each capacity."""

    chunk: int = 16
    """Tokens of a prefill pass."""

    prefill_rows: int = 8
    """Prefixes of a prefill pass."""

    bucket: int = 64
    """Capacities of slots are multiples of this many positions."""

    prefix_cache_bytes: int = 1 << 30


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """An ask under way."""

    ask: Ask
    done: Callable[["list[Draw] | BaseException"], None]
    """Called once with the draws, in the order of the seeds, or with what went wrong."""

    draws: list[Draw | None] = field(default_factory=list)
    missing: int = 0
    failure: CallFailed | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        """Returns prompt and prefix."""
        return self.ask.prompt_ids + self.ask.prefix_ids

    @property
    def room(self) -> int:
        """Returns how many tokens a continuation may have."""
        return self.ask.settings.max_rollout_tokens - len(self.ask.prefix_ids)


@dataclass(slots=True, kw_only=True)
class Row:
    """A continuation under way."""

    job: Job
    index: int
    seed: int
    stepper: Stepper
    length: int
    """Positions whose keys and values are in the slot."""

    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0


@dataclass(slots=True)
class Pool:
    """Rows of one capacity and sampler: `rows[i]` lives in slot i, and there are no gaps."""

    capacity: int
    cache: SlotCache
    rows: list[Row] = field(default_factory=list)
    waiting: deque[Row] = field(default_factory=deque)

    @property
    def busy(self) -> bool:
        """Returns whether anything is under way."""
        return bool(self.rows or self.waiting)


class Engine:
    """Serves asks in ticks. Not thread-safe: one thread calls `add` and `tick`."""

    def __init__(self, model: PreTrainedModel, tokens: Tokens, settings: EngineSettings) -> None:
        """Takes a causal language model whose attention is `grouped_attention`."""
        self._network = Network(model)
        self._tokens = tokens
        self._settings = settings
        self._padded = settings.mode is Mode.DETERMINISTIC
        self._height = _round_up(settings.slots, VECTOR if self._padded else 1)
        self._pools: dict[tuple[int, float, float], Pool] = {}
        self._new: deque[Job] = deque()
        self.prefixes = PrefixCache(settings.prefix_cache_bytes)
        self._prefiller = Prefiller(
            self._network,
            self.prefixes,
            chunk=settings.chunk,
            rows=settings.prefill_rows,
            padded=self._padded,
        )

    @property
    def busy(self) -> bool:
        """Returns whether anything is under way."""
        return bool(self._new) or any(pool.busy for pool in self._pools.values())

    def add(self, job: Job) -> None:
        """Takes a job; it advances with each tick."""
        need = len(job.ids) + job.room
        if need > self._network.max_positions:
            message = f"{need} positions needed, the model has {self._network.max_positions}"
            job.done(CallFailed("context_length", message))
            return
        assert job.ids, "there is something to go on from"
        assert job.room > 0, "a prefix without room is the end of its solution"
        if job.ask.seeds:
            self._new.append(job)
        else:
            job.done([])

    def clear(self) -> None:
        """Forgets all that is under way; prefixes stay."""
        self._new.clear()
        self._pools.clear()

    def forget(self) -> None:
        """Forgets prefixes too: for after the model's weights have changed."""
        self.clear()
        self.prefixes.clear()

    @torch.inference_mode()
    def tick(self) -> None:
        """Prefills new jobs, fills free slots, and adds one token to every row.

        While others wait for a slot, new jobs are left to gather until they fill a prefill pass.
        """
        waiting = any(pool.waiting for pool in self._pools.values())
        if self._new and (len(self._new) >= self._settings.prefill_rows or not waiting):
            self._prefiller.read({job.ids: None for job in self._new})
            while self._new:
                self._enqueue(self._new.popleft())
        for pool in self._pools.values():
            self._admit(pool)
            if pool.rows:
                self._decode(pool)

    def _enqueue(self, job: Job) -> None:
        pool = self._pool_for(job)
        job.draws = [None] * len(job.ask.seeds)
        job.missing = len(job.ask.seeds)
        for index, seed in enumerate(job.ask.seeds):
            budget = Budget(step=job.ask.settings.max_step_tokens, total=job.room)
            stepper = Stepper.after(job.ask.prefix_ids, self._tokens, job.ask.rule, budget)
            pool.waiting.append(
                Row(job=job, index=index, seed=seed, stepper=stepper, length=len(job.ids))
            )

    def _pool_for(self, job: Job) -> Pool:
        """Returns the pool that a job's rows live in; a new one takes the place of idle ones."""
        settings = job.ask.settings
        sampler = (settings.temperature, settings.top_p)
        need = len(job.ask.prompt_ids) + settings.max_rollout_tokens
        capacity = _round_up(need, self._settings.bucket)
        if not self._padded:
            roomy = [size for size, *of in self._pools if tuple(of) == sampler and size >= need]
            capacity = min(roomy, default=capacity)
        key = (capacity, *sampler)
        if key not in self._pools:
            self._pools = {at: pool for at, pool in self._pools.items() if pool.busy}
            net = self._network
            shape = (net.layers, self._height, net.heads, capacity, net.width)
            self._pools[key] = Pool(capacity, SlotCache(shape, net.dtype, net.device))
        return self._pools[key]

    def _admit(self, pool: Pool) -> None:
        """Fills free slots; a row draws its first token from its prefix's logits."""
        while pool.waiting and len(pool.rows) < self._settings.slots:
            free = self._settings.slots - len(pool.rows)
            rows = [pool.waiting.popleft() for _ in range(min(free, len(pool.waiting)))]
            jobs = dict.fromkeys(row.job for row in rows)
            chunks = {job: self._prefiller.chunks(job.ids) for job in jobs}
            going = self._draw(rows, torch.stack([chunks[row.job][-1].logits_V for row in rows]))
            for row, goes_on in zip(rows, going, strict=True):
                if goes_on:
                    pool.cache.fill(len(pool.rows), chunks[row.job])
                    pool.rows.append(row)

    def _decode(self, pool: Pool) -> None:
        """Adds one token to every row of a pool and lets go of those that end."""
        rows = pool.rows
        shape = self._height if self._padded else len(rows)
        longest = max(row.length for row in rows) + 1
        length = pool.capacity if self._padded else min(pool.capacity, _round_up(longest, 16))
        padding = [0] * (shape - len(rows))
        positions = torch.tensor([row.length for row in rows] + padding)
        pool.cache.set_pass(positions, length)
        logits = self._network.forward(
            torch.tensor([row.ids[-1] for row in rows] + padding)[:, None],
            positions[:, None],
            (torch.arange(length) > positions[:, None])[:, None],
            pool.cache,
            torch.zeros(shape, dtype=torch.long),
        )
        for row in rows:
            row.length += 1
        going = self._draw(rows, logits)
        for slot in reversed([slot for slot, goes_on in enumerate(going) if not goes_on]):
            last = pool.rows.pop()
            if slot < len(pool.rows):
                pool.cache.move(len(pool.rows), slot, last.length)
                pool.rows[slot] = last

    def _draw(self, rows: list[Row], logits_BV: torch.Tensor) -> list[bool]:
        """Draws one token for each row; returns which rows go on."""
        if self._padded:
            missing = self._height - len(logits_BV)
            logits_BV = torch.nn.functional.pad(logits_BV, (0, 0, 0, missing))
        padding = [0] * (len(logits_BV) - len(rows))
        noise = uniforms(
            np.array([row.seed for row in rows] + padding, dtype=np.uint64),
            np.array([len(row.ids) for row in rows] + padding, dtype=np.uint64),
        )
        settings = rows[0].job.ask.settings
        tokens, logprobs = draw_tokens(
            logits_BV, noise, temperature=settings.temperature, top_p=settings.top_p
        )
        return [
            self._extend(row, token, logprob)
            for row, token, logprob in zip(rows, tokens, logprobs, strict=False)
        ]

    def _extend(self, row: Row, token: int, logprob: float) -> bool:
        """Adds a token to a row; returns whether the row goes on."""
        row.ids.append(token)
        row.logprob += logprob
        job = row.job
        finish = row.stepper.feed(token)
        if math.isnan(logprob):
            job.failure = CallFailed("not_a_number", "the model's logits are not numbers")
        elif finish is None or (finish is Finish.STEP and job.ask.kind is Kind.ROLLOUT):
            return True
        else:
            job.draws[row.index] = Draw(tuple(row.ids), row.logprob, finish)
        job.missing -= 1
        if job.missing == 0:
            job.done(job.failure or [draw for draw in job.draws if draw is not None])
        return False


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step

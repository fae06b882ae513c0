"""Decodes many continuations at once with a transformers model; knows nothing of threads.

Each tick prefills what is new, then adds one token to every row. A row's prefix is computed in
chunks that are kept by their tokens, so the samples of one node share one prefill and the next
request there needs none. A row that ends gives its slot to the next one in the same tick.

In deterministic mode a row's bits depend on its own ask alone: every pass has a fixed number of
rows, empty ones padded, and reads a number of positions that follows from the row's own ask. Then a
row meets the same kernels with the same shapes whatever its companions are.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from treeward.search.errors import CallFailed
from treeward.search.kv_cache import Chunk, PrefillCache, PrefixCache, SlotCache
from treeward.search.policy import Ask, Draw, Mode
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

    chunk: int = 32
    """Tokens of a prefill pass."""

    prefill_rows: int = 4
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
        config = model.config
        self._decoder: Callable[..., Any] = model.get_decoder()  # type: ignore[no-untyped-call]
        self._head: Callable[..., Any] = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self._tokens = tokens
        self._settings = settings
        self._heads = config.num_key_value_heads
        self._width = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        self._layers = config.num_hidden_layers
        # Within its window, an attention that slides is full.
        window = getattr(config, "sliding_window", None)
        self._max_positions = min(config.max_position_embeddings, window or math.inf)
        weight = next(model.parameters())
        self._dtype, self._device = weight.dtype, weight.device.type
        self._pools: dict[tuple[int, float, float], Pool] = {}
        self._new: deque[Job] = deque()
        self.prefixes = PrefixCache(settings.prefix_cache_bytes)

    @property
    def busy(self) -> bool:
        """Returns whether anything is under way."""
        return bool(self._new) or any(pool.busy for pool in self._pools.values())

    def add(self, job: Job) -> None:
        """Takes a job; it advances with each tick."""
        need = len(job.ids) + job.room
        if need > self._max_positions:
            message = f"{need} positions needed, the model has {self._max_positions}"
            job.done(CallFailed("context_length", message))
            return
        assert job.room > 0, "a prefix without room is the end of its solution"
        self._new.append(job)

    def clear(self) -> None:
        """Forgets all that is under way; prefixes stay."""
        self._new.clear()
        self._pools.clear()

    @torch.inference_mode()
    def tick(self) -> None:
        """Prefills new jobs, fills free slots, and adds one token to every row.

        While others wait for a slot, new jobs are left to gather until they fill a prefill pass.
        """
        waiting = any(pool.waiting for pool in self._pools.values())
        if self._new and (len(self._new) >= self._settings.prefill_rows or not waiting):
            self._prefill(list(self._new))
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
        if self._settings.mode is Mode.NORMAL:
            roomy = [size for size, *of in self._pools if tuple(of) == sampler and size >= need]
            capacity = min(roomy, default=capacity)
        key = (capacity, *sampler)
        if key not in self._pools:
            self._pools = {at: pool for at, pool in self._pools.items() if pool.busy}
            shape = (self._layers, self._settings.slots, self._heads, capacity, self._width)
            self._pools[key] = Pool(capacity, SlotCache(shape, self._dtype, self._device))
        return self._pools[key]

    # Prefill

    def _prefill(self, jobs: list[Job]) -> None:
        """Computes every chunk that the jobs need and the cache lacks, shortest prefix first."""
        needed = {ids[:end]: None for ids in {job.ids for job in jobs} for end in self._ends(ids)}
        missing = [ids for ids in needed if self.prefixes.get(ids) is None]
        by_start: dict[int, list[tuple[int, ...]]] = {}
        for ids in missing:
            by_start.setdefault(self._start(ids), []).append(ids)
        for start in sorted(by_start):
            group = by_start[start]
            for first in range(0, len(group), self._settings.prefill_rows):
                self._prefill_pass(start, group[first : first + self._settings.prefill_rows])

    def _start(self, ids: tuple[int, ...]) -> int:
        """Returns where the chunk that ends these tokens starts."""
        return (len(ids) - 1) // self._settings.chunk * self._settings.chunk

    def _ends(self, ids: tuple[int, ...]) -> list[int]:
        """Returns where the chunks of some tokens end."""
        return [*range(self._settings.chunk, len(ids), self._settings.chunk), len(ids)]

    def _chunks(self, ids: tuple[int, ...]) -> list[Chunk]:
        """Returns the chunks of some tokens, computing those that were dropped meanwhile."""
        chunks = []
        for end in self._ends(ids):
            chunk = self.prefixes.get(ids[:end])
            if chunk is None:
                chunk = self._prefill_pass(self._start(ids[:end]), [ids[:end]])[0]
            chunks.append(chunk)
        return chunks

    def _prefill_pass(self, start: int, group: list[tuple[int, ...]]) -> list[Chunk]:
        """Computes the chunks that start at one place, as rows of one pass."""
        deterministic = self._settings.mode is Mode.DETERMINISTIC
        rows = self._settings.prefill_rows if deterministic else len(group)
        width = self._settings.chunk if deterministic else max(map(len, group)) - start
        ids_PT = torch.zeros((rows, width), dtype=torch.long)
        for row, ids in enumerate(group):
            ids_PT[row, : len(ids) - start] = torch.tensor(ids[start:])
        context = torch.zeros(
            (rows, self._layers, 2, self._heads, start, self._width),
            dtype=self._dtype,
            device=self._device,
        )
        for row, ids in enumerate(group if start else []):
            parts = [chunk.kv_L2JTD for chunk in self._chunks(ids[:start])]
            context[row] = torch.cat(parts, dim=3)
        cache = PrefillCache(context)
        hidden = torch.full((width, width), torch.finfo(self._dtype).min, dtype=self._dtype)
        mask = torch.cat([torch.zeros((width, start), dtype=self._dtype), hidden.triu(1)], dim=1)
        last_P = torch.tensor([len(ids) - start - 1 for ids in group] + [0] * (rows - len(group)))
        logits_PV = self._forward(
            ids_PT,
            torch.arange(start, start + width)[None].expand(rows, -1),
            mask[None, None].expand(rows, 1, -1, -1),
            cache,
            last_P,
        )
        chunks = []
        for row, ids in enumerate(group):
            length = len(ids) - start
            kv = torch.stack(
                [
                    torch.stack([keys[row, :, :length], values[row, :, :length]])
                    for keys, values in cache.added
                ]
            )
            chunks.append(Chunk(kv_L2JTD=kv, logits_V=logits_PV[row].clone()))
            self.prefixes.put(ids, chunks[-1])
        return chunks

    def _forward(
        self,
        ids_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        mask_B1TK: torch.Tensor,
        cache: PrefillCache | SlotCache,
        last_B: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the float32 logits [B, V] after each row's last token."""
        output = self._decoder(
            input_ids=ids_BT.to(self._device),
            attention_mask=mask_B1TK.to(self._device),
            position_ids=positions_BT.to(self._device),
            past_key_values=cache,
            use_cache=True,
        )
        hidden_BTE = output.last_hidden_state
        rows = torch.arange(len(hidden_BTE), device=hidden_BTE.device)
        last_BE = hidden_BTE[rows, last_B.to(hidden_BTE.device)]
        logits: torch.Tensor = self._head(last_BE)
        return logits.float()

    # Decoding

    def _admit(self, pool: Pool) -> None:
        """Fills free slots; a row draws its first token from its prefix's logits."""
        while pool.waiting and len(pool.rows) < self._settings.slots:
            free = self._settings.slots - len(pool.rows)
            rows = [pool.waiting.popleft() for _ in range(min(free, len(pool.waiting)))]
            chunks = {job: self._chunks(job.ids) for job in dict.fromkeys(row.job for row in rows)}
            going = self._draw(rows, torch.stack([chunks[row.job][-1].logits_V for row in rows]))
            for row, goes_on in zip(rows, going, strict=True):
                if goes_on:
                    pool.cache.fill(len(pool.rows), chunks[row.job])
                    pool.rows.append(row)

    def _decode(self, pool: Pool) -> None:
        """Adds one token to every row of a pool and lets go of those that end."""
        deterministic = self._settings.mode is Mode.DETERMINISTIC
        rows = pool.rows
        shape = self._settings.slots if deterministic else len(rows)
        longest = max(row.length for row in rows) + 1
        length = pool.capacity if deterministic else min(pool.capacity, _round_up(longest, 16))
        padding = [0] * (shape - len(rows))
        positions = torch.tensor([row.length for row in rows] + padding)
        pool.cache.set_pass(positions, length)
        mask = torch.zeros((shape, length), dtype=self._dtype)
        mask.masked_fill_(torch.arange(length) > positions[:, None], torch.finfo(self._dtype).min)
        logits = self._forward(
            torch.tensor([row.ids[-1] for row in rows] + padding)[:, None],
            positions[:, None],
            mask[:, None, None],
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
        if self._settings.mode is Mode.DETERMINISTIC:
            missing = self._settings.slots - len(logits_BV)
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

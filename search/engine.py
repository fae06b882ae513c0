"""Decodes many continuations at once with a transformers model; knows nothing of threads.

Each tick prefills what is new, then adds one token to every row that has a slot. A row's prefix is
computed in chunks that are kept by their tokens, so the samples of one node share one prefill and
the next request there needs none. Rows of an ask stay together as a branch while they draw the same
tokens, and a pass reads a branch once; a policy that is sure of itself is read a fraction as often
as it is sampled. Positions that branches share are read once for all of them where that is faster.
A branch that ends gives its slot to the next one in the same tick.

In deterministic mode a row's bits depend on its own ask alone: every pass has a fixed number of
rows, empty ones padded, and reads a number of positions that follows from the row's own ask. Then a
row meets the same kernels with the same shapes whatever its companions are. The number of rows is a
multiple of `VECTOR`: elementwise kernels compute what is left over after whole vectors by another
formula (SiLU's last bit differs with AVX-512), and then the slot would matter.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from treeward.search.attention import Shared
from treeward.search.branches import Branch, Pool
from treeward.search.jobs import Job, LogprobJob
from treeward.search.kv_cache import PrefixCache, SlotCache
from treeward.search.network import Network
from treeward.search.policy import Mode
from treeward.search.prefill import VECTOR, Prefiller
from treeward.search.sampling import draw_tokens, uniforms
from treeward.search.shared_beginnings import find_shared
from treeward.search.tokens import Tokens

_GROWTH = 32
"""Positions that slots grow by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Shapes of the passes. In deterministic mode they are part of what replies depend on."""

    mode: Mode = Mode.NORMAL
    slots: int = 64
    """Branches decoded at once, for each capacity."""

    chunk: int = 16
    """Tokens of a prefill pass."""

    prefill_rows: int = 8
    """Prefixes of a prefill pass."""

    bucket: int = 64
    """Capacities of slots are multiples of this many positions."""

    prefix_cache_bytes: int = 1 << 30


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
        self._given: deque[LogprobJob] = deque()
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
        return bool(self._new or self._given) or any(pool.busy for pool in self._pools.values())

    @property
    def read_tokens(self) -> int:
        """Returns how many tokens of prompts and prefixes have been computed."""
        return self._prefiller.tokens

    def add(self, job: Job | LogprobJob) -> None:
        """Takes a job; it advances with each tick."""
        if isinstance(job, LogprobJob):
            if job.fits(self._network.max_positions):
                self._given.append(job)
        elif job.is_work(self._network.max_positions):
            self._new.append(job)

    def clear(self) -> None:
        """Forgets all that is under way; prefixes stay."""
        self._new.clear()
        self._given.clear()
        self._pools.clear()

    def forget(self) -> None:
        """Forgets prefixes too: for after the model's weights have changed."""
        self.clear()
        self.prefixes.clear()

    @torch.inference_mode()
    def tick(self) -> None:
        """Prefills new jobs, fills free slots, and adds one token to every row.

        New jobs gather while others wait for a slot, so that more of them share a prefill pass, and
        no more are read at once than there are slots. Of what is given one is read by itself, as
        its bits then depend on nothing else.
        """
        if self._given:
            given = self._given.popleft()
            given.tell(self._network.logprobs(given.ids, len(given.ask.prompt_ids)))
        waiting = sum(len(pool.waiting) for pool in self._pools.values())
        if self._new and waiting < self._settings.prefill_rows:
            jobs = [self._new.popleft() for _ in range(min(len(self._new), self._settings.slots))]
            self._prefiller.read({job.ids: None for job in jobs})
            for job in jobs:
                self._enqueue(job)
        for pool in self._pools.values():
            self._admit(pool)
            if pool.branches:
                self._decode(pool)

    def _enqueue(self, job: Job) -> None:
        branch = Branch(rows=job.start(self._tokens), length=len(job.ids))
        self._pool_for(job).waiting.append(branch)

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
            shape = (net.layers, self._height, net.heads, net.width)
            cache = SlotCache(shape, net.dtype, net.device)
            self._pools[key] = Pool(capacity, self._settings.slots, cache)
        return self._pools[key]

    def _admit(self, pool: Pool) -> None:
        """Fills free slots; a row draws its first token from its prefix's logits."""
        while (branch := pool.next()) is not None:
            parts = [branch]
            if not branch.chunks:
                chunks = self._prefiller.chunks(branch.rows[0].job.ids)
                (parts,) = self._draw([branch], chunks[-1].logits_V[None])
                for part in parts:
                    part.chunks = chunks
            if parts:
                self._make_room(pool, [*pool.branches, *parts])
                pool.place(parts)

    def _make_room(self, pool: Pool, branches: Sequence[Branch]) -> None:
        """Lays a pool's slots out anew where branches do not fit, or leave much of them empty."""
        longest = max(branch.length for branch in branches) + 1
        room = pool.capacity if self._padded else min(pool.capacity, _round_up(longest, _GROWTH))
        if not room <= pool.cache.room <= room + 2 * _GROWTH:
            pool.cache.make_room(room, len(pool.branches))

    def _decode(self, pool: Pool) -> None:
        """Adds one token to every row of a pool's slots and lets go of those that end."""
        branches = pool.branches
        shape = self._height if self._padded else len(branches)
        self._make_room(pool, branches)
        padding = [0] * (shape - len(branches))
        positions = torch.tensor([branch.length for branch in branches] + padding)
        pool.cache.set_pass(positions)
        logits = self._network.forward(
            torch.tensor([branch.rows[0].ids[-1] for branch in branches] + padding)[:, None],
            positions[:, None],
            (torch.arange(pool.cache.room) > positions[:, None])[:, None],
            pool.cache,
            torch.zeros(shape, dtype=torch.long),
            self._shared(branches),
        )
        for branch in branches:
            branch.length += 1
        pool.part(self._draw(branches, logits))

    def _shared(self, branches: list[Branch]) -> Shared | None:
        """Returns which rows of a pass are read together; their bits then depend on that."""
        net = self._network
        if self._padded or net.device != "cpu":
            return None
        return find_shared([branch.rows[0].job.ids for branch in branches], net.heads * net.width)

    def _draw(self, branches: list[Branch], logits_BV: torch.Tensor) -> list[list[Branch]]:
        """Draws one token for each row; returns what each branch parts into, by token.

        Args:
            branches: Those whose rows draw.
            logits_BV: Their logits, and others after them.
        """
        rows = [row for branch in branches for row in branch.rows]
        source = [at for at, branch in enumerate(branches) for _ in branch.rows]
        settings = rows[0].job.ask.settings
        tokens, logprobs = draw_tokens(
            logits_BV,
            uniforms(
                np.array([row.seed for row in rows], dtype=np.uint64),
                np.array([len(row.ids) for row in rows], dtype=np.uint64),
            ),
            temperature=settings.temperature,
            top_p=settings.top_p,
            source_N=source,
        )
        parts: list[dict[int, Branch]] = [{} for _ in branches]
        for row, at, token, logprob in zip(rows, source, tokens, logprobs, strict=True):
            if row.extend(token, logprob):
                new = Branch(rows=[], length=branches[at].length)
                parts[at].setdefault(token, new).rows.append(row)
        return [list(by_token.values()) for by_token in parts]


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step

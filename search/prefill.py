"""Reads prefixes in chunks of tokens and keeps what it read, so that none is read twice.

P  prefixes of a pass      T  positions of a pass      K  key positions
L  layers      2  keys, values      J  key heads      D  width of a head
"""

import math
from collections.abc import Iterable, Sequence

import torch

from treeward.search.kv_cache import Chunk, PrefillCache, PrefixCache
from treeward.search.network import Network

Ids = tuple[int, ...]

VECTOR = 32
"""Numbers that the widest elementwise kernel takes at once: two AVX-512 registers of float32."""


class Prefiller:
    """Turns prefixes into chunks: runs of `chunk` tokens from the start, and a shorter last one."""

    def __init__(
        self, network: Network, cache: PrefixCache, *, chunk: int, rows: int, padded: bool
    ) -> None:
        """Takes the shape of a pass.

        Args:
            network: What reads.
            cache: Where chunks are kept.
            chunk: Most tokens of a prefix that a pass reads.
            rows: Most prefixes of a pass.
            padded: Whether every pass has that many rows and tokens, filled up to whole vectors, so
                that a chunk's bits depend on its own tokens alone.
        """
        self._network = network
        self._cache = cache
        self._chunk = chunk
        self._rows = rows
        self._padded = padded
        # Whole vectors of tokens: what is left over is computed by another formula.
        whole = VECTOR // math.gcd(VECTOR, chunk)
        self._padded_rows = -(-rows // whole) * whole
        self.tokens = 0
        """Tokens read so far."""

    def read(self, prefixes: Iterable[Ids]) -> None:
        """Computes all chunks that are not kept, those of several prefixes in one pass."""
        needed = {ids[:end]: None for ids in prefixes for end in self._ends(ids)}
        by_start: dict[int, list[Ids]] = {}
        for ids in needed:
            if self._cache.get(ids) is None:
                by_start.setdefault(self._start(ids), []).append(ids)
        for start, ends_there in sorted(by_start.items()):
            for first in range(0, len(ends_there), self._rows):
                group = ends_there[first : first + self._rows]
                self._pass(start, group, [self.chunks(ids[:start]) for ids in group])

    def chunks(self, ids: Ids) -> list[Chunk]:
        """Returns the chunks of a prefix, computing those that are not kept (any more)."""
        chunks: list[Chunk] = []
        for end in self._ends(ids):
            found = self._cache.get(ids[:end])
            chunks.append(found or self._pass(self._start(ids[:end]), [ids[:end]], [chunks])[0])
        return chunks

    def _start(self, ids: Ids) -> int:
        """Returns where the chunk that ends these tokens starts."""
        return (len(ids) - 1) // self._chunk * self._chunk

    def _ends(self, ids: Ids) -> list[int]:
        """Returns where the chunks of some tokens end."""
        return [*range(self._chunk, len(ids), self._chunk), len(ids)] if ids else []

    def _pass(
        self, start: int, group: Sequence[Ids], contexts: Sequence[list[Chunk]]
    ) -> list[Chunk]:
        """Computes and keeps the chunks that start at one place, as rows of one pass."""
        rows = self._padded_rows if self._padded else len(group)
        width = self._chunk if self._padded else max(map(len, group)) - start
        ids_PT = torch.zeros((rows, width), dtype=torch.long)
        for row, ids in enumerate(group):
            ids_PT[row, : len(ids) - start] = torch.tensor(ids[start:])
        kv_L2PJTD = self._kept(rows, start, width, contexts)
        hidden_TK = torch.ones((width, start + width), dtype=torch.bool).triu(start + 1)
        lengths = [len(ids) - start for ids in group]
        self.tokens += sum(lengths)
        logits_PV = self._network.forward(
            ids_PT,
            torch.arange(start, start + width)[None].expand(rows, -1),
            hidden_TK[None].expand(rows, -1, -1),
            PrefillCache(kv_L2PJTD, start),
            torch.tensor([length - 1 for length in lengths] + [0] * (rows - len(group))),
        )
        chunks = [
            Chunk(
                kv_L2JTD=kv_L2PJTD[:, :, row, :, start : start + length].clone(),
                logits_V=logits_PV[row].clone(),
            )
            for row, length in enumerate(lengths)
        ]
        for ids, chunk in zip(group, chunks, strict=True):
            self._cache.put(ids, chunk)
        return chunks

    def _kept(
        self, rows: int, start: int, width: int, contexts: Sequence[Sequence[Chunk]]
    ) -> torch.Tensor:
        """Returns the keys and values before a pass, [L, 2, P, J, start + width, D]."""
        net = self._network
        shape = (net.layers, 2, rows, net.heads, start + width, net.width)
        make = torch.zeros if self._padded else torch.empty  # only padding is left as it is made
        kv_L2PJTD = make(shape, dtype=net.dtype, device=net.device)
        for row, chunks in enumerate(contexts):
            end = 0
            for chunk in chunks:
                begin, end = end, end + chunk.kv_L2JTD.shape[3]
                kv_L2PJTD[:, :, row, :, begin:end] = chunk.kv_L2JTD
        return kv_L2PJTD

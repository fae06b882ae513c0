"""Keys and values: of prefixes by their tokens, and of the rows that are being decoded.

L  layers      2  keys, values      J  key heads      T  positions      D  width of a head
R  slots       P  prefixes of one prefill
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.cache_utils import Cache

_ALIGNED = 64
"""Bytes whose multiples are the addresses of torch's own memory; kernels take their time, and may
choose their order, by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Holds what a model knows after reading a run of tokens that follows a given prefix."""

    kv_L2JTD: torch.Tensor
    """Keys and values of the run's positions alone."""

    logits_V: torch.Tensor
    """Logits of the token after the run, float32."""


class PrefixCache:
    """Keeps chunks by all tokens up to their end; drops the longest unused above a size.

    A chunk is computed in one way only, so a hit has the same bits as computing it again.
    """

    def __init__(self, max_bytes: int) -> None:
        """Starts empty; `max_bytes` bounds the tensors kept."""
        self._chunks: OrderedDict[tuple[int, ...], Chunk] = OrderedDict()
        self._max_bytes = max_bytes
        self._bytes = 0
        self.hits = 0
        self.misses = 0

    def get(self, ids: tuple[int, ...]) -> Chunk | None:
        """Returns the chunk that ends these tokens, or None."""
        chunk = self._chunks.get(ids)
        if chunk is None:
            self.misses += 1
            return None
        self.hits += 1
        self._chunks.move_to_end(ids)
        return chunk

    def put(self, ids: tuple[int, ...], chunk: Chunk) -> None:
        """Keeps a chunk and drops others while there are too many bytes."""
        if ids in self._chunks:
            self._bytes -= _size(self._chunks.pop(ids))
        self._chunks[ids] = chunk
        self._bytes += _size(chunk)
        while self._bytes > self._max_bytes and len(self._chunks) > 1:
            _, dropped = self._chunks.popitem(last=False)
            self._bytes -= _size(dropped)

    def clear(self) -> None:
        """Drops all chunks."""
        self._chunks.clear()
        self._bytes = 0


def _size(chunk: Chunk) -> int:
    return chunk.kv_L2JTD.nbytes + chunk.logits_V.nbytes


class PrefillCache(Cache):
    """Gives a forward pass its context, and keeps what the pass adds in the room behind it."""

    def __init__(self, kv_L2PJTD: torch.Tensor, context: int) -> None:
        """Takes the keys and values of every row's context, with room for all that a pass adds.

        Args:
            kv_L2PJTD: Modified in place.
            context: The context's length, the same in all rows; may be 0.
        """
        super().__init__(layers=[])
        self._kv_L2PJTD = kv_L2PJTD
        self._context = context

    def update(
        self, keys_PJTD: torch.Tensor, values_PJTD: torch.Tensor, layer: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns context and new positions, one after the other."""
        kept = self._kv_L2PJTD[layer]
        kept[0, :, :, self._context :] = keys_PJTD
        kept[1, :, :, self._context :] = values_PJTD
        return kept[0], kept[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns the length of the context."""
        return self._context


class SlotCache(Cache):
    """Holds one row a slot; a decoding pass adds one position to each of the first slots.

    All slots have room for the same number of positions, and a pass reads all of it: kernels for
    bfloat16 copy what has gaps. So slots are laid out anew where rows grow out of them.
    """

    def __init__(self, shape_LRJD: tuple[int, ...], dtype: torch.dtype, device: str) -> None:
        """Makes slots without room."""
        super().__init__(layers=[])
        layers, *self._shape_RJD = shape_LRJD
        self._dtype, self._device = dtype, device
        self.room = 0
        """Positions of a slot."""
        self._kv_L = [self._empty(0) for _ in range(layers)]
        self._places = torch.zeros(0, dtype=torch.long, device=device)
        self._rows = 0

    def _empty(self, room: int) -> torch.Tensor:
        slots, heads, width = self._shape_RJD
        return _zeros((2, slots, heads, room, width), self._dtype, self._device)

    def make_room(self, room: int, slots: int) -> None:
        """Gives all slots another number of positions.

        Args:
            room: How many.
            slots: The first so many are in use, and keep what they have as far as there is room.
        """
        kept = (slice(None), slice(slots), slice(None), slice(min(room, self.room)))
        for layer, old_2RJTD in enumerate(self._kv_L):
            self._kv_L[layer] = self._empty(room)
            self._kv_L[layer][kept] = old_2RJTD[kept]
        self.room = room

    def fill(self, slot: int, chunks: Sequence[Chunk]) -> None:
        """Puts a prefix, for which there is room, into a slot."""
        for layer, kv_2RJTD in enumerate(self._kv_L):
            start = 0
            for chunk in chunks:
                end = start + chunk.kv_L2JTD.shape[3]
                kv_2RJTD[:, slot, :, start:end] = chunk.kv_L2JTD[layer]
                start = end

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first positions of one slot to another."""
        for kv_2RJTD in self._kv_L:
            kv_2RJTD[:, target, :, :length] = kv_2RJTD[:, source, :, :length]

    def copy(self, slot: int, length: int) -> Chunk:
        """Returns a copy of a slot's first positions, to fill another one with."""
        kv_L2JTD = torch.stack([kv_2RJTD[:, slot, :, :length] for kv_2RJTD in self._kv_L])
        return Chunk(kv_L2JTD=kv_L2JTD, logits_V=torch.zeros(0))

    def set_pass(self, positions_R: torch.Tensor) -> None:
        """Says where the next pass writes in each of the first slots."""
        heads = self._shape_RJD[1]
        starts = torch.arange(len(positions_R) * heads, device=self._device) * self.room
        self._places = starts + positions_R.to(self._device).repeat_interleave(heads)
        self._rows = len(positions_R)

    def update(
        self, keys_RJ1D: torch.Tensor, values_RJ1D: torch.Tensor, layer: int, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes one position a slot and returns the slots that the pass reads."""
        keys_RJTD, values_RJTD = self._kv_L[layer]
        width = keys_RJTD.shape[-1]
        for kept, new in ((keys_RJTD, keys_RJ1D), (values_RJTD, values_RJ1D)):
            kept.view(-1, width).index_copy_(0, self._places, new.reshape(-1, width))
        return keys_RJTD[: self._rows], values_RJTD[: self._rows]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Returns how far the next pass reads."""
        return self.room


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Returns zeros; on a CPU in memory that the system hands out only where it is written to.

    Often few of the slots are in use. torch writes its zeros itself, to all of them.
    """
    if device != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    raw = np.zeros(size + _ALIGNED, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGNED
    return torch.from_numpy(raw[start : start + size]).view(dtype).view(shape)

"""Rows of tokens, packed several to a sequence without seeing each other.

Shape suffixes: B sequences of a batch, T places of a sequence. A row of n tokens takes n - 1
places: place t holds token t and predicts token t + 1.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

IGNORED = -100
"""Label of a place that is not learned from."""

OPEN_SEQUENCES = 64
"""Sequences that a row may still be put into; more pack tighter and mix the order less."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """Holds one example."""

    ids: NDArray[np.int32]
    """Its tokens; at least 2."""

    learned: NDArray[np.bool_]
    """Which of its tokens the loss is on; never the first."""

    @property
    def places(self) -> int:
        """Returns how many places of a sequence it takes."""
        return len(self.ids) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Holds packed sequences, as wide as the fullest of them."""

    input_ids_BT: torch.Tensor
    """Tokens; 0 where there is no row."""

    position_ids_BT: torch.Tensor
    """Place within the row, from 0: a restart tells the model where the next row begins."""

    labels_BT: torch.Tensor
    """The next token of the row where it is learned, else `IGNORED`."""

    n_tokens: int
    """Places that hold a row's token."""

    n_targets: int
    """Places that are learned from."""

    def split(self, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yields inputs, positions and labels of `size` sequences at a time; 0 means all."""
        height = len(self.labels_BT)
        for start in range(0, height, size or height):
            part = slice(start, start + (size or height))
            yield self.input_ids_BT[part], self.position_ids_BT[part], self.labels_BT[part]


def pack(order: Iterable[int], sizes: Sequence[int], room: int) -> Iterator[list[int]]:
    """Yields sequences of rows: each row once, none over `room`, in nearly the given order.

    Best fit over the open sequences; when none has room and too many are open, the fullest is
    done.

    Args:
        order: Indices of rows.
        sizes: Places that each row takes; none more than `room`.
        room: Places of a sequence.
    """
    open_packs: list[tuple[int, list[int]]] = []
    for row in order:
        size = sizes[row]
        fits = [k for k, (free, _) in enumerate(open_packs) if free >= size]
        if fits:
            free, rows = open_packs.pop(min(fits, key=lambda k: open_packs[k][0]))
        else:
            free, rows = room, []
        rows.append(row)
        if free == size:
            yield rows
            continue
        open_packs.append((free - size, rows))
        if len(open_packs) > OPEN_SEQUENCES:
            fullest = min(range(len(open_packs)), key=lambda k: open_packs[k][0])
            yield open_packs.pop(fullest)[1]
    yield from (rows for _, rows in open_packs)


def batches(
    sizes: Sequence[int], *, room: int, batch_size: int, seed: int
) -> Iterator[list[list[int]]]:
    """Yields batches of packed rows for ever: what a step sees depends on its number and the seed.

    Each epoch is a permutation drawn from (seed, epoch). A batch may span two epochs.
    """

    def sequences() -> Iterator[list[int]]:
        for epoch in itertools.count():
            order = np.random.default_rng([seed, epoch]).permutation(len(sizes))
            yield from pack(order.tolist(), sizes, room)

    stream = sequences()
    while True:
        yield list(itertools.islice(stream, batch_size))


def collate(rows: Sequence[Row], packs: Sequence[Sequence[int]]) -> Batch:
    """Returns packed sequences as tensors.

    Places after a sequence's last row count on from 0, as a row of their own.
    """
    width = max(sum(rows[k].places for k in pack_) for pack_ in packs)
    shape = (len(packs), width)
    inputs = np.zeros(shape, dtype=np.int64)
    positions = np.tile(np.arange(width, dtype=np.int64), (len(packs), 1))
    labels = np.full(shape, IGNORED, dtype=np.int64)
    total = 0
    for b, pack_ in enumerate(packs):
        start = 0
        for k in pack_:
            row, end = rows[k], start + rows[k].places
            inputs[b, start:end] = row.ids[:-1]
            labels[b, start:end] = np.where(row.learned[1:], row.ids[1:], IGNORED)
            positions[b, end:] = np.arange(width - end)
            positions[b, start:end] = np.arange(end - start)
            start = end
        total += start
    return Batch(
        input_ids_BT=torch.from_numpy(inputs),
        position_ids_BT=torch.from_numpy(positions),
        labels_BT=torch.from_numpy(labels),
        n_tokens=total,
        n_targets=int((labels != IGNORED).sum()),
    )

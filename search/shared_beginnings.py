"""Finds the rows of a decoding pass that start alike, and whether it pays to read that start once.

Samples of one node share all of its prefix, and those of all trees share the examples of a prompt.
A row by itself is a thin product that waits for memory; a group of rows is a wide one that does
not, so a position that eight rows share is read at about a third of the cost. What is saved must
pay for parting the attention: in small models and short prompts it does not.
"""

from collections.abc import Sequence

import torch

from treeward.search.attention import Shared

Ids = tuple[int, ...]

STEP = 16
"""Beginnings of a multiple of so many tokens are looked at."""

GROUP, MEMBER = 0.7, 0.23
"""What a shared position costs a group, and each of its rows, where it would cost each row 1."""

SPLIT, EACH = 5 << 18, 1 << 14
"""What parting the attention costs besides, and what each group does, in numbers of keys read."""


def find_shared(starts: Sequence[Ids], numbers: int) -> Shared | None:
    """Returns what to share in a pass; None where reading every row by itself is as fast.

    Args:
        starts: The tokens of each row's prompt and prefix.
        numbers: How many numbers the keys of one position have in a layer.
    """
    shortest = min(map(len, starts))
    if (1 - MEMBER) * shortest * len(starts) * numbers < SPLIT:
        return None
    rows_of: dict[Ids, list[int]] = {}
    for row, ids in enumerate(starts):
        rows_of.setdefault(ids, []).append(row)
    best, most = None, 0.0
    for length in range(STEP, shortest + 1, STEP):
        groups: dict[Ids, list[int]] = {}
        for ids, rows in rows_of.items():
            groups.setdefault(ids[:length], []).extend(rows)
        padded = max(map(len, groups.values())) * len(groups)
        saved = length * (len(starts) - GROUP * len(groups) - MEMBER * padded) * numbers
        saved -= SPLIT + EACH * len(groups)
        if saved > most:
            best, most = (length, list(groups.values())), saved
    return None if best is None else _shared(*best)


def _shared(length: int, groups: Sequence[list[int]]) -> Shared:
    widest = max(map(len, groups))
    members: list[int] = []
    places: dict[int, int] = {}
    for rows in groups:
        places.update((row, len(members) + at) for at, row in enumerate(rows))
        members += [*rows, *rows[:1] * (widest - len(rows))]
    return Shared(
        length=length,
        leaders=torch.tensor([rows[0] for rows in groups]),
        members=torch.tensor(members),
        places=torch.tensor([places[row] for row in range(len(places))]),
    )

"""Label rules read slowly, a node at a time: what must be said of all nodes at once."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tests.plain_beliefs import beliefs, chances_of

from treeward.search.error_grid import learn_prior, prior, without
from treeward.search.intervals import Reals

Row = dict[str, Any]
Signs = list[int]
"""1 for right, -1 for wrong, 0 for undecided."""


def parents_of(rows: list[Row]) -> list[int]:
    """The row of each node's parent, -1 for the root."""
    row_of = {row["node_id"]: at for at, row in enumerate(rows)}
    return [row_of.get(row["parent_id"], -1) for row in rows]


def any_success(rows: list[Row], min_rollouts: int = 8) -> Signs:
    parents = parents_of(rows)
    lives = [row["n_right"] > 0 or row["verdict"] == "right" for row in rows]
    for at in reversed(range(1, len(rows))):
        lives[parents[at]] |= lives[at]
    signs: Signs = []
    for at, row in enumerate(rows):
        if lives[at]:
            signs.append(1)
        elif at == 0:
            signs.append(0)
        elif parents[at] == 0 or signs[parents[at]] == 1:
            failed = row["n_rollouts"] >= min_rollouts or row["verdict"] == "wrong"
            signs.append(-1 if failed else 0)
        else:
            signs.append(signs[parents[at]])
    return signs


def chances(rows: list[Row], trees: list[list[Row]]) -> list[float]:
    """The probability that each prefix is right, with a prior learned from some trees."""
    if id(trees) not in _LEARNED:
        evidence = [beliefs(tree, prior())[0].evidence() for tree in trees]
        _LEARNED[id(trees)] = trees, learn_prior(np.array(evidence))
    own = np.array([beliefs(rows, prior())[0].evidence()])
    return chances_of(rows, without(_LEARNED[id(trees)][1], own, len(trees))[0])


_LEARNED: dict[int, tuple[list[list[Row]], Reals]] = {}
"""What was learned from some trees, which are kept so that no others get their number."""


def posterior(rows: list[Row], trees: list[list[Row]], confidence: float = 0.6) -> Signs:
    signs: Signs = []
    parents = parents_of(rows)
    seen = [len(row["beyond"]) > 0 or row["verdict"] in {"right", "wrong"} for row in rows]
    for at in reversed(range(1, len(rows))):
        seen[parents[at]] |= seen[at]
    for at, (parent, chance) in enumerate(zip(parents, chances(rows, trees), strict=True)):
        above = signs[parent] if at else 1
        if above == 0 or (above == 1 and not seen[at]):
            signs.append(0)
        else:
            signs.append(1 if chance >= confidence else -1 if chance <= 1 - confidence else 0)
    return signs


def share(row: Row, min_rollouts: int = 1) -> float | None:
    ends = {"right": 1.0, "wrong": 0.0}
    if row["verdict"] in ends:
        return ends[row["verdict"]]
    enough = row["n_rollouts"] >= max(min_rollouts, 1)
    return row["n_right"] / row["n_rollouts"] if enough else None


def threshold(rows: list[Row], at: float, low: str = "value", high: str = "value") -> Signs:
    """Right where `low` reaches a number, wrong where `high` does not."""
    return [
        0 if row["value"] is None else 1 if row[low] >= at else -1 if row[high] < at else 0
        for row in rows
    ]


def ratio(rows: list[Row], at: float, *, to_root: bool = False, min_rollouts: int = 1) -> Signs:
    signs: Signs = []
    for row, parent in zip(rows, parents_of(rows), strict=True):
        own = share(row, min_rollouts)
        base = None if parent < 0 else share(rows[0 if to_root else parent], min_rollouts)
        known = own is not None and base
        signs.append(0 if not known or own is None or not base else 1 if own / base >= at else -1)
    return signs


def both(first: Signs, second: Signs) -> Signs:
    return [a if a == b else 0 for a, b in zip(first, second, strict=True)]


def rows_kept(
    rows: list[Row], signs: Signs, values: Mapping[str, Any]
) -> list[tuple[list[int], list[bool]]]:
    """Each row of the dataset: the nodes' rows on its path, and which to learn from."""
    parents = parents_of(rows)
    # A node's path goes on below it unless a rule of the cut stops it.
    learn: list[bool | None] = [None] * len(rows)
    for at in range(1, len(rows)):
        above = parents[at]
        path_ended = above > 0 and (
            learn[above] is None or (signs[above] == -1 and values["wrong"] == "end")
        )
        if path_ended or (signs[at] == 0 and values["undecided"] == "end"):
            continue
        below_wrong = any(signs[step] == -1 for step in path_to(parents, above))
        learn[at] = signs[at] != 0 and not (below_wrong and values["wrong"] == "mask")
    inner = {parents[at] for at in range(1, len(rows)) if learn[at] is not None}
    found = []
    for at in range(1, len(rows)):
        if learn[at] is not None and at not in inner:
            path = path_to(parents, at)
            flags = [bool(learn[step]) for step in path]
            if any(flags):
                found.append((path, flags))
    return found


def path_to(parents: list[int], at: int) -> list[int]:
    path: list[int] = []
    while at > 0:
        path.append(at)
        at = parents[at]
    return path[::-1]


PLAIN: Mapping[str, Callable[[list[Row], list[list[Row]]], Signs]] = {
    "any_success(min_rollouts=4)": lambda rows, _: any_success(rows, 4),
    "posterior": posterior,
    "posterior(confidence=0.9)": lambda rows, trees: posterior(rows, trees, 0.9),
    "soft": lambda rows, _: threshold(rows, 0.5),
    "threshold(at=0.3)": lambda rows, _: threshold(rows, 0.3),
    "threshold(at=0.3, by=low)": lambda rows, _: threshold(rows, 0.3, "value_low", "value_low"),
    "threshold(at=0.6, by=high)": lambda rows, _: threshold(rows, 0.6, "value_high", "value_high"),
    "threshold(by=interval)": lambda rows, _: threshold(rows, 0.5, "value_low", "value_high"),
    "ratio": lambda rows, _: ratio(rows, 0.8),
    "ratio(to=root, at=1, min_rollouts=8)": lambda rows, _: ratio(
        rows, 1.0, to_root=True, min_rollouts=8
    ),
    "any_success & threshold(at=0.3)": lambda rows, _: both(
        any_success(rows), threshold(rows, 0.3)
    ),
}

"""Trees with any shape and evidence, as rows of the view `nodes` that label rules read."""

from typing import Any

import numpy as np

from treeward.critics.value import interval, posterior_mean

Row = dict[str, Any]


def random_tree(rng: np.random.Generator, most: int = 40, deep: float = 0.5) -> list[Row]:
    """A tree of up to so many nodes; node ids are in the order of making."""
    size = int(rng.integers(1, most + 1))
    parents = [
        node - 1 if node < 2 or rng.random() < deep else int(rng.integers(0, node))
        for node in range(size)
    ]
    children: list[list[int]] = [[] for _ in range(size)]
    for node in range(1, size):
        children[parents[node]].append(node)
    order, stack = [], [0]
    while stack:
        node = stack.pop()
        order.append(node)
        stack += reversed(children[node])
    below = [1] * size
    for node in reversed(range(1, size)):
        below[parents[node]] += below[node]
    return [
        {
            "node_id": node,
            "parent_id": None if node == 0 else parents[node],
            "pre": pre,
            "post_end": pre + below[node] - 1,
            **_evidence(rng, leaf=not children[node] and node > 0),
        }
        for pre, node in enumerate(order)
    ]


def beyond(rng: np.random.Generator) -> list[Row]:
    """Up to 6 steps of samples behind a node."""
    size = int(rng.integers(0, 7)) if rng.random() < 0.5 else 0
    parents = [int(rng.integers(-1, place)) for place in range(size)]
    return [
        {
            "parent": parent,
            "logprob": float(np.float32(-rng.exponential())) if rng.random() < 0.7 else None,
            "n_taken": int(rng.integers(1, 5)),
            "right": None if place in parents else bool(rng.random() < 0.5),
        }
        for place, parent in enumerate(parents)
    ]


def outcomes(k: int, n: int) -> list[Row]:
    """What n samples leave behind a node of which k end right, each by a step of its own."""
    return [{"parent": -1, "logprob": -0.5, "n_taken": 1, "right": place < k} for place in range(n)]


def _evidence(rng: np.random.Generator, *, leaf: bool) -> Row:
    end = str(rng.choice(["right", "wrong", "unknown", ""])) if leaf else ""
    n = 0 if end else int(rng.choice([0, 2, 4, 8, 16]))
    k = int(rng.integers(0, n + 1)) if rng.random() < 0.6 else 0
    low, high = interval(np.array([float(k)]), np.array([float(n)]))
    exact = {"right": 1.0, "wrong": 0.0}.get(end)
    known = exact is not None or n > 0
    mean = float(posterior_mean(np.array([float(k)]), np.array([float(n)]))[0])
    value, *ends = [exact] * 3 if exact is not None else [mean, float(low[0]), float(high[0])]
    return {
        "n_right": k,
        "n_rollouts": n,
        "n_taken": int(rng.integers(0, 9)),
        "beyond": [] if end else beyond(rng),
        "verdict": end or None,
        "logprob": -float(rng.exponential()) if rng.random() < 0.7 else None,
        "value": value if known else None,
        "value_low": ends[0] if known else None,
        "value_high": ends[1] if known else None,
    }

"""A world of problems on which the value of every prefix is known in closed form.

A solution has 4 to 6 steps. Each step leads from one of seven states to another; state 0 is dead
(or recovers by luck, on half of the problems), state 6 is certain to end right, and in the others
chances are drawn anew for every problem, depth and state. Some solutions end early.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np

DEAD, START, CERTAIN = 0, 3, 6
RIGHT, WRONG = "Answer: 1\n", "Answer: 0\n"
LUCK = 0.02


class Move(NamedTuple):
    """Holds one possible next step."""

    text: str
    probability: float
    state: int | None
    """Where it leads; None where it ends the solution."""


def script(prompt: str, text: str) -> list[tuple[str, float]]:
    """Returns the possible next steps after a prefix, as a scripted policy wants them."""
    return [(move.text, move.probability) for move in _moves(prompt.strip(), *_place(text))]


def value(prompt: str, text: str) -> float:
    """Returns the exact value of a prefix."""
    if "Answer" in text:
        return float(text.endswith(RIGHT))
    return _value(prompt, *_place(text))


def _place(text: str) -> tuple[int, int]:
    """Returns the depth and the state of a prefix; a step ends with its state."""
    lines = text.splitlines()
    return len(lines), int(lines[-1][1:]) if lines else START


@lru_cache(maxsize=1 << 17)
def _value(prompt: str, depth: int, state: int) -> float:
    return sum(
        move.probability
        * (move.text == RIGHT if move.state is None else _value(prompt, depth + 1, move.state))
        for move in _moves(prompt, depth, state)
    )


@lru_cache(maxsize=1 << 17)
def _moves(prompt: str, depth: int, state: int) -> tuple[Move, ...]:
    lucky, length = _noise(prompt).integers([2, 3])
    rng = _noise(f"{prompt}|{depth}|{state}")
    if depth + 1 == 4 + length:
        right = {DEAD: LUCK * lucky, CERTAIN: 1.0}.get(state)
        if right is None:
            right = rng.beta(0.7 * state, 0.7 * (CERTAIN - state))
        return _ends(right, 1.0)
    shares = rng.dirichlet(np.full(rng.integers(2, 5), 1.5))
    to = np.clip(state + rng.integers(-2, 3, size=len(shares)), DEAD, CERTAIN)
    to = np.full(len(shares), state) if state in (DEAD, CERTAIN) else to
    early = 0.15 if DEAD < state < CERTAIN and rng.random() < 0.3 else 0.0
    steps = (
        Move(f"{chr(ord('a') + choice)}{to[choice]}\n", float(share) * (1 - early), int(to[choice]))
        for choice, share in enumerate(shares)
    )
    return (*steps, *_ends(rng.random(), early))


def _ends(right: float, total: float) -> tuple[Move, ...]:
    """Returns the two ways to end, which happen with a probability in total."""
    both = Move(RIGHT, total * float(right), None), Move(WRONG, total * float(1 - right), None)
    return tuple(move for move in both if move.probability > 0)


def _noise(key: str) -> np.random.Generator:
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))

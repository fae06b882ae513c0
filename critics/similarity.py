"""How alike a written step and an expert's are: the reward of SRL (Deng et al. 2025, section 3.3).

    2 M / T     M: size of all matching blocks, T: size of both sequences together

(Ratcliff and Metzener 1988), in [0, 1]. It is not symmetric: the model's step comes first. No
character is ever declared junk; difflib does that by default from 200 on, and the reward jumps.
"""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import Match, SequenceMatcher
from enum import StrEnum
from itertools import accumulate

MAX_UNITS = 4096
"""Units of a step that are compared; what follows is not looked at."""

MAX_WORK = 2_000_000
"""Pairs of like units that matching looks at, about 0.2 seconds; a piece for which too few are left
matches nothing, so that no step gains by it. What is left and right of a block is looked at again:
where a few units repeat themselves, time would grow with the cube of the length. Prose of 2,000
characters needs about 1,500,000."""

_NUMBER = re.compile(r"(?<![\w.)])-?\d+(?:\.\d+)?|\d+(?:\.\d+)?", re.ASCII)

_SPACED_MINUS = re.compile(r"(?<=[\d)])\s+-", re.ASCII)
"""A minus after a number takes away, however it is spaced; elsewhere it is a sign."""


class Similarity(StrEnum):
    """What a step is a sequence of."""

    CHARACTERS = "characters"
    """Its characters, as in the paper. A calculation with one wrong digit is .8 to .9 like it."""
    WORDS = "words"
    """Its words, split at white space."""
    NUMBERS = "numbers"
    """Its numbers, in order, whatever is between them: what counts in a calculation."""


def similarity(written: str, expert: str, by: Similarity) -> float:
    """Returns how much of two steps matches, in [0, 1].

    Args:
        written: The model's step.
        expert: The expert's step; it has at least one unit.
        by: What is compared.
    """
    ours, theirs = units(written, by)[:MAX_UNITS], units(expert, by)[:MAX_UNITS]
    assert theirs, "there is something to be like"
    return 1.0 if ours == theirs else _Bounded(ours, theirs).ratio()


class _Bounded(SequenceMatcher[str]):
    """Matches as difflib does, until `MAX_WORK` is spent."""

    def __init__(self, ours: Sequence[str], theirs: Sequence[str]) -> None:
        """Counts what a look at each beginning of `ours` costs."""
        super().__init__(None, ours, theirs, autojunk=False)
        often = Counter(theirs)
        self._costs = [*accumulate((1 + often[unit] for unit in ours), initial=0)]
        self._left = MAX_WORK

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> Match:
        """Returns the longest block of a piece, or an empty one where too little work is left."""
        cost = self._costs[-1 if ahi is None else ahi] - self._costs[alo]
        if cost > self._left:
            return Match(alo, blo, 0)
        self._left -= cost
        return super().find_longest_match(alo, ahi, blo, bhi)


def units(step: str, by: Similarity) -> Sequence[str]:
    """Returns a step as the sequence that is compared; white space around it does not count."""
    if by is Similarity.CHARACTERS:
        return step.strip()
    if by is Similarity.WORDS:
        return step.split()
    return _NUMBER.findall(_SPACED_MINUS.sub("-", step.replace("\u2212", "-")))

"""Advantages as spans of token places on the sampled ids, whichever method makes them.

Every method of credit assignment says the same kind of thing: these tokens were that much better
than expected. A span says it once for its tokens; spans may overlap, and then they add up.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Span(NamedTuple):
    """Says how much better than expected some tokens of a completion were."""

    start: int
    """The first token's place in the completion, from 0."""

    end: int
    """The place after the last token's."""

    value: float

    source: str
    """Who says so, such as `outcome` or `step`."""


def per_token(spans: Iterable[Span], length: int) -> NDArray[np.float32]:
    """Returns the sum of all spans at each of a completion's tokens."""
    values = np.zeros(length)
    for span in spans:
        assert 0 <= span.start <= span.end <= length
        values[span.start : span.end] += span.value
    return values.astype(np.float32)

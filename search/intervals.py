"""The interval of a chance of which k right of n are known."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

PRIOR = 0.5
"""Jeffreys' prior counts this much as a success and as much as a failure."""

Reals = NDArray[np.float64]


def jeffreys(k: Reals, n: Reals, level: float) -> tuple[Reals, Reals]:
    """Returns the equal-tailed Jeffreys interval with repaired ends.

    The lower end is 0 where k = 0 and the upper end is 1 where k = n, so that a chance of 0 or 1 is
    always covered (Brown, Cai and DasGupta 2001, section 4.1.2).

    Args:
        k: Successes; may be fractional where evidence is weighted.
        n: Trials, at least k.
        level: Probability that the interval covers, in (0, 1).
    """
    tail = (1 - level) / 2
    low = betaincinv(k + PRIOR, n - k + PRIOR, tail)
    high = betaincinv(k + PRIOR, n - k + PRIOR, 1 - tail)
    return np.where(k <= 0, 0.0, low), np.where(k >= n, 1.0, high)

"""The counted value critic: what k right of n rollouts say about a node.

The posterior under Jeffreys' prior is Beta(k + 1/2, n - k + 1/2). Its likelihood does not depend on
when sampling stopped, which k / n does (Berger and Wolpert 1988, section 4.2).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

LEVEL = 0.9
"""Probability that an interval covers."""

PRIOR = 0.5
"""Jeffreys' prior counts this much as a success and as much as a failure."""

Reals = NDArray[np.float64]


def posterior_mean(k: Reals, n: Reals) -> Reals:
    """Returns the posterior mean of the value, in (0, 1); null evidence must be masked outside."""
    return (k + PRIOR) / (n + 2 * PRIOR)


def interval(k: Reals, n: Reals) -> tuple[Reals, Reals]:
    """Returns the equal-tailed Jeffreys interval with repaired ends.

    The lower end is 0 where k = 0 and the upper end is 1 where k = n, so that a node whose value is
    0 or 1 is always covered (Brown, Cai and DasGupta 2001, section 4.1.2).

    Args:
        k: Successes; may be fractional where evidence is weighted.
        n: Trials, at least k.
    """
    tail = (1 - LEVEL) / 2
    low = betaincinv(k + PRIOR, n - k + PRIOR, tail)
    high = betaincinv(k + PRIOR, n - k + PRIOR, 1 - tail)
    return np.where(k <= 0, 0.0, low), np.where(k >= n, 1.0, high)

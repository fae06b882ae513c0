"""The counted value critic: what k right of n rollouts say about a node.

The posterior under Jeffreys' prior is Beta(k + 1/2, n - k + 1/2). Its likelihood does not depend on
when sampling stopped, which k / n does (Berger and Wolpert 1988, section 4.2).
"""

from treeward.search.intervals import PRIOR, Reals, jeffreys

LEVEL = 0.9
"""Probability that an interval covers."""


def posterior_mean(k: Reals, n: Reals) -> Reals:
    """Returns the posterior mean of the value, in (0, 1); null evidence must be masked outside."""
    return (k + PRIOR) / (n + 2 * PRIOR)


def interval(k: Reals, n: Reals) -> tuple[Reals, Reals]:
    """Returns the equal-tailed Jeffreys interval of probability `LEVEL` with repaired ends.

    Args:
        k: Successes; may be fractional where evidence is weighted.
        n: Trials, at least k.
    """
    return jeffreys(k, n, LEVEL)

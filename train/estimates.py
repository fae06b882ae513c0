"""Means over problems, with intervals that count problems and not samples.

Samples of a problem resemble each other, so a thousand samples of ten problems say little about an
eleventh. Every estimate here is a mean of one number a problem, problems weighing alike, and its
interval is about the problems that these were drawn from.

P  problems
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, stdtrit

from treeward.critics.value import LEVEL

SHARE_METHOD = "Korn-Graubard by problem"
MEAN_METHOD = "t by problem"
DIFFERENCE_METHOD = "paired t by problem, with two neutral pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Holds a mean over problems and what it is worth."""

    value: float | None
    """The mean; None where no problem says anything."""

    low: float | None
    """Lower end of the interval; None for fewer than two problems."""

    high: float | None
    """Upper end of the interval; None for fewer than two problems."""

    n_problems: int
    """Problems that the mean is over; those that nothing is known of are not among them."""

    method: str
    """How the interval was made."""

    level: float = LEVEL
    """The probability that such an interval covers."""

    def __str__(self) -> str:
        """Returns the value with its interval."""
        if self.value is None:
            return "unknown"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (no interval from one problem)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share(values_P: Sequence[float], trials: int) -> Estimate:
    """Returns the mean of numbers in [0, 1], with an interval that covers near 0 and 1 too.

    Korn and Graubard (1998): Clopper-Pearson for as many independent trials as would give the
    variance that is seen among problems, made fewer for the few problems it was seen among. No more
    trials are assumed than there were; where all problems are at 0 or at 1, as many as problems.

    Args:
        values_P: [P] numbers in [0, 1], one a problem.
        trials: Independent trials there would be if samples of a problem did not resemble each
            other; at least P.
    """
    n_problems = len(values_P)
    mean = float(np.mean(values_P)) if values_P else None
    low = high = None
    if mean is not None and n_problems > 1:
        low, high = _clopper_pearson(mean, _effective(values_P, mean, trials))
    return Estimate(value=mean, low=low, high=high, n_problems=n_problems, method=SHARE_METHOD)


def _effective(values_P: Sequence[float], mean: float, trials: int) -> float:
    """Returns how many independent trials the values are worth."""
    n_problems = len(values_P)
    if not 0 < mean < 1:
        return n_problems
    variance = float(np.var(values_P, ddof=1)) / n_problems
    seen = min(trials, mean * (1 - mean) / variance) if variance > 0 else trials
    return seen * (_t(trials - 1) / _t(n_problems - 1)) ** 2


def _clopper_pearson(mean: float, n: float) -> tuple[float, float]:
    tail, k = (1 - LEVEL) / 2, mean * n
    low = float(betaincinv(k, n - k + 1, tail)) if mean > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if mean < 1 else 1.0
    return low, high


def mean(values_P: Sequence[float]) -> Estimate:
    """Returns the mean of numbers that are at least 0, with Student's interval cut off at 0.

    Args:
        values_P: [P] numbers, one a problem.
    """
    n_problems = len(values_P)
    value = float(np.mean(values_P)) if values_P else None
    low = high = None
    if value is not None and n_problems > 1:
        half = _t(n_problems - 1) * float(np.std(values_P, ddof=1)) / n_problems**0.5
        low, high = max(0.0, value - half), value + half
    return Estimate(value=value, low=low, high=high, n_problems=n_problems, method=MEAN_METHOD)


def difference(before_P: Sequence[float], after_P: Sequence[float]) -> Estimate:
    """Returns the mean of after - before for numbers in [0, 1], problem by problem.

    The interval is Student's for the differences and two more pairs that say nothing: half a pair
    that gained all, half that lost all, and one that stayed (Agresti and Min 2005, section 3, there
    for pairs of 0 and 1). Without them it would have no width where no problem changed.

    Args:
        before_P: [P] one number a problem.
        after_P: [P] the same problems in the same order.
    """
    n_problems = len(before_P)
    gains_P = np.subtract(after_P, before_P)
    value = float(gains_P.mean()) if n_problems else None
    low = high = None
    if n_problems > 1:
        n = n_problems + 2
        middle = float(gains_P.sum()) / n
        variance = (float(np.square(gains_P).sum()) + 1) / n - middle**2
        half = _t(n_problems - 1) * (variance / (n - 1)) ** 0.5
        low, high = max(-1.0, middle - half), min(1.0, middle + half)
    return Estimate(
        value=value, low=low, high=high, n_problems=n_problems, method=DIFFERENCE_METHOD
    )


def _t(freedom: int) -> float:
    """Returns the quantile of Student's distribution that leaves half of 1 - LEVEL above it."""
    return float(stdtrit(freedom, (1 + LEVEL) / 2))

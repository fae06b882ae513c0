"""Says how far probabilities can be trusted, against counts of what came of them.

A share k / n of few rollouts is noisy, so nothing here takes one for the truth: predictions are
binned, and in each bin their mean is held against all successes of all rollouts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Holds what was predicted in one band and what came of it."""

    low: float
    """Predictions from here."""
    high: float
    """To here; the last bin holds its end too."""
    places: int
    """Predictions in the bin."""
    rollouts: int
    """Rollouts that they are held against."""
    predicted: float
    """Their mean, each weighing what its rollouts weigh."""
    observed: float
    """The share of right rollouts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Holds how predicted probabilities agree with counts."""

    places: int
    """Predictions with at least one rollout."""

    rollouts: int
    """Rollouts that they are held against."""

    ece: float
    """Expected calibration error: the mean over rollouts of |predicted - observed| of the bin."""

    ece_noise: float
    """What a critic without error would have, about, for so few problems: rollouts of one problem
    go wrong together."""

    brier: float
    """Mean over rollouts of (prediction - outcome)^2; the outcomes' own variance is part of it."""

    auc: float | None
    """Chance that a right rollout's prediction is above a wrong one's, ties half; None where all
    came out alike."""

    bins: tuple[Bin, ...]
    """The bins that hold something, of equal width."""


def calibrate(
    predicted: Reals,
    n_right: Reals,
    n_rollouts: Reals,
    problems: NDArray[np.int64],
    *,
    n_bins: int = 10,
) -> Calibration | None:
    """Returns how predictions agree with counts; None where no rollout says anything.

    Args:
        predicted: Probabilities of success.
        n_right: Right rollouts of each.
        n_rollouts: Right and wrong ones together; those without any are left out.
        problems: A number for each, the same for those of one problem.
        n_bins: Bins of equal width that [0, 1] is cut into.
    """
    known = n_rollouts > 0
    predicted, k, n = predicted[known], n_right[known], n_rollouts[known]
    if not known.any():
        return None
    band = np.minimum((predicted * n_bins).astype(int), n_bins - 1)
    bins = _bins(predicted, k, n, band, n_bins)
    gaps = sum(b.rollouts * abs(b.predicted - b.observed) for b in bins)
    # The gap of a bin is a sum over its problems, whose squares add up to its variance. Of a normal
    # variable with standard deviation s, the mean absolute value is s sqrt(2 / pi).
    cells, cell = np.unique(np.stack([band, problems[known]]), axis=1, return_inverse=True)
    squares = np.bincount(cell, predicted * n - k) ** 2
    noise = np.sqrt(np.bincount(cells[0], squares) * 2 / np.pi).sum()
    errors = k * (1 - predicted) ** 2 + (n - k) * predicted**2
    return Calibration(
        places=len(n),
        rollouts=int(n.sum()),
        ece=float(gaps / n.sum()),
        ece_noise=float(noise / n.sum()),
        brier=float(errors.sum() / n.sum()),
        auc=auc(predicted, k, n - k),
        bins=bins,
    )


def _bins(
    predicted: Reals, k: Reals, n: Reals, band: NDArray[np.int64], n_bins: int
) -> tuple[Bin, ...]:
    bins = []
    for at in np.unique(band):
        inside = band == at
        trials = n[inside].sum()
        bins.append(
            Bin(
                low=float(at / n_bins),
                high=float((at + 1) / n_bins),
                places=int(inside.sum()),
                rollouts=int(trials),
                predicted=float((predicted[inside] * n[inside]).sum() / trials),
                observed=float(k[inside].sum() / trials),
            )
        )
    return tuple(bins)


def auc(predicted: Reals, n_right: Reals, n_wrong: Reals) -> float | None:
    """Returns the area under the ROC curve over rollouts; None where all came out alike.

    Args:
        predicted: A score for each place.
        n_right: Its right rollouts; may be 0.
        n_wrong: Its wrong ones.
    """
    pairs = n_right.sum() * n_wrong.sum()
    if not pairs:
        return None
    levels, place = np.unique(predicted, return_inverse=True)
    right = np.bincount(place, n_right, len(levels))
    wrong = np.bincount(place, n_wrong, len(levels))
    below = np.cumsum(wrong) - wrong
    return float((right * (below + wrong / 2)).sum() / pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Holds how predicted quantities agree with measured ones."""

    places: int
    """Predictions with a measured value."""

    rmse: float
    """Root of the mean squared difference."""

    rmse_of_mean: float
    """The same for a critic that says the measured mean everywhere."""


def fit(predicted: Reals, measured: Reals) -> Fit | None:
    """Returns how predictions agree with measured values; NaN ones are left out, None if all."""
    known = ~np.isnan(measured)
    if not known.any():
        return None
    differences = predicted[known] - measured[known]
    return Fit(
        places=int(known.sum()),
        rmse=float(np.sqrt(np.mean(differences**2))),
        rmse_of_mean=float(np.std(measured[known])),
    )

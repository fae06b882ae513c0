import numpy as np
import pytest

from treeward.critics.calibration import Reals, auc, calibrate, fit


def test_a_report_worked_out_by_hand() -> None:
    predicted = np.array([0.1, 0.15, 0.9, 1.0, 0.5])
    k, n = np.array([1.0, 0.0, 3.0, 1.0, 0.0]), np.array([4.0, 1.0, 4.0, 1.0, 0.0])
    found = calibrate(predicted, k, n, n_bins=2)
    assert found is not None
    low, high = found.bins
    assert (low.low, low.high, low.places, low.rollouts) == (0.0, 0.5, 2, 5)
    # (4 * .1 + 1 * .15) / 5 = .11 was said and 1 of 5 came right.
    assert (low.predicted, low.observed) == pytest.approx((0.11, 0.2))
    # (4 * .9 + 1 * 1) / 5 = .92 was said and 4 of 5 came right.
    assert (high.predicted, high.observed) == pytest.approx((0.92, 0.8))
    assert found.ece == pytest.approx((5 * 0.09 + 5 * 0.12) / 10)
    # .81 + 3 * .01; .0225; 3 * .01 + .81; 0: 1.7025 over 10 rollouts.
    assert found.brier == pytest.approx(0.17025)
    # A right rollout at .1 beats none and ties 3 of the 6 wrong ones (1.5); three at .9 beat the
    # 4 below and tie the one beside them (4.5 each); the one at 1.0 beats all 5.
    assert found.auc == pytest.approx((1.5 + 3 * 4.5 + 5) / 25)
    assert (found.places, found.rollouts) == (4, 10)


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.integers(0, 6, 30) / 5
    right, wrong = rng.integers(0, 4, 30).astype(float), rng.integers(0, 4, 30).astype(float)
    up = np.repeat(predicted, right.astype(int))[:, None]
    down = np.repeat(predicted, wrong.astype(int))[None]
    assert auc(predicted, right, wrong) == pytest.approx(((up > down) + (up == down) / 2).mean())


def test_without_evidence_there_is_no_number() -> None:
    some, none = np.array([0.2, 0.8]), np.zeros(2)
    assert calibrate(some, none, none) is None
    assert auc(some, np.array([1.0, 2.0]), none) is None
    assert fit(some, np.full(2, np.nan)) is None


def test_the_error_of_perfect_predictions_is_the_noise() -> None:
    # 200 rounds of 10 bins with 160 rollouts each: the mean error is within 6 % of the noise at
    # three standard errors (each round's error varies by about a quarter of it).
    rng = np.random.default_rng(1)
    predicted: Reals = rng.uniform(size=400)
    n = np.full(400, 4.0)
    rounds = [
        calibrate(predicted, rng.binomial(4, predicted).astype(np.float64), n) for _ in range(200)
    ]
    errors = [found.ece for found in rounds if found]
    assert rounds[0] is not None
    assert np.mean(errors) == pytest.approx(rounds[0].ece_noise, rel=0.06)


def test_a_fit_is_compared_with_the_mean() -> None:
    found = fit(np.array([0.0, 0.5, 9.0]), np.array([0.1, 0.3, np.nan]))
    assert found is not None
    assert found.places == 2
    assert found.rmse == pytest.approx(np.sqrt((0.01 + 0.04) / 2))
    assert found.rmse_of_mean == pytest.approx(0.1)

import numpy as np
import pytest

from treeward.critics.calibration import Reals, auc, calibrate, fit


def test_a_report_worked_out_by_hand() -> None:
    predicted = np.array([0.1, 0.15, 0.9, 1.0, 0.5])
    k, n = np.array([1.0, 0.0, 3.0, 1.0, 0.0]), np.array([4.0, 1.0, 4.0, 1.0, 0.0])
    found = calibrate(predicted, k, n, np.arange(5), n_bins=2)
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
    assert calibrate(some, none, none, np.arange(2)) is None
    assert auc(some, np.array([1.0, 2.0]), none) is None
    assert fit(some, np.full(2, np.nan)) is None


@pytest.mark.parametrize("together", [1, 4])
def test_the_error_of_perfect_predictions_is_the_noise(together: int) -> None:
    """Outcomes of one problem come out alike here: fewer problems, more noise."""
    rng = np.random.default_rng(1)
    predicted: Reals = rng.uniform(size=400)
    by_value = np.argsort(predicted)
    problems = np.empty(400, np.int64)
    problems[by_value] = np.arange(400) // together
    n = np.full(400, 4.0)
    rounds = []
    for _ in range(200):
        alike = rng.uniform(size=400)[problems, None]
        luck = rng.uniform(size=(400, 4)) if together == 1 else alike.repeat(4, axis=1)
        k: Reals = (luck < predicted[:, None]).sum(axis=1).astype(np.float64)
        found = calibrate(predicted, k, n, problems)
        assert found is not None
        rounds.append((found.ece, found.ece_noise))
    error, noise = np.mean(rounds, axis=0)
    # 10 bins: each round's error varies by about a quarter of it, more where problems are few.
    assert error == pytest.approx(noise, rel=0.1)
    assert noise > 0.08 if together > 1 else noise < 0.04


def test_a_fit_is_compared_with_the_mean() -> None:
    found = fit(np.array([0.0, 0.5, 9.0]), np.array([0.1, 0.3, np.nan]))
    assert found is not None
    assert found.places == 2
    assert found.rmse == pytest.approx(np.sqrt((0.01 + 0.04) / 2))
    assert found.rmse_of_mean == pytest.approx(0.1)

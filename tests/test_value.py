"""The posterior of a value and its interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from treeward.critics.value import interval, posterior_mean


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(1, 500))
    return draw(st.integers(0, n)), n


@given(counts())
def test_mean_and_interval_are_those_of_the_beta_posterior(count: tuple[int, int]) -> None:
    k, n = (np.array([float(x)]) for x in count)
    shape = k + 0.5, n - k + 0.5
    low, high = interval(k, n)
    np.testing.assert_allclose(posterior_mean(k, n), beta.mean(*shape), rtol=1e-12)
    if k > 0:
        np.testing.assert_allclose(beta.cdf(low, *shape), 0.05, rtol=1e-8)
    if k < n:
        np.testing.assert_allclose(beta.cdf(high, *shape), 0.95, rtol=1e-8)


@given(counts())
def test_right_and_wrong_are_alike(count: tuple[int, int]) -> None:
    k, n = (np.array([float(x)]) for x in count)
    low, high = interval(k, n)
    mirrored_low, mirrored_high = interval(n - k, n)
    np.testing.assert_allclose([low, high], [1 - mirrored_high, 1 - mirrored_low], atol=1e-9)


@given(st.integers(1, 500))
def test_a_value_of_0_or_1_is_always_covered(n: int) -> None:
    low, high = interval(np.array([0.0, n]), np.array([n, n], dtype=float))
    assert low[0] == 0.0
    assert high[1] == 1.0
    assert high[0] < 1.0
    assert low[1] > 0.0


def coverage(n: int, truths: np.ndarray) -> float:
    """The exact share of outcomes whose interval holds the truth, as sums of the binomial."""
    k = np.arange(n + 1)
    low, high = interval(k.astype(float), np.full(n + 1, float(n)))
    inside = (low <= truths[:, None]) & (truths[:, None] <= high)
    return float((binom.pmf(k, n, truths[:, None]) * inside).sum(axis=1).mean())


@pytest.mark.parametrize("n", [3, 4, 8, 16, 64, 256])
def test_a_fixed_n_covers_nine_in_ten(n: int) -> None:
    assert 0.87 <= coverage(n, np.linspace(0.05, 0.95, 901)) <= 0.93
    assert coverage(n, np.linspace(0, 0.05, 201)) >= 0.9
    assert coverage(n, np.linspace(0.95, 1, 201)) >= 0.9

"""Progress: the closed form of the prover's value, its K, and the interval of a difference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import betainc
from scipy.stats import beta, binom

from treeward.critics.progress import (
    Count,
    progress_interval,
    prover_draws,
    prover_k,
    prover_value,
    unbiased_progress,
)
from treeward.critics.value import posterior_mean
from treeward.export.options import LabelSettings
from treeward.search.errors import BadInput
from treeward.search.intervals import Reals


def counts(k: float, n: float) -> tuple[Reals, Reals]:
    return np.array([k], dtype=float), np.array([n], dtype=float)


@pytest.mark.parametrize("prover", [1, 2, 5, 16])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 8), (3, 8), (8, 8), (1, 200), (150, 200)])
def test_the_closed_form_is_the_integral(k: int, n: int, prover: int) -> None:
    # By parts, since the density is infinite at the ends: E f(Q) = f(1) - int f'(q) P(Q < q) dq.
    a, b = k + 0.5, n - k + 0.5
    below, _ = quad(lambda q: prover * (1 - q) ** (prover - 1) * betainc(a, b, q), 0, 1, limit=200)
    integral = 1 - below
    assert prover_value(*counts(k, n), prover)[0] == pytest.approx(integral, abs=1e-7)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 15))
def test_a_prover_with_more_tries_or_successes_does_better(k: int, wrong: int, prover: int) -> None:
    n = k + wrong
    value = prover_value(*counts(k, n), prover)
    assert value <= prover_value(*counts(k, n), prover + 1)
    assert value <= prover_value(*counts(k + 1, n + 1), prover)
    assert prover_value(*counts(k, n), 1)[0] == pytest.approx(posterior_mean(*counts(k, n))[0])


@pytest.mark.parametrize(
    ("root", "k"),
    [(1.0, 2), (0.5, 2), (0.34, 3), (0.2, 5), (0.1, 10), (1 / 16, 16), (0.01, 16), (0.0, 16)],
)
def test_prover_k_is_the_tries_that_a_success_takes(root: float, k: int) -> None:
    assert prover_k(root) == k


def test_nothing_is_known_of_the_prover_where_the_root_is_unknown() -> None:
    assert prover_k(None) is None


@pytest.mark.parametrize(("k", "n"), [(0, 8), (3, 8), (30, 40)])
def test_draws_are_equally_likely_values_of_the_prover(k: int, n: int) -> None:
    draws = prover_draws(*counts(k, n), 4)[0]
    # The share of the posterior below each draw is (i + 1/2) / 64.
    below = beta(k + 0.5, n - k + 0.5).cdf(1 - (1 - draws) ** 0.25)
    np.testing.assert_allclose(below, (np.arange(64) + 0.5) / 64, atol=1e-9)
    assert draws.mean() == pytest.approx(prover_value(*counts(k, n), 4)[0], abs=2e-3)


def test_the_interval_is_that_of_independent_draws() -> None:
    # 200,000 draws: the error of a 5 % quantile of this difference is about .0006.
    rng = np.random.default_rng(0)
    child = 1 - (1 - rng.beta(6.5, 2.5, 200_000)) ** 3
    parent = 1 - (1 - rng.beta(2.5, 6.5, 200_000)) ** 3
    ends = progress_interval(prover_draws(*counts(6, 8), 3), prover_draws(*counts(2, 8), 3))
    expected = np.quantile(child - parent, [0.05, 0.95])
    np.testing.assert_allclose(np.array(ends)[:, 0], expected, atol=0.01)


def test_a_step_taken_back_has_the_progress_with_its_sign_turned() -> None:
    better, worse = prover_draws(*counts(6, 8), 3), prover_draws(*counts(2, 8), 3)
    low, high = progress_interval(better, worse)
    back_low, back_high = progress_interval(worse, better)
    np.testing.assert_allclose([low, high], [-back_high, -back_low], atol=1e-12)
    assert low < 0.55 < high


def test_between_certain_ends_progress_is_certain() -> None:
    low, high = progress_interval(np.ones((1, 64)), np.zeros((1, 64)))
    assert low[0] == high[0] == 1.0


def test_without_steps_there_are_no_intervals() -> None:
    """As in a tree whose root alone has evidence."""
    nothing = np.empty((0, 64))
    low, high = progress_interval(nothing, nothing)
    assert (low.shape, high.shape) == ((0,), (0,))


@pytest.mark.parametrize("prover", [2, 5, 16])
@pytest.mark.parametrize(("n_parent", "n_child", "tries"), [(8, 4, 2), (4, 8, 2), (12, 9, 4)])
@pytest.mark.parametrize(("parent", "child"), [(0.02, 0.0), (0.02, 0.1), (0.3, 0.3), (0.6, 0.9)])
def test_what_is_learned_of_progress_has_its_mean(
    prover: int, n_parent: int, n_child: int, tries: int, parent: float, child: float
) -> None:
    mean = sum(
        binom(n_parent, parent).pmf(i)
        * binom(n_child, child).pmf(j)
        * unbiased_progress(Count(j, n_child), Count(i, n_parent), prover)
        for i in range(n_parent + 1)
        for j in range(n_child + 1)
    )
    k = min(prover, tries)
    assert mean == pytest.approx((1 - parent) ** k - (1 - child) ** k)


def test_counts_alone_make_no_progress() -> None:
    """By the posterior the node with fewer failures looks better, by .125 for a prover of 16."""
    one, other = Count(0, 8), Count(0, 4)
    assert unbiased_progress(other, one, 16) == unbiased_progress(one, other, 16) == 0.0
    posterior = prover_value(*counts(0, 4), 16) - prover_value(*counts(0, 8), 16)
    assert posterior == pytest.approx(0.125, abs=1e-3)


def test_the_end_of_a_solution_is_as_far_as_progress_goes() -> None:
    # Of 6 rollouts 2 were right: a prover of 3 solves it but for (4 / 6) (3 / 5) (2 / 4) = .2.
    assert unbiased_progress(Count(0, 0, 1.0), Count(2, 6), 5) == pytest.approx(0.2)
    assert unbiased_progress(Count(0, 0, 0.0), Count(2, 6), 5) == pytest.approx(-0.8)
    assert unbiased_progress(Count(0, 0, 0.0), Count(1, 1), 5) == -1.0


@pytest.mark.parametrize("k", [0, 1025])
def test_a_prover_has_from_one_to_1024_tries(k: int) -> None:
    with pytest.raises(BadInput, match=r"label\.prover_k must be from 1 to 1024, got "):
        LabelSettings(prover_k=k)

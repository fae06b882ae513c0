"""Closed forms against counting, and how often intervals by problem cover.

Seeds are fixed, so a pass repeats. Of 2,000 intervals that cover with probability .90, fewer than
.875 cover with probability 1.3e-4: that is what another seed would risk, for each case.
"""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import beta, binom, t

from treeward.critics.progress import pass_at_k
from treeward.train.estimates import difference, mean, share

LOWEST = 0.875


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_one(n: int) -> None:
    for c in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations([True] * c + [False] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(np.mean([any(s) for s in subsets]))


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_pass_at_k_is_unbiased(k: int) -> None:
    # Summed over how many of 6 samples, each right with probability .3, can be right.
    n, p = 6, 0.3
    chances = binom.pmf(np.arange(n + 1), n, p)
    expected = sum(chance * pass_at_k(n, c, k) for c, chance in enumerate(chances))
    assert expected == pytest.approx(1 - (1 - p) ** k)


def test_one_trial_a_problem_is_clopper_and_pearson() -> None:
    # For 0 and 1 the variance of the mean is p (1 - p) / (P - 1): P - 1 trials are seen.
    found = share([1.0] * 7 + [0.0] * 13, 20)
    n = 19.0
    assert found.value == pytest.approx(0.35)
    assert found.low == pytest.approx(beta.ppf(0.05, 0.35 * n, n - 0.35 * n + 1))
    assert found.high == pytest.approx(beta.ppf(0.95, 0.35 * n + 1, n - 0.35 * n))


def test_the_interval_of_a_share_is_the_published_one() -> None:
    """Korn and Graubard 1998: n* = p (1 - p) / var (t(trials - 1) / t(P - 1))^2, at most trials."""
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    p, variance = 0.42, float(np.var(values, ddof=1)) / 5
    for trials in (40, 12, 5):
        n = min(trials, p * (1 - p) / variance) * (t.ppf(0.95, trials - 1) / t.ppf(0.95, 4)) ** 2
        found = share(values, trials)
        assert found.low == pytest.approx(beta.ppf(0.05, p * n, n - p * n + 1))
        assert found.high == pytest.approx(beta.ppf(0.95, p * n + 1, n - p * n))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_all_problems_agree_the_interval_counts_problems(value: float) -> None:
    # "Rule of three" at 90 %: none of 20 problems leaves 1 - .05 ** (1 / 20) possible.
    found = share([value] * 20, 160)
    far = found.high if value == 0 else 1 - (found.low or 0)
    assert far == pytest.approx(1 - 0.05 ** (1 / 20))
    assert (found.low if value == 0 else found.high) == value


def test_what_one_problem_says_of_others_is_unknown() -> None:
    assert share([0.5], 8).low is None
    assert mean([3.0]).high is None
    assert difference([0.5], [0.7]).low is None
    assert share([], 0).value is None
    assert mean([]).value is None
    assert difference([], []).value is None


def test_samples_that_repeat_each_other_add_nothing() -> None:
    # The means are the same whether a problem has one sample or 8 equal ones.
    values = [1.0] * 12 + [0.0] * 18
    once, again = share(values, 30), share(values, 240)
    widths = [found.high - found.low for found in (once, again) if found.high and found.low]
    assert widths[1] == pytest.approx(widths[0], rel=0.05)


def draw(rng: np.random.Generator, a: float, b: float, problems: int) -> np.ndarray:
    """Per-problem shares of 8 samples; problems differ as Beta(a, b) does."""
    return np.asarray(rng.binomial(8, rng.beta(a, b, problems)) / 8)


@pytest.mark.parametrize("problems", [5, 20, 200])
@pytest.mark.parametrize(("a", "b"), [(1, 1), (0.3, 0.3), (20, 20), (0.1, 2), (4, 0.2)])
def test_shares_are_covered(problems: int, a: float, b: float) -> None:
    rng, truth = np.random.default_rng(problems), a / (a + b)
    covered = 0
    for _ in range(2000):
        found = share(list(draw(rng, a, b, problems)), 8 * problems)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / 2000 >= LOWEST


@pytest.mark.parametrize("problems", [5, 20, 200])
@pytest.mark.parametrize("moved", [0.0, 0.05, 0.5])
def test_differences_are_covered(problems: int, moved: float) -> None:
    # A share `moved` of the problems gets a new chance of its own, of mean .8 after .5.
    rng = np.random.default_rng(problems)
    covered = 0
    for _ in range(2000):
        chance = rng.beta(1, 1, problems)
        other = np.where(rng.random(problems) < moved, rng.beta(4, 1, problems), chance)
        before, after = (rng.binomial(8, each) / 8 for each in (chance, other))
        found = difference(list(before), list(after))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.3 * moved <= found.high
    assert covered / 2000 >= LOWEST


def test_the_interval_of_a_difference_has_two_neutral_pairs() -> None:
    """Gains .5, 0, 0, -.25; with the pairs six of mean .25 / 6 and squares that sum to 1.3125."""
    found = difference([0.0, 0.5, 1.0, 0.25], [0.5, 0.5, 1.0, 0.0])
    middle = 0.25 / 6
    half = t.ppf(0.95, 3) * ((1.3125 / 6 - middle**2) / 5) ** 0.5
    assert found.value == pytest.approx(0.0625)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))


@pytest.mark.parametrize("gain", [-1.0, 0.0, 1.0])
def test_a_difference_that_is_the_same_everywhere_has_an_interval_around_it(gain: float) -> None:
    before = [0.0] * 50 if gain >= 0 else [1.0] * 50
    found = difference(before, [b + gain for b in before])
    assert found.value == gain
    assert found.low is not None
    assert found.high is not None
    assert found.low <= gain <= found.high
    assert 0 < found.high - found.low < 0.15

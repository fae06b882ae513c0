"""What a node is worth to a search: the formula by hand, and what silence does to it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeward.search.algorithms import check_guides
from treeward.search.critic import Scores
from treeward.search.errors import BadInput
from treeward.search.leaf_value import critic_opinion, leaf_value
from treeward.search.settings import Algorithm, NoSettings, SearchSettings

ALL = SearchSettings(critic_value=2.0, critic_progress=1.0, critic_outcome=1.0)

units = st.floats(0, 1)
scores = st.builds(
    Scores,
    value=st.none() | units,
    progress=st.none() | st.floats(-1, 1),
    outcome=st.none() | units,
)
weights = st.floats(0, 5)
settings = st.builds(
    SearchSettings, critic_value=weights, critic_progress=weights, critic_outcome=weights
)


def test_the_opinion_is_the_weighted_mean_on_one_scale() -> None:
    """(2 * .5 + 1 * (1 - .6) / 2 + 1 * .9) / 4 = (1 + .2 + .9) / 4 = .525."""
    assert critic_opinion(Scores(0.5, -0.6, 0.9), ALL) == pytest.approx(0.525)


def test_who_says_nothing_drops_out_of_both_sums() -> None:
    """At a root only the value critic speaks; without outcome it is (1 + .2) / 3."""
    assert critic_opinion(Scores(0.5, None, None), ALL) == 0.5
    assert critic_opinion(Scores(0.5, -0.6, None), ALL) == pytest.approx(0.4)
    assert critic_opinion(Scores(None, None, None), ALL) is None
    assert critic_opinion(Scores(None, 0.2, 0.9), SearchSettings()) is None
    assert critic_opinion(Scores(0.0, 0.2, 0.9), SearchSettings()) == 0.0


def test_counts_and_opinion_by_hand() -> None:
    """3 right of 4, and .25 that weighs 8 rollouts: (3 + 2) / 12."""
    assert leaf_value(3, 4, 0.25, 8.0) == pytest.approx(5 / 12)
    assert leaf_value(0, 0, 0.25, 8.0) == 0.25
    assert leaf_value(3, 4, None, 8.0) == 0.75
    assert leaf_value(0, 0, None, 8.0) is None


@given(scores, settings, st.integers(0, 9), st.integers(0, 9), st.floats(0.01, 100))
def test_it_is_a_probability_between_what_was_counted_and_what_is_said(
    said: Scores, search: SearchSettings, right: int, wrong: int, weight: float
) -> None:
    opinion = critic_opinion(said, search)
    value = leaf_value(right, right + wrong, opinion, weight)
    counted = leaf_value(right, right + wrong, None, weight)
    known = [side for side in (opinion, counted) if side is not None]
    if value is None:
        assert not known
        return
    assert -1e-9 <= min(known) - 1e-9 <= value <= max(known) + 1e-9 <= 1 + 1e-8


@pytest.mark.parametrize("name", ["critic_value", "critic_progress", "critic_outcome"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_weights_are_checked(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"search.{name} must be"):
        SearchSettings(**{name: value})  # type: ignore[arg-type]  # only floats are given


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_the_weight_of_an_opinion_is_greater_than_0(value: float) -> None:
    with pytest.raises(BadInput, match="must be greater than 0"):
        SearchSettings(critic_rollouts=value)


@pytest.mark.parametrize(
    ("search", "scored", "says"),
    [
        (SearchSettings(critic_outcome=0.5), False, "search.critic_outcome=0.5 weighs critics"),
        (SearchSettings(critic_rollouts=2.0), False, "give --critics DIR"),
        (SearchSettings(rollouts=0), False, "search.rollouts must be at least 1 without critics"),
        (SearchSettings(rollouts=0, critic_value=0.0), True, "search.rollouts is 0 and so are"),
        (SearchSettings(algorithm=Algorithm.ROLLOUTS), True, "treeward score"),
    ],
)
def test_settings_that_do_not_fit_name_the_way_out(
    search: SearchSettings, scored: bool, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        check_guides(search, NoSettings(), scored=scored, fast=False)


def test_settings_that_fit_pass() -> None:
    check_guides(SearchSettings(), NoSettings(), scored=False, fast=False)
    check_guides(SearchSettings(rollouts=0), NoSettings(), scored=True, fast=False)
    check_guides(SearchSettings(critic_value=0.0), NoSettings(), scored=True, fast=False)

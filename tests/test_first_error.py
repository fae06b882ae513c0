"""Beliefs about the first wrong step are those of the model, summed over all of its states."""

from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from tests.plain_beliefs import path_to, right_chances

from treeward.search.error_grid import CURVES, SILENT, grid, learn_prior, prior
from treeward.search.first_error import Beliefs
from treeward.search.information import information
from treeward.search.intervals import Reals
from treeward.search.samples import Samples

RIGHT, ALIVE, DEAD = "right", "alive but wrong", "dead"
CLEAR = 1 - 1e-6


class Seen(NamedTuple):
    """What was seen at a step."""

    end: bool | None = None
    logprob: float | None = None
    taken: int = 1


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[Seen]]:
    """The parents of up to 6 steps, and what was seen at each; only leaves have ends."""
    size = draw(st.integers(2, 6))
    parents = [-1] + [draw(st.integers(0, step - 1)) for step in range(1, size)]
    logprobs = st.none() | st.floats(-12, 0)
    ends = st.none() | st.booleans()
    return parents, [
        Seen(draw(ends) if step and step not in parents else None, draw(logprobs), draw(COUNTS))
        for step in range(size)
    ]


COUNTS = st.integers(0, 3)


def grown(
    parents: Sequence[int], seen: Sequence[Seen], order: Iterable[int] | None = None
) -> Beliefs:
    """The tree, with what was seen refreshed step by step in some order."""
    samples = Samples()
    for step, (parent, (end, logprob, taken)) in enumerate(zip(parents, seen, strict=True)):
        if step:
            samples.step(parent, (step,), logprob, taken=taken, end=end)
    told = Beliefs(samples=samples)
    for step in range(len(parents)) if order is None else order:
        told.refresh([step])
    return told


def right_of(parents: Sequence[int], seen: Sequence[Seen], step: int) -> Reals:
    """r of a step at each grid point, from the formula."""
    points, logprob = grid(), seen[step].logprob
    if logprob is not None:
        p = min(np.exp(logprob), CLEAR)
    else:
        among = sum(
            seen[other].taken for other in range(1, len(seen)) if sister(parents, other, step)
        )
        p = (seen[step].taken + 1) / (among + 1.5)
    found = []
    curves = zip(points.slope_G, points.lift_G, points.floor_G, points.hazard_G, strict=True)
    for s, c, f, h in curves:
        odds = np.exp(c) * (p / (1 - p)) ** s
        found.append((1 - h) * (f + (1 - f) * (1 - 1 / (1 + odds))))
    return np.array(found)


def sister(parents: Sequence[int], one: int, other: int) -> bool:
    return parents[one] == parents[other]


def moves(r_G: Reals, before: str, after: str) -> Reals:
    """The probability at each grid point that a step leads from a state to another."""
    e_G, m_G = grid().harmless_G, grid().mending_G
    table = {
        (RIGHT, RIGHT): r_G,
        (RIGHT, ALIVE): (1 - r_G) * e_G,
        (RIGHT, DEAD): (1 - r_G) * (1 - e_G),
        (ALIVE, ALIVE): r_G + (1 - r_G) * e_G,
        (ALIVE, DEAD): (1 - r_G) * (1 - e_G),
        (DEAD, ALIVE): (1 - r_G) * m_G,
        (DEAD, DEAD): 1 - (1 - r_G) * m_G,
    }
    return table.get((before, after), np.zeros_like(r_G))


def all_states(parents: Sequence[int], seen: Sequence[Seen]) -> list[tuple[tuple[str, ...], Reals]]:
    """Every way in which steps can be, with its probability at each grid point given all ends."""
    found = []
    r_SG = [right_of(parents, seen, step) if step else np.ones(1) for step in range(len(parents))]
    for rest in product((RIGHT, ALIVE, DEAD), repeat=len(parents) - 1):
        states = (RIGHT, *rest)
        if any(
            end is not None and end == (state == DEAD)
            for state, (end, *_) in zip(states, seen, strict=True)
        ):
            continue
        mass_G = np.exp(prior())
        for step in range(len(parents)):
            apart_G, _ = one_is_right(parents, r_SG, states, step)
            for at in children(parents, step):
                apart_G = np.where(
                    grid().sole_G, apart_G, apart_G * moves(r_SG[at], states[step], states[at])
                )
            mass_G = mass_G * apart_G
        found.append((states, mass_G))
    total = sum(mass_G.sum() for _, mass_G in found)
    return [(states, mass_G / total) for states, mass_G in found]


def children(parents: Sequence[int], step: int) -> list[int]:
    return [at for at in range(1, len(parents)) if parents[at] == step]


def one_is_right(
    parents: Sequence[int], r_SG: Sequence[Reals], states: Sequence[str], step: int
) -> tuple[Reals, Reals]:
    """The probability of the states below a step where no more than one is right, else 1.

    And that none is which was seen, given these states and that the step is alive.
    """
    sole_G, e_G, below = grid().sole_G, grid().harmless_G, children(parents, step)
    ones: Reals = np.ones_like(e_G)
    if states[step] == DEAD:
        mass_G = ones
        for at in below:
            mass_G = mass_G * moves(r_SG[at], DEAD, states[at])
        return np.where(sole_G, mass_G, 1), ones
    most_G = np.maximum(sum((r_SG[at] for at in below), 0 * ones) / (1 - grid().hazard_G), 1)
    wrong = {RIGHT: 0 * ones, ALIVE: e_G, DEAD: 1 - e_G}
    none_G = 1 - sum((r_SG[at] for at in below), 0 * ones) / most_G
    for at in below:
        none_G = none_G * wrong[states[at]]
    total_G = none_G
    for sound in below:
        if states[sound] == states[step]:
            one_G = r_SG[sound] / most_G
            for at in below:
                one_G = one_G if at == sound else one_G * wrong[states[at]]
            total_G = total_G + one_G
    share_G = np.divide(none_G, total_G, out=0 * ones, where=total_G > 0)
    return np.where(sole_G, total_G, 1), share_G


@given(trees(), st.randoms())
@settings(deadline=None, max_examples=60)
def test_beliefs_are_the_sum_over_all_states(
    tree: tuple[list[int], list[Seen]], random: Random
) -> None:
    parents, seen = tree
    order = list(range(len(parents)))
    random.shuffle(order)
    told = grown(parents, seen, order)
    states = all_states(parents, seen)
    expected = [
        sum(float(mass_G.sum()) for each, mass_G in states if each[step] == RIGHT)
        for step in range(len(parents))
    ]
    assert right_chances(told) == pytest.approx(expected, abs=1e-9)
    path = path_to(parents, len(parents) - 1)
    along = [expected[step] for step in path]
    falls = [before - after for before, after in pairwise(along)]
    assert told.first_error(path) == pytest.approx([*falls, along[-1]], abs=1e-9)
    by_grid = sum(mass_G for _, mass_G in states)
    assert np.exp(told.weights()) == pytest.approx(by_grid, abs=1e-9)
    ends_below = [
        any(seen[at].end is not None and step in path_to(parents, at) for at in range(len(parents)))
        for step in range(len(parents))
    ]
    assert [told.seen(step) for step in range(len(parents))] == ends_below


@given(trees())
@settings(deadline=None, max_examples=40)
def test_information_is_in_the_ends_of_rollouts_that_leave_the_path(
    tree: tuple[list[int], list[Seen]],
) -> None:
    """Where each leaves the path is summed over, and one that never does ends as the path."""
    parents, seen = tree
    path = path_to(parents, len(parents) - 1)
    found = information(grown(parents, seen), path)
    states = all_states(parents, seen)
    usual_G = np.mean([right_of(parents, seen, step) for step in range(1, len(parents))], axis=0)
    for start, step in enumerate(path):
        if seen[step].end is not None:
            continue
        success_E, mass_E = np.zeros(len(path)), np.zeros(len(path))
        for each, mass_G in states:
            wrong = [place for place, at in enumerate(path) if each[at] != RIGHT]
            error = wrong[0] - 1 if wrong else len(path) - 1
            mass_E[error] += mass_G.sum()
            success_E[error] += ends_right(parents, seen, each, step, path, usual_G) @ mass_G
        both = np.concatenate([success_E, mass_E - success_E])
        outcome = [success_E.sum(), mass_E.sum() - success_E.sum()]
        told_of = entropy(mass_E) + entropy(outcome) - entropy(both)
        assert found[start] == pytest.approx(told_of, abs=1e-9)


def ends_right(
    parents: Sequence[int],
    seen: Sequence[Seen],
    states: Sequence[str],
    step: int,
    path: Sequence[int],
    usual_G: Reals,
) -> Reals:
    """The probability that a rollout from a step ends right."""
    if seen[step].end is not None:
        return np.full(grid().size, float(states[step] != DEAD))
    below = children(parents, step)
    p_C = np.array([p_of(parents, seen, at) for at in below])
    p_C = p_C / max(1.0, p_C.sum())
    total_G: Reals = np.zeros(grid().size)
    for at, p in zip(below, p_C, strict=True):
        total_G = total_G + p * ends_right(parents, seen, states, at, path, usual_G)
    rest = 1 - float(p_C.sum())
    if rest <= 1e-12:
        return total_G
    alive_G = np.full(grid().size, float(states[step] != DEAD))
    steps = len(path) - 1 + (seen[path[-1]].end is None)
    first_G = right_of([-1, 0], [Seen(), Seen(None, np.log(rest))], 1)
    r_SG = [right_of(parents, seen, at) if at else np.ones(1) for at in range(len(parents))]
    _, none_G = one_is_right(parents, r_SG, states, step)
    for place in range(max(1, steps - (len(path_to(list(parents), step)) - 1))):
        r_G = usual_G if place else first_G
        if place == 0 and states[step] != DEAD:
            r_G = np.where(grid().sole_G, none_G * (1 - grid().hazard_G), first_G)
        alive_G = moves(r_G, ALIVE, ALIVE) * alive_G + moves(r_G, DEAD, ALIVE) * (1 - alive_G)
    return total_G + rest * alive_G


def p_of(parents: Sequence[int], seen: Sequence[Seen], step: int) -> float:
    logprob, taken = seen[step].logprob, seen[step].taken
    if logprob is not None:
        return float(np.exp(logprob))
    among = sum(seen[at].taken for at in range(1, len(seen)) if sister(parents, at, step))
    return taken / (among + 1)


def entropy(masses: Iterable[float]) -> float:
    return float(-sum(p * np.log(p) for p in masses if p > 0))


def line(*logprobs: float | None, end: bool | None = False) -> tuple[list[int], list[Seen]]:
    """A path, by the log-probability of each step, and how it ends."""
    parents = list(range(-1, len(logprobs)))
    return parents, [
        Seen(),
        *(Seen(end if at == len(logprobs) else None, p) for at, p in enumerate(logprobs, start=1)),
    ]


def test_where_the_policy_is_sure_of_all_that_follows_a_rollout_tells_nothing() -> None:
    sure = grown(*line(-1.0, -1.0, 0.0))
    assert information(sure, range(4))[1] > 0.01
    assert information(sure, range(4))[2] == pytest.approx(0, abs=1e-5)


def test_where_all_that_can_follow_is_known_a_rollout_tells_nothing() -> None:
    parents, seen = line(-1.0, float(np.log(0.6)))
    assert information(grown(parents, seen), range(3))[1] > 0.01
    told = grown([*parents, 1], [*seen, Seen(True, float(np.log(0.4)))])
    assert information(told, range(3))[1] == pytest.approx(0, abs=1e-9)


def test_a_success_late_on_a_path_clears_all_before_it() -> None:
    parents, seen = line(-0.1, -0.1, -0.1, -0.1, end=None)
    told = grown([*parents, 3, 3], [*seen, Seen(True, -2.0), Seen(True, -2.5)])
    assert min(right_chances(told)[:4]) > 0.9


def test_the_same_sample_over_and_over_says_no_more_than_once() -> None:
    parents, seen = [-1, 0, 0], [Seen(), Seen(True, -1.0), Seen(False, -0.5)]
    often = [Seen(), Seen(True, -1.0, taken=99), Seen(False, -0.5)]
    assert right_chances(grown(parents, often)) == right_chances(grown(parents, seen))
    samples = Samples()
    for _ in range(3):
        samples.walk(0, [(1,), (2,)], [-1.0, -0.2], right=True)
    assert len(samples) == 3
    assert samples.taken == [0, 3, 3]


def test_a_solution_that_ends_wrong_went_wrong_where_the_policy_was_least_sure() -> None:
    told = grown(*line(-0.01, -0.01, -3.0, -0.01))
    assert int(told.first_error(range(5)).argmax()) == 2


def test_what_many_samples_take_is_likely_where_the_policy_does_not_say() -> None:
    """Of 12 samples 9 take one step, 3 another; each ends wrong a step later."""
    parents = [-1, 0, 0, 1, 2]
    seen = [Seen(), Seen(taken=9), Seen(taken=3), Seen(False, -0.5), Seen(False, -0.5)]
    _, popular, rare, *_ = right_chances(grown(parents, seen))
    assert popular > rare + 0.2
    even = [Seen(), Seen(taken=6), Seen(taken=6), *seen[3:]]
    _, one, other, *_ = right_chances(grown(parents, even))
    assert one == pytest.approx(other)


def world(
    rng: np.random.Generator, *, slope: float, harmless: float, mending: float
) -> tuple[list[int], list[Seen]]:
    """A tree of 8 samples of 3 steps that the model made, where p tells as much as `slope` says."""
    parents, seen, states = [-1], [Seen()], [RIGHT]
    for _ in range(8):
        at = 0
        for place in range(3):
            p = float(rng.uniform(0.05, 0.95))
            told = 0.01 + 0.99 / (1 + ((1 - p) / p) ** slope)
            right = told if slope else 0.9
            alive = states[at] != DEAD
            wrong = rng.random() >= right
            changes = wrong and rng.random() < ((1 - harmless) if alive else mending)
            parents.append(at)
            at = len(states)
            states.append(ALIVE if alive != changes else DEAD)
            seen.append(Seen(states[at] != DEAD if place == 2 else None, float(np.log(p))))
    return parents, seen


@pytest.mark.parametrize(("harmless", "mending"), [(0.001, 0.1), (0.1, 0.01)])
def test_a_run_learns_which_errors_matter(harmless: float, mending: float) -> None:
    rng = np.random.default_rng(0)
    told = [world(rng, slope=2.0, harmless=harmless, mending=mending) for _ in range(200)]
    weights = np.exp(learn_prior(np.array([grown(*each).evidence() for each in told])))
    assert weights.sum() == pytest.approx(1)
    # One in a hundred and one in a thousand are too few to be told apart.
    assert weights[(grid().harmless_G > 0.03) == (harmless > 0.03)].sum() > 0.9
    assert weights[grid().mending_G == mending].sum() > 0.9


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_a_run_learns_whether_its_policy_knows_its_own_mind(slope: float) -> None:
    rng = np.random.default_rng(1)
    told = [world(rng, slope=slope, harmless=0.01, mending=0.01) for _ in range(100)]
    weights = np.exp(learn_prior(np.array([grown(*each).evidence() for each in told])))
    assert weights[grid().slope_G == slope].sum() > 0.9


@pytest.mark.parametrize("sole", [True, False])
def test_a_run_learns_whether_more_than_one_next_step_can_be_right(sole: bool) -> None:
    """Two ways to begin, of which one is right with its probability, or each by itself."""
    rng = np.random.default_rng(3)
    evidence = []
    for _ in range(100):
        p = float(rng.uniform(0.2, 0.8))
        first = bool(rng.random() < p)
        second = not first if sole else bool(rng.random() < 1 - p)
        ends = [Seen(first, float(np.log(p))), Seen(second, float(np.log(1 - p)))]
        evidence.append(grown([-1, 0, 0], [Seen(), *ends]).evidence())
    weights = np.exp(learn_prior(np.array(evidence)))
    assert weights[grid().sole_G == sole].sum() > 0.99


def test_where_one_next_step_is_right_an_error_in_one_speaks_for_the_other() -> None:
    """The other is right but for the steps that nobody took, which have a tenth."""
    ends = [Seen(False, float(np.log(0.5))), Seen(None, float(np.log(0.4)))]
    told = grown([-1, 0, 0], [Seen(), *ends])
    one = np.exp(prior()) * (grid().sole_G & (grid().slope_G == 1))
    alone = np.exp(prior()) * (~grid().sole_G & (grid().slope_G == 1))
    other = told.stays_G[2]
    assert one @ other / one.sum() == pytest.approx(0.8, abs=0.05)
    assert alone @ other / alone.sum() == pytest.approx(0.4, abs=0.05)


def test_how_often_steps_are_wrong_is_each_tree_s_own() -> None:
    """Half of the trees never fail and half often; the learned prior keeps both."""
    rng = np.random.default_rng(2)
    evidence = []
    for tree in range(60):
        hazard = 0.15 if tree % 2 else 0.001
        ends = [Seen(bool(rng.random() > hazard), 0.0) for _ in range(10)]
        evidence.append(grown([-1, *[0] * 10], [Seen(), *ends]).evidence())
    weights = np.exp(learn_prior(np.array(evidence)))
    assert weights[grid().hazard_G == 0.15].sum() == pytest.approx(0.5, abs=0.2)
    assert weights[grid().hazard_G == 0.001].sum() == pytest.approx(0.5, abs=0.2)


def test_before_anything_is_known_all_that_is_possible_has_a_weight() -> None:
    assert np.exp(logsumexp(prior())) == pytest.approx(1)
    assert sum(CURVES.values()) == pytest.approx(1)
    assert np.exp(prior())[np.isinf(grid().lift_G)].sum() == pytest.approx(CURVES[SILENT])

"""Beliefs about the first wrong step are those of the model, summed over all of its states."""

from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln, logsumexp

from treeward.search.error_grid import SPREAD_RIGHT, SPREAD_WRONG, grid, learn_prior, prior
from treeward.search.first_error import Beliefs
from treeward.search.intervals import Reals

Seen = tuple[int, int, bool | None, float | None]
"""Of a node: right rollouts, wrong ones, how a solution ends there, and log p of its step."""


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[Seen]]:
    """The parents of up to 7 nodes, and what was seen at each; only leaves have ends."""
    size = draw(st.integers(2, 7))
    parents = [-1] + [draw(st.integers(0, node - 1)) for node in range(1, size)]
    logprobs = st.none() | st.floats(-12, 0)
    counts = st.tuples(st.integers(0, 3), st.integers(0, 3), st.none(), logprobs)
    ends = st.tuples(st.just(0), st.just(0), st.booleans(), logprobs)
    leaf = st.one_of(counts, ends)
    return parents, [draw(counts if node in parents else leaf) for node in range(size)]


def grown(parents: Sequence[int], seen: Sequence[Seen], order: Sequence[int]) -> Beliefs:
    """The tree, with what was seen told node by node in some order."""
    beliefs = Beliefs()
    for parent, (_, _, end, logprob) in zip(parents, seen, strict=True):
        beliefs.add(parent, logprob=logprob, end=end)
    for node in order:
        right, wrong, *_ = seen[node]
        beliefs.count(node, right=right, known=right + wrong)
    return beliefs


def shape(right: bool) -> tuple[Reals, Reals]:
    """Both parameters of the Beta distribution of a prefix's value."""
    mean_G, spread = (grid().level_G, SPREAD_RIGHT) if right else (grid().leak_G, SPREAD_WRONG)
    return spread * mean_G, spread * (1 - mean_G)


def by_hand(parents: Sequence[int], seen: Sequence[Seen]) -> list[float]:
    """The chance that each node is right: the sum over all ways in which nodes can be so."""
    points = grid()
    total = np.full((len(parents), 2), -np.inf)
    for states in product([True, False], repeat=len(parents)):
        # The root is right, and what is below a wrong node is wrong.
        pairs = zip(states[1:], parents[1:], strict=True)
        if not states[0] or any(right and not states[parent] for right, parent in pairs):
            continue
        joint_G = prior().copy()
        for node, right in enumerate(states):
            k, failures, end, logprob = seen[node]
            if node and states[parents[node]]:
                stays_G = (1 - points.hazard_G) * np.exp(logprob or 0) ** points.trust_G
                joint_G += np.log(stays_G if right else 1 - stays_G)
            a, b = shape(right)
            joint_G += betaln(a + k, b + failures) - betaln(a, b)
            if end is not None:
                luck = 1.0 if right else points.leak_G
                with np.errstate(divide="ignore"):
                    joint_G += np.log(luck if end else 1 - luck)
        for node, right in enumerate(states):
            total[node, int(right)] = np.logaddexp(total[node, int(right)], logsumexp(joint_G))
    return [float(np.exp(right - np.logaddexp(wrong, right))) for wrong, right in total]


@given(trees(), st.randoms())
@settings(deadline=None, max_examples=60)
def test_beliefs_are_the_sum_over_all_states(
    tree: tuple[list[int], list[Seen]], random: Random
) -> None:
    parents, seen = tree
    order = list(range(len(parents)))
    random.shuffle(order)
    told = grown(parents, seen, order)
    whole = Beliefs.of(
        parents,
        [logprob for *_, logprob in seen],
        [right for right, *_ in seen],
        [right + wrong for right, wrong, *_ in seen],
        [end for _, _, end, _ in seen],
        prior(),
    )
    expected = by_hand(parents, seen)
    assert told.right_chances() == pytest.approx(expected, abs=1e-9)
    assert whole.right_chances() == pytest.approx(expected, abs=1e-9)
    path = path_to(parents, len(parents) - 1)
    along = [expected[node] for node in path]
    falls = [before - after for before, after in pairwise(along)]
    assert told.first_error(path) == pytest.approx([*falls, along[-1]], abs=1e-9)


def path_to(parents: Sequence[int], node: int) -> list[int]:
    path = [node]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    return path[::-1]


@given(trees())
@settings(deadline=None, max_examples=40)
def test_information_is_the_uncertainty_that_one_more_rollout_takes_away(
    tree: tuple[list[int], list[Seen]],
) -> None:
    """H(place) less its mean over both ways in which the rollout can end, told to the tree."""
    parents, seen = tree
    # Where p is not known, no rollout is expected to go on as the path does.
    seen = [(right, wrong, end, None) for right, wrong, end, _ in seen]
    path = path_to(parents, len(parents) - 1)
    told = grown(parents, seen, range(len(parents)))
    found = told.information(path)
    evidence = logsumexp(told.prior_G + told.evidence())
    for place, node in enumerate(path):
        if seen[node][2] is not None:
            continue
        left = entropy(told.first_error(path))
        for right in (0, 1):
            after = grown(parents, seen, range(len(parents)))
            after.count(node, right=right, known=1)
            chance = np.exp(logsumexp(after.prior_G + after.evidence()) - evidence)
            left -= chance * entropy(after.first_error(path))
        assert found[place] == pytest.approx(left, abs=1e-9)


@given(trees(), st.booleans())
@settings(deadline=None, max_examples=40)
def test_information_is_in_the_ends_of_rollouts_that_leave_the_path(
    tree: tuple[list[int], list[Seen]], end: bool
) -> None:
    """Where each leaves the path is summed over, and one that never does ends as the path."""
    parents, seen = tree
    path = path_to(parents, len(parents) - 1)
    seen[path[-1]] = (0, 0, end, seen[path[-1]][3])
    told = grown(parents, seen, range(len(parents)))
    found = told.information(path)
    right_PG = told.right_by_grid(path)
    joint_EG = [*(above - below for above, below in pairwise(right_PG)), right_PG[-1]]
    for start in range(len(path) - 1):
        success_E = []
        for place, joint_G in enumerate(joint_EG):
            total, here = np.zeros(grid().size), 1.0
            for at in range(start, len(path) - 1):
                k, failures, _, _ = seen[path[at]]
                a_G, b_G = shape(at <= place)
                logprob = seen[path[at + 1]][3]
                follows = 0.0 if logprob is None else float(np.exp(logprob))
                total += here * (1 - follows) * (a_G + k) / (a_G + b_G + k + failures)
                here *= follows
            success_E.append(float((total + here * end) @ joint_G))
        mass_E = np.array([joint_G.sum() for joint_G in joint_EG])
        success = np.array(success_E)
        both = np.concatenate([success, mass_E - success])
        told_of = entropy(mass_E) - entropy(both) + entropy([success.sum(), 1 - success.sum()])
        assert found[start] == pytest.approx(told_of, abs=1e-9)


def test_where_the_policy_is_sure_of_all_that_follows_a_rollout_tells_nothing() -> None:
    sure = grown([-1, 0, 1, 2], [(0, 0, None, None), *steps(-1.0, -1.0, 0.0)], range(4))
    assert sure.information(range(4))[1] > 0.01
    assert sure.information(range(4))[2] == pytest.approx(0, abs=1e-12)


def entropy(masses: Iterable[float]) -> float:
    return float(-sum(p * np.log(p) for p in masses if p > 0))


def test_a_success_late_on_a_path_clears_all_before_it() -> None:
    parents, clear = [-1, 0, 1, 2, 3], (0, 0, None, None)
    told = grown(parents, [clear, clear, clear, (3, 0, None, None), clear], range(5))
    assert min(told.right_chances()[:4]) > 0.99


def test_one_lucky_success_does_not_clear_a_prefix_where_luck_is_common() -> None:
    """The last step has 1 success in 12, its sisters are plainly right or as seldom right as it."""
    parents = [-1, *[0] * 7]
    sisters: list[Seen] = [(9, 1, None, None), *[(11, 1, None, None)] * 3]
    lucky = [*sisters, *[(1, 11, None, None)] * 4]
    assert grown(parents, lucky, range(8)).right_chances()[7] < 0.5


@pytest.mark.parametrize("leak", [0.003, 0.08])
def test_a_run_learns_how_often_luck_strikes(leak: float) -> None:
    """400 trees of one step: half right (.7), half wrong; 20 rollouts there, 20 at the root.

    The mean leak that is learned lies within a factor of 2, which for these draws is ten standard
    errors or more.
    """
    rng = np.random.default_rng(0)
    evidence = []
    for tree in range(400):
        value = 0.7 if tree % 2 else leak
        root, step = rng.binomial(20, 0.7), rng.binomial(20, value)
        seen: list[Seen] = [(root, 20 - root, None, None), (step, 20 - step, None, None)]
        told = grown([-1, 0], seen, range(2))
        evidence.append(told.evidence())
    learned = float(np.exp(learn_prior(np.array(evidence))) @ grid().leak_G)
    assert leak / 2 < learned < max(leak * 2, 0.012)


def test_a_solution_that_ends_wrong_went_wrong_where_the_policy_was_least_sure() -> None:
    told = grown(
        [-1, 0, 1, 2, 3], [(0, 0, None, None), *steps(-0.01, -0.01, -3.0, -0.01)], range(5)
    )
    assert int(told.first_error(range(5)).argmax()) == 2
    unknown = grown([-1, 0, 1, 2, 3], [(0, 0, None, None), *steps(*[None] * 4)], range(5))
    sure = grown([-1, 0, 1, 2, 3], [(0, 0, None, None), *steps(*[0.0] * 4)], range(5))
    assert unknown.first_error(range(5)) == pytest.approx(sure.first_error(range(5)))


def steps(*logprobs: float | None) -> list[Seen]:
    """A path of steps that ends wrong, by the log-probability of each."""
    return [
        (0, 0, False if at == len(logprobs) else None, logprob)
        for at, logprob in enumerate(logprobs, start=1)
    ]


@pytest.mark.parametrize("trust", [0.0, 1.0])
def test_a_run_learns_whether_its_policy_knows_its_own_mind(trust: float) -> None:
    """100 trees of one step, right with probability .8 p^t, with 4 rollouts there."""
    rng = np.random.default_rng(0)
    evidence = []
    for _ in range(100):
        logprob = -float(rng.exponential(1.0))
        is_right = rng.random() < 0.8 * np.exp(trust * logprob)
        step = rng.binomial(4, 0.7 if is_right else 0.02)
        seen: list[Seen] = [(14, 6, None, None), (step, 4 - step, None, logprob)]
        evidence.append(grown([-1, 0], seen, range(2)).evidence())
    weights = np.exp(learn_prior(np.array(evidence)))
    assert weights.sum() == pytest.approx(1)
    assert weights[abs(grid().trust_G - trust) <= 0.1].sum() > 0.9

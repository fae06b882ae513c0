"""Rollouts that stop by what they say: what counts, when it is enough, what becomes of k / n."""

import random
from collections import defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.test_rollouts import cut_steps, random_solution, solution
from tests.worlds import RIGHT, WRONG, completion, drive, new_tree

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import tree_values
from treeward.critics.value import interval
from treeward.search.algorithms import METHODS
from treeward.search.errors import BadInput
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Kind, Request
from treeward.search.rollouts import fund, rollouts
from treeward.search.settings import Algorithm, SearchSettings
from treeward.search.steps import Finish
from treeward.search.stopping import Counts, RolloutsSettings, StopRule, enough
from treeward.search.tree import ROOT, Creation, Tree

ends = st.builds(
    RolloutsSettings,
    width=st.sampled_from([0.2, 0.4, 0.6]),
    threshold=st.sampled_from([None, 0.0, 0.5]),
    batch=st.integers(1, 5),
)


def grown(
    own: RolloutsSettings, settings: SearchSettings, seed: int, failing: float
) -> tuple[Tree, list[list[Request]]]:
    """A tree of random solutions that share steps, and the batches that were asked."""
    rng, tree = random.Random(seed), new_tree()

    def reply(request: Request) -> Reply:
        if request.node != ROOT and rng.random() < failing:
            return Reply(failure=Failure("timeout", "late"))
        return Reply(tuple(random_solution(rng) for _ in range(request.n)))

    return tree, drive(rollouts(tree, settings, cut_steps, own), reply)


@given(ends, st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([0.0, 0.3]))
def test_every_prefix_is_funded_until_it_is_enough_and_no_further(
    own: RolloutsSettings, most: int, seed: int, failing: float
) -> None:
    settings = SearchSettings(width=5, rollouts=most, wave=3)
    tree, batches = grown(own, settings, seed, failing)
    evidence = strict_evidence(tree, cut_steps)
    low, high = interval(evidence.n_right.astype(float), evidence.n_rollouts.astype(float))
    asked: dict[int, list[Request]] = defaultdict(list)
    for batch in batches[1:]:
        assert 0 < len(batch) <= settings.wave
        assert len({request.node for request in batch}) == len(batch)
        for request in batch:
            asked[request.node].append(request)
    for node in range(len(tree)):
        rule = tree.nodes.stop_rule[node]
        if tree.is_terminal(node):
            assert (rule, asked[node]) == (None, [])
            continue
        # The solutions are rollouts that were asked for at the root.
        before = settings.width if node == ROOT else 0
        n = before + sum(request.n for request in asked[node])
        places = [before + own.batch * i for i in range(len(asked[node]))]
        assert [r.first for r in asked[node]] == places
        assert all(request.n == own.batch for request in asked[node][:-1])
        above = own.threshold is not None and low[node] > own.threshold
        below = own.threshold is not None and high[node] <= own.threshold
        narrow = high[node] - low[node] <= (own.width or 0)
        assert n <= max(most, before)
        settled = "one" if own.threshold == 0 else "settled"
        assert rule == (settled if above or below else "narrow" if narrow else "most")
        assert n == max(most, before) or rule != "most"


def test_a_problem_without_a_solution_is_not_asked_again() -> None:
    tree = new_tree()
    growth = rollouts(tree, SearchSettings(width=3), cut_steps, RolloutsSettings(width=0.3))
    assert len(drive(growth, lambda request: Reply(failure=Failure("timeout", "late")))) == 1


@given(ends, st.integers(1, 9), st.integers(0, 10**6))
def test_a_dry_run_says_how_many_there_may_be(own: RolloutsSettings, most: int, seed: int) -> None:
    settings = SearchSettings(width=5, rollouts=most, wave=3)
    tree, batches = grown(own, settings, seed, 0.3)
    bounds = METHODS[Algorithm.ROLLOUTS].bounds(
        replace(settings, max_depth=max(tree.nodes.depth)), own
    )
    assert len(tree) <= bounds.nodes
    assert len(tree.rollouts.node) <= bounds.rollouts
    assert sum(map(len, batches)) <= bounds.calls


@given(st.integers(0, 10**6))
def test_counts_are_the_strict_evidence(seed: int) -> None:
    tree, _ = grown(RolloutsSettings(width=0.3), SearchSettings(width=5), seed, 0.2)
    counts, evidence = Counts(tree, cut_steps), strict_evidence(tree, cut_steps)
    inner = [node for node in range(len(tree)) if not tree.is_terminal(node)]
    assert [counts.right[node] for node in inner] == evidence.n_right[inner].tolist()
    assert [counts.known[node] for node in inner] == evidence.n_rollouts[inner].tolist()


def one_step() -> Tree:
    """A tree with one prefix to ask about."""
    tree = new_tree()
    tree.add_step(ROOT, (97, 10), creation=Creation.BLIND, finish=Finish.STEP)
    return tree


def outcome_of(own: RolloutsSettings, outcomes: tuple[bool, ...]) -> tuple[int, int]:
    """k and n of a prefix whose rollouts would end so, one after the other."""
    tree = one_step()

    def reply(request: Request) -> Reply:
        wanted = outcomes[request.first : request.first + request.n]
        return Reply(tuple(completion("r", RIGHT if right else WRONG) for right in wanted))

    drive(fund(tree, [1], SearchSettings(rollouts=len(outcomes)), cut_steps, own), reply)
    evidence = strict_evidence(tree, cut_steps)
    return int(evidence.n_right[1]), int(evidence.n_rollouts[1])


@pytest.mark.parametrize("value", [0.1, 0.5, 0.8])
@pytest.mark.parametrize(
    "own",
    [
        RolloutsSettings(width=0.45, batch=2),
        RolloutsSettings(threshold=0.5, batch=1),
        RolloutsSettings(threshold=0.0, batch=2),
    ],
)
def test_stopping_biases_shares_and_not_counts(own: RolloutsSettings, value: float) -> None:
    """All 256 outcomes of 8 rollouts, each with its probability, so nothing is left to chance.

    k - n V is a sum of fair bets and stays one wherever it is stopped (Wald's identity). k / n is
    not: where a first success ends it, E[k / n] is above V.
    """
    counts, shares, drawn = 0.0, 0.0, 0.0
    for outcomes in product((False, True), repeat=8):
        chance = float(np.prod([value if right else 1 - value for right in outcomes]))
        k, n = outcome_of(own, outcomes)
        counts += chance * (k - n * value)
        shares += chance * (k / n)
        drawn += chance * n
    assert counts == pytest.approx(0, abs=1e-12)
    assert drawn < 8
    if own.threshold == 0:
        assert shares > value + 0.01


def test_why_a_prefix_gets_no_more() -> None:
    width, above = RolloutsSettings(width=0.22), RolloutsSettings(threshold=0.5)
    success = RolloutsSettings(threshold=0)
    # 8 of 8: the interval is [.79, 1]; 7 of 8 is .37 wide.
    assert enough(8, 8, 8, 16, width) is StopRule.NARROW
    assert enough(7, 8, 8, 16, width) is None
    assert enough(7, 8, 8, 16, above) is StopRule.SETTLED
    assert enough(1, 8, 8, 16, above) is StopRule.SETTLED
    assert enough(5, 8, 8, 16, above) is None
    assert enough(5, 8, 16, 16, above) is StopRule.MOST
    assert enough(1, 9, 4, 16, success) is StopRule.ONE
    assert enough(0, 9, 4, 16, success) is None
    assert enough(0, 0, 0, 16, success) is None


def test_a_prefix_whose_calls_fail_is_left_at_the_cap() -> None:
    tree = one_step()
    settings = SearchSettings(rollouts=6)
    growth = fund(tree, [1], settings, cut_steps, RolloutsSettings(width=0.5))
    batches = drive(growth, lambda request: Reply(failure=Failure("timeout", "late")))
    assert [request.n for batch in batches for request in batch] == [4, 2]
    assert tree.nodes.stop_rule[1] is StopRule.MOST
    assert len(tree.rollouts.failure) == 6


@pytest.mark.parametrize(
    ("threshold", "rule"), [(0.0, "one"), (0.2, "one"), (0.5, "settled"), (0.8, "one")]
)
def test_one_outcome_may_be_enough_for_a_threshold_that_is_near_0_or_1(
    threshold: float, rule: str
) -> None:
    own = RolloutsSettings(threshold=threshold)
    assert rule in {enough(k, 8, 8, 16, own) for k in (0, 8)}
    alone = {enough(k, 1, 1, 16, own) for k in (0, 1)}
    assert alone == ({None, rule} if rule == "one" else {None})


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_that_asking_stops_at_a_success_makes_no_value_above_too_high(threshold: float) -> None:
    """Every prefix is worth 1/2; at half of the first steps the first rollout is right."""
    rng, values = random.Random(0), []

    def draw(request: Request) -> Completion:
        first = "" if request.prefix_ids else f"{rng.randrange(50)}\n"
        right = rng.random() < 0.5
        return solution(f"{first}A{right:d}\n", Finish.END, RIGHT if right else WRONG)

    def reply(request: Request) -> Reply:
        return Reply(tuple(draw(request) for _ in range(request.n)))

    settings, own = SearchSettings(width=4, rollouts=8), RolloutsSettings(threshold=threshold)
    for _ in range(200):
        tree = new_tree()
        drive(rollouts(tree, settings, cut_steps, own), reply)
        evidence = strict_evidence(tree, cut_steps)
        values.append(tree_values(tree, evidence, as_is=False).value[ROOT])
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)


def test_a_tree_that_is_ended_from_outside_says_so() -> None:
    """Also of the prefixes whose wave had not come yet."""
    tree = one_step()
    other = tree.add_step(ROOT, (7,), creation=Creation.BLIND, finish=Finish.STEP)
    settings = SearchSettings(wave=1)
    growth = fund(tree, [1, other], settings, cut_steps, RolloutsSettings(width=0.5))
    assert [(request.kind, request.node) for request in next(growth)] == [(Kind.ROLLOUT, 1)]
    growth.close()
    assert tree.nodes.stop_rule[1:] == [StopRule.BUDGET, StopRule.BUDGET]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 0.0}, "rollouts.width must be in"),
        ({"width": 1.0}, "rollouts.width must be in"),
        ({"threshold": 1.0}, "rollouts.threshold must be in"),
        ({"threshold": -0.1}, "rollouts.threshold must be in"),
        ({"width": 0.3, "level": 1.0}, "rollouts.level must be in"),
        ({"width": 0.3, "batch": 0}, "rollouts.batch must be at least 1"),
        ({"batch": 8}, "is read only with rollouts.width or rollouts.threshold"),
    ],
)
def test_settings_that_break_a_rule(settings: dict[str, float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        RolloutsSettings(**settings)  # type: ignore[arg-type]  # some are counts

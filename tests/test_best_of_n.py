"""Best of N: what critics say along whole solutions, and that verdicts have no part in it."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worlds import RIGHT, WRONG, drive, new_tree, text

from treeward.search.algorithms import METHODS
from treeward.search.best_of_n import Aggregate, BestOfNSettings, best_of_n
from treeward.search.critic import Scores
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Kind, Request
from treeward.search.settings import Algorithm, SearchSettings
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason

SOLUTIONS = ["abX", "acX", "abX", "Y"]
"""One letter a step; those in capitals end a solution."""

VALUES = {"": 0.5, "a": 0.8, "ab": 0.5, "ac": 0.9}
OUTCOMES = {"abX": 0.6, "acX": 0.2, "Y": 0.4}


def letters(ids: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [(token,) for token in ids]


def solution(steps: str, reason: Reason) -> Completion:
    return Completion(
        token_ids=tuple(steps.encode()),
        logprob=-1.0,
        finish=Finish.END,
        seed=0,
        judgement=Judgement(reason, steps[-1]),
    )


def said_of(place: str) -> Scores:
    return Scores(VALUES.get(place, 0.99), None, OUTCOMES.get(place, 0.0) if place else None)


def by_hand(request: Request, *, right: str = "X") -> Reply:
    if request.kind is Kind.SCORE:
        places = [text(request.prefix_ids + step) for step in request.steps]
        return Reply(scores=tuple([said_of(place) for place in places]))
    return Reply(
        tuple(solution(s, RIGHT if s[-1] == right else WRONG) for s in SOLUTIONS[: request.n])
    )


def grown(
    reply: Callable[[Request], Reply] = by_hand,
    aggregate: Aggregate = Aggregate.LAST,
    *,
    scored: bool = True,
) -> tuple[Tree, list[list[Request]]]:
    tree = new_tree()
    own = BestOfNSettings(aggregate=aggregate)
    search = SearchSettings(width=4, wave=3)
    return tree, drive(best_of_n(tree, search, own, letters, scored=scored), reply)


def said(tree: Tree) -> dict[str, tuple[int, float]]:
    nodes = tree.nodes
    return {
        text(tree.prefix_ids(node)): (nodes.visits[node], nodes.value_sum[node])
        for node in range(len(tree))
    }


@pytest.mark.parametrize(
    ("aggregate", "twice", "once", "short"),
    [
        (Aggregate.LAST, 0.6, 0.2, 0.4),
        (Aggregate.MIN, 0.5, 0.2, 0.4),
        (Aggregate.PRODUCT, 0.8 * 0.5 * 0.6, 0.8 * 0.9 * 0.2, 0.4),
        (Aggregate.MEAN, 1.9 / 3, 1.9 / 3, 0.4),
    ],
)
def test_every_solution_is_backed_up_as_its_steps_scores_together(
    aggregate: Aggregate, twice: float, once: float, short: float
) -> None:
    """abX has .8, .5 and at its end the outcome critic's .6; acX .8, .9, .2; Y its .4 alone."""
    tree, _ = grown(aggregate=aggregate)
    expected = {
        "": (4, 2 * twice + once + short),
        "a": (3, 2 * twice + once),
        "ab": (2, 2 * twice),
        "abX": (2, 2 * twice),
        "ac": (1, once),
        "acX": (1, once),
        "Y": (1, short),
    }
    found = said(tree)
    assert found.keys() == expected.keys()
    for place, (visits, total) in expected.items():
        assert found[place][0] == visits
        assert found[place][1] == pytest.approx(total)


def test_solutions_share_their_steps_and_every_prefix_is_scored_once() -> None:
    tree, batches = grown()
    assert [r.kind for batch in batches for r in batch] == [Kind.ROLLOUT] + [Kind.SCORE] * 7
    assert [sum(r.n for r in batch) for batch in batches[1:]] == [3, 3, 1], "a wave at a time"
    assert sorted(r.node for batch in batches[1:] for r in batch) == list(range(len(tree)))
    assert set(tree.nodes.creation[1:]) == {Creation.BLIND}
    assert tree.rollouts.node == [ROOT] * 4
    assert dict(zip(said(tree), tree.nodes.n_samples, strict=True)) == {
        "": 0, "a": 3, "ab": 2, "abX": 2, "ac": 1, "acX": 1, "Y": 1
    }  # fmt: skip


def test_verdicts_have_no_part_in_it() -> None:
    one, _ = grown()
    other, _ = grown(lambda request: by_hand(request, right="Y"))
    assert one.nodes.judgement != other.nodes.judgement
    assert said(one) == said(other)


def test_without_critics_nothing_is_ranked() -> None:
    tree, batches = grown(scored=False)
    assert len(batches) == 1
    assert set(tree.nodes.visits) == {0}


def test_a_step_without_a_score_leaves_its_solutions_unknown() -> None:
    def reply(request: Request) -> Reply:
        if [text(request.prefix_ids + step) for step in request.steps] == ["ab"]:
            return Reply(scores=(Failure("critic", "too long"),))
        return by_hand(request)

    tree, _ = grown(reply)
    visits = {place: visits for place, (visits, _) in said(tree).items()}
    assert visits == {"": 2, "a": 1, "ab": 0, "abX": 0, "ac": 1, "acX": 1, "Y": 1}


def test_a_failed_first_call_is_kept_on_the_root() -> None:
    failure = Failure("timeout", "late")

    def reply(request: Request) -> Reply:
        return Reply(failure=failure) if request.kind is Kind.ROLLOUT else by_hand(request)

    tree, _ = grown(reply)
    assert tree.nodes.failure == [failure]
    assert tree.rollouts.failure == [failure] * 4
    assert tree.nodes.visits == [0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.sampled_from(Aggregate))
def test_a_solutions_score_is_a_probability(scores: list[float], aggregate: Aggregate) -> None:
    """And that of a solution whose steps are all as good is that of a step, but for a product."""

    def reply(request: Request) -> Reply:
        if request.kind is Kind.ROLLOUT:
            return Reply((solution("a" * len(scores), RIGHT),))
        depth = len(request.prefix_ids) + len(request.steps[0])
        return Reply(scores=(Scores(scores[depth - 1], None, None),))

    tree = new_tree()
    own = BestOfNSettings(aggregate=aggregate)
    drive(best_of_n(tree, SearchSettings(width=1), own, letters, scored=True), reply)
    total = tree.nodes.value_sum[ROOT]
    assert 0 <= total <= 1
    if len(set(scores)) == 1 and aggregate is not Aggregate.PRODUCT:
        assert total == pytest.approx(scores[0])
    assert total <= max(scores) or math.isclose(total, max(scores))


def test_bounds_hold() -> None:
    search = SearchSettings(width=4, max_depth=3)
    most = METHODS[Algorithm.BEST_OF_N].bounds(search, BestOfNSettings())
    tree, batches = grown()
    assert len(tree) <= most.nodes
    assert (len(tree.rollouts.node), most.rollouts, most.samples) == (4, 4, 0)
    assert sum(r.kind is not Kind.SCORE for batch in batches for r in batch) == most.calls == 1

"""The answer that a search gives, by hand; and that no verdict has a say."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from treeward.critics.votes import elect
from treeward.export.answers import FOUND, best, likeliest, majority, most_visited, weighted
from treeward.search.settings import Algorithm

Row = dict[str, Any]


def node(
    path: list[int], q: float | None, visits: int, answer: str | None = None, **more: Any
) -> Row:
    row: Row = {"node_id": path[-1], "path": path, "depth": len(path) - 1, "q": q}
    row |= {"visits": visits, "answer": answer, "is_terminal": answer is not None}
    row |= {"token_ids": [path[-1]], "n_samples": 1, "logprob": -1.0, "verdict": "unknown"}
    row["creation"] = "sampled"
    return row | more


TREE = [
    node([0], 0.5, 9),
    node([0, 1], 0.4, 6),
    node([0, 1, 2], 0.6, 1, "7", n_samples=2),
    node([0, 1, 3], 0.3, 4),
    node([0, 1, 3, 4], 0.2, 1, "8"),
    node([0, 1, 3, 5], 0.5, 1, "9", n_samples=2),
    node([0, 6], 0.6, 2),
    node([0, 6, 7], 0.9, 1, "8"),
    node([0, 8], None, 0, "5", n_samples=4),
    node([0, 9], 0.7, 30),
]
"""The way that is visited most of all leads nowhere; next comes 1, then 3, then 5."""


def rollout(node_id: int, answer: str | None, logprob: float, token: int) -> Row:
    row: Row = {"node_id": node_id, "answer": answer, "logprob": logprob, "token_ids": [token]}
    return row | {"sampler_id": 0}


ROLLOUTS = [
    rollout(0, "7", -3.0, 20),
    rollout(0, "7.0", -4.0, 21),
    rollout(0, None, -0.1, 22),
    rollout(3, "9", -0.2, 23),
]


def test_the_ways_by_hand() -> None:
    """Votes: 7 has 2 samples and 2 rollouts, 5 has 4 samples, 9 has 2, 8 has 2: a tie of 7 and 5.

    7 was written first, in a rollout. Weights: 7 2 * .6 = 1.2, 8 .2 + .9 = 1.1, 9 2 * .5 = 1.0 and
    .3 for the rollout from node 3; without the rollouts 7 has most.
    """
    assert majority("number", TREE, ROLLOUTS) == "7"
    assert majority("number", TREE, ROLLOUTS[1:]) == "5"
    assert weighted("number", TREE, ROLLOUTS) == "9"
    assert weighted("number", TREE, []) == "7"
    assert best("number", TREE, ROLLOUTS) == "8"
    assert most_visited("number", TREE, ROLLOUTS) == "9"
    fast = [row | {"sampler_id": 1} for row in ROLLOUTS]
    for way in (majority, weighted):
        assert way("number", TREE, [*ROLLOUTS, *fast * 3]) == way("number", TREE, ROLLOUTS)
        assert way("number", TREE, fast) == way("number", TREE, [])


def test_the_likeliest_counts_each_solution_once() -> None:
    """By hand, logarithms: 5 has -1; 7 -2, -3, -4; 8 -3, -2; 9 -3, -2.2."""
    assert likeliest("number", TREE, ROLLOUTS) == "5"
    inner = [row for row in TREE if row["answer"] != "5"]
    assert likeliest("number", inner, ROLLOUTS) == "7"
    assert likeliest("number", inner, ROLLOUTS * 3) == "7"
    assert likeliest("number", inner, ROLLOUTS[2:]) == "8"
    # A rollout that says what sampled steps say is the same solution.
    same = rollout(6, "8", -1.0, 7)
    assert likeliest("number", inner, [*ROLLOUTS[:2], same]) == "7"
    other = rollout(6, "8", -1.0, 24)
    assert likeliest("number", inner, [*ROLLOUTS[:2], other]) == "8"
    fast = other | {"sampler_id": 1}
    assert likeliest("number", inner, [*ROLLOUTS[:2], fast]) == "7"


def test_what_is_no_more_than_unlikely_still_has_a_vote() -> None:
    rows = [row | {"logprob": -900.0 - row["node_id"]} for row in TREE]
    assert likeliest("number", rows, []) == "5"
    unknown = [row | {"logprob": None} for row in TREE]
    assert likeliest("number", unknown, ROLLOUTS) == "7"
    assert likeliest("number", unknown, ROLLOUTS[2:]) is None


def test_an_end_that_was_cut_from_a_rollout_has_no_second_vote() -> None:
    cut = [row | {"creation": "blind"} for row in TREE]
    assert majority("number", cut, ROLLOUTS) == "7"
    assert majority("number", cut, ROLLOUTS[2:]) is None


@pytest.mark.parametrize("way", [majority, likeliest, weighted, best, most_visited])
def test_neither_verdicts_nor_the_order_of_rows_count(way: Any) -> None:
    rng = random.Random(0)
    expected = way("number", TREE, ROLLOUTS)
    for _ in range(20):
        nodes = [row | {"verdict": rng.choice(["right", "wrong"])} for row in TREE]
        rng.shuffle(nodes)
        assert way("number", nodes, ROLLOUTS) == expected
        # Nothing else than answers, places and what the search thought of them is looked at.
        assert way("number", [row | {"verdict": Untouchable()} for row in nodes], ROLLOUTS)


class Untouchable:
    """Cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a verdict was looked at")

    __hash__ = None  # type: ignore[assignment]  # nor looked up


@pytest.mark.parametrize("way", [majority, likeliest, weighted, best, most_visited])
def test_a_tree_without_an_answer_gives_none(way: Any) -> None:
    assert way("number", [node([0], 0.5, 1), node([0, 1], 0.2, 1)], []) is None


def test_every_search_has_its_way() -> None:
    assert set(FOUND) == set(Algorithm)


@pytest.mark.parametrize(
    ("ballots", "winner"),
    [
        ({}, None),
        ({"a": 0.4, "b": 0.3, "A.": 0.0}, "a"),
        ({"a": 0.3, "b": 0.4, "A.": 0.2}, "a"),
        ({"b": 0.5, "a": 0.5}, "b"),
        ({"b": 0.0}, "b"),
    ],
    ids=["none", "more", "alike", "tie", "worthless"],
)
def test_answers_that_read_alike_add_up(ballots: Mapping[str, float], winner: str | None) -> None:
    assert elect("text", ballots.items()) == winner

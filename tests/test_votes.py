"""Votes of a problem's samples: which answers are the same, ties, and what has no vote."""

from collections.abc import Sequence

import pytest

from treeward.critics.votes import Majority, majority
from treeward.search.verdicts import Judgement, Reason


def right(*answers: str) -> list[Judgement]:
    return [Judgement(Reason.MATCH, answer) for answer in answers]


def wrong(*answers: str) -> list[Judgement]:
    return [Judgement(Reason.MISMATCH, answer) for answer in answers]


SILENT = [Judgement(Reason.NO_ANSWER)]
LONG = [Judgement(Reason.LENGTH)]
UNKNOWN = [Judgement(Reason.CHECKER_LIMIT, "9" * 99)]


@pytest.mark.parametrize(
    ("judgements", "answers", "chance"),
    [
        (right("7") + wrong("8", "8"), ("8",), 0.0),
        (right("7", "7") + wrong("8"), ("7",), 1.0),
        (right("7") + wrong("8"), ("7", "8"), 1 / 2),
        (wrong("9", "8") + right("7"), ("9", "8", "7"), 1 / 3),
        (wrong("9", "8"), ("9", "8"), 0.0),
        (right("7") + SILENT * 5 + LONG * 5, ("7",), 1.0),
        (SILENT + LONG, (), 0.0),
        (right("7") + UNKNOWN * 5, ("7",), 1.0),
    ],
    ids=["wrong", "right", "tie", "three", "wrong tie", "silence", "nothing", "unknown"],
)
def test_the_most_frequent_answer_wins_and_ties_are_shared(
    judgements: Sequence[Judgement], answers: tuple[str, ...], chance: float
) -> None:
    assert majority("number", judgements) == Majority(answers, chance)


def test_a_tie_is_worth_what_a_fair_draw_among_the_winners_is() -> None:
    judgements = right("1", "1.0") + wrong("2", "3", "3", "2", "4")
    vote = majority("number", judgements)
    assert vote is not None
    assert vote.right == pytest.approx(1 / len(vote.answers))
    assert set(vote.answers) == {"1", "2", "3"}


def test_what_nobody_knows_is_no_vote() -> None:
    assert majority("number", UNKNOWN * 3) is None
    assert majority("number", []) is None


@pytest.mark.parametrize(
    ("verifier", "same"),
    [
        ("number", ("1,000", "1000.0", "$1000", "1e3")),
        ("math", ("1/2", "0.5", r"\frac{1}{2}", r"$\dfrac12$")),
        ("math", ("sqrt(2)", r"\sqrt{2}")),
        ("choice", ("B", "(b)", "Option B", "B) Paris")),
        ("text", ("Paris", "paris.", "**Paris**")),
        ("gym:some", ("7 8", " 7  8")),
    ],
)
def test_wrong_answers_that_read_alike_are_one(verifier: str, same: tuple[str, ...]) -> None:
    vote = majority(verifier, wrong(*same) + right("rest"))
    assert vote == Majority((same[0],), 0.0)


@pytest.mark.parametrize(
    ("verifier", "two"), [("text", ("1/2", "0.5")), ("number", ("5 cm", "5 m")), ("choice", "AB")]
)
def test_wrong_answers_that_differ_stay_apart(verifier: str, two: Sequence[str]) -> None:
    vote = majority(verifier, wrong(*two))
    assert vote is not None
    assert len(vote.answers) == 2


def test_right_answers_are_one_however_they_are_written() -> None:
    assert majority("text", right("a", "b") + wrong("c")) == Majority(("a",), 1.0)

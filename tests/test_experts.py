"""A reference solution is an expert's only where it ends with the problem's answer."""

from typing import Any

import pytest

from treeward.export.dataset_spec import Expert, Tally
from treeward.export.experts import solutions
from treeward.export.tree_stream import Item
from treeward.search.problem import Problem
from treeward.search.templates import load_template

ANOTHER = "reference solutions that say another answer"


def experts(**fields: Any) -> tuple[list[tuple[str, ...]], Tally]:
    asked: dict[str, Any] = {"id": "p", "prompt": "?", "answer": "8", "verifier": "number"}
    tally = Tally()
    item = Item(index=0, problem=Problem(**asked | fields), tree=None)
    found = solutions(item, load_template("steps"), Expert.REFERENCE, tally)
    return [solution.steps for solution in found], tally


def test_the_answer_is_added_to_a_solution_that_does_not_say_it() -> None:
    found, tally = experts(solution=("a", "b"))
    assert found == [("Step 1: a\n", "Step 2: b\n", "Answer: 8\n")]
    assert not tally.left_out


@pytest.mark.parametrize(
    ("verifier", "answer", "said"),
    [
        ("number", "8", "8"),
        ("number", "1000", "1,000"),
        ("math", "1/2", "0.5"),
        ("choice", "B", "(B)"),
        ("text", "eight", "eight"),
    ],
)
def test_an_answer_that_is_said_is_not_added(verifier: str, answer: str, said: str) -> None:
    found, tally = experts(solution=(f"Answer: {said}",), verifier=verifier, answer=answer)
    assert found == [(f"Step 1: Answer: {said}\n",)]
    assert not tally.left_out


@pytest.mark.parametrize(
    ("verifier", "answer", "said"),
    [("number", "8", "9"), ("choice", "B", "(C)"), ("text", "eight", "nine"), ("math", "x", "y")],
)
def test_a_solution_that_says_another_answer_is_no_experts(
    verifier: str, answer: str, said: str
) -> None:
    found, tally = experts(solution=("a", f"Answer: {said}"), verifier=verifier, answer=answer)
    assert found == []
    assert tally.left_out[ANOTHER] == 1


def test_without_a_reference_answer_nothing_contradicts_it() -> None:
    found, _ = experts(solution=("a", "Answer: 9"), answer=None)
    assert found == [("Step 1: a\n", "Step 2: Answer: 9\n")]

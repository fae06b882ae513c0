"""Problems of `task:arithmetic` are right, distinct and stable, and its oracle knows every step."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeward.search.arithmetic import (
    SOURCE,
    Chain,
    Operation,
    Truth,
    chain_of,
    judge_steps,
    make_problems,
)
from treeward.search.errors import BadInput
from treeward.search.problem import Problem

SETTINGS: list[dict[str, Any]] = [
    {},
    {"steps": (1, 2), "numbers": (-50, 50)},
    {"operators": "/*", "numbers": (1, 500)},
    {"operators": "+-*/", "mod": 7, "template": "words"},
    {"template": "words", "steps": (2, 3)},
    {"mod": 11, "operators": "+*"},
]
VERBS = {"add": "+", "subtract": "-", "multiply by": "*", "divide by": "/"}


def evaluated(prompt: str) -> tuple[list[int], int | None]:
    """Start and results of a prompt, and its modulus, read from its text alone."""
    for verb, operator in VERBS.items():
        prompt = prompt.replace(f"{verb} ", operator)
    mod = re.search(r"(?:mod|modulo) (\d+)", prompt)
    links = re.findall(r"(?:^|Start with |[ ])([-+*/]?\d+)(?=[ ,.]|$)", prompt.split(" mod ")[0])
    values = [int(links[0])]
    for link in links[1 : len(links) - ("modulo" in prompt)]:
        operand = int(link[1:])
        value = values[-1]
        exact = {"+": value + operand, "-": value - operand, "*": value * operand}
        if link[0] == "/":
            assert value % operand == 0
            exact["/"] = value // operand
        values.append(exact[link[0]] % int(mod[1]) if mod else exact[link[0]])
    return values, int(mod[1]) if mod else None


@pytest.mark.parametrize("settings", SETTINGS)
def test_answers_and_solutions_are_right(settings: dict[str, Any]) -> None:
    low, high = settings.get("numbers", (0, 999))
    fewest, most = settings.get("steps", (4, 6))
    lengths = set()
    for problem in make_problems(n=60, seed=5, **settings):
        values, mod = evaluated(problem.prompt)
        assert problem.answer == str(values[-1])
        assert problem.solution is not None
        stated = [re.fullmatch(r"(-?\d+)[-+*/]\d+=(-?\d+)", step) for step in problem.solution]
        assert [(int(match[1]), int(match[2])) for match in stated if match] == list(
            pairwise(values)
        )
        assert low <= values[0] <= high
        if mod is None:
            assert all(low <= value <= high for value in values)
        else:
            assert all(0 <= value < mod for value in values[1:])
        lengths.add(len(values) - 1)
        truths = judge_steps(problem, [*problem.solution, f"Answer: {problem.answer}"])
        assert truths == [Truth(step=True, prefix=True)] * (len(problem.solution) + 1)
    assert lengths == set(range(fewest, most + 1))


@pytest.mark.parametrize("settings", SETTINGS)
def test_more_problems_begin_with_the_same_ones(settings: dict[str, Any]) -> None:
    many = make_problems(n=40, seed=1, **settings)
    assert make_problems(n=15, seed=1, **settings) == many[:15]
    assert len({problem.prompt for problem in many}) == len({problem.id for problem in many}) == 40
    assert make_problems(n=15, seed=2, **settings) != many[:15]


def test_all_operators_are_used() -> None:
    prompts = "".join(p.prompt for p in make_problems(n=50, seed=0, operators="+-*/"))
    assert {char for char in prompts if char in "+-*/"} == set("+-*/")


def test_distinct_problems_run_out() -> None:
    # From 1 or 2, plus one or minus one, staying within: "1 +1" and "2 -1".
    settings: dict[str, Any] = {"steps": (1, 1), "numbers": (1, 2), "operators": "+-"}
    assert {p.prompt for p in make_problems(n=2, seed=0, **settings)} == {"1 +1", "2 -1"}
    with pytest.raises(
        BadInput, match=r"no 3 distinct problems with steps=1\.\.1 and numbers=1\.\.2"
    ):
        make_problems(n=3, seed=0, **settings)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"steps": (3, 2)}, r"steps must be 1 <= a <= b <= 64 in a\.\.b, got \(3, 2\)"),
        ({"steps": (0, 2)}, "steps must be"),
        ({"numbers": (5, 5)}, "numbers must be a < b"),
        ({"numbers": (-(10**7), 5)}, "numbers must be a >= -1000000"),
        ({"operators": ""}, r"operators must be some of \+-\*/, got ''"),
        ({"operators": "+%"}, r"operators must be some of \+-\*/, got '\+%'"),
        ({"mod": 1}, "mod must be from 2 to 1000000, got 1"),
        ({"template": "latex"}, "template must be one of symbols, words, got 'latex'"),
    ],
)
def test_a_bad_setting_is_named(setting: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadInput, match=f"{SOURCE}: {complaint}"):
        make_problems(**{"n": 1, "seed": 0, **setting})


def chain(start: int, *links: str, mod: int | None = None) -> Problem:
    """A problem as made by the task, from links such as "*3"."""
    operations = [[link[0], int(link[1:])] for link in links]
    data = {"task": "arithmetic", "start": start, "operations": operations, "mod": mod}
    return Problem(id="p", prompt="?", source=SOURCE, metadata=json.dumps(data))


PROBLEM = chain(12, "*3", "-4", "+7")
"""12 *3 -4 +7 = 39."""


@pytest.mark.parametrize(
    ("steps", "by_itself", "prefix"),
    [
        # Right, with the ways that templates write it.
        ("12*3=36|36-4=32|32+7=39|A39", "1111", "1111"),
        ("Step 1: 12 * 3 = 36\n|36 - 4=32|  32 +7= 39|Answer: 39\n", "1111", "1111"),
        # A wrong result, then right steps in a wrong prefix.
        ("12*3=35|35-4=31|31+7=38|A38", "0111", "0000"),
        # The mistake is made good by another one: still a wrong prefix.
        ("12*3=35|35-4=32|32+7=39|A39", "0011", "0000"),
        # A wrong copy of the operand, of the last result, of the operator.
        ("12*3=36|36-5=31|31+7=38|A38", "1011", "1000"),
        ("12*3=36|35-4=31|31+7=38|A38", "1011", "1000"),
        ("12*3=36|35-4=32|32+7=39|A39", "1011", "1000"),
        ("12*3=36|36+4=40|40+7=47|A47", "1011", "1000"),
        # A wrong answer; an answer too early; steps behind the answer.
        ("12*3=36|36-4=32|32+7=39|A38", "1110", "1110"),
        ("12*3=36|36-4=32|A32", "110", "110"),
        ("12*3=36|36-4=32|32+7=39|A39|A39", "11110", "11110"),
        ("12*3=36|36-4=32|32+7=39|39+1=40|A40", "11100", "11100"),
        # What cannot be read states nothing, so nothing can follow from it.
        ("12*3=36|well|32+7=39|A39", "1001", "1000"),
        ("", "0", "0"),
        ("12*3=36 36-4=32|36-4=32", "00", "00"),
        ("١٢*٣=٣٦", "0", "0"),
        ("12*3=36.0", "0", "0"),
        ("9" * 5000, "0", "0"),
    ],
)
def test_the_oracle_knows_every_step(steps: str, by_itself: str, prefix: str) -> None:
    truths = judge_steps(PROBLEM, steps.split("|"))
    assert truths is not None
    assert "".join(str(int(truth.step)) for truth in truths) == by_itself
    assert "".join(str(int(truth.prefix)) for truth in truths) == prefix


def test_a_remainder_is_taken_at_every_step() -> None:
    problem = chain(9, "+5", "*3", mod=10)
    assert judge_steps(problem, ["9+5=4", "4*3=2", "A2"]) == [Truth(step=True, prefix=True)] * 3
    assert judge_steps(problem, ["9+5=14"]) == [Truth(step=False, prefix=False)]


def test_no_whole_number_is_right_where_a_division_is_not_exact() -> None:
    problem = chain(12, "-4", "/4")
    assert judge_steps(problem, ["12-4=8", "8/4=2"]) == [Truth(step=True, prefix=True)] * 2
    wrong = Truth(step=False, prefix=False)
    assert judge_steps(problem, ["12-4=9", "9/4=2"]) == [wrong, wrong]


@given(st.lists(st.text(max_size=12), max_size=6))
def test_any_text_is_judged(steps: list[str]) -> None:
    truths = judge_steps(PROBLEM, steps)
    assert truths is not None
    assert len(truths) == len(steps)
    assert all(truth.step or not truth.prefix for truth in truths)


def test_problems_of_others_are_not_judged() -> None:
    assert judge_steps(Problem(id="p", prompt="12 *3"), ["12*3=36"]) is None
    claimed = Problem(id="p", prompt="12 *3", source=SOURCE)
    assert judge_steps(claimed, ["12*3=36"]) is None
    assert judge_steps(replace(claimed, metadata="[1]"), ["12*3=36"]) is None
    for start, operations, mod in (
        (None, [["+", 3]], None),
        (4, None, None),
        (4, [["+", 3]], 0),
        (4, [["/", 0]], None),
        (4, [["^", 2]], None),
        (4, [["+"]], None),
        (4, [["+", "3"]], None),
        (4.5, [["+", 3]], None),
    ):
        data = {"task": "arithmetic", "start": start, "operations": operations, "mod": mod}
        assert judge_steps(replace(claimed, metadata=json.dumps(data)), ["4+3=7"]) is None
    assert judge_steps(replace(claimed, metadata='{"task": "arithmetic"}'), ["4+3=7"]) is None
    assert chain_of(PROBLEM) == Chain(
        start=12, operations=(Operation("*", 3), Operation("-", 4), Operation("+", 7))
    )


def test_with_a_remainder_sums_and_differences_go_round() -> None:
    stated = [
        (int(value), operator, int(operand))
        for problem in make_problems(n=60, seed=3, mod=30, numbers=(0, 29), operators="+-")
        for step in problem.solution or ()
        for value, operator, operand in re.findall(r"(\d+)([+-])(\d+)=", step)
    ]
    assert any(operator == "+" and value + operand >= 30 for value, operator, operand in stated)
    assert any(operator == "-" and value < operand for value, operator, operand in stated)

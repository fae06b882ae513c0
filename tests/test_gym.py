import importlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from treeward.search import gym
from treeward.search.errors import BadInput, MissingExtra
from treeward.search.gym import REVIEWED, gym_scorer
from treeward.search.problem import Problem, content_id
from treeward.search.readers import read_problems
from treeward.search.verdicts import Reason, Verdict

DIGITS = "&min_digits=1&max_digits=1"
SUMS = f"gym:chain_sum?n=40&seed=1&min_terms=3&max_terms=3{DIGITS}"


def make(spec: str) -> tuple[Problem, ...]:
    return read_problems(spec).problems


def test_a_sum_is_put_as_the_prompts_for_it_expect() -> None:
    for problem in make(SUMS):
        match = re.fullmatch(r"(\d) ([+-]) (\d) ([+-]) (\d) = \?", problem.prompt)
        assert match is not None
        a, b, c = (int(match[place]) for place in (1, 3, 5))
        first = a + b if match[2] == "+" else a - b
        second = first + c if match[4] == "+" else first - c
        assert problem.solution == (
            f"{a} {match[2]} {b} = {first}",
            f"{first} {match[4]} {c} = {second}",
        )
        assert problem.answer == str(second)
        assert (problem.verifier, problem.source) == ("gym:chain_sum", "gym:chain_sum")
        assert problem.id == content_id(problem.prompt, problem.answer)


def test_negative_terms_are_chained_too() -> None:
    problems = make("gym:chain_sum?n=60&allow_negation=true&min_terms=1&max_terms=4")
    assert any("- -" in problem.prompt for problem in problems)
    for problem in problems:
        steps = problem.solution or ()
        assert len(steps) == len(problem.prompt.split()) // 2 - 1
        ends = [step.split(" = ") for step in steps]
        for (_, result), (sides, _) in itertools.pairwise(ends):
            assert sides.startswith(f"{result} ")
        if steps:
            assert ends[-1][1] == problem.answer


def test_the_same_spec_makes_the_same_problems_and_seeds_share_few() -> None:
    assert make(SUMS) == make(SUMS)
    # Of 4,000 sums, two sets of 40 share 0.4 on average; 5 or more with probability below 1e-4.
    other = {problem.id for problem in make(SUMS.replace("seed=1", "seed=2"))}
    assert len(other & {problem.id for problem in make(SUMS)}) < 5


def test_problems_are_distinct_or_too_few_is_said() -> None:
    # One term of one digit: 0 to 9.
    ones = f"gym:chain_sum?min_terms=1&max_terms=1{DIGITS}"
    assert {problem.answer for problem in make(f"{ones}&n=10")} == {str(k) for k in range(10)}
    with pytest.raises(BadInput, match="only 10 of 11 problems are distinct"):
        make(f"{ones}&n=11")


def test_answers_are_scored_by_the_generator_with_partial_credit_as_wrong() -> None:
    (problem, *_) = make(SUMS)
    answer = problem.answer or ""
    for same in (answer, f"{answer}.0", f" {answer}", f"{answer}.00e0"):
        assert gym_scorer(problem, same).reason is Reason.MATCH
    for other in (str(int(answer) + 1), f"it is {answer}", "", "x"):
        judgement = gym_scorer(problem, other)
        assert (judgement.reason, judgement.answer) == (Reason.MISMATCH, other)
    assert gym_scorer(problem, None).reason is Reason.NO_ANSWER


def test_a_limit_never_makes_an_answer_wrong() -> None:
    (problem, *_) = make(SUMS)
    for answer in ("9" * 100_000, "0" * 5_000 + str(problem.answer), "0e" + "9" * 30):
        assert gym_scorer(problem, answer).verdict is Verdict.UNKNOWN


def test_scoring_needs_the_problem_only(tmp_path: Path) -> None:
    problems = make(SUMS)
    path = tmp_path / "p.jsonl"
    fields = ("id", "prompt", "answer", "verifier", "source", "solution", "metadata")
    path.write_text(
        "".join(json.dumps({name: getattr(p, name) for name in fields}) + "\n" for p in problems)
    )
    again = read_problems(str(path)).problems
    assert again == problems
    assert all(gym_scorer(p, p.answer).reason is Reason.MATCH for p in again)


def test_an_answer_that_the_entry_contradicts_is_refused(tmp_path: Path) -> None:
    entry = {"question": "q", "answer": "3", "metadata": {}}
    row = {"prompt": "1+1", "verifier": "gym:chain_sum", "metadata": entry}
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row | {"answer": "2"}))
    with pytest.raises(BadInput, match="answer '2' is not that of the generator's entry in meta"):
        read_problems(str(path))
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | {"answer": "3"}))
    assert len(read_problems(str(path)).problems) == 2


def test_an_entry_that_its_scorer_fails_on_is_unknown() -> None:
    entry = json.dumps({"question": "?", "answer": "up", "metadata": {}})
    problem = Problem(id="p", prompt="?", verifier="gym:shortest_path", metadata=entry)
    assert gym_scorer(problem, "down").reason is Reason.CHECKER_LIMIT


HOSTILE = [
    *("9^{9^9}", "10^{10^{10}}", "9**9**9", "(" * 40 + "1" + ")" * 40, "9" * 3_999, "1e9999999"),
    *("__import__('os').getpid()", "\0\x1b[31m", "\u202e7\u200f", " ", "nan", "sNaN", "-inf"),
    *("[" * 3_000, "{}", "null", "1/0", "\\frac{9}{0}", "\ud800", "\n" * 4_000, "1," * 2_000),
]


def fuzzed(n: int) -> list[str]:
    rng = random.Random(0)
    alphabet = "0123456789eE.+-/*()[]{}\\frac ,=\n\"'ABCxyz\0"
    return ["".join(rng.choices(alphabet, k=rng.choice([1, 3, 9, 60, 1500]))) for _ in range(n)]


@pytest.mark.parametrize("name", sorted(REVIEWED))
def test_a_reviewed_scorer_keeps_the_rules(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    problem, other = make(f"gym:{name}?n=2&seed=1")
    assert json.loads(problem.metadata)["answer"] == problem.answer
    assert gym_scorer(problem, problem.answer).reason is Reason.MATCH
    verdicts: Counter[Verdict] = Counter()
    for answer in [*HOSTILE, *fuzzed(50)]:
        start = time.perf_counter()
        verdicts[gym_scorer(problem, answer).verdict] += 1
        assert time.perf_counter() - start < 2
    # gsm_symbolic reads the first number in any text, one-character answers hit by chance.
    assert verdicts[Verdict.RIGHT] <= 2
    assert gym_scorer(other, other.answer).reason is Reason.MATCH
    assert capsys.readouterr().out == ""


def test_reviewed_generators_do_not_depend_on_the_process() -> None:
    code = (
        "import sys\n"
        "from treeward.search import gym, specs\n"
        "for name in sys.argv[1:]:\n"
        "    for problem in gym.make_problems(specs.parse_spec(f'gym:{name}?n=2&seed=3')):\n"
        "        print(ascii(problem))\n"
    )
    names = sorted(REVIEWED)
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [ascii(problem) for name in names for problem in make(f"gym:{name}?n=2&seed=3")]
    assert done.stdout.splitlines() == here


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("gym:countdown", "gym:countdown is refused: it evaluates text as code"),
        ("gym:bitwise_arithmetic", "evaluates text as code"),
        ("gym:game_of_life_halting", "takes wrong answers for right ones"),
        ("gym:quantum_lock", "no generator of that name has been reviewed"),
        ("gym:chain_sums", "did you mean 'chain_sum'"),
        ("gym:chain_sum?min_term=3", "did you mean 'min_terms'"),
        ("gym:chain_sum?size=3", "unknown key 'size'"),
        ("gym:chain_sum?min_terms=x", "min_terms must be a whole number, got 'x'"),
        ("gym:chain_sum?min_terms=9", "max_terms must be >= min_terms"),
        ("gym:chain_sum?allow_negation=1", "must be true or false"),
        ("gym:basic_arithmetic?operators=+,x", "unsupported operator: x"),
        ("gym:basic_arithmetic?whitespace=none", "must be one of no_space, single, random"),
    ],
)
def test_a_bad_gym_spec_says_why(spec: str, reason: str) -> None:
    with pytest.raises(BadInput, match=re.escape(reason)):
        make(spec)


@pytest.mark.parametrize(
    ("spec", "pattern"),
    [
        ("gym:basic_arithmetic?n=9&operators=%2B&format_style=simple", r"[^*/]*"),
        ("gym:simple_equations?n=9&operators=*&operators_weights=1", r"[^+]*"),
        ("gym:fraction_simplification?n=9&styles=plain", r"[^\\]*"),
        ("gym:aiw?n=9&task_types=friends&task_type_weights=1", r".*friend.*"),
    ],
)
def test_settings_of_every_type_reach_the_generator(spec: str, pattern: str) -> None:
    for problem in make(spec):
        assert re.fullmatch(pattern, problem.prompt, re.DOTALL), problem.prompt


def test_every_setting_of_a_reviewed_generator_can_be_read() -> None:
    registry = importlib.import_module("reasoning_gym.factory").DATASETS
    assert set(registry) >= REVIEWED
    for name in REVIEWED:
        assert {"n", "seed"} <= set(gym._readers(registry[name][1]))


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem, *_) = make(SUMS)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(MissingExtra, match=r"gym:chain_sum needs the extra 'gym'"):
        make(SUMS)
    with pytest.raises(MissingExtra):
        gym_scorer(problem, "1")


def test_only_reviewed_scorers_see_an_answer() -> None:
    (problem, *_) = make(SUMS)
    with pytest.raises(BadInput, match="evaluates text"):
        gym_scorer(replace(problem, verifier="gym:puzzle24"), "24")
    with pytest.raises(BadInput, match="needs metadata"):
        gym_scorer(replace(problem, metadata="{}"), "24")

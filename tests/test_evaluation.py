"""Evaluations: what is counted and what is missing, sameness over batches, comparisons."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from treeward.critics.progress import pass_at_k
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.search.errors import BadInput, CallFailed
from treeward.search.policy import Ask, Draw, PolicySettings, SomeFailed
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.scripted import Script, ScriptedPolicy
from treeward.search.steps import StepRule
from treeward.search.tokens import byte_tokens
from treeward.search.verdicts import Judgement, Reason
from treeward.train.demo_training import describe
from treeward.train.estimates import share
from treeward.train.eval_report import as_text
from treeward.train.evaluation import (
    EvalSettings,
    Evaluation,
    ProblemResult,
    compare,
    summarise,
)
from treeward.train.evaluator import SECTIONS, Evaluator, evaluate_plan

TEMPLATE = Template(
    name="t", answer="A{answer}", rule=StepRule(answer_mark="A"), max_rollout_tokens=64
)
READER = Reader(TEMPLATE, byte_tokens())
SAMPLING = PolicySettings(max_step_tokens=16, max_rollout_tokens=24)
PROBLEMS = [Problem(id=f"p{n}", prompt=f"{n}", answer="1") for n in range(40)]


class Exact:
    """Answers are right where they are equal to the reference; 9 is beyond this checker."""

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        if answer == "9":
            return Judgement(Reason.CHECKER_LIMIT, answer)
        return Judgement(Reason.MATCH if answer == problem.answer else Reason.MISMATCH, answer)


def always(*ends: tuple[str, float]) -> Script:
    return lambda prompt, text: list(ends)


def evaluate(
    script: Script,
    problems: Sequence[Problem] = PROBLEMS,
    policy: type[ScriptedPolicy] = ScriptedPolicy,
    **settings: Any,
) -> Evaluation:
    evaluator = Evaluator(policy(script), READER, Exact(), SAMPLING, EvalSettings(**settings))
    return asyncio.run(evaluator.evaluate(problems))


def test_estimates_agree_with_the_probability_of_the_script() -> None:
    found = evaluate(always(("A1\n", 0.3), ("A2\n", 0.7)), samples=50)
    # 2,000 samples of probability .3: standard error .0102. Five of them miss 6 times in 10^7.
    assert found.pass_at[1].value == pytest.approx(0.3, abs=0.052)
    assert list(found.pass_at) == [1, 2, 4, 8, 16, 32]
    assert found.majority.value == 0.0
    assert found.tokens.value == 3.0
    counted = [(row.n, row.n_right) for row in found.problems]
    assert found.pass_at[1].value == pytest.approx(sum(c / n for n, c in counted) / 40)


def test_the_interval_of_pass_at_k_counts_tries_of_k_that_share_no_sample() -> None:
    """7 known samples of a problem hold 3 tries at 2, and 3 known ones hold one."""
    known = [(7, 2), (3, 1), (6, 0), (1, 1)]
    results = [
        ProblemResult(
            problem_id=f"p{n}{c}",
            prompt="?",
            n=n,
            n_right=c,
            n_no_answer=0,
            n_length=0,
            n_unknown=8 - n,
            n_undecided=0,
            majority_answers=None,
            majority_right=c / n,
            mean_tokens=3.0,
            error=None,
        )
        for n, c in known
    ]
    found = summarise(results, EvalSettings(samples=8, ks=(1, 2)))
    expected = {
        1: share([c / n for n, c in known], 7 + 3 + 6 + 1),
        2: share([pass_at_k(n, c, 2) for n, c in known[:3]], 3 + 1 + 3),
        "majority": share([c / n for n, c in known], 4),  # one vote a problem
    }
    for k, other in expected.items():
        mine = found.pass_at[k] if isinstance(k, int) else found.majority
        ours, theirs = ((each.value, each.low, each.high) for each in (mine, other))
        assert ours == pytest.approx(theirs)


def test_what_is_unknown_leaves_every_denominator_and_is_counted() -> None:
    found = evaluate(always(("A1\n", 0.5), ("A9\n", 0.5)), samples=4)
    known = [row for row in found.problems if row.n]
    assert all(row.n_right == row.n and row.n + row.n_unknown == 4 for row in found.problems)
    assert found.pass_at[1].value == found.majority.value == 1.0
    assert found.pass_at[1].n_problems == len(known) == 40 - found.n_unknown_problems
    # A problem with fewer than k known samples says nothing of pass@k.
    for k, estimate in found.pass_at.items():
        assert estimate.n_problems == sum(row.n >= k for row in found.problems)
    assert found.unknown.value == pytest.approx(sum(row.n_unknown for row in found.problems) / 160)
    assert found.unknown.n_problems == 40


def test_answers_that_cannot_be_decided_are_no_gain() -> None:
    """A policy that learned to say what the checker cannot decide is right more often else."""
    before = evaluate(always(("A1\n", 0.5), ("A2\n", 0.5)), samples=8)
    after = evaluate(always(("A1\n", 0.5), ("A9\n", 0.5)), samples=8)
    for found in (before, after):
        right = sum(row.n_right for row in found.problems)
        assert found.pass_at_least[1].value == pytest.approx(right / 320)
        assert found.pass_at_least[1].n_problems == 40
    assert before.pass_at_least == before.pass_at
    gained = compare(before, after)
    assert gained.gain.low is not None
    assert gained.gain.low > 0.3
    assert not gained.settled
    assert "answers that could not be decided: with these as wrong" in describe(gained)
    assert "pass@1, undecided as wrong" in as_text(after)
    assert "undecided" not in as_text(before)


def test_failed_calls_are_not_counted_as_wrong() -> None:
    found = evaluate(always(("A1\n", 1.0)), policy=Failing)
    assert found.pass_at_least[1].value == 1.0
    assert found.pass_at_least[1].n_problems == 20


def test_problems_that_nobody_can_judge_are_no_zeros() -> None:
    found = evaluate(always(("A9\n", 1.0)))
    assert found.n_unknown_problems == 40
    assert found.pass_at[1].value is None
    assert found.majority.value is None
    assert found.unknown.value == 1.0
    assert found.problems[0].majority_answers is None
    assert found.n_failed_problems == 0


def test_no_answer_and_over_length_are_wrong_and_told_apart() -> None:
    found = evaluate(always(("A1\n", 0.4), ("A \n", 0.3), ("word\n", 0.3)), samples=32)
    shares = (found.pass_at[1].value, found.no_answer.value, found.length.value)
    # A solution goes on after "word" until its 24 tokens are spent: four times in a row.
    assert all(each is not None and 0 < each < 1 for each in shares)
    for row in found.problems:
        assert row.n == 32
        assert row.n_right + row.n_no_answer + row.n_length == 32


class Failing(ScriptedPolicy):
    """Cannot be asked about every second problem."""

    async def draw(self, ask: Ask) -> list[Draw]:
        if int(ask.stick_to[1:]) % 2:
            raise CallFailed("timeout", "nobody there")
        return await super().draw(ask)


def test_a_failed_call_is_data_with_its_cause() -> None:
    found = evaluate(always(("A1\n", 1.0)), policy=Failing)
    assert found.n_failed_problems == found.n_unknown_problems == 20
    assert found.pass_at[8].value == 1.0
    assert found.pass_at[8].n_problems == found.tokens.n_problems == 20
    assert {row.error for row in found.problems} == {None, "timeout: nobody there"}


class HalfFailing(ScriptedPolicy):
    """Cannot continue every second seed."""

    async def draw(self, ask: Ask) -> list[Draw]:
        draws = await super().draw(ask)
        came = dict(zip(ask.seeds[::2], draws[::2], strict=True))
        raise SomeFailed(CallFailed("timeout", "gone"), came)


def test_samples_that_came_count_beside_those_that_failed() -> None:
    found = evaluate(always(("A1\n", 0.5), ("A2\n", 0.5)), samples=8, policy=HalfFailing)
    whole = evaluate(always(("A1\n", 0.5), ("A2\n", 0.5)), samples=8)
    assert {(row.n, row.n_unknown, row.error) for row in found.problems} == {
        (4, 4, "timeout: gone")
    }
    assert [row.n_right for row in found.problems] != [row.n_right for row in whole.problems]
    assert all(
        some.n_right <= row.n_right
        for some, row in zip(found.problems, whole.problems, strict=True)
    )
    assert 0 < sum(row.n_right for row in found.problems) < 4 * len(found.problems)


class Slow(ScriptedPolicy):
    """Replies in an order that is not the one asked in."""

    async def draw(self, ask: Ask) -> list[Draw]:
        for _ in range(ask.seeds[0] % 7):
            await asyncio.sleep(0)
        return await super().draw(ask)


def test_nothing_depends_on_how_many_are_asked_at_once_or_on_the_order() -> None:
    script = always(("A1\n", 0.5), ("A2\n", 0.2), ("go\n", 0.3))
    one = evaluate(script, concurrency=1)
    assert evaluate(script, concurrency=7, policy=Slow) == one
    back = evaluate(script, PROBLEMS[::-1])
    assert back.problems[::-1] == one.problems


def test_more_samples_begin_with_the_same() -> None:
    script = always(("A1\n", 0.5), ("A2\n", 0.5))
    few, many = evaluate(script, samples=4), evaluate(script, samples=8)
    more = [m.n_right - f.n_right for f, m in zip(few.problems, many.problems, strict=True)]
    assert all(0 <= each <= 4 for each in more)
    assert evaluate(script, seed=1) != evaluate(script, seed=0)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"concurrency": 0}])
def test_settings_below_one_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="at least 1"):
        EvalSettings(**settings)


def test_a_k_beyond_the_samples_is_refused() -> None:
    with pytest.raises(BadInput, match="raise --samples"):
        EvalSettings(samples=4, ks=(5,))
    assert EvalSettings(samples=4, ks=(4, 1, 4)).ks_used == (1, 4)


def test_a_policy_compared_with_itself_gains_nothing() -> None:
    found = evaluate(always(("A1\n", 0.5), ("A2\n", 0.5)))
    same = compare(found, found)
    assert same.gain.value == 0.0
    assert not same.settled
    assert same.before == same.after


def test_a_gain_is_the_difference_of_means_over_problems_known_to_both() -> None:
    before = evaluate(always(("A1\n", 0.3), ("A2\n", 0.7)))
    after = evaluate(always(("A1\n", 0.9), ("A2\n", 0.1)), policy=Failing)
    found = compare(before, after)
    assert found.n_left_out == 20
    assert found.gain.n_problems == 20
    assert found.before.value is not None
    assert found.after.value is not None
    assert found.gain.value == pytest.approx(found.after.value - found.before.value)
    # A gain of .6 over 20 problems with a standard error below .06: ten of them from 0.
    assert found.settled


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [(0.2, 0.9, "better"), (0.9, 0.2, "worse"), (0.5, 0.5, "no difference")],
)
def test_the_demo_says_what_came_out_whichever_way(before: float, after: float, says: str) -> None:
    # Gains of .7 over 40 problems lie ten standard errors from 0; equal policies differ by 0.
    one, other = (evaluate(always(("A1\n", p), ("A2\n", 1 - p))) for p in (before, after))
    told = describe(compare(one, other))
    assert [word for word in ("better", "worse", "no difference") if word in told] == [says]
    assert "40 problems" in told


def test_other_problems_cannot_be_compared() -> None:
    script = always(("A1\n", 1.0))
    with pytest.raises(BadInput, match="same problems"):
        compare(evaluate(script), evaluate(script, PROBLEMS[1:]))


def test_nano_gets_the_same_results_whatever_is_asked_at_once() -> None:
    plan = make_plan(Options(problems="task:arithmetic?n=6&seed=3", policy="nano"), SECTIONS)
    one, all_ = (
        evaluate_plan(plan, EvalSettings(samples=3, concurrency=n)) for n in (1, len(plan.problems))
    )
    assert one == all_
    assert all(row.n == 3 for row in one.problems)

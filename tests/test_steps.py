"""Steps are cut on token ids, the same way for every reader."""

from itertools import accumulate
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from treeward.search.continuation import Continuation
from treeward.search.errors import BadInput
from treeward.search.policy import Ask, PolicySettings
from treeward.search.requests import Kind
from treeward.search.steps import Budget, Finish, Stepper, StepRule, cut
from treeward.search.tokens import Tokens, byte_tokens

LINES = StepRule()
BYTES = byte_tokens()
UNLIMITED = 10**9

# Tokens that stop inside a character, complete a delimiter, and carry more text behind it.
PIECES = (
    b"a",
    b"A",
    b":",
    b"5",
    b"\n",
    b"\n\n",
    b"5\n",
    b"\nA",
    b"\nA:",
    b":5\nA",
    b"\xc3",
    b"\xa9",
)
EOS = len(PIECES)


def no_text(text: str) -> list[int]:
    raise AssertionError(f"nothing encodes {text!r} here")


TOKENS = Tokens(
    pieces=(*PIECES, b""), eos_ids=frozenset({EOS}), encode=no_text, encode_prompt=no_text
)
ids_of = st.lists(st.integers(0, len(PIECES) - 1), max_size=30)
rules = st.builds(
    StepRule,
    delimiter=st.sampled_from(["\n", "\n\n", ":5\n"]),
    answer_mark=st.sampled_from(["A", "A:", "A:5"]),
    answer_ends=st.booleans(),
)


def budget(step: int = UNLIMITED, total: int = UNLIMITED) -> Budget:
    return Budget(step=step, total=total)


def finishes(stepper: Stepper, ids: list[int]) -> list[tuple[int, Finish]]:
    """The finishes of a rollout with the number of ids read, up to the one that ends it."""
    found = []
    for place, token in enumerate(ids, start=1):
        finish = stepper.feed(token)
        if finish is not None:
            found.append((place, finish))
        if finish in (Finish.END, Finish.LENGTH):
            break
    return found


def text_finishes(text: str, rule: StepRule = LINES, **limits: int) -> list[tuple[int, Finish]]:
    stepper = Stepper(BYTES, rule, budget(**limits))
    return finishes(stepper, [256 if char == "$" else ord(char) for char in text])


def test_lines_are_steps_and_the_answer_line_is_the_end() -> None:
    end = [(2, Finish.STEP), (12, Finish.END)]
    assert text_finishes("1\nAnswer: 2\n") == end
    assert text_finishes("1\nAnswer: 2") == end[:1]
    assert text_finishes("1\n2$3\n") == [(2, Finish.STEP), (4, Finish.END)]


def test_an_answer_need_not_end_a_solution() -> None:
    rule = StepRule(answer_ends=False)
    assert text_finishes("Answer: 2\n$", rule) == [(10, Finish.STEP), (11, Finish.END)]


def test_budgets_are_inclusive() -> None:
    step = Finish.STEP
    # A step of three tokens fits a step budget of 3, one of four does not.
    assert text_finishes("ab\nabc\n", step=3) == [(3, step), (6, Finish.LENGTH)]
    # Three tokens are the whole of a total of 3: the step is complete, but nothing can follow.
    assert text_finishes("ab\n", total=3) == [(3, Finish.LENGTH)]
    assert text_finishes("ab\n", total=4) == [(3, step)]
    # What ends with its last token has ended.
    assert text_finishes("ab$", total=3, step=3) == [(3, Finish.END)]
    assert text_finishes("Answer: 2\n", total=10, step=10) == [(10, Finish.END)]
    assert text_finishes("Answer: 2\n", total=9) == [(9, Finish.LENGTH)]


def test_a_token_that_carries_the_mark_starts_the_answer_and_does_not_end_it() -> None:
    mark, answer = PIECES.index(b"\nA:"), PIECES.index(b"5\n")
    ids = [0, mark, answer]
    rule = StepRule(answer_mark="A:")
    found = finishes(Stepper(TOKENS, rule, budget()), ids)
    assert found == [(2, Finish.STEP), (3, Finish.END)]
    assert finishes(Stepper.after(ids[:2], TOKENS, rule, budget()), ids[2:]) == [(1, Finish.END)]


@given(ids_of, rules)
def test_steps_put_together_are_the_ids(ids: list[int], rule: StepRule) -> None:
    steps = cut(ids, TOKENS, rule)
    assert [token for step in steps for token in step] == ids
    assert all(steps)


@given(ids_of, rules)
def test_a_step_ends_with_the_first_token_that_completes_the_delimiter(
    ids: list[int], rule: StepRule
) -> None:
    delimiter = rule.delimiter.encode()
    steps = cut(ids, TOKENS, rule)
    for place, step in enumerate(steps):
        assert delimiter not in TOKENS.bytes_of(step[:-1])
        assert delimiter in TOKENS.bytes_of(step) or place == len(steps) - 1


@given(ids_of, rules, st.integers(0, 30))
def test_a_solution_ends_with_the_step_that_completes_the_answer_line(
    ids: list[int], rule: StepRule, eos_at: int
) -> None:
    """Against whole texts, in which no mark may reach into a delimiter."""
    mark = rule.answer_mark
    assume(not any(rule.delimiter.startswith(mark[at:]) for at in range(1, len(mark))))
    ids[eos_at:eos_at] = [EOS]
    expected = []
    read = 0
    for step in cut(ids, TOKENS, rule):
        read += len(step)
        text = TOKENS.bytes_of(ids[:read])
        answered = rule.answer_mark.encode() in text.rpartition(rule.delimiter.encode())[0]
        complete = rule.delimiter.encode() in TOKENS.bytes_of(step)
        if step[-1] == EOS or (complete and answered and rule.answer_ends):
            expected.append((read, Finish.END))
            break
        if complete:
            expected.append((read, Finish.STEP))
    assert finishes(Stepper(TOKENS, rule, budget()), ids) == expected


@given(ids_of, rules, st.integers(1, 8), st.integers(1, 40))
def test_sampling_from_a_node_goes_on_as_the_rollout_did(
    ids: list[int], rule: StepRule, step: int, total: int
) -> None:
    found = finishes(Stepper(TOKENS, rule, budget(step, total)), ids)
    read = found[-1][0] if found else 0
    ends = [end for end, _ in found]
    # A rollout is cut where its steps ended as it was drawn.
    starts = [0, *ends][: len(ends)]
    steps = [tuple(ids[start:end]) for start, end in zip(starts, ends, strict=True)]
    assert cut(ids[:read], TOKENS, rule) == steps
    # From every step of it, sampling meets the same ends.
    for place, end in enumerate(ends[:-1]):
        stepper = Stepper.after(ids[:end], TOKENS, rule, budget(step, total - end))
        later = [(end + at, finish) for at, finish in finishes(stepper, ids[end:])]
        assert later == found[place + 1 :]
        assert cut(ids[end:read], TOKENS, rule) == steps[place + 1 :]


@given(ids_of, rules, st.sampled_from(Kind), st.integers(1, 8), st.integers(1, 30), st.randoms())
def test_a_draw_says_what_each_of_its_steps_was_worth(
    ids: list[int], rule: StepRule, kind: Kind, step: int, total: int, random: Random
) -> None:
    ask = Ask(
        prompt_ids=(0,),
        prefix_ids=(),
        kind=kind,
        seeds=(1,),
        settings=PolicySettings(max_step_tokens=step, max_rollout_tokens=total),
        rule=rule,
        stick_to="",
    )
    drawn = Continuation.of(ask, TOKENS)
    logprobs = [-random.random() for _ in ids]
    draws = [drawn.add(token, each) for token, each in zip(ids, logprobs, strict=True)]
    draw = next((each for each in draws if each is not None), None)
    if draw is None:
        return
    said = list(logprobs)
    sums = [sum(said.pop(0) for _ in step) for step in cut(draw.token_ids, TOKENS, rule)]
    assert draw.logprob == pytest.approx(sum(sums))
    assert draw.step_logprobs == (pytest.approx(tuple(sums)) if len(sums) > 1 else ())


@given(st.lists(st.integers(0, EOS), max_size=30), rules)
def test_ids_are_cut_where_a_stepper_ends_steps(ids: list[int], rule: StepRule) -> None:
    limit = len(ids) + 1
    stepper = Stepper(TOKENS, rule, Budget(step=limit, total=limit))
    ends = [at for at, token in enumerate(ids, 1) if stepper.feed(token) is not None]
    steps = cut(ids, TOKENS, rule)
    assert list(accumulate(map(len, steps))) == sorted({*ends, len(ids)} - {0})
    assert [token for step in steps for token in step] == ids


def test_cutting_goes_on_behind_an_end() -> None:
    text = "1\nAnswer: 2\nab\nc"
    steps = cut(text.encode(), BYTES, LINES)
    assert [BYTES.text_of(step) for step in steps] == ["1\n", "Answer: 2\n", "ab\n", "c"]


@pytest.mark.parametrize("name", ["delimiter", "answer_mark"])
def test_an_empty_text_ends_nothing(name: str) -> None:
    with pytest.raises(BadInput, match=rf"rule\.{name} must not be empty"):
        StepRule(**{name: ""})  # type: ignore[arg-type]  # only texts come here

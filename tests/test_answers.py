"""Equal answers are equal however they are written, and unequal ones are not."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treeward.critics.answers import Number, read_number, tidy
from treeward.critics.verifier import BUILT_IN, AnswerVerifier, check_name
from treeward.search.errors import BadInput, MissingExtra
from treeward.search.problem import Problem
from treeward.search.verdicts import Judgement, Reason, Verdict


@pytest.fixture(scope="module")
def verifier() -> Iterator[AnswerVerifier]:
    with AnswerVerifier() as verifier:
        yield verifier


def problem(verifier: str, answer: str | None) -> Problem:
    return Problem(id="p", prompt="?", answer=answer, verifier=verifier)


SAME_NUMBER = [
    ("12", "12.0"),
    ("12", "12."),
    ("12", "+012"),
    ("12", "$12$"),
    ("12", r"\(12\)"),
    ("12", "**12**"),
    ("12", r"\text{12}"),
    ("12", "\u200e12\u202c"),
    ("-3", "\u22123"),
    ("1,000", "1000"),
    ("1000000", "1,000,000"),
    ("1000", "1 000"),
    ("1000", "1{,}000"),
    ("1000", r"1\,000"),
    ("1e3", "1000"),
    ("0.002", "2E-3"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", "1/2"),
    (r"\dfrac12", ".5"),
    ("-0.5", r"-\frac{1}{2}"),
    ("3.5", r"3\frac{1}{2}"),
    ("3.5", "3 1/2"),
    ("2/4", "1/2"),
    ("50%", "0.5"),
    ("0.5", r"50\%"),
    ("50", "50 percent"),
    ("$5", "5"),
    ("-5", r"-\$5.00"),
]
DIFFERENT_NUMBER = [
    ("12", "13"),
    ("12", "-12"),
    ("12", "1 2"),
    ("12", "1,2"),
    ("12", "12\x00"),
    ("12", "banana"),
    ("12", "12 13"),
    ("1/3", "0.333333"),
    ("0.5", "50"),
    ("50%", "5"),
    ("1000", "1,00,0"),
    ("3.5", "31/2"),
    ("1", "1/0"),
]


@pytest.mark.parametrize("name", ["number", "math"])
@pytest.mark.parametrize(("reference", "answer"), SAME_NUMBER)
def test_equal_numbers_match(
    verifier: AnswerVerifier, name: str, reference: str, answer: str
) -> None:
    assert verifier.judge(problem(name, reference), answer).reason is Reason.MATCH
    assert verifier.judge(problem(name, answer), reference).reason is Reason.MATCH


@pytest.mark.parametrize("name", ["number", "math"])
@pytest.mark.parametrize(("reference", "answer"), DIFFERENT_NUMBER)
def test_unequal_numbers_do_not(
    verifier: AnswerVerifier, name: str, reference: str, answer: str
) -> None:
    assert verifier.judge(problem(name, reference), answer).reason is Reason.MISMATCH


def test_a_unit_counts_where_the_reference_has_one(verifier: AnswerVerifier) -> None:
    reasons = [
        verifier.judge(problem("number", "5 cm"), answer).reason
        for answer in ("5", "5.0 cm", "5cm", "5 m", "50 cm")
    ]
    assert reasons == [Reason.MATCH] * 3 + [Reason.MISMATCH] * 2
    assert verifier.judge(problem("number", "12"), "12 million").reason is Reason.MISMATCH


fractions = st.fractions(max_denominator=10**6)


@given(fractions)
def test_a_fraction_reads_as_itself_in_every_notation(value: Fraction) -> None:
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    for text in (f"{sign}{top}/{bottom}", rf"${sign}\frac{{{top}}}{{{bottom}}}$"):
        assert read_number(text) == Number(value)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4), st.booleans())
def test_a_decimal_reads_as_itself_with_and_without_separators(value: object, comma: bool) -> None:
    text = format(value, ",f" if comma else "f")
    assert read_number(text) == Number(Fraction(str(value)))


@given(fractions, fractions)
def test_numbers_are_equal_when_their_values_are(left: Fraction, right: Fraction) -> None:
    one, other = read_number(str(left)), read_number(str(right))
    assert isinstance(one, Number)
    assert isinstance(other, Number)
    assert one.accepts(other) == other.accepts(one) == (left == right)


@given(st.text())
def test_tidying_twice_is_tidying_once(text: str) -> None:
    assert tidy(" " + tidy(text) + "\n") == tidy(tidy(text))


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("x^2+1", "1+x^2"),
        ("x^2+1", "x^{2} + 1"),
        ("x^2-1", "(x-1)(x+1)"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"\sqrt{2}", "sqrt(2)"),
        (r"\frac{\pi}{2}", "pi/2"),
        (r"\sin x", "sin(x)"),
        ("x^2", "x**2"),
        ("10^5", "1e5"),
        (r"\{1,2\}", r"\{2,1\}"),
        ("3", "x = 3"),
        (r"\text{yes}", "yes"),
        ("x^{1000000000}", "$x^{1000000000}$"),
    ],
)
def test_equal_expressions_match(verifier: AnswerVerifier, reference: str, answer: str) -> None:
    assert verifier.judge(problem("math", reference), answer).reason is Reason.MATCH


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("x^2+1", "x^2-1"),
        ("x^2+1", "y^2+1"),
        (r"\sqrt{2}", "1.41"),
        ("(1,2)", "(2,1)"),
        (r"\text{yes}", "no"),
        ("3", "3 or 4"),
        ("1", r"\frac{1}{"),
        ("12", '__import__("os").getpid()'),
    ],
)
def test_unequal_expressions_do_not(verifier: AnswerVerifier, reference: str, answer: str) -> None:
    assert verifier.judge(problem("math", reference), answer).reason is Reason.MISMATCH


leaves = st.integers(0, 30).map(lambda number: (str(number), Fraction(number)))


def _combined(children: st.SearchStrategy[tuple[str, Fraction]]) -> st.SearchStrategy:
    def combine(
        left: tuple[str, Fraction], right: tuple[str, Fraction], operator: str
    ) -> tuple[str, Fraction]:
        (text, value), (text2, value2) = left, right
        if operator == "/" and value2:
            return rf"\frac{{{text}}}{{{text2}}}", value / value2
        if operator == "^":
            return f"({text})^{{2}}", value**2
        if operator == "*":
            return rf"({text}) \cdot ({text2})", value * value2
        return f"{text} - ({text2})", value - value2

    return st.builds(combine, children, children, st.sampled_from("-*/^"))


@settings(max_examples=40, deadline=None)
@given(st.recursive(leaves, _combined, max_leaves=6), st.sampled_from([0, 1, -7]))
def test_math_agrees_with_exact_arithmetic_or_does_not_know(
    verifier: AnswerVerifier, expression: tuple[str, Fraction], offset: int
) -> None:
    text, value = expression
    reason = verifier.judge(problem("math", str(value + offset)), text).reason
    assert reason in (Reason.CHECKER_LIMIT, Reason.MISMATCH if offset else Reason.MATCH)


@pytest.mark.parametrize(
    ("reference", "answer", "reason"),
    [
        ("B", "b", Reason.MATCH),
        ("B", "(B)", Reason.MATCH),
        ("(B)", "B.", Reason.MATCH),
        ("B", "B) Paris", Reason.MATCH),
        ("B", "Option B", Reason.MATCH),
        ("B", "B) Paris and London", Reason.MATCH),
        ("B", "B) vitamin C", Reason.MATCH),
        ("A) or (B)", "A) or (B)", Reason.MATCH),
        # Who lists several has chosen none.
        ("A", "(A) or (B)", Reason.MISMATCH),
        ("B", "(A) or (B)", Reason.MISMATCH),
        ("A", "A. or B", Reason.MISMATCH),
        ("A", "[A] and [C]", Reason.MISMATCH),
        ("B", "A, B, or C", Reason.MISMATCH),
        ("B", "A/B", Reason.MISMATCH),
        ("A", "A and C", Reason.MISMATCH),
        ("A and C", "(C), (A)", Reason.MATCH),
        ("A and C", "A and B", Reason.MISMATCH),
        ("B", "B) and B", Reason.MATCH),
        # Which one is meant, or whether any is, nobody can tell.
        ("A", "A: B", Reason.CHECKER_LIMIT),
        ("A", "A) is wrong, B is right", Reason.CHECKER_LIMIT),
        ("A", "A) Paris, B) London", Reason.CHECKER_LIMIT),
        ("yes", "Yes.", Reason.MATCH),
        ("B", "A", Reason.MISMATCH),
        ("B", "Bob", Reason.MISMATCH),
        ("B", "A or B", Reason.MISMATCH),
    ],
)
def test_choices(verifier: AnswerVerifier, reference: str, answer: str, reason: Reason) -> None:
    assert verifier.judge(problem("choice", reference), answer).reason is reason


@pytest.mark.parametrize(
    ("name", "reference", "answer", "reason"),
    [
        ("math", "(5,10)", "(\\$5,\\$10)", Reason.MATCH),
        ("math", "5x+1", "\\$5x+1", Reason.MATCH),
        ("math", "\\$5x", "5x", Reason.MATCH),
        ("math", "10000", "10,\\!000", Reason.MATCH),
        ("number", "10000", "10,\\!000", Reason.MATCH),
        ("number", "10,\\!000", "10000", Reason.MATCH),
        ("number", "10\\,000", "10000", Reason.MATCH),
        ("number", "5", "--5", Reason.MISMATCH),
        ("number", "-5", "$-5", Reason.MATCH),
        ("number", "-5", "-$5", Reason.MATCH),
    ],
)
def test_latex_money_and_spacing(
    verifier: AnswerVerifier, name: str, reference: str, answer: str, reason: Reason
) -> None:
    assert verifier.judge(problem(name, reference), answer).reason is reason


def test_text_is_compared_up_to_space_case_and_full_stop(verifier: AnswerVerifier) -> None:
    assert verifier.judge(problem("text", "New York"), " new\n york. ").reason is Reason.MATCH
    assert verifier.judge(problem("text", "New York"), "newyork").reason is Reason.MISMATCH


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_answer_is_wrong_and_no_reference_unknown(verifier: AnswerVerifier, name: str) -> None:
    for nothing in (None, "", " \n\u200e"):
        assert verifier.judge(problem(name, "12"), nothing) == Judgement(Reason.NO_ANSWER)
        # Nothing could have been right, so nothing is wrong.
        assert verifier.judge(problem(name, None), nothing).reason is Reason.NO_REFERENCE
    assert verifier.judge(problem(name, None), "12") == Judgement(Reason.NO_REFERENCE, "12")


def test_a_reference_that_is_no_number_leaves_number_without_a_verdict(
    verifier: AnswerVerifier,
) -> None:
    assert verifier.judge(problem("number", "a dozen"), "12").verdict is Verdict.UNKNOWN


def test_a_task_scores_its_own_answers() -> None:
    def longest(asked: Problem, answer: str) -> Judgement:
        right = len(answer) >= len(asked.answer or "")
        return Judgement(Reason.MATCH if right else Reason.MISMATCH, answer)

    verifier = AnswerVerifier(["gym:longest"], {"gym:longest": longest})
    asked = problem("gym:longest", "four")
    assert verifier.judge(asked, "fives").reason is Reason.MATCH
    assert verifier.judge(asked, "two").reason is Reason.MISMATCH
    assert verifier.judge(asked, None).reason is Reason.NO_ANSWER


def test_what_is_compared_here_is_quick_and_what_others_judge_is_not() -> None:
    def longest(problem: Problem, answer: str) -> Judgement:
        return Judgement(Reason.MATCH, answer)

    verifier = AnswerVerifier(["number", "gym:longest"], {"gym:longest": longest})
    kinds = ("number", "text", "choice", "math", "gym:longest")
    quick = [verifier.is_quick(problem(kind, "1")) for kind in kinds]
    assert quick == [True, True, True, False, False]


def test_an_unknown_verifier_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(BadInput, match=r"'nubmer'; did you mean number"):
        AnswerVerifier(["nubmer"])
    with pytest.raises(BadInput, match="gym:chain_sum"):
        check_name("gym:chainsum", ["gym:chain_sum"])
    with pytest.raises(BadInput, match="'math' was not among"):
        AnswerVerifier(["number"]).judge(problem("math", "12"), "13")


def test_math_without_its_extra_is_refused_before_anything_is_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(MissingExtra, match=r"treeward\[math\]"):
        AnswerVerifier(["math"])
    assert AnswerVerifier(["number"]).judge(problem("number", "12"), "12").reason is Reason.MATCH


def test_threads_get_their_own_answers(verifier: AnswerVerifier) -> None:
    cases = [(f"x^2+{k}", f"{k + k % 2}+x^2", k % 2 == 0) for k in range(2, 18)]
    with ThreadPoolExecutor(8) as pool:
        reasons = pool.map(lambda case: verifier.judge(problem("math", case[0]), case[1]), cases)
    for (_, _, equal), judgement in zip(cases, reasons, strict=True):
        assert judgement.reason is (Reason.MATCH if equal else Reason.MISMATCH)

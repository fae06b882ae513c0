"""Judges answers: the Verifier that a run hands to its forest."""

import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from treeward.critics.answers import (
    Number,
    read_number,
    same_choice,
    same_expression,
    same_text,
    tidy,
)
from treeward.critics.caps import MAX_LENGTH, cap_hit
from treeward.search.errors import BadInput, MissingExtra, TreewardError
from treeward.search.problem import Problem
from treeward.search.verdicts import Judgement, Reason

if TYPE_CHECKING:
    from treeward.critics.math_worker import MathWorker

Scorer = Callable[[Problem, str], Judgement]
"""A task's own check. It keeps the Verifier's promises: any thread, no exception, no hanging."""

_COMPARED_HERE = ("number", "text", "choice")
BUILT_IN = ("math", *_COMPARED_HERE)


class AnswerVerifier:
    """Dispatches on a problem's verifier; close it, or use it in a `with` statement.

    Equal text is a match before anything is limited. Then `number`, `text` and `choice` are decided
    by `answers`, and so are two plain numbers under `math`. What is left under `math` goes through
    the caps and then to math-verify; a limit gives `checker_limit`, which is unknown, never wrong.
    """

    def __init__(
        self,
        names: Iterable[str] = BUILT_IN,
        scorers: Mapping[str, Scorer] = MappingProxyType({}),
    ) -> None:
        """Makes sure that every verifier of a run is there; starts math-verify if one is `math`.

        Args:
            names: The `verifier` of the problems to come.
            scorers: The tasks' own checks by name, such as `gym:chain_sum`.

        Raises:
            BadInput: A name stands for no verifier.
            MissingExtra: `math` is among the names and math-verify is not installed.
            TreewardError: math-verify is installed and does not start.
        """
        self._scorers = dict(scorers)
        self._worker: MathWorker | None = None
        names = set(names)
        for name in sorted(names):
            check_name(name, scorers)
        if "math" in names:
            self._worker = _start_worker()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Ends the process that holds math-verify."""
        if self._worker is not None:
            self._worker.close()

    def is_quick(self, problem: Problem) -> bool:
        """Returns whether answers to a problem are compared here, in microseconds."""
        return problem.verifier in _COMPARED_HERE and problem.verifier not in self._scorers

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        """Returns what is known about an answer; see the Protocol.

        Raises:
            BadInput: The problem's verifier was not among the names given at the start.
        """
        scorer = self._scorers.get(problem.verifier)
        if scorer is None and problem.answer is None:
            return Judgement(Reason.NO_REFERENCE, answer)
        if answer is None or not tidy(answer):
            return Judgement(Reason.NO_ANSWER)
        if scorer is not None:
            return scorer(problem, answer)
        assert problem.answer is not None, "without a reference nobody compares"
        return Judgement(self._compare(problem.verifier, problem.answer, answer), answer)

    def _compare(self, name: str, reference: str, answer: str) -> Reason:
        if name == "text":
            return _reason(same_text(reference, answer))
        if name == "choice":
            return _reason(same_choice(reference, answer))
        if name == "number":
            return _compare_numbers(reference, answer)
        if name == "math" and self._worker is not None:
            return _compare_math(reference, answer, self._worker)
        raise BadInput(f"verifier {name!r} was not among those this run started with")


def check_name(name: str, scorers: Iterable[str] = ()) -> None:
    """Checks that a verifier's name stands for one.

    Raises:
        BadInput: It does not; the message has the nearest names.
    """
    known = [*BUILT_IN, *scorers]
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4) or BUILT_IN
        raise BadInput(f"verifier: no {name!r}; did you mean {' or '.join(near)}?")


def _start_worker() -> "MathWorker":
    """Returns a worker that is ready."""
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtra("verifier 'math'", "math")
    from treeward.critics.math_worker import MathWorker

    try:
        return MathWorker()
    except RuntimeError as e:
        raise TreewardError(str(e)) from e


def _reason(equal: bool | None) -> Reason:
    """Returns the reason that the outcome of a comparison gives; None is unknown."""
    if equal is None:
        return Reason.CHECKER_LIMIT
    return Reason.MATCH if equal else Reason.MISMATCH


@lru_cache(maxsize=4096)
def _compare_numbers(reference: str, answer: str) -> Reason:
    """Compares plain numbers; an answer that is no number is wrong, one too long to read unknown.

    So is everything that does not equal a reference which is no number. The rollouts of a problem
    give few different answers, many times each.
    """
    if same_text(reference, answer):
        return Reason.MATCH
    gold, pred = read_number(reference), read_number(answer)
    if not isinstance(gold, Number):
        return Reason.CHECKER_LIMIT
    if pred is None:
        return Reason.MISMATCH
    return _reason(gold.accepts(pred) if isinstance(pred, Number) else None)


def _compare_math(reference: str, answer: str, worker: "MathWorker") -> Reason:
    """Compares expressions: as written, as plain numbers, behind the caps by math-verify."""
    if same_expression(reference, answer):
        return Reason.MATCH
    gold, pred = read_number(reference), read_number(answer)
    if isinstance(gold, Number) and isinstance(pred, Number) and not gold.unit + pred.unit:
        return _reason(gold.accepts(pred))
    if max(len(reference), len(answer)) > MAX_LENGTH:
        return Reason.CHECKER_LIMIT
    latex = [as_latex(text) for text in (reference, answer)]
    if any(cap_hit(text) for text in latex):
        return Reason.CHECKER_LIMIT
    return _reason(worker.equal(*latex))


_SYMBOLS = str.maketrans(
    {
        "$": "",
        "\u221a": "\\sqrt ",
        "\u221e": "\\infty ",
        "\u03c0": "\\pi ",
        "\u00b7": "\\cdot ",
        "\u22c5": "\\cdot ",
        "\u00d7": "\\times ",
        "\u00b2": "^{2}",
        "\u00b3": "^{3}",
    }
)
_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt\(([^()]*)\)")
_FUNCTION = re.compile(r"(?<![A-Za-z\\])(sin|cos|tan|log|ln|exp)(?=\s?\()")
_SCIENTIFIC = re.compile(r"(?<=\d)[eE]([+-]?\d+)")
_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")


def as_latex(text: str) -> str:
    """Returns an expression as LaTeX, for those that write `sqrt(2)`, `2**3`, `1e5` or signs."""
    text = tidy(text).replace("\\$", "").translate(_SYMBOLS).replace("**", "^")
    text = _SCIENTIFIC.sub(r"\\cdot 10^{\1}", text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _FUNCTION.sub(r"\\\1 ", text)
    return _PI.sub(r"\\pi ", text)

"""What is known about a finished solution, and the Protocol of whoever finds it out."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from treeward.search.problem import Problem


class Verdict(StrEnum):
    """What a check found out about a finished solution."""

    RIGHT = "right"
    """The answer matches the reference."""
    WRONG = "wrong"
    """The answer differs, or the policy gave none, or it ran out of its token budget."""
    UNKNOWN = "unknown"
    """Nobody knows: a call failed, a checker hit its limit, or there is no reference."""


class Reason(StrEnum):
    """Why a verdict is what it is."""

    MATCH = "match"
    """Right: the answer equals the reference."""
    MISMATCH = "mismatch"
    """Wrong: the answer differs from the reference."""
    NO_ANSWER = "no_answer"
    """Wrong: the solution ended without an answer."""
    LENGTH = "length"
    """Wrong: the policy ran out of its token budget."""
    CHECKER_LIMIT = "checker_limit"
    """Unknown: the checker hit one of its limits."""
    CALL_FAILED = "call_failed"
    """Unknown: the policy could not be asked."""
    NO_REFERENCE = "no_reference"
    """Unknown: the problem has no reference answer."""


VERDICT_OF: dict[Reason, Verdict] = {
    Reason.MATCH: Verdict.RIGHT,
    Reason.MISMATCH: Verdict.WRONG,
    Reason.NO_ANSWER: Verdict.WRONG,
    Reason.LENGTH: Verdict.WRONG,
    Reason.CHECKER_LIMIT: Verdict.UNKNOWN,
    Reason.CALL_FAILED: Verdict.UNKNOWN,
    Reason.NO_REFERENCE: Verdict.UNKNOWN,
}


VALUE_OF: dict[Verdict, float] = {Verdict.RIGHT: 1.0, Verdict.WRONG: 0.0}
"""What a solution with a verdict is worth; an unknown one is not in it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Says what a finished solution answered and whether that is right."""

    reason: Reason
    """Why; it implies the verdict."""

    answer: str | None = None
    """The answer as the solution gave it; None where it gave none."""

    @property
    def verdict(self) -> Verdict:
        """Returns the verdict that the reason implies."""
        return VERDICT_OF[self.reason]


class Verifier(Protocol):
    """Judges finished solutions. Safe to call from any thread."""

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        """Returns what is known about an answer to a problem.

        Args:
            problem: The problem that was answered.
            answer: The text the solution gave as its answer; None where it gave none.

        Returns:
            A judgement, unknown where a limit allows no better and where no answer could have been
            found right, also if there is none; never an exception for anything that a model wrote.
        """
        ...

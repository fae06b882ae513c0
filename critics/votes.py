"""Majority vote: which answers are the same, and what most samples of a problem say.

Answers that the verifier calls right equal the reference, so they are one answer however they are
written. Others are one answer if they read alike: as numbers, choices, expressions or text, by the
problem's verifier. Where math-verify would see more, wrong answers stay apart (Wang et al. 2023,
section 2, compare the parsed answers alike).
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from treeward.critics.answers import (
    Number,
    choice_key,
    expression_key,
    read_number,
    text_key,
)
from treeward.critics.verifier import as_latex
from treeward.search.verdicts import Judgement, Reason, Verdict

_RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Majority:
    """Says what most samples of a problem answered."""

    answers: tuple[str, ...]
    """The answers with most votes, as first written; several in a tie, none without any answer."""

    right: float
    """The chance that one of them, drawn by lot, is right; 0 without any answer."""


def majority(verifier: str, judgements: Sequence[Judgement]) -> Majority | None:
    """Returns the vote of a problem's samples, each with an answer having one.

    Args:
        verifier: How the problem's answers are checked.
        judgements: Of all samples. Those that are unknown have no vote.

    Returns:
        None where all are unknown.
    """
    known = [each for each in judgements if each.verdict is not Verdict.UNKNOWN]
    if not known:
        return None
    votes: Counter[Hashable] = Counter()
    written: dict[Hashable, str] = {}
    for judgement in known:
        if judgement.answer is not None:
            key = _key(verifier, judgement)
            votes[key] += 1
            written.setdefault(key, judgement.answer)
    most = max(votes.values(), default=0)
    winners = [key for key, count in votes.items() if count == most]
    right = winners.count(_RIGHT) / len(winners) if winners else 0.0
    return Majority(tuple(written[key] for key in winners), right)


def _key(verifier: str, judgement: Judgement) -> Hashable:
    """Returns what an answer shares with those that are the same."""
    if judgement.reason is Reason.MATCH:
        return _RIGHT
    return answer_key(verifier, judgement.answer or "")


def answer_key(verifier: str, answer: str) -> Hashable:
    """Returns what an answer shares with those that read alike; no reference is looked at."""
    if verifier == "choice":
        return ("choice", choice_key(answer))
    number = read_number(answer) if verifier in ("number", "math") else None
    if isinstance(number, Number):
        return ("number", number)
    if verifier == "math":
        return ("expression", expression_key(as_latex(answer)))
    return ("text", text_key(answer))


def elect(verifier: str, ballots: Iterable[tuple[str, float]]) -> str | None:
    """Returns the answer with the greatest sum of weights, as first written; None without any.

    Args:
        verifier: How the problem's answers are checked: it says which of them read alike.
        ballots: Answers and their weights. In a tie the answer that came first wins.
    """
    weights: dict[Hashable, float] = {}
    written: dict[Hashable, str] = {}
    for answer, weight in ballots:
        key = answer_key(verifier, answer)
        weights[key] = weights.get(key, 0.0) + weight
        written.setdefault(key, answer)
    return written[max(written, key=weights.__getitem__)] if written else None

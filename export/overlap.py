"""Counts the problems of a run that also stand in test sets, by their text.

Texts are compared in a normal form: NFKC, lower case, words of letters and digits and the operators
of arithmetic alone, so that LaTeX, spaces and punctuation make no difference. Two texts overlap if
they are the same, or if they share a run of 13 such words, which is the run that GPT-3's authors
counted (arXiv 2005.14165, appendix C). Nothing is left out for it: whoever trains decides.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from treeward.export.console import as_code
from treeward.search.errors import BadInput
from treeward.search.problem import Problem
from treeward.search.readers import parsed, read_file
from treeward.search.rows import PROMPTS

RUN_OF_WORDS = 13
RULE = (
    "Texts were compared as lower-case words and operators (NFKC; no punctuation, no LaTeX marks): "
    f"the same text, or {RUN_OF_WORDS} words in a row that are the same. A problem told in other "
    "words is not found. Nothing was left out for it."
)

_WORD = re.compile(r"[^\W_]+|[-+*/^=<>\u00d7\u00f7]")
_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Says how many of a run's problems stand in one test set."""

    test_set: str
    """The file's name."""

    n_questions: int

    same: tuple[str, ...]
    """Problems whose text is that of a question."""

    shared: tuple[str, ...]
    """Other problems that share a run of words with a question."""

    def __str__(self) -> str:
        """Returns the finding as a line of a list."""
        found = [*self.same, *self.shared]
        named = ", ".join(map(as_code, found[:_NAMED]))
        more = ", ..." if len(found) > _NAMED else ""
        return (
            f"{as_code(self.test_set)} (questions: {self.n_questions:,}): problems with the same "
            f"text: {len(self.same):,}; others that share {RUN_OF_WORDS} words in a row: "
            f"{len(self.shared):,}" + (f" ({named}{more})" if found else "")
        )


def find_overlaps(problems: Sequence[Problem], test_sets: Sequence[Path]) -> list[Overlap]:
    """Returns what each test set shares with a run's problems.

    Args:
        problems: The run's.
        test_sets: JSON Lines, JSON or Parquet with `prompt`, `question` or `problem`.

    Raises:
        BadInput: A file cannot be read, or a row of it has no question.
    """
    return [_compare(problems, path) for path in test_sets]


def overlap_lines(overlaps: Sequence[Overlap]) -> list[str]:
    """Returns the findings as lines for a card."""
    if not overlaps:
        return ["No check was made: no test set was named with `--test-set`."]
    return [RULE, "", *(f"- {overlap}" for overlap in overlaps)]


def _compare(problems: Sequence[Problem], path: Path) -> Overlap:
    texts: set[str] = set()
    runs: set[bytes] = set()
    n_questions = 0
    if not path.exists():
        raise BadInput(f"{path}: no such test set; give a file of questions")
    for question in _questions(path):
        words = normal_words(question)
        texts.add(" ".join(words))
        runs.update(_runs(words))
        n_questions += 1
    same, shared = [], []
    for problem in problems:
        words = normal_words(problem.prompt)
        if not words:
            continue
        if " ".join(words) in texts:
            same.append(problem.id)
        elif not runs.isdisjoint(_runs(words)):
            shared.append(problem.id)
    return Overlap(
        test_set=path.name, n_questions=n_questions, same=tuple(same), shared=tuple(shared)
    )


def normal_words(text: str) -> list[str]:
    """Returns the lower-case words and operators of a text."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def _runs(words: Sequence[str]) -> Iterator[bytes]:
    """Yields a digest of every run of words."""
    for start in range(len(words) - RUN_OF_WORDS + 1):
        run = " ".join(words[start : start + RUN_OF_WORDS])
        yield blake2b(run.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _questions(path: Path) -> Iterator[str]:
    for row in read_file(path):
        value = parsed(row.value)
        if not isinstance(value, Mapping):
            raise BadInput(f"{row.where}: must be an object with a question")
        given = next((value[name] for name in PROMPTS if value.get(name) is not None), None)
        if isinstance(given, list):
            asked = [turn.get("content") for turn in given if isinstance(turn, Mapping)]
            given = asked[-1] if asked else None
        if not isinstance(given, str):
            raise BadInput(f"{row.where}: has no text under {', '.join(PROMPTS)}")
        yield given

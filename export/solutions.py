"""Reads solutions that people already have: from TRL or verl rollouts, ProcessBench files, or text.

A row is a problem's row (`search/rows.py`) with one solution or several beside it, in columns whose
names `layouts.py` knows. A text is cut into steps by the template's delimiter. Rows of one problem
make one tree.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from treeward.critics.votes import answer_key
from treeward.export.layouts import (
    COLUMNS,
    Layout,
    Text,
    block_fields,
    boxed_in,
    read_layout,
    text_rows,
)
from treeward.search.errors import BadInput
from treeward.search.given import Steps
from treeward.search.policy import PolicySettings
from treeward.search.problem import Problem, differences
from treeward.search.reader import Reader
from treeward.search.readers import ProblemSet, Row, nothing_good, parsed, read_file
from treeward.search.rows import as_problem
from treeward.search.steps import clean_step
from treeward.search.verdicts import Judgement, Verifier

PLAIN = ".txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Holds one solution as read."""

    where: str
    """What errors about it begin with."""

    text: Text
    """As given: whole, or step by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Holds one row as read."""

    where: str
    """What errors about it begin with."""

    layout: Layout

    problem: Problem
    """Without a reference answer where only solutions that are right can tell it."""

    @property
    def solutions(self) -> list[Solution]:
        """Returns its solutions; of several, errors say which."""
        texts, where = self.layout.solutions, self.where
        places = (
            [where]
            if len(texts) == 1
            else [f"{where}, solution {k}" for k in range(1, len(texts) + 1)]
        )
        return [Solution(where=at, text=text) for at, text in zip(places, texts, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionSet:
    """Holds what was read."""

    found: ProblemSet

    entries: tuple[Entry, ...]
    """The rows, in the order read."""

    @property
    def solutions(self) -> dict[str, list[Solution]]:
        """Returns the solutions by problem id, in the order read."""
        found: dict[str, list[Solution]] = defaultdict(list)
        for entry in self.entries:
            found[entry.problem.id] += entry.solutions
        return found

    @property
    def complete(self) -> bool:
        """Returns whether all problems have a reference answer."""
        return all(problem.answer is not None for problem in self.found.problems)


def read_solutions(path: Path, *, skip_bad: bool = False) -> SolutionSet:
    """Reads and checks solutions from a file (JSON Lines, JSON, Parquet, plain text).

    Args:
        path: The file.
        skip_bad: Whether bad rows are left out and counted; otherwise the first is an error.

    Raises:
        BadInput: Nothing good can be read, or a row is bad and `skip_bad` is off.
    """
    rows = read_file(path, also=COLUMNS, more={PLAIN: text_rows})
    made = ((row.where, partial(_read, row, path)) for row in rows)
    return _gather(path, made, [], skip_bad=skip_bad)


def with_references(
    path: Path, read: SolutionSet, answer_in: Callable[[str], str | None], *, skip_bad: bool = False
) -> SolutionSet:
    """Returns what was read with the answers of problems that have none in the file.

    The reference is what a solution answers that the file calls right; rows with the same question
    share it.

    Args:
        path: The file.
        read: What was read.
        answer_in: Finds the answer of a solution; where there is none, one in a box is taken.
        skip_bad: Whether rows of problems without a reference are left out and counted.

    Raises:
        BadInput: No reference is left, or one is missing and `skip_bad` is off.
    """
    stated, told = defaultdict(set), defaultdict(set)
    for entry in read.entries:
        asked, answer = entry.problem.asked, entry.problem.answer
        if answer is not None:
            stated[asked].add(answer)
        elif entry.layout.right and (said := _answer(entry.layout, answer_in)):
            told[asked].add(said)
    made = (
        (
            entry.where,
            partial(
                _with_reference, entry, stated[entry.problem.asked] or told[entry.problem.asked]
            ),
        )
        for entry in read.entries
    )
    return _gather(path, made, [*read.found.skipped], skip_bad=skip_bad)


def _gather(
    path: Path,
    made: Iterable[tuple[str, Callable[[], Entry]]],
    skipped: list[str],
    *,
    skip_bad: bool,
) -> SolutionSet:
    """Puts rows together that are of one problem.

    Args:
        path: The file.
        made: Where each row stands, and what makes it or raises BadInput.
        skipped: Why rows were left out before; consumed.
        skip_bad: Whether bad rows are left out and counted; otherwise the first is an error.
    """
    problems: dict[str, Problem] = {}
    entries = []
    for where, make in made:
        try:
            entry = make()
            problem = entry.problem
            first = problems.setdefault(problem.id, problem)
            if first != problem:
                raise BadInput(
                    f"id {problem.id!r} is that of another problem too, which differs in "
                    f"{', '.join(differences(first, problem))}; make them equal, or give it its own"
                )
        except BadInput as e:
            if not skip_bad:
                raise BadInput(f"{where}: {e} (--skip-bad leaves such rows out)") from e
            skipped.append(f"{where}: {e}")
        else:
            entries.append(entry)
    if not problems:
        raise nothing_good(path, skipped, "solution")
    return SolutionSet(
        found=ProblemSet(problems=tuple(problems.values()), skipped=tuple(skipped)),
        entries=tuple(entries),
    )


def _read(row: Row, path: Path) -> Entry:
    plain = path.suffix.lower() == PLAIN
    value = block_fields(row.value) if plain else parsed(row.value)
    if not isinstance(value, Mapping):
        raise BadInput(f"must be an object with the columns of a row, got {str(value)[:40]!r}")
    layout = read_layout(value)
    problem = as_problem(layout.fields, path.name)
    if problem.answer is None and layout.right is None:
        raise BadInput(
            "no answer; rollouts cannot be judged without the reference answer: give a column "
            "answer"
        )
    return Entry(where=row.where, layout=layout, problem=problem)


def _answer(layout: Layout, answer_in: Callable[[str], str | None]) -> str | None:
    """Returns the answer that a row's one solution gives; None where none can be read."""
    (text,) = layout.solutions
    text = text if isinstance(text, str) else "\n\n".join(text)
    return answer_in(text) or boxed_in(text)


def _with_reference(entry: Entry, known: Set[str]) -> Entry:
    """Returns a row whose problem has its answer, of those known; raises BadInput without one."""
    if entry.problem.answer is not None:
        return entry
    if not known:
        raise BadInput(
            "no answer: no solution of its problem is final_answer_correct and has an answer to be "
            "read; give a column answer"
        )
    if len({answer_key("math", answer) for answer in known}) > 1:
        raise BadInput(
            f"no answer: of its problem the file has {' and '.join(sorted(known))[:60]}; give a "
            "column answer"
        )
    fields = {**entry.layout.fields, "answer": min(known, key=lambda text: (len(text), text))}
    return replace(entry, problem=as_problem(fields, entry.problem.source))


def encode(
    solution: Solution, reader: Reader, sampling: PolicySettings, *, places: int | None
) -> Steps:
    """Returns the token ids of a solution's steps, as the policy would have written them.

    A step in which a text stops is left out.

    Args:
        solution: What is read.
        reader: Has the policy's template and tokens.
        sampling: Says how long a solution may be.
        places: Positions of the model's context behind the prompt; None where they are not known.

    Raises:
        BadInput: It has no finished step, the policy's tokens cannot spell it, no room is left to
            go on from its steps, or the model cannot read it to its end.
    """
    delimiter = reader.template.rule.delimiter
    lines = _lines(solution.text, delimiter)
    if stops_short(solution, reader):
        del lines[-1]
    if not lines:
        raise BadInput(
            f"{solution.where}: no finished step in {str(solution.text)[:40]!r}; a step ends with "
            f"{delimiter!r}, or gives the answer"
        )
    for step in () if isinstance(solution.text, str) else solution.text[:-1]:
        # An answer may come early, as a step; behind other steps it ends a solution.
        if delimiter in step.strip() and reader.template.answer_in(step) is not None:
            raise BadInput(
                f"{solution.where}: {step[:40]!r} is a solution and no step, and is not the last "
                "of the list; a row has one solution: give each a row of its own"
            )
    text, ends = "".join(lines), []
    if reader.template.answer_in(text) is not None and not reader.template.rule.answer_ends:
        # The policy ends such a solution with an end token and no delimiter.
        lines[-1] = lines[-1].removesuffix(delimiter)
        text, ends = "".join(lines), reader.tokens.end
    ids = tuple([token for line in lines for token in reader.tokens.encode(line)] + ends)
    if reader.text(ids) != text:
        raise BadInput(f"{solution.where}: the policy's tokens cannot spell {text[:40]!r}")
    cut = reader.cut(ids)
    going_on = len(ids) - (0 if reader.template.answer_in(text) is None else len(cut[-1]))
    if going_on >= sampling.max_rollout_tokens:
        raise BadInput(
            f"{solution.where}: the solution has {len(ids)} tokens, and a solution may have "
            f"{sampling.max_rollout_tokens}; raise policy.max_rollout_tokens"
        )
    if places is not None and len(ids) >= places:  # servers and vLLM read by drawing one token more
        raise BadInput(
            f"{solution.where}: the solution has {len(ids)} tokens, and behind its prompt the "
            f"model reads at most {places - 1}; shorten it, or take a model that reads more"
        )
    return tuple(cut)


def stops_short(solution: Solution, reader: Reader) -> bool:
    """Returns whether a text stops in mid-step, as at a limit of tokens: before any answer."""
    text, delimiter = solution.text, reader.template.rule.delimiter
    if not isinstance(text, str) or not text.strip() or text.rstrip(" ").endswith(delimiter):
        return False
    return reader.template.answer_in("".join(_lines(text, delimiter))) is None


def is_recut(solution: Solution, steps: Steps) -> bool:
    """Returns whether a list's steps are others here, under a rule that cuts them elsewhere."""
    return not isinstance(solution.text, str) and len(solution.text) != len(steps)


def joined_steps(solution: Solution, delimiter: str) -> int:
    """Returns how many steps of a list have several lines, which `encode` puts into one."""
    steps = () if isinstance(solution.text, str) else solution.text
    return sum(len([*filter(str.strip, step.split(delimiter))]) > 1 for step in steps)


def judged(problem: Problem, steps: Steps, reader: Reader, verifier: Verifier) -> Judgement | None:
    """Returns what is known of a given solution's answer; None where it gives none."""
    answer = reader.template.answer_in(reader.text(tuple(chain.from_iterable(steps))))
    return None if answer is None else verifier.judge(problem, answer)


def _lines(text: Text, delimiter: str) -> list[str]:
    """Returns the steps with their delimiters."""
    if isinstance(text, str):
        parts = text.split(delimiter)
    else:
        parts = [clean_step(step, delimiter).strip("\n") for step in text]
    return [part + delimiter for part in parts if part.strip()]

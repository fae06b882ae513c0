"""Reads solutions that people already have: from TRL or verl rollouts, ProcessBench files, or text.

A row is a problem's row (`search/rows.py`) with a solution beside it: `steps` or `completions`, a
list of texts, or `completion`, `response` or `output`, one text that the template's delimiter cuts
into steps. Rows of one problem make one tree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from treeward.search.errors import BadInput
from treeward.search.given import Steps
from treeward.search.policy import PolicySettings
from treeward.search.problem import Problem, differences
from treeward.search.reader import Reader
from treeward.search.readers import ProblemSet, Row, nothing_good, parsed, read_file
from treeward.search.rows import as_problem
from treeward.search.steps import clean_step
from treeward.search.verdicts import Judgement, Verifier

LISTS = ("steps", "completions")
TEXTS = ("completion", "response", "output")
FIELDS = (*LISTS, *TEXTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Holds one solution as read."""

    where: str
    """What errors about it begin with."""

    text: str | tuple[str, ...]
    """As given: whole, or step by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionSet:
    """Holds what was read."""

    found: ProblemSet

    solutions: Mapping[str, tuple[Solution, ...]]
    """By problem id, in the order read."""


def read_solutions(path: Path, *, skip_bad: bool = False) -> SolutionSet:
    """Reads and checks solutions from a file (JSON Lines, JSON, Parquet).

    Args:
        path: The file.
        skip_bad: Whether bad rows are left out and counted; otherwise the first is an error.

    Raises:
        BadInput: Nothing good can be read, or a row is bad and `skip_bad` is off.
    """
    problems: dict[str, Problem] = {}
    solutions: dict[str, list[Solution]] = {}
    skipped = []
    for row in read_file(path, also=FIELDS):
        try:
            problem, solution = _read(row, path.name)
            if problems.setdefault(problem.id, problem) != problem:
                differ = ", ".join(differences(problems[problem.id], problem))
                raise BadInput(
                    f"id {problem.id!r} is that of another problem too, which differs in {differ}; "
                    "make them equal, or give it its own"
                )
        except BadInput as e:
            if not skip_bad:
                raise BadInput(f"{row.where}: {e} (--skip-bad leaves such rows out)") from e
            skipped.append(f"{row.where}: {e}")
        else:
            solutions.setdefault(problem.id, []).append(solution)
    kept = list(problems.values())
    if not kept:
        raise nothing_good(path, skipped, "solution")
    return SolutionSet(
        found=ProblemSet(problems=tuple(kept), skipped=tuple(skipped)),
        solutions={problem.id: tuple(solutions[problem.id]) for problem in kept},
    )


def _read(row: Row, source: str) -> tuple[Problem, Solution]:
    value = parsed(row.value)
    problem = as_problem(value, source)
    assert isinstance(value, Mapping), "a problem's row is an object"
    if problem.answer is None:
        raise BadInput("no answer; rollouts cannot be judged without the reference answer")
    name = next((name for name in FIELDS if value.get(name) is not None), None)
    if name is None:
        raise BadInput(f"no solution; give it as {', '.join(FIELDS[:-1])} or {FIELDS[-1]}")
    given = value[name]
    if name in TEXTS and isinstance(given, str) and given.strip():
        return problem, Solution(where=row.where, text=given)
    listed = given if name in LISTS and isinstance(given, list) else []
    if listed and all(isinstance(step, str) and step.strip() for step in listed):
        return problem, Solution(where=row.where, text=tuple(listed))
    wanted = "a list of texts" if name in LISTS else "a text"
    raise BadInput(f"{name} must be {wanted} that is not empty, got {str(given)[:40]!r}")


def encode(
    solution: Solution, reader: Reader, sampling: PolicySettings, *, places: int | None
) -> Steps:
    """Returns the token ids of a solution's steps, as the policy would have written them.

    Args:
        solution: What is read.
        reader: Has the policy's template and tokens.
        sampling: Says how long a solution may be.
        places: Positions of the model's context behind the prompt; None where they are not known.

    Raises:
        BadInput: The policy's tokens cannot spell it, no room is left to go on from its steps, or
            the model cannot read it to its end.
    """
    delimiter = reader.template.rule.delimiter
    lines = _lines(solution.text, delimiter)
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


def judged(problem: Problem, steps: Steps, reader: Reader, verifier: Verifier) -> Judgement | None:
    """Returns what is known of a given solution's answer; None where it gives none."""
    answer = reader.template.answer_in(reader.text(tuple(chain.from_iterable(steps))))
    return None if answer is None else verifier.judge(problem, answer)


def _lines(text: str | Sequence[str], delimiter: str) -> list[str]:
    """Returns the steps with their delimiters."""
    if isinstance(text, str):
        parts = text.split(delimiter)
    else:
        parts = [clean_step(step, delimiter).strip("\n") for step in text]
    return [part + delimiter for part in parts if part.strip()]

"""Wraps the generators of reasoning-gym (the extra `gym`) and their own scorers.

A scorer runs on text that a model wrote, so a generator is let in by name once its source was read
(version 0.1.25) and found to keep these rules: it never evaluates text, whether the model's or that
of a problem read from a file; it needs the entry only, not the settings that made it; a score of 1
means right; the same seed makes the same problems in every process; it prints nothing. Everything
else is refused by name. Partial scores are wrong answers here. Two traps of theirs stand:
`gsm_symbolic` reads the first number of an answer and overlooks a minus sign before it, and most
scorers compare text exactly.
"""

import importlib
import importlib.util
import json
import re
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from enum import Enum
from functools import cache
from types import ModuleType, NoneType
from typing import Literal, Protocol

from treeward.search.errors import BadInput, MissingExtra
from treeward.search.problem import Problem, content_id
from treeward.search.specs import (
    Reader,
    Spec,
    boolean,
    choice,
    integer,
    items,
    nearest,
    number,
    read_values,
    word,
)
from treeward.search.verdicts import Judgement, Reason

Entry = dict[str, object]
"""What reasoning-gym says about one problem: question, answer and metadata."""

PREFIX = "gym:"
MAX_PROBLEMS = 100_000
MAX_ANSWER_CHARS = 4_000
"""Longer answers are not scored; below the 4,300 digits that `int` reads."""

_NAMES = """
ab acre advanced_geometry aiw arc_1d base_conversion basic_arithmetic binary_alternation
caesar_cipher chain_sum circuit_logic color_cube_rotation count_bits count_primes
course_schedule cryptarithm decimal_chain_sum dice emoji_mystery family_relationships
fraction_simplification futoshiki gcd gsm_symbolic kakurasu knights_knaves largest_island lcm
leg_counting letter_counting mahjong_puzzle manipulate_matrix maze mini_sudoku modulo_grid
needle_haystack number_filtering number_sequence palindrome_generation path_star
power_function products rectangle_count rotate_matrix rotten_oranges self_reference
sentence_reordering shortest_path simple_equations simple_geometry string_manipulation
string_splitting string_synthesis sudoku survo syllogism tsumego word_sequence_reversal
zebra_puzzles
"""
REVIEWED = frozenset(_NAMES.split())
"""The generators whose scorers may judge."""

_REFUSED = {
    "evaluates text as code": "binary_matrix bitwise_arithmetic codeio countdown "
    "intermediate_integration n_queens number_sorting polynomial_multiplication puzzle24 "
    "simple_integration spiral_matrix string_insertion",
    "takes wrong answers for right ones": "calendar_arithmetic coin_flip figlet_font game_of_life "
    "game_of_life_halting letter_jumble number_format polynomial_equations word_sorting",
    "makes other problems from the same seed in another process or on another day": "knight_swap "
    "isomorphic_strings list_functions ransom_note time_intervals word_ladder",
    "needs the settings that made the problem": "composite decimal_arithmetic",
}
_WHY_REFUSED = {name: why for why, names in _REFUSED.items() for name in names.split()}

_SEEDS_APART = 2**20
"""Their problem i at seed s is problem i - 1 at seed s + 1, so our seeds are set apart."""

_SCALARS: dict[object, Reader] = {
    int: integer(),
    float: number,
    bool: boolean,
    str: word,
    tuple: items(word),
}
_HUGE_EXPONENT = re.compile(r"[eE][-+]?[0-9]{18}")
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What their generators and scorers raise for settings and answers that they cannot take."""


class _Dataset(Protocol):
    """Is one of reasoning-gym's generators, set up."""

    def __getitem__(self, index: int) -> Entry: ...

    def score_answer(self, answer: str | None, entry: Entry) -> float: ...


def make_problems(spec: Spec) -> list[Problem]:
    """Makes distinct problems; the same spec makes the same ones.

    Keys are `n` (100), `seed` (0), and every setting of the generator but `size`. Seed s here is
    seed s * 2**20 there, where neighbouring seeds share all problems but one.

    Raises:
        BadInput: The generator is not let in, a key is unknown, a value breaks its rule, or there
            are not enough distinct problems.
        MissingExtra: reasoning-gym is not installed.
    """
    check_name(spec.name)
    config = _factory(spec.name).DATASETS[spec.name][1]
    values = read_values(spec, _readers(config))
    n = typing.cast(int, values.pop("n", 100))
    seed = typing.cast(int, values.pop("seed", 0)) * _SEEDS_APART
    size = 10 * n + 100
    problems: dict[str, Problem] = {}
    try:
        for entry in _entries(spec.name, size, {**values, "seed": seed, "size": size}):
            problem = _as_problem(spec.name, entry)
            problems.setdefault(problem.id, problem)
            if len(problems) == n:
                return list(problems.values())
    except _FAILURES as e:
        rule = " ".join(str(e).split()) or type(e).__name__
        raise BadInput(f"{spec.source}: its generator says: {rule}; change that setting") from e
    raise BadInput(
        f"{spec.source}: only {len(problems)} of {n} problems are distinct; ask for fewer or widen "
        "its settings"
    )


def gym_scorer(problem: Problem, answer: str | None) -> Judgement:
    """Returns what a generator's own scorer says about an answer; safe to call from any thread.

    Answers that are too long or have an exponent of 18 digits are not scored, nor are those that
    the scorer fails on: their verdict is unknown.

    Raises:
        BadInput: The problem was not made by a generator that is let in.
        MissingExtra: reasoning-gym is not installed.
    """
    name = problem.verifier.removeprefix(PREFIX)
    entry = read_entry(problem.verifier, problem.metadata)
    if answer is None:
        return Judgement(Reason.NO_ANSWER)
    if len(answer) > MAX_ANSWER_CHARS or _HUGE_EXPONENT.search(answer):
        return Judgement(Reason.CHECKER_LIMIT, answer)
    try:
        score = _dataset(name).score_answer(answer, entry)
    except _FAILURES:
        return Judgement(Reason.CHECKER_LIMIT, answer)
    return Judgement(Reason.MATCH if score >= 1 else Reason.MISMATCH, answer)


def check_name(name: str) -> None:
    """Checks that a generator is let in and that reasoning-gym is installed.

    Raises:
        BadInput: It is not let in; the message says why.
        MissingExtra: reasoning-gym is not installed.
    """
    if name not in REVIEWED:
        if name in _WHY_REFUSED:
            raise BadInput(
                f"{PREFIX}{name} is refused: it {_WHY_REFUSED[name]}; choose another, such as "
                f"{PREFIX}chain_sum"
            )
        raise BadInput(
            f"{PREFIX}{name} is refused: no generator of that name has been reviewed; "
            f"{nearest(name, sorted(REVIEWED))}"
        )
    if importlib.util.find_spec("reasoning_gym") is None:
        raise MissingExtra(f"{PREFIX}{name}", "gym")


def read_entry(verifier: str, metadata: str) -> Entry:
    """Returns the entry that a problem's metadata holds, a new one each time.

    Raises:
        BadInput: The verifier's generator is not let in, or the metadata hold no entry.
        MissingExtra: reasoning-gym is not installed.
    """
    check_name(verifier.removeprefix(PREFIX))
    entry = json.loads(metadata)
    kinds = {"question": str, "answer": str, "metadata": dict}
    if not isinstance(entry, dict) or any(
        not isinstance(entry.get(key), kind) for key, kind in kinds.items()
    ):
        raise BadInput(
            f"verifier {verifier!r} needs metadata with the question, answer and metadata of the "
            "generator's entry; use another verifier"
        )
    return entry


def _entries(name: str, size: int, settings: dict[str, object]) -> Iterator[Entry]:
    dataset: _Dataset = _factory(name).create_dataset(name, **settings)
    return (dataset[index] for index in range(size))


def _as_problem(name: str, entry: Entry) -> Problem:
    """Writes an entry down as a problem; the whole entry goes into its metadata."""
    prompt, answer = str(entry["question"]), str(entry["answer"])
    problem = Problem(
        id=content_id(prompt, answer),
        prompt=prompt,
        answer=answer,
        verifier=PREFIX + name,
        source=PREFIX + name,
        metadata=json.dumps(
            entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str
        ),
    )
    return _as_chain(problem, entry) if name == "chain_sum" else problem


def _as_chain(problem: Problem, entry: Entry) -> Problem:
    """Puts a sum as `4 + 3 - 5 = ?` and adds its solution, one operation a step."""
    metadata = entry["metadata"]
    assert isinstance(metadata, dict)
    expression = str(metadata["expression"])
    terms = expression.split()
    value = int(terms[0])
    steps = []
    for operator, term in zip(terms[1::2], terms[2::2], strict=True):
        result = value + int(term) if operator == "+" else value - int(term)
        steps.append(f"{value} {operator} {term} = {result}")
        value = result
    assert str(value) == problem.answer, f"{expression} is {value}, not {problem.answer}"
    prompt = f"{expression} = ?"
    return replace(
        problem,
        id=content_id(prompt, problem.answer),
        prompt=prompt,
        solution=tuple(steps) or None,
    )


def _readers(config: type) -> dict[str, Reader]:
    """Returns how to read the settings of a generator, by the types of its fields."""
    types = typing.get_type_hints(config)
    readers = {field.name: _reader_of(types[field.name]) for field in fields(config)}
    del readers["size"]
    return {"n": integer(1, MAX_PROBLEMS), **readers, "seed": integer(0, 2**31)}


def _reader_of(kind: object) -> Reader:
    """Returns the reader for a field of one type; lists are set off by commas."""
    arguments = [part for part in typing.get_args(kind) if part is not NoneType]
    origin = typing.get_origin(kind)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        members = {str(member.value): member for member in kind}
        pick = choice(*members)
        return lambda text: members[str(pick(text))]
    if origin is Literal:
        return choice(*arguments)
    if origin in (list, tuple, Sequence):
        return items(_reader_of(arguments[0]))
    return _reader_of(arguments[0])


@cache
def _dataset(name: str) -> _Dataset:
    """Returns a generator in its default settings, to score with."""
    dataset: _Dataset = _factory(name).create_dataset(name, seed=0)
    return dataset


def _factory(name: str) -> ModuleType:
    """Returns reasoning-gym's registry with every generator in it."""
    check_name(name)
    importlib.import_module("reasoning_gym")
    return importlib.import_module("reasoning_gym.factory")

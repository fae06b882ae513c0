"""`task:arithmetic`: chains of operations solved one a step, with an oracle for every step.

A chain starts at a number and applies its operations in order, each to the last result, so that a
step needs only that result and the next operation. Since every step can be checked exactly, labels
made from rollouts can be measured against the truth instead of being believed.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from treeward.search.errors import BadInput
from treeward.search.problem import Problem, content_id

SOURCE = "task:arithmetic"
OPERATORS = "+-*/"
TEMPLATES = ("symbols", "words")

_WORDS = {"+": "add {}", "-": "subtract {}", "*": "multiply by {}", "/": "divide by {}"}
_MAX_FACTOR = 9
_MAX_TRIES = 10_000
_CALCULATION = re.compile(
    r"(?:Step \d{1,3}: ?)?(-?\d{1,12}) ?([-+*/]) ?(-?\d{1,12}) ?= ?(-?\d{1,12})", re.ASCII
)
_ANSWER = re.compile(r"(?:Answer:|A) ?(-?\d{1,12})", re.ASCII)


class Operation(NamedTuple):
    """Holds one link of a chain."""

    operator: str
    operand: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Holds a start and the operations that follow it."""

    start: int
    operations: tuple[Operation, ...]
    mod: int | None = None
    """Every result is taken modulo this; None for plain integers."""

    def results(self) -> list[int]:
        """Returns the result of every operation, in order."""
        results = []
        value = self.start
        for operation in self.operations:
            value = apply(value, operation, self.mod)
            results.append(value)
        return results


class Truth(NamedTuple):
    """Says of one step what is really so."""

    step: bool
    """The step taken by itself: the right operation on the last stated result, done right."""

    prefix: bool
    """The step and all before it."""


def apply(value: int, operation: Operation, mod: int | None) -> int:
    """Returns the result of one operation; division is exact by construction of a chain."""
    operator, operand = operation
    if operator == "+":
        value += operand
    elif operator == "-":
        value -= operand
    elif operator == "*":
        value *= operand
    else:
        value //= operand
    return value if mod is None else value % mod


def make_problems(
    *,
    n: int,
    seed: int,
    steps: tuple[int, int] = (4, 6),
    numbers: tuple[int, int] = (0, 999),
    operators: str = "+-*",
    mod: int | None = None,
    template: str = "symbols",
) -> list[Problem]:
    """Makes distinct problems; problem i depends on the settings and on i alone, not on n.

    Args:
        n: How many.
        seed: Which ones; at least 0.
        steps: Fewest and most operations of a chain.
        numbers: Least and greatest value of starts, and of all results where there is no `mod`.
        operators: Any of `+-*/`.
        mod: Results are taken modulo this, so that a wrong path can end right by luck.
        template: `symbols` or `words`.

    Raises:
        BadInput: A setting breaks its rule, or there are not enough distinct problems.
    """
    _check(
        n=n,
        seed=seed,
        steps=steps,
        numbers=numbers,
        operators=operators,
        mod=mod,
        template=template,
    )
    problems: list[Problem] = []
    seen: set[str] = set()
    for index in range(n):
        rng = np.random.default_rng([seed, index])
        for _ in range(_MAX_TRIES):
            chain = _draw_chain(rng, steps=steps, numbers=numbers, operators=operators, mod=mod)
            problem = _as_problem(chain, template) if chain is not None else None
            if problem is not None and problem.id not in seen:
                seen.add(problem.id)
                problems.append(problem)
                break
        else:
            raise BadInput(
                f"{SOURCE}: no {n} distinct problems with steps={steps[0]}..{steps[1]} and "
                f"numbers={numbers[0]}..{numbers[1]}; ask for fewer or widen numbers"
            )
    return problems


def _check(
    *,
    n: int,
    seed: int,
    steps: tuple[int, int],
    numbers: tuple[int, int],
    operators: str,
    mod: int | None,
    template: str,
) -> None:
    rules = (
        ("n", n >= 1, n, "at least 1"),
        ("seed", seed >= 0, seed, "at least 0"),
        ("steps", 1 <= steps[0] <= steps[1] <= 64, steps, "1 <= a <= b <= 64 in a..b"),
        ("numbers", numbers[0] < numbers[1] <= 10**6, numbers, "a < b <= 1000000 in a..b"),
        ("numbers", numbers[0] >= -(10**6), numbers, "a >= -1000000 in a..b"),
        (
            "operators",
            bool(operators) and set(operators) <= set(OPERATORS),
            operators,
            f"some of {OPERATORS}",
        ),
        ("mod", mod is None or 2 <= mod <= 10**6, mod, "from 2 to 1000000"),
        ("template", template in TEMPLATES, template, f"one of {', '.join(TEMPLATES)}"),
    )
    for name, holds, value, rule in rules:
        if not holds:
            raise BadInput(f"{SOURCE}: {name} must be {rule}, got {value!r}")


def _draw_chain(
    rng: np.random.Generator,
    *,
    steps: tuple[int, int],
    numbers: tuple[int, int],
    operators: str,
    mod: int | None,
) -> Chain | None:
    """Draws a chain whose results all lie in range, or None where it runs into a dead end."""
    low, high = numbers
    # Half of the starts are small, so that there is room to multiply.
    top = high if rng.random() < 0.5 else low + (high - low) // 8
    start = value = int(rng.integers(low, top + 1))
    operations: list[Operation] = []
    for _ in range(int(rng.integers(steps[0], steps[1] + 1))):
        choices = [
            (operator, operands)
            for operator in operators
            if (operands := _operands(rng, operator, value, numbers, mod))
        ]
        if not choices:
            return None
        operator, operands = choices[int(rng.integers(len(choices)))]
        operations.append(Operation(operator, operands[int(rng.integers(len(operands)))]))
        value = apply(value, operations[-1], mod)
    return Chain(start=start, operations=tuple(operations), mod=mod)


def _operands(
    rng: np.random.Generator, operator: str, value: int, numbers: tuple[int, int], mod: int | None
) -> Sequence[int]:
    """Returns the operands that keep the result in range; those of + and - are often small."""
    low, high = numbers
    if operator in "+-":
        room = high if mod else (high - value if operator == "+" else value - low)
        return range(1, min(room, 9 if rng.random() < 0.5 else 99) + 1)
    factors = range(2, _MAX_FACTOR + 1)
    if operator == "/":
        return [factor for factor in factors if value and value % factor == 0]
    return [factor for factor in factors if value and (mod or low <= value * factor <= high)]


def _as_problem(chain: Chain, template: str) -> Problem:
    """Writes a chain down as a problem with its solution."""
    value = chain.start
    solution = []
    for operation, result in zip(chain.operations, chain.results(), strict=True):
        solution.append(f"{value}{operation.operator}{operation.operand}={result}")
        value = result
    prompt = _in_words(chain) if template == "words" else _in_symbols(chain)
    data = {
        "task": "arithmetic",
        "start": chain.start,
        "operations": [list(operation) for operation in chain.operations],
        "mod": chain.mod,
    }
    return Problem(
        id=content_id(prompt, str(value)),
        prompt=prompt,
        answer=str(value),
        verifier="number",
        source=SOURCE,
        solution=tuple(solution),
        metadata=json.dumps(data, sort_keys=True, separators=(",", ":")),
    )


def _in_symbols(chain: Chain) -> str:
    links = " ".join(f"{operator}{operand}" for operator, operand in chain.operations)
    return f"{chain.start} {links}" + (f" mod {chain.mod}" if chain.mod else "")


def _in_words(chain: Chain) -> str:
    links = ", then ".join(
        _WORDS[operator].format(operand) for operator, operand in chain.operations
    )
    rule = f" After every step keep the remainder modulo {chain.mod}." if chain.mod else ""
    return f"Start with {chain.start}, then {links}.{rule} What is the result?"


def chain_of(problem: Problem) -> Chain | None:
    """Returns the chain of a problem made here, or None for any other, whatever it says it is."""
    data = json.loads(problem.metadata)
    if problem.source != SOURCE or not isinstance(data, dict) or data.get("task") != "arithmetic":
        return None
    start, operations, mod = (data.get(name) for name in ("start", "operations", "mod"))
    if type(start) is not int or not (mod is None or (type(mod) is int and mod >= 2)):
        return None
    if not isinstance(operations, list) or not all(map(_is_operation, operations)):
        return None
    return Chain(start=start, operations=tuple(Operation(*each) for each in operations), mod=mod)


def _is_operation(data: object) -> bool:
    """Returns whether parsed JSON is an operation that can be applied."""
    match data:
        case ["+" | "-" | "*", int()]:
            return True
        case ["/", int(operand)]:
            return operand != 0
    return False


def judge_steps(problem: Problem, steps: Sequence[str]) -> list[Truth] | None:
    """Returns what is really so of each step, or None for a problem that this task did not make.

    A step is right by itself if it applies the operation that is due to the last stated result and
    gets it right, or, after the last operation, gives the last stated result as the answer. A right
    calculation from a wrong earlier result is thus a right step in a wrong prefix.
    """
    chain = chain_of(problem)
    if chain is None:
        return None
    truths: list[Truth] = []
    stated: int | None = chain.start
    prefix = True
    for place, text in enumerate(steps):
        right, stated = _judge_step(chain, place, stated, text.strip())
        prefix = prefix and right
        truths.append(Truth(right, prefix))
    return truths


def _judge_step(chain: Chain, place: int, stated: int | None, text: str) -> tuple[bool, int | None]:
    """Returns whether a step is right by itself, and the result that it states."""
    if place < len(chain.operations):
        match = _CALCULATION.fullmatch(text)
        if match is None or stated is None:
            return False, None if match is None else int(match[4])
        due = chain.operations[place]
        done = Operation(match[2], int(match[3]))
        right = (
            int(match[1]) == stated
            and done == due
            and (due.operator != "/" or stated % due.operand == 0)
            and int(match[4]) == apply(stated, due, chain.mod)
        )
        return right, int(match[4])
    answer = _ANSWER.fullmatch(text)
    right = answer is not None and place == len(chain.operations) and int(answer[1]) == stated
    return right, None

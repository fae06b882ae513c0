"""Reads what a row says, by the names that tools give its columns: TRL, verl, ProcessBench, ours.

`NAMES` is all there is to know of a name. Several columns may say the same thing; where they differ
the row is refused, for nobody can tell which one is meant.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from treeward.critics.votes import answer_key
from treeward.search.errors import BadInput
from treeward.search.readers import Row
from treeward.search.rows import FIELDS, PROMPTS, answer_text
from treeward.search.templates import TEMPLATES

STEPS = ("steps", "completions")
"""Columns with the steps of one solution."""

NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "prompt": (*PROMPTS, "input", "instruction"),
        "answer": ("answer", "ground_truth", "gts", "reward_model.ground_truth"),
        "solution given": (*STEPS, "completion", "response", "output", "responses"),
        "right": ("final_answer_correct",),
    }
)
"""By what a column says, its names."""

COLUMNS = tuple(name.partition(".")[0] for names in NAMES.values() for name in names)

BLOCKS = "question: ..., answer: ... and solution: at the beginnings of lines, below it the steps"

_BLOCK = re.compile(
    r"\s*question:(?P<prompt>.*?)\nanswer:(?P<answer>[^\n]*)\nsolution:(?P<completion>.*)",
    re.DOTALL,
)
_RULE = re.compile(r"^---[ \t]*(?:\n|\Z)", re.MULTILINE)
_TURN = re.compile(r"(?:^|\n)(system|user|assistant)(?:\n|$)")
_PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,} [A-Za-z]{2,}")

Text = str | tuple[str, ...]
"""A solution as given: whole, or step by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Holds what a row says."""

    fields: Mapping[str, object]
    """The row of its problem, as `as_problem` reads it; perhaps without an answer."""

    solutions: tuple[Text, ...]
    """At least one."""

    right: bool | None
    """Whether the row says that the solution's answer is right; None where it does not say."""


def read_layout(row: Mapping[str, object]) -> Layout:
    """Returns what a row says.

    Raises:
        BadInput: There is no solution, a column breaks its rule, or columns contradict each other.
    """
    solutions = _one(row, "solution given", _same(_solutions))
    if solutions is None:
        *names, last = NAMES["solution given"]
        raise BadInput(f"no solution; give it as {', '.join(names)} or {last}")
    right = _one(row, "right", lambda *_: True)
    if right is not None and not isinstance(right[1], bool):
        raise BadInput(f"{right[0]} must be true or false, got {str(right[1])[:40]!r}")
    fields = {name: row[name] for name in FIELDS if row.get(name) is not None}
    asked, answer = _one(row, "prompt", _within), _one(row, "answer", _same(_answer_key))
    if asked is not None:
        fields = {name: value for name, value in fields.items() if name not in PROMPTS}
        name, value = asked
        fields[name if name in PROMPTS else "prompt"] = _asked(value) if name == "input" else value
    if answer is not None:
        fields["answer"] = answer[1]
    elif (reference := _reference(row.get("solution"))) is not None:
        fields["answer"] = reference
        if "\n" not in str(row["solution"]).strip():
            del fields["solution"]  # an answer alone is no expert's solution
    if right is not None:
        fields.pop("id", None)  # ProcessBench numbers solutions; one problem has several
    texts = _solutions(*solutions)
    if right is not None and len(texts) > 1:
        raise BadInput(f"{right[0]} is said of one solution, and {solutions[0]} has {len(texts)}")
    return Layout(
        fields=fields,
        solutions=texts,
        right=None if right is None else right[1] is True,
    )


def text_rows(path: Path) -> Iterator[Row]:
    """Yields the blocks of a plain text; lines of `---` part them.

    Raises:
        BadInput: It is no UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise BadInput(f"{path}: invalid UTF-8 at byte {e.start}; save it as UTF-8") from e
    bounds = [0, *(rule.end() for rule in _RULE.finditer(text)), len(text)]
    for start, end in pairwise(bounds):
        block = _RULE.sub("", text[start:end])
        if block.strip():
            line = 1 + text.count("\n", 0, start)
            yield Row(f"{path}:{line}", block)


def block_fields(block: object) -> Mapping[str, object]:
    """Returns the columns of a block of plain text; raises BadInput where it is no such block."""
    found = _BLOCK.fullmatch(str(block))
    if found is None:
        raise BadInput(f"a text must have {BLOCKS}; a line of --- parts it from the next")
    fields = {name: text.strip() for name, text in found.groupdict().items()}
    if "\nquestion:" in fields["completion"]:
        raise BadInput("another question: begins within its solution; a line of --- parts them")
    return {**fields, "completion": fields["completion"] + "\n\n"}  # its last step is finished


Named = tuple[str, object]
"""A column's name and what it holds."""


def _one(
    row: Mapping[str, object], what: str, agree: Callable[[Named, Named], bool]
) -> Named | None:
    """Returns the first column that says something; None where none does.

    Raises:
        BadInput: Another one says something else.
    """
    held = [(name, _value(row, name)) for name in NAMES[what]]
    there = [(name, value) for name, value in held if value is not None]
    said = [(name, value) for name, value in there if value not in ("", [])] or there
    for other in said[1:]:
        if not agree(said[0], other):
            raise BadInput(
                f"{said[0][0]} and {other[0]} say different things, {_short(said[0][1])} and "
                f"{_short(other[1])}; leave out the one that is not meant"
            )
    return said[0] if said else None


def _value(row: Mapping[str, object], name: str) -> object:
    """Returns what a column holds; `a.b` is the field b of column a."""
    column, _, field = name.partition(".")
    value = row.get(column)
    if not field:
        return value
    return value.get(field) if isinstance(value, Mapping) else None


def _short(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _same(key: Callable[[str, object], object]) -> Callable[[Named, Named], bool]:
    """Returns what tells whether two columns have the same key."""

    def agree(one: Named, other: Named) -> bool:
        return _squashed(key(*one)) == _squashed(key(*other))

    return agree


def _squashed(value: object) -> object:
    """Returns what solutions share that differ in white space and where steps end."""
    if isinstance(value, tuple) and all(isinstance(each, str | tuple) for each in value):
        return ["".join("".join(each).split()) for each in value]
    return value


def _answer_key(name: str, value: object) -> object:
    text = answer_text(value, name)
    return text and answer_key("math", text)


def _within(one: Named, other: Named) -> bool:
    """Returns whether one of two questions is the other with something around it."""
    texts = ["".join(_text(value).split()) for _, value in (one, other)]
    return texts[0] in texts[1] or texts[1] in texts[0]


def _text(value: object) -> str:
    """Returns what a prompt says, all turns of a chat."""
    turns = value if isinstance(value, list) else [value]
    return "\n".join(
        str(turn.get("content") if isinstance(turn, Mapping) else turn) for turn in turns
    )


def _asked(value: object) -> object:
    """Returns the chat that verl's `input` was before the marks of its turns were left out.

    It is the prompt as the model read it, decoded without special tokens; where a chat template
    wrote it, ChatML's lines with the roles are left, and those of other templates cannot be told
    from the text.

    Raises:
        BadInput: It is a chat that cannot be read.
    """
    if not isinstance(value, str):
        return value
    first, *turns = _TURN.split(value)
    roles, contents = turns[::2], turns[1::2]
    chat = bool(roles) and not first.strip()
    if not chat and not value.rstrip().endswith("assistant"):
        return value
    if not chat or roles[-1] != "assistant" or contents[-1].strip():
        raise BadInput(
            f"input: {_short(value[-37:])} ends a chat whose question cannot be told from it; give "
            "the question as prompt"
        )
    return [
        {"role": role, "content": content}
        for role, content in zip(roles[:-1], contents[:-1], strict=True)
    ]


def _reference(solution: object) -> str | None:
    r"""Returns the answer that TRL's `solution` is, or has in a box; None where it is prose."""
    if not isinstance(solution, str):
        return None
    boxed = boxed_in(solution)
    line = solution.strip()
    plain = line and "\n" not in line and not _PROSE.search(line)
    return boxed or (line if plain else None)


def boxed_in(text: str) -> str | None:
    r"""Returns what stands in the last \boxed{} of a text; None without any."""
    return TEMPLATES["chat"].answer_in(text)


def _solutions(name: str, value: object) -> tuple[Text, ...]:
    """Returns the solutions that a column has.

    Raises:
        BadInput: It breaks its rule.
    """
    if name in STEPS:
        if not isinstance(value, list) or not value or not all(map(_is_text, value)):
            raise _must(name, "a list of texts", value)
        return (tuple(step.replace("\r\n", "\n") for step in value),)
    if name == "responses" and isinstance(value, list) and any(value):
        # One that says nothing is left out, or refused, by itself.
        blank = [isinstance(each, str) and not each.strip() for each in value]
        return tuple(
            "" if empty else _said(name, each) for empty, each in zip(blank, value, strict=True)
        )
    return (_said(name, value),)


def _said(name: str, value: object) -> str:
    """Returns a solution's text: as it is, or that of the one message of an assistant."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0].get("content") if value[0].get("role") == "assistant" else value
    if isinstance(value, str) and value.strip():
        return value.replace("\r\n", "\n")
    raise _must(name, "a text, or one message of the assistant,", value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _must(name: str, rule: str, value: object) -> BadInput:
    return BadInput(f"{name} must be {rule} that is not empty, got {str(value)[:40]!r}")

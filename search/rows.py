"""Turns one row of a file into a checked problem.

A row's fields are `prompt` (or `question`, or `problem`: the first that is there), `answer`, `id`,
`source`, `solution`, `verifier` and `metadata`; others are not read. Without a verifier, an answer
that is a plain integer or decimal is checked as `number`, which needs no extra, any other as
`math`. Metadata given as the JSON text of an object are that object.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn

from treeward.search import gym
from treeward.search.errors import BadInput
from treeward.search.problem import Message, Problem, asked_in, content_id
from treeward.search.specs import nearest

PROMPTS = ("prompt", "question", "problem")
FIELDS = frozenset((*PROMPTS, "answer", "id", "source", "solution", "verifier", "metadata"))
VERIFIERS = ("math", "number", "text", "choice")
ROLES = ("system", "user", "assistant")

_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class NotJsonError(ValueError):
    """Says why a text is no JSON, and in which of its lines."""

    def __init__(self, reason: str, line: int = 1) -> None:
        """Keeps the line apart, counted from 1."""
        super().__init__(reason)
        self.line = line


def parse_json(data: bytes) -> object:
    """Returns what a JSON text holds.

    Raises:
        NotJsonError: It is no UTF-8, no JSON, or nested too deep to read.
    """
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise NotJsonError(f"invalid UTF-8 at byte {e.start}; save it as UTF-8", line) from e
    except json.JSONDecodeError as e:
        reason = f"invalid JSON at column {e.colno}: {e.msg}; correct it"
        raise NotJsonError(reason, e.lineno) from e
    except (ValueError, RecursionError) as e:
        raise NotJsonError(f"invalid JSON: {e}; correct it") from e


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON value")


def as_problem(row: object, source: str) -> Problem:
    """Returns the problem that a row states.

    Args:
        row: The parsed row.
        source: Where it comes from, if it does not say so itself.

    Raises:
        BadInput: A field breaks its rule; the message names field, rule and way out, not the place.
        MissingExtra: Its verifier needs an extra that is not installed.
    """
    if not isinstance(row, Mapping):
        raise BadInput(f"must be an object with the fields of a problem, got {_kind(row)}")
    given = {key: value for key, value in row.items() if value is not None}
    prompt, messages = _prompt(given)
    answer = answer_text(given.get("answer"))
    metadata = _metadata(given.get("metadata", {}))
    return Problem(
        id=_id(given["id"]) if "id" in given else content_id(asked_in(prompt, messages), answer),
        prompt=prompt,
        messages=messages,
        answer=answer,
        verifier=_verifier(given.get("verifier"), answer, metadata),
        source=_text("source", given.get("source", source)),
        solution=_solution(given.get("solution")),
        metadata=metadata,
    )


def _prompt(given: Mapping[str, object]) -> tuple[str, tuple[Message, ...] | None]:
    """Returns the prompt as text, and the chat if it is one."""
    name = next((name for name in PROMPTS if name in given), None)
    if name is None:
        raise BadInput(f"no prompt; give it as {', '.join(PROMPTS[:-1])} or {PROMPTS[-1]}")
    value = given[name]
    if not isinstance(value, list):
        return _text(name, value), None
    messages = tuple(_message(name, turn) for turn in value)
    if not messages or messages[-1].role != "user":
        raise BadInput(f"{name}: a chat must end with a user message; add it or drop what follows")
    return messages[-1].content, messages


def _message(name: str, turn: object) -> Message:
    if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
        raise BadInput(
            f"{name}: each chat message must be an object with content and a role of "
            f"{', '.join(ROLES)}, got {str(turn)[:40]!r}"
        )
    return Message(turn["role"], _text(f"{name}: content", turn.get("content")))


def answer_text(value: object, name: str = "answer") -> str | None:
    """Returns a reference answer as text; numbers are written out without an exponent."""
    if value is None:
        return None
    if isinstance(value, float) and math.isfinite(value):
        return format(Decimal(repr(value)), "f").removesuffix(".0")
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _text(name, value, "text or a finite number; leave it out if there is none")
    last = text.rstrip().rpartition("\n")[2]
    if not last.startswith("####"):
        return text
    # GSM8K writes the whole solution, and the answer in its last line behind this mark.
    return _text(f"what {name} has behind ####", last.removeprefix("####").strip())


def _id(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _text("id", value, "text or a whole number; without one a hash is made")
    if _CONTROL.search(text):
        raise BadInput(f"id must not have control characters, got {text[:40]!r}; remove them")
    return text


def _verifier(value: object, answer: str | None, metadata: str) -> str:
    """Returns the verifier asked for, or the one that suits the answer."""
    if value is None:
        return "number" if answer is not None and _PLAIN_NUMBER.fullmatch(answer) else "math"
    name = _text("verifier", value)
    if name.startswith(gym.PREFIX):
        entry = gym.read_entry(name, metadata)
        if answer is not None and answer != entry["answer"]:
            raise BadInput(
                f"answer {answer!r:.60} is not that of the generator's entry in metadata, "
                f"{entry['answer']!r:.60}, by which verifier {name!r} judges; give one of them"
            )
    elif name not in VERIFIERS:
        raise BadInput(f"verifier: no verifier {name!r}; {nearest(name, (*VERIFIERS, 'gym:NAME'))}")
    return name


def _solution(value: object) -> tuple[str, ...] | None:
    """Returns an expert's steps; those of a text are its lines that are not blank."""
    if value is None or value in ("", []):
        return None
    if isinstance(value, list):
        return tuple(_text("solution: each step", step) for step in value)
    lines = _text("solution", value, "text or a list of steps").split("\n")
    return tuple(line.strip() for line in lines if line.strip())


def _metadata(value: object) -> str:
    """Returns metadata as JSON text: keys sorted, no spaces."""
    try:
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = parse_json(value.encode())
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        )
        text.encode()
    except (TypeError, ValueError, RecursionError) as e:
        raise BadInput(f"metadata must be JSON: {e}; write it as text") from e
    return text


def _text(name: str, value: object, rule: str = "text") -> str:
    """Returns a field's value if it is text that can be stored and is not blank."""
    if not isinstance(value, str):
        raise BadInput(f"{name} must be {rule}, got {_kind(value)}")
    if not value.strip():
        raise BadInput(f"{name} is empty; fill it in or leave the field out")
    if _UNSTORABLE.search(value):
        raise BadInput(f"{name} must not have NUL or half a surrogate pair; remove them")
    return value


def _kind(value: object) -> str:
    """Returns what a value is, in JSON's words where it has one."""
    words = {type(None): "null", bool: "true or false", dict: "an object", list: "a list"}
    return words.get(type(value), f"{str(value)[:40]!r}")

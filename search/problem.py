"""A problem: a prompt, its reference answer and how to check answers to it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple


class Message(NamedTuple):
    """Holds one turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Holds one problem as read; everything downstream reads this and nothing else."""

    id: str
    """Unique within a run; a hash of the prompt and answer where the source gives none."""

    prompt: str
    """The question as text; for a chat, the content of its last user message."""

    messages: tuple[Message, ...] | None = None
    """The chat as given; None where the prompt was plain text."""

    answer: str | None = None
    """The reference answer as text; None where there is none, and then verdicts are unknown."""

    verifier: str = "math"
    """How answers are checked: math, number, text, choice, or a task's own (gym:NAME)."""

    source: str = ""
    """Where the problem comes from: a file's name or a generator's."""

    solution: tuple[str, ...] | None = None
    """An expert's steps, without delimiters; None where there are none."""

    metadata: str = "{}"
    """What else the source says, as JSON text."""

    @property
    def asked(self) -> str:
        """Returns all that is asked as one text; a chat of one question is that question."""
        return asked_in(self.prompt, self.messages)


def asked_in(prompt: str, messages: Sequence[Message] | None) -> str:
    """Returns what stands for a prompt as a whole: its text, or that of a chat with a history."""
    return json.dumps(messages) if messages and len(messages) > 1 else prompt


def differences(one: Problem, other: Problem) -> list[str]:
    """Returns the names of the fields in which two problems differ."""
    names = (field.name for field in fields(Problem))
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def content_id(prompt: str, answer: str | None) -> str:
    """Returns the id of a problem that has none: 16 hex digits of its prompt and answer."""
    text = prompt if answer is None else f"{prompt}\x00{answer}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()

"""Prompt templates as data: how a problem is put, how a solution is written, where it ends.

A template is used in three places that must agree: rendering a prompt, writing down an expert's
solution for training, and reading the answer out of a sampled one.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from treeward.search.errors import BadInput
from treeward.search.problem import Message, Problem
from treeward.search.specs import nearest
from treeward.search.step_ends import StepEnd
from treeward.search.steps import StepRule, without_thoughts
from treeward.search.tokens import Tokens

BOXED = "\\boxed{"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Holds one worked example of a few-shot prompt."""

    question: str
    steps: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Says how problems are put to a policy and how its solutions are read."""

    name: str

    chat: bool = False
    """Whether the model's own chat template wraps the prompt."""

    system: str = ""
    """Goes before everything else; the system message of a chat."""

    examples: tuple[Example, ...] = ()
    """Worked examples: earlier turns of a chat, or text before the question."""

    question: str = "{prompt}\n"
    """How a question is put; `{prompt}` stands for it."""

    step: str = "{step}"
    """How an expert's step is written; `{k}` counts from 1, `{step}` stands for its text."""

    answer: str = "Answer: {answer}"
    """How an expert's answer is written, as a step of its own."""

    gap: str = "\n"
    """Goes after each worked example."""

    rule: StepRule = field(default_factory=StepRule)
    """Where steps and solutions end."""

    max_step_tokens: int = 128
    """What `policy.max_step_tokens` is unless set."""

    max_rollout_tokens: int = 512
    """What `policy.max_rollout_tokens` is unless set."""

    def __post_init__(self) -> None:
        """Checks that what is written can be read again.

        Raises:
            BadInput: A field breaks its rule.
        """
        mark = self.rule.answer_mark
        rules = (
            ("question", "{prompt}" in self.question, "contain {prompt}"),
            ("step", "{step}" in self.step, "contain {step}"),
            ("step", mark not in self.step, f"not contain the answer's mark {mark!r}"),
            ("answer", "{answer}" in self.answer, "contain {answer}"),
            ("answer", mark in self.answer, f"contain the answer's mark {mark!r}"),
            ("max_step_tokens", self.max_step_tokens >= 1, "be at least 1"),
            ("max_rollout_tokens", self.max_rollout_tokens >= 1, "be at least 1"),
        )
        for name, holds, demand in rules:
            if not holds:
                raise BadInput(f"template {self.name!r}: {name} must {demand}")

    def solution_steps(self, steps: Sequence[str], answer: str) -> list[str]:
        """Returns an expert's solution as the policy would write it, delimiters included.

        Delimiters within a step or the answer become spaces, so that one step stays one step.
        """
        lines = [
            self.step.replace("{k}", str(k)).replace("{step}", self._in_one(step))
            for k, step in enumerate(steps, start=1)
        ]
        lines.append(self.answer.replace("{answer}", self._in_one(answer)))
        return [line + self.rule.delimiter for line in lines]

    def _in_one(self, text: str) -> str:
        return " ".join(text.split(self.rule.delimiter)).strip()

    def render(self, problem: Problem, tokens: Tokens) -> tuple[int, ...]:
        """Returns the token ids of a problem's prompt.

        Raises:
            BadInput: The policy cannot read the prompt, or has no chat template where one is
                needed.
        """
        text = self.text(problem, tokens)
        # A chat template writes the special tokens itself.
        ids = tuple(tokens.encode(text) if self.chat else tokens.encode_prompt(text))
        if tokens.unknown_id is not None and tokens.unknown_id in ids:
            readable = {piece.decode("utf-8", "ignore") for piece in tokens.pieces}
            strange = sorted({char for char in text if char not in readable})
            raise BadInput(
                f"problem {problem.id}: this policy cannot read {''.join(strange)[:20]!r} in "
                f"{problem.prompt[:60]!r}; choose another --policy"
            )
        if not ids:
            raise BadInput(f"problem {problem.id}: its prompt has no tokens")
        return ids

    def text(self, problem: Problem, tokens: Tokens) -> str:
        """Returns a problem's prompt as the text that is tokenised."""
        if self.chat:
            if tokens.render_chat is None:
                raise BadInput(
                    f"template {self.name!r} is for chat models and this policy has no chat "
                    "template; set prompt.template=steps"
                )
            return tokens.render_chat(self.chat_messages(problem))
        return self.plain_text(problem)

    def plain_text(self, problem: Problem) -> str:
        """Returns a problem's prompt as text where no chat template wraps it.

        A chat's system message goes where the template's is, earlier turns follow the examples and
        are written as these are.
        """
        system, before, asked = _chat(problem)
        shots = [
            self._asked(example.question)
            + "".join(self.solution_steps(example.steps, example.answer))
            + self.gap
            for example in self.examples
        ]
        turns = [
            self._asked(turn.content)
            if turn.role == "user"
            else turn.content + self.rule.delimiter + self.gap
            for turn in before
        ]
        given = system and system + self.rule.delimiter
        return self.system + given + "".join(shots + turns) + self._asked(asked)

    def chat_messages(self, problem: Problem) -> list[Message]:
        """Returns a problem as chat messages: one of the system, worked examples, the question."""
        system, before, asked = _chat(problem)
        # Chat templates read one system message, the first.
        both = "\n\n".join(filter(None, (self.system, system)))
        messages = [Message("system", both)] if both else []
        for example in self.examples:
            solution = "".join(self.solution_steps(example.steps, example.answer))
            messages.append(Message("user", self._asked(example.question)))
            messages.append(Message("assistant", solution))
        return [*messages, *before, Message("user", self._asked(asked))]

    def _asked(self, prompt: str) -> str:
        return self.question.replace("{prompt}", prompt)

    def answer_in(self, text: str) -> str | None:
        """Returns what a solution gives as its answer, or None where it gives none.

        The last mark counts. A mark that opens a brace ends where that brace closes; any other
        ends with its line.
        """
        text = without_thoughts(text) if self.rule.think else text
        start = text.rfind(self.rule.answer_mark)
        if start < 0:
            return None
        rest = text[start + len(self.rule.answer_mark) :]
        if self.rule.answer_mark.endswith("{"):
            return _until_closing_brace(rest)
        return rest.split("\n", 1)[0].strip() or None


def _chat(problem: Problem) -> tuple[str, Sequence[Message], str]:
    """Returns what the system says in a problem's chat, its earlier turns, and the question."""
    *before, last = problem.messages or (Message("user", problem.prompt),)
    if before and before[0].role == "system":
        return before[0].content, before[1:], last.content
    return "", before, last.content


def _until_closing_brace(text: str) -> str | None:
    """Returns the text before the brace that closes the one just opened, or None."""
    depth = 1
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:place].strip() or None
    return None


_SUMS = (
    Example(question="2 + 5 = ?", steps=("2 + 5 = 7",), answer="7"),
    Example(question="8 - 3 + 4 = ?", steps=("8 - 3 = 5", "5 + 4 = 9"), answer="9"),
    Example(
        question="6 + 1 - 9 + 3 = ?", steps=("6 + 1 = 7", "7 - 9 = -2", "-2 + 3 = 1"), answer="1"
    ),
    Example(question="4 + 3 - 5 = ?", steps=("4 + 3 = 7", "7 - 5 = 2"), answer="2"),
)

TEMPLATES = {
    template.name: template
    for template in (
        Template(
            name="nano",
            answer="A{answer}",
            rule=StepRule(answer_mark="A"),
            max_step_tokens=24,
            max_rollout_tokens=96,
        ),
        Template(name="steps", question="Question: {prompt}\n", step="Step {k}: {step}"),
        Template(
            name="sums",
            max_step_tokens=48,
            max_rollout_tokens=160,
            examples=_SUMS,
            question="Question: {prompt}\n",
            step="Step {k}: {step}",
        ),
        Template(
            name="chat",
            chat=True,
            system="Solve the problem step by step, one step a paragraph. "
            "Put the final answer in \\boxed{}.",
            question="{prompt}",
            answer="The answer is \\boxed{{answer}}.",
            rule=StepRule(delimiter="\n\n", answer_mark=BOXED, answer_ends=False),
            max_step_tokens=512,
            max_rollout_tokens=2048,
        ),
        Template(
            name="think",
            chat=True,
            system="Solve the problem step by step. Before each step think between <think> and "
            "</think>, then write that one step as a paragraph. Put the final answer in \\boxed{}.",
            question="{prompt}",
            answer="The answer is \\boxed{{answer}}.",
            rule=StepRule(delimiter="\n\n", answer_mark=BOXED, answer_ends=False, think=True),
            max_step_tokens=1024,
            max_rollout_tokens=8192,
        ),
    )
}


def load_template(name: str) -> Template:
    """Returns a template by its name, or reads one from a TOML file.

    Raises:
        BadInput: There is no such template, or the file breaks a rule.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if path.suffix != ".toml":
        raise BadInput(
            f"prompt.template: no template {name!r}; one of {', '.join(TEMPLATES)}, "
            "or a .toml file with the fields of one"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return template_from(path.stem, data)
    except (OSError, ValueError) as e:
        raise BadInput(f"prompt.template: {path}: {e}") from e


def template_in(spec: object) -> Template:
    """Returns the template that a model's configuration has: by its name, or with all its fields.

    Raises:
        ValueError: It has none.
    """
    if isinstance(spec, dict):
        return template_from("own", {**spec})
    if not isinstance(spec, str) or spec not in TEMPLATES:
        names = ", ".join(TEMPLATES)
        raise ValueError(f"must be one of {names}, or a table with the fields of one, got {spec!r}")
    return TEMPLATES[spec]


def spec_of(template: Template) -> str | dict[str, Any]:
    """Returns what `template_in` makes a template of."""
    known = TEMPLATES.get(template.name) == template
    return template.name if known else asdict(template)


Types = dict[str, type]
"""The fields of a table and their types."""

_TEMPLATE_TYPES: Types = {
    **dict.fromkeys(("name", "system", "question", "step", "answer", "gap"), str),
    **dict.fromkeys(("max_step_tokens", "max_rollout_tokens"), int),
    "chat": bool,
    "examples": list,
    "rule": dict,
}
_RULE_TYPES: Types = {
    **dict.fromkeys(("delimiter", "ends", "answer_mark"), str),
    **dict.fromkeys(("answer_ends", "think"), bool),
    "step_tokens": int,
}
_EXAMPLE_TYPES: Types = {"question": str, "steps": list, "answer": str}


def template_from(name: str, data: dict[str, Any]) -> Template:
    """Builds a template from parsed TOML or JSON, such as `asdict` makes of one.

    Args:
        name: What it is called unless the data says so.
        data: Its fields; consumed.

    Raises:
        ValueError: A field breaks its rule.
    """
    _check_types("", data, _TEMPLATE_TYPES)
    rule = _rule_from(data.pop("rule", {}))
    examples = data.pop("examples", [])
    for place, entry in enumerate(examples):
        _check_types(f"examples[{place}].", entry, _EXAMPLE_TYPES)
        missing = [key for key in _EXAMPLE_TYPES if key not in entry]
        if missing or not all(isinstance(step, str) for step in entry["steps"]):
            raise ValueError(f"examples[{place}] must have question, answer and steps, a text each")
    return Template(
        **{"name": name, **data},
        examples=tuple(Example(**{**e, "steps": tuple(e["steps"])}) for e in examples),
        rule=rule,
    )


def _rule_from(data: object) -> StepRule:
    """Builds a step rule from parsed TOML or JSON; the latter says None where nothing is set."""
    if isinstance(data, dict):
        data = {key: value for key, value in data.items() if value is not None}
    _check_types("rule.", data, _RULE_TYPES)
    assert isinstance(data, dict)
    ends = data.pop("ends", StepEnd.DELIMITER)
    if ends not in set(StepEnd):
        raise ValueError(f"rule.ends: no {ends!r}; {nearest(ends, list(StepEnd))}")
    return StepRule(**data, ends=StepEnd(ends))


def _check_types(where: str, data: object, types: Types) -> None:
    """Raises ValueError unless data is a table of known fields, each of its type."""
    if not isinstance(data, dict):
        raise ValueError(f"{where.rstrip('.')} must be a table, got {data!r}")
    for key, value in data.items():
        if key not in types:
            raise ValueError(f"unknown field {where + key!r}; {nearest(key, types)}")
        if type(value) is not types[key]:
            raise ValueError(f"{where}{key} must be a {types[key].__name__}, got {value!r}")

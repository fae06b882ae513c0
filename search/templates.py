"""The templates that come with the library, and those of one's own, read from TOML or JSON."""

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from treeward.search.errors import BadInput
from treeward.search.prompts import Example, Template
from treeward.search.specs import nearest
from treeward.search.step_ends import StepEnd
from treeward.search.steps import StepRule

BOXED = "\\boxed{"

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

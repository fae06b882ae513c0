"""The text of a label rule, such as `any_success(min_rollouts=4) & soft | cut(wrong=mask)`.

    rule  = part { "&" part } [ "|" cut ]
    part  = name [ "@" version ] [ "(" key=value { "," key=value } ")" ]

Parts that `&` joins must say the same of a step, or it is undecided. `cut` says what of a path a
row keeps. The text of what was read names all versions and settings, so it is read as the same
rule again, whatever the defaults are by then.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from treeward.search.errors import BadInput
from treeward.search.specs import Reader, choice, integer, nearest, number

Value = str | int | float

MIN_ROLLOUTS = 8
CONFIDENCE = 0.6

COUNTED = ("share", "value")
"""Measures that are counted from rollouts at the node alone."""
WITH_INTERVAL = ("value", "value_tree", "progress")
BY_CRITIC = ("value_critic", "progress_critic", "outcome_critic")
MEASURES = (*COUNTED, "value_tree", "progress", *BY_CRITIC)

END, MASK, KEEP = "end", "mask", "keep"

TIE = 1e-9
"""Computed numbers that differ by no more are equal: .3 - .1 is less than .2 in binary."""

_PART = re.compile(r"([^@()]*?)\s*(?:@([^()]*?))?\s*(?:\((.*)\))?", re.DOTALL)


class Setting(NamedTuple):
    """Says how one setting of a part is read, and what it is where it is not given."""

    read: Reader
    default: Value


class Form(NamedTuple):
    """Says what the text of a part may hold."""

    version: int
    settings: Mapping[str, Setting]


def critic_of(measure: str) -> tuple[str, str]:
    """Returns a measure without the critic that it names, and that critic; "" where it names none.

    `value_critic:NAME` is what the critic NAME said, whoever else scored the run.
    """
    of, _, critic = measure.partition(":")
    return of, critic


def measured(*measures: str) -> Reader:
    """Returns a reader of some measures; those of critics may name one."""
    known = choice(*measures)

    def read(text: str) -> str:
        of, critic = critic_of(text)
        known(of)
        if text != of and (of not in BY_CRITIC or not critic):
            raise ValueError(
                f"may name a critic behind {', '.join(BY_CRITIC)}: {BY_CRITIC[0]}:NAME"
            )
        return text

    return read


def between(low: float, high: float, *, open_ends: bool = False) -> Reader:
    """Returns a reader of numbers between two."""

    def read(text: str) -> float:
        value = number(text)
        inside = low < value < high if open_ends else low <= value <= high
        if not inside:
            raise ValueError(
                f"must be in ({low:g}, {high:g})"
                if open_ends
                else f"must be in [{low:g}, {high:g}]"
            )
        return value

    return read


PARTS = {
    "any_success": Form(1, {"min_rollouts": Setting(integer(1, 10**9), MIN_ROLLOUTS)}),
    "posterior": Form(6, {"confidence": Setting(between(0.5, 1, open_ends=True), CONFIDENCE)}),
    "threshold": Form(
        1,
        {
            "of": Setting(measured(*MEASURES), "value"),
            "at": Setting(between(-1, 1), 0.5),
            "by": Setting(choice("mean", "interval", "low", "high"), "mean"),
            "min_rollouts": Setting(integer(1, 10**9), 1),
        },
    ),
    "ratio": Form(
        1,
        {
            "of": Setting(measured(*COUNTED, "value_tree", "value_critic"), "share"),
            "to": Setting(choice("parent", "root"), "parent"),
            "at": Setting(between(0, 100), 0.8),
            "min_rollouts": Setting(integer(1, 10**9), 1),
        },
    ),
    "soft": Form(1, {"of": Setting(measured(*COUNTED, "value_tree", "value_critic"), "value")}),
}
CUT = Form(
    1,
    {
        "wrong": Setting(choice(END, MASK, KEEP), END),
        "undecided": Setting(choice(END, MASK), END),
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSpec:
    """Holds one part of a rule."""

    name: str
    version: int
    values: Mapping[str, Value]
    """All of its settings."""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """Those that the text says."""

    def __str__(self) -> str:
        """Returns the part's text, such as `any_success@1(min_rollouts=8)`."""
        settings = ", ".join(f"{key}={value}" for key, value in self.values.items())
        return f"{self.name}@{self.version}({settings})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSpec:
    """Holds a rule taken apart."""

    parts: tuple[PartSpec, ...]

    cut: PartSpec
    """`wrong` says what becomes of the steps below a wrong one, and `undecided` of a step that is
    undecided and those below it: the row ends there, or they stay in it masked, or as they are."""

    def __str__(self) -> str:
        """Returns the rule's text, which reads as this rule."""
        said = " & ".join(map(str, self.parts))
        return said if self.cut == _default_cut(self.parts) else f"{said} | {self.cut}"

    @property
    def learns(self) -> bool:
        """Returns whether the rule reads all trees before it labels one."""
        return any(part.name == "posterior" for part in self.parts)

    @property
    def measures(self) -> tuple[str, ...]:
        """Returns the measures that its parts ask for."""
        return tuple(str(part.values["of"]) for part in self.parts if "of" in part.values)


def parse_rule(text: str) -> RuleSpec:
    """Takes the text of a rule apart.

    Raises:
        BadInput: It is no rule; which part is at fault, and what would be right.
    """
    said, bar, cut = text.partition("|")
    parts = tuple(_read_part(part.strip(), PARTS, "label rule") for part in said.split("&"))
    for place, part in enumerate(parts):
        _check(part)
        if part in parts[:place]:
            raise BadInput(f"rule: {part} is given twice; keep one of them")
    chosen = _default_cut(parts)
    if "|" in cut:
        raise BadInput(f"rule: one cut at most, after '|', got {cut.strip()!r}")
    if bar:
        chosen = _read_part(cut.strip(), {"cut": CUT}, "cut", chosen.values)
    return RuleSpec(parts=parts, cut=chosen)


def with_setting(spec: RuleSpec, name: str, key: str, value: Value) -> RuleSpec:
    """Returns a rule with a setting that was given apart from its text.

    Raises:
        BadInput: No part of the rule has that name, or the text says otherwise.
    """
    if all(part.name != name for part in spec.parts):
        raise BadInput(f"{key}={value} is for {name}; leave it out")
    for part in spec.parts:
        if part.name == name and key in part.given and part.values[key] != value:
            raise BadInput(f"{key}={value} contradicts the rule {part}; leave one of them out")
    parts = tuple(
        replace(part, values={**part.values, key: value}) if part.name == name else part
        for part in spec.parts
    )
    return replace(spec, parts=parts)


def _default_cut(parts: tuple[PartSpec, ...]) -> PartSpec:
    """Returns what is kept where the rule says nothing of it: where it is soft, every step."""
    soft = all(part.name == "soft" for part in parts)
    values = {"wrong": KEEP, "undecided": MASK} if soft else {"wrong": END, "undecided": END}
    return PartSpec(name="cut", version=CUT.version, values=values)


def _read_part(
    text: str, forms: Mapping[str, Form], what: str, defaults: Mapping[str, Value] | None = None
) -> PartSpec:
    found = _PART.fullmatch(text)
    name, version, settings = found.groups() if found else (text, None, None)
    if not found or not name:
        raise BadInput(f"rule: {text!r} is no {what}; write NAME(key=value, key=value)")
    if name not in forms:
        raise BadInput(f"rule: no {what} {name!r}; {nearest(name, forms)}")
    form = forms[name]
    if version not in (None, str(form.version)):
        raise BadInput(f"rule: {name}@{version} is not known here; {name}@{form.version} is")
    values = {key: setting.default for key, setting in form.settings.items()} | {**(defaults or {})}
    given: set[str] = set()
    for pair in settings.split(",") if settings and settings.strip() else ():
        key, equals, value = (piece.strip() for piece in pair.partition("="))
        if not key or not equals:
            raise BadInput(f"rule: {name}: {pair.strip()!r} is not key=value")
        if key not in form.settings:
            raise BadInput(f"rule: {name}: unknown key {key!r}; {nearest(key, form.settings)}")
        if key in given:
            raise BadInput(f"rule: {name}: {key} is given twice; keep one of them")
        given.add(key)
        values[key] = _value(name, key, value, form.settings[key].read)
    return PartSpec(name=name, version=form.version, values=values, given=frozenset(given))


def _value(name: str, key: str, text: str, read: Reader) -> Value:
    try:
        value = read(text)
    except ValueError as e:
        raise BadInput(f"rule: {name}: {key} {e}, got {text!r}") from e
    assert isinstance(value, str | int | float)
    return value


def _check(part: PartSpec) -> None:
    """Refuses settings that have no meaning together."""
    values = part.values
    if values.get("by", "mean") != "mean" and values["of"] not in WITH_INTERVAL:
        raise BadInput(
            f"rule: {part.name}: of={values['of']} has no interval, got by={values['by']}; "
            f"of={', '.join(WITH_INTERVAL)} have one"
        )
    if "of" in values and values.get("min_rollouts", 1) != 1 and values["of"] not in COUNTED:
        raise BadInput(
            f"rule: {part.name}: min_rollouts is for of={' and of='.join(COUNTED)}, "
            f"got of={values['of']}"
        )

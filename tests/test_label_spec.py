"""The text of a rule is read, written and read again as the same rule; what is none is refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treeward.export.label_spec import CUT, PARTS, PartSpec, RuleSpec, Value, parse_rule
from treeward.export.labels import load_rule
from treeward.search.errors import BadInput


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("any_success", "any_success@1(min_rollouts=8)"),
        ("posterior", "posterior@6(confidence=0.6)"),
        (" any_success@1 ( min_rollouts = 4 ) ", "any_success@1(min_rollouts=4)"),
        ("any_success()", "any_success@1(min_rollouts=8)"),
        ("threshold", "threshold@1(of=value, at=0.5, by=mean, min_rollouts=1)"),
        ("ratio(to=root)", "ratio@1(of=share, to=root, at=0.8, min_rollouts=1)"),
        ("soft", "soft@1(of=value)"),
        ("soft(of=value_critic:0123abcd)", "soft@1(of=value_critic:0123abcd)"),
        # The cut is written where it is not what the rule has anyway.
        ("soft | cut(wrong=keep, undecided=mask)", "soft@1(of=value)"),
        ("soft | cut(wrong=end)", "soft@1(of=value) | cut@1(wrong=end, undecided=mask)"),
        ("any_success|cut", "any_success@1(min_rollouts=8)"),
        (
            "any_success(min_rollouts=4) & threshold(of=value_critic) | cut(wrong=mask)",
            "any_success@1(min_rollouts=4) & threshold@1(of=value_critic, at=0.5, by=mean, "
            "min_rollouts=1) | cut@1(wrong=mask, undecided=end)",
        ),
    ],
)
def test_a_rule_names_its_versions_and_all_settings(text: str, canonical: str) -> None:
    assert str(parse_rule(text)) == canonical
    assert str(parse_rule(canonical)) == canonical
    assert parse_rule(canonical) == parse_rule(text)


VALUES: dict[str, st.SearchStrategy[Value]] = {
    "min_rollouts": st.integers(1, 10**9),
    "confidence": st.floats(0.5, 1, exclude_min=True, exclude_max=True),
    "of": st.sampled_from(["share", "value"]),
    "at": st.floats(0, 1),
    "by": st.just("mean"),
    "to": st.sampled_from(["parent", "root"]),
    "wrong": st.sampled_from(["end", "mask", "keep"]),
    "undecided": st.sampled_from(["end", "mask"]),
}


@st.composite
def specs(draw: st.DrawFn) -> RuleSpec:
    names = draw(st.lists(st.sampled_from(sorted(PARTS)), min_size=1, max_size=3, unique=True))
    parts = [
        PartSpec(
            name=name,
            version=PARTS[name].version,
            values={key: draw(VALUES[key]) for key in PARTS[name].settings},
        )
        for name in names
    ]
    cut = {key: draw(VALUES[key]) for key in CUT.settings}
    return RuleSpec(parts=tuple(parts), cut=PartSpec(name="cut", version=1, values=cut))


THRESHOLD: dict[str, str | int | float] = {
    "of": "share",
    "at": 0.0002438822301879392,
    "by": "mean",
    "min_rollouts": 1,
}


@given(specs())
@example(
    RuleSpec(
        parts=(PartSpec(name="threshold", version=1, values=THRESHOLD),),
        cut=PartSpec(name="cut", version=1, values={"wrong": "end", "undecided": "end"}),
    )
)
def test_every_rule_s_text_is_read_as_that_rule(spec: RuleSpec) -> None:
    assert parse_rule(str(spec)) == spec


@given(st.text(alphabet="any_success@1(min=48),&| cutwrong.\n'\"\\{}", max_size=40))
def test_any_text_is_a_rule_or_one_line_of_what_is_wrong(text: str) -> None:
    said = ""
    try:
        parse_rule(text)
    except BadInput as e:
        said = str(e)
    assert not said or said.startswith("rule: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no label rule; write NAME"),
        ("any_success &", "'' is no label rule"),
        ("any_succes", "no label rule 'any_succes'; did you mean 'any_success'?"),
        ("any_success(rollouts=4)", "unknown key 'rollouts'; did you mean 'min_rollouts'?"),
        ("any_success(4)", "any_success: '4' is not key=value"),
        ("any_success(min_rollouts=0)", "min_rollouts must be from 1 to 1000000000, got '0'"),
        ("any_success(min_rollouts=4, min_rollouts=5)", "min_rollouts is given twice"),
        ("any_success@2", "any_success@2 is not known here; any_success@1 is"),
        ("any_success(min_rollouts=4", "is no label rule; write NAME(key=value, key=value)"),
        ("any_success & any_success", "any_success@1(min_rollouts=8) is given twice"),
        ("posterior(confidence=0.5)", "confidence must be in (0.5, 1), got '0.5'"),
        ("threshold(at=2)", "at must be in [-1, 1], got '2'"),
        ("threshold(at=nan)", "at must be a number, got 'nan'"),
        ("threshold(of=q)", "of must be one of share, value, value_tree, progress"),
        ("threshold(of=value:c)", "may name a critic behind value_critic, progress_critic,"),
        ("threshold(of=value_critic:)", "outcome_critic: value_critic:NAME, got 'value_critic:'"),
        ("threshold(of=q:c)", "of must be one of share, value, value_tree, progress"),
        ("threshold(of=share, by=low)", "of=share has no interval, got by=low"),
        ("threshold(of=value_critic, min_rollouts=3)", "min_rollouts is for of=share and of=value"),
        ("any_success | cut(wrong=drop)", "wrong must be one of end, mask, keep, got 'drop'"),
        ("any_success | soft", "no cut 'soft'; valid ones are cut"),
        ("any_success | cut | cut", "one cut at most, after '|', got 'cut | cut'"),
        (
            "__import__('os').system('true')",
            "no label rule '__import__'; valid ones are any_success",
        ),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_rule(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_fill_in_what_the_text_leaves_open() -> None:
    rule = load_rule("any_success & posterior", min_rollouts=4, confidence=0.9)
    assert rule.name == "any_success@1(min_rollouts=4) & posterior@6(confidence=0.9)"
    with pytest.raises(BadInput, match=r"min_rollouts=4 contradicts the rule any_success@1"):
        load_rule("any_success(min_rollouts=6)", min_rollouts=4)
    # What is given is given, also where it is the default.
    with pytest.raises(BadInput, match=r"min_rollouts=8 contradicts the rule any_success@1"):
        load_rule("any_success(min_rollouts=4)", min_rollouts=8)
    with pytest.raises(BadInput, match="min_rollouts=8 is for any_success"):
        load_rule("soft", min_rollouts=8)
    with pytest.raises(BadInput, match=r"confidence=0\.6 is for posterior"):
        load_rule("soft", confidence=0.6)
    with pytest.raises(BadInput, match="min_rollouts=4 is for any_success"):
        load_rule("threshold(min_rollouts=2)", min_rollouts=4)

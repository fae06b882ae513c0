from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeward.search.errors import BadInput
from treeward.search.specs import (
    Reader,
    boolean,
    choice,
    integer,
    is_spec,
    items,
    number,
    parse_spec,
    read_values,
    span,
    word,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.dictionaries(TEXT.filter(bool), TEXT))
def test_a_quoted_query_is_read_back(query: dict[str, str]) -> None:
    text = "&".join(
        f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query.items()
    )
    spec = parse_spec(f"gym:chain_sum?{text}")
    assert (spec.scheme, spec.name, spec.query) == ("gym", "chain_sum", query)


def test_a_plus_sign_stands_for_itself() -> None:
    assert parse_spec("task:arithmetic?operators=+-*").query == {"operators": "+-*"}


def test_a_spec_without_a_query_has_no_values() -> None:
    assert parse_spec("task:arithmetic").query == parse_spec("task:arithmetic?").query == {}


def test_specs_are_told_from_files() -> None:
    assert is_spec("task:arithmetic")
    assert is_spec("gym:")
    assert not is_spec("task.jsonl")
    assert not is_spec("tasks:arithmetic")
    assert not is_spec("gym")


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (integer(), "-12", -12),
        (integer(1, 3), "3", 3),
        (span, "4..6", (4, 6)),
        (span, "-4..-2", (-4, -2)),
        (span, "5", (5, 5)),
        (number, "-1.5e-3", -0.0015),
        (boolean, "true", True),
        (boolean, "false", False),
        (choice("a", "b"), "b", "b"),
        (word, "a,b", "a,b"),
        (items(integer()), "1,2,3", [1, 2, 3]),
        (items(word), "+,-", ["+", "-"]),
    ],
)
def test_values_are_read(reader: Reader, text: str, value: object) -> None:
    assert read_values(parse_spec(f"task:t?k={text}"), {"k": reader}) == {"k": value}


@pytest.mark.parametrize(
    ("reader", "text", "rule"),
    [
        (integer(), "1.0", "whole number"),
        (integer(), "1_0", "whole number"),
        (integer(), " 1", "whole number"),
        (integer(), "\u0663", "whole number"),
        (integer(), "9" * 5000, "whole number"),
        (integer(1, 3), "0", "from 1 to 3"),
        (integer(1, 3), "4", "from 1 to 3"),
        (span, "6..4", "a <= b"),
        (span, "4..", "range a..b"),
        (span, "4..6..8", "range a..b"),
        (number, "nan", "number"),
        (number, "1e999", "number"),
        (boolean, "yes", "true or false"),
        (choice("a", "b"), "c", "one of a, b"),
        (word, "", "empty"),
        (items(integer()), "1,,2", "whole number"),
    ],
)
def test_a_value_that_breaks_its_rule_is_named(reader: Reader, text: str, rule: str) -> None:
    with pytest.raises(BadInput, match=rule) as caught:
        read_values(parse_spec(f"task:t?k={text}"), {"k": reader})
    assert str(caught.value).startswith("task:t: k must")
    assert repr(text) in str(caught.value)


def test_an_unknown_key_names_the_nearest() -> None:
    readers = {"steps": span, "seed": integer()}
    with pytest.raises(BadInput, match=r"unknown key 'step'; did you mean 'steps'\?"):
        read_values(parse_spec("task:arithmetic?step=4"), readers)
    with pytest.raises(BadInput, match="valid ones are steps, seed"):
        read_values(parse_spec("task:arithmetic?xyz=4"), readers)


@pytest.mark.parametrize("text", ["task:", "task:?n=1", "task:a?n", "task:a?=1", "task:a?n=1&n=1"])
def test_a_malformed_spec_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="task:"):
        parse_spec(text)

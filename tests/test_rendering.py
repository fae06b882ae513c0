"""What a valid statement returns can be written in every form, and nothing of it gets lost."""

import csv
import json
from io import BytesIO, StringIO
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from treeward.export.rendering import write_table
from treeward.search.errors import BadInput

FORMS = ("table", "json", "csv", "arrow")


def written(sql: str, form: str) -> bytes:
    out = BytesIO()
    with duckdb.connect() as connection:
        write_table(connection.sql(sql).to_arrow_table(), form, out)
    return out.getvalue()


def as_json(sql: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(written(sql, "json"), parse_constant=refuse)


def as_csv(sql: str) -> list[list[str]]:
    return [*csv.reader(StringIO(written(sql, "csv").decode()))]


def test_columns_of_one_name_are_all_there_under_names_of_their_own() -> None:
    sql = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a"
    # `a_1` is the third column's own name.
    names = ["a", "a_2", "a_1", "a_3"]
    assert as_json(sql) == [dict(zip(names, [1, 2, 3, 4], strict=True))]
    assert as_csv(sql) == [names, ["1", "2", "3", "4"]]
    header, _, row = written(sql, "table").decode().splitlines()
    assert (header.split(), row.split()) == (names, ["1", "2", "3", "4"])
    assert pa.ipc.open_stream(written(sql, "arrow")).read_all().column_names == names


def test_sums_and_decimals_are_numbers_in_json() -> None:
    sql = "SELECT sum(1) AS k, 0.5 AS half, 2.0 AS two, [1.25] AS list, 10::HUGEINT ** 30 AS big"
    (row,) = as_json(sql)
    assert row == {"k": 1, "half": 0.5, "two": 2, "list": [1.25], "big": 1e30}


def test_a_plan_is_drawn_line_by_line() -> None:
    drawn = written("EXPLAIN SELECT 1 AS a", "table").decode().splitlines()
    assert len(drawn) > 3
    assert not any("..." in line for line in drawn)


def test_two_of_one_name_are_named_as_the_database_names_them() -> None:
    both = "SELECT 1 AS a, 2 AS a"
    assert as_json(both) == as_json(f"FROM ({both})") == [{"a": 1, "a_1": 2}]


def test_no_finite_number_is_null_in_json() -> None:
    sql = "SELECT 0 / 0 AS x, ['inf'::DOUBLE, 1] AS list, {'a': 'nan'::FLOAT} AS struct"
    assert as_json(sql) == [{"x": None, "list": [None, 1.0], "struct": {"a": None}}]
    assert as_csv(sql)[1] == ["nan", "[null, 1.0]", '{"a": null}']


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{'s': sum(1)}", '{"s": 1}'),
        ("[TIMESTAMPTZ '2026-01-02 03:04:05+00']", '["2026-01-02 03:04:05+00:00"]'),
        ("INTERVAL 1 DAY", "[0, 1, 0]"),
        ("'\\xff'::BLOB", r"b'\xff'"),
        ("['\\xff'::BLOB]", r"""["b'\\xff'"]"""),
        ("123456789012345678901::HUGEINT", "123456789012345678901"),
        ("map([1], ['a'])", '[[1, "a"]]'),
        ("'=1+1'::ENUM('=1+1')", "'=1+1"),
        ("union_value(k := '=1+1')", "'=1+1"),
        ("-1", "-1"),
        ("'-1'", "-1"),
        ("'-x'", "'-x"),
        ("NULL", ""),
        ("[NULL]", "[null]"),
    ],
)
def test_what_csv_has_no_place_for_is_text(value: str, text: str) -> None:
    sql = f"SET TimeZone = 'UTC'; SELECT {value} AS x"
    assert as_csv(sql) == [["x"], [text]] if text else [["x"], []]
    for form in FORMS:
        assert written(sql, form)


@pytest.mark.parametrize(
    "value", ["DATE 'infinity'", "[TIMESTAMP 'infinity']", "DATE '10000-01-01'"]
)
def test_a_time_that_no_calendar_has_is_one_line(value: str) -> None:
    for form in ("table", "json"):
        with pytest.raises(BadInput, match=r"column 'x' holds a time .* cast it to VARCHAR"):
            written(f"SELECT {value} AS x", form)

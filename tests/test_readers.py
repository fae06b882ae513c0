import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treeward.search.arithmetic import make_problems
from treeward.search.errors import BadInput
from treeward.search.problem import Message, Problem, content_id
from treeward.search.readers import read_problems

Row = dict[str, Any]
ANY_PATH = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.none(),
            "prompt": TEXT.filter(str.strip),
            "answer": st.none() | TEXT.filter(str.strip),
            "source": st.sampled_from(["here", "there"]),
            "solution": st.none() | st.lists(TEXT.filter(str.strip)),
        }
    ),
    min_size=1,
    unique_by=lambda row: (row["prompt"], row["answer"]),
)
FULL: Row = {
    "id": "p1",
    "prompt": "1 + 1 = ?",
    "answer": "2",
    "source": "book",
    "solution": ["1 + 1 = 2"],
    "verifier": "text",
    "metadata": {"b": [1, 2], "a": "\u00e9"},
}


def write_lines(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_list(path: Path, rows: list[Row]) -> Path:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


def write_object(path: Path, rows: list[Row]) -> Path:
    path.write_text(json.dumps({"version": 1, "data": rows}), encoding="utf-8")
    return path


def write_table(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


WRITERS: list[tuple[str, Callable[[Path, list[Row]], Path]]] = [
    ("p.jsonl", write_lines),
    ("p.json", write_list),
    ("p.json", write_object),
    ("p.parquet", write_table),
]


def read(path: Path, **options: Any) -> tuple[Problem, ...]:
    return read_problems(str(path), **options).problems


def one(tmp_path: Path, row: object) -> Problem:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    (problem,) = read(path)
    return problem


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_every_field_is_read(
    tmp_path: Path, name: str, write: Callable[[Path, list[Row]], Path]
) -> None:
    assert read(write(tmp_path / name, [FULL])) == (
        Problem(
            id="p1",
            prompt="1 + 1 = ?",
            answer="2",
            verifier="text",
            source="book",
            solution=("1 + 1 = 2",),
            metadata='{"a":"\u00e9","b":[1,2]}',
        ),
    )


@ANY_PATH
@given(ROWS)
def test_formats_agree(tmp_path: Path, rows: list[Row]) -> None:
    first, *others = [read(write(tmp_path / name, rows)) for name, write in WRITERS]
    assert all(other == first for other in others)
    assert [(problem.prompt, problem.answer) for problem in first] == [
        (row["prompt"], row["answer"]) for row in rows
    ]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.parquet"])
@ANY_PATH
@given(data=st.binary() | TEXT.map(str.encode) | st.binary().map(lambda tail: b"PAR1" + tail))
def test_no_file_raises_anything_but_bad_input(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInput) as caught:
        read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    problem = one(tmp_path, {"question": "2 + 3?", "answer": 5})
    assert problem == Problem(
        id=content_id("2 + 3?", "5"),
        prompt="2 + 3?",
        answer="5",
        verifier="number",
        source="one.jsonl",
    )


@pytest.mark.parametrize(
    ("answer", "text", "verifier"),
    [
        (7, "7", "number"),
        (-0.25, "-0.25", "number"),
        (5.0, "5", "number"),
        (1e-7, "0.0000001", "number"),
        ("1,000", "1,000", "math"),
        ("x^2", "x^2", "math"),
        (None, None, "math"),
    ],
)
def test_answers_become_text_and_choose_a_verifier(
    tmp_path: Path, answer: object, text: str | None, verifier: str
) -> None:
    problem = one(tmp_path, {"problem": "?", "answer": answer})
    assert (problem.answer, problem.verifier) == (text, verifier)


def test_a_chat_is_put_by_its_last_message(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    for problem in (
        one(tmp_path, {"prompt": chat}),
        read(write_table(tmp_path / "p.parquet", [{"prompt": chat}]))[0],
    ):
        assert problem.prompt == "1 + 1?"
        assert problem.messages == (Message("system", "Be brief."), Message("user", "1 + 1?"))


def test_chats_that_end_alike_are_problems_of_their_own(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "1 + 1?"}
    chats = [[asked], *([{"role": "system", "content": text}, asked] for text in ("Brief.", "No."))]
    path = write_lines(tmp_path / "p.jsonl", [{"prompt": chat, "answer": "2"} for chat in chats])
    ids = [problem.id for problem in read(path)]
    assert len(set(ids)) == 3
    assert ids[0] == content_id("1 + 1?", "2")


def test_a_solution_text_is_cut_at_its_lines(tmp_path: Path) -> None:
    text = one(tmp_path, {"prompt": "?", "solution": "first\n\n  second \n"})
    steps = one(tmp_path, {"prompt": "?", "solution": ["first", "second"]})
    assert text == steps
    assert text.solution == ("first", "second")
    assert one(tmp_path, {"prompt": "?", "solution": []}).solution is None


def test_metadata_may_be_the_text_of_an_object(tmp_path: Path) -> None:
    texts = [
        one(tmp_path, {"prompt": "?", "metadata": metadata}).metadata
        for metadata in ({"b": 1, "a": 2}, '{"b": 1, "a": 2}', '{"a":2,"b":1}')
    ]
    assert set(texts) == {'{"a":2,"b":1}'}
    assert one(tmp_path, {"prompt": "?", "metadata": "5"}).metadata == '"5"'


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes('\ufeff{"prompt": "a\u2028b"}\r\n\n{"prompt": "c"}'.encode())
    assert [problem.prompt for problem in read(path)] == ["a\u2028b", "c"]


BAD_LINES = [
    (b'{"answer": "2"}', "no prompt; give it as"),
    (b'{"prompt": null}', "no prompt"),
    (b'{"prompt": "  "}', "prompt is empty"),
    (b'{"prompt": 5}', "prompt must be text, got '5'"),
    (b'{"prompt": []}', "must end with a user message"),
    (b'{"prompt": [{"role": "assistant", "content": "x"}]}', "must end with a user message"),
    (b'{"prompt": [{"role": "tool", "content": "x"}]}', "role of system, user, assistant"),
    (b'{"prompt": [{"role": "user"}]}', "content must be text, got null"),
    (b'{"prompt": ["x"]}', "each chat message must be an object"),
    (b'{"prompt": "a\\u0000b"}', "NUL"),
    (b'{"prompt": "\\ud800"}', "surrogate"),
    (b'{"prompt": "x", "answer": true}', "answer must be text or a finite number"),
    (b'{"prompt": "x", "answer": [1]}', "answer must be text"),
    (b'{"prompt": "x", "answer": ""}', "answer is empty"),
    (b'{"prompt": "x", "answer": NaN}', "NaN is no JSON value"),
    (b'{"prompt": "x", "answer": 1e999}', "finite"),
    (b'{"prompt": "x", "id": "a\\tb"}', "control characters"),
    (b'{"prompt": "x", "id": ""}', "id is empty"),
    (b'{"prompt": "x", "id": 1.5}', "id must be text or a whole number"),
    (b'{"prompt": "x", "id": false}', "id must be"),
    (b'{"prompt": "x", "source": 1}', "source must be text"),
    (b'{"prompt": "x", "solution": 1}', "solution must be text or a list"),
    (b'{"prompt": "x", "solution": ["a", ""]}', "each step is empty"),
    (b'{"prompt": "x", "verifier": "maths"}', "did you mean 'math'"),
    (b'{"prompt": "x", "verifier": "gym:countdown"}', "evaluates text"),
    (b'{"prompt": "x", "verifier": "gym:chain_sum"}', "needs metadata"),
    (b'{"prompt": "x", "metadata": {"a": Infinity}}', "Infinity is no JSON value"),
    (b'{"prompt": "x", "metadata": "{"}', "metadata must be JSON"),
    (b'{"prompt": "x", "metadata": ["\\udfff"]}', "metadata must be JSON"),
    (b'{"prompt": "x"', "invalid JSON at column"),
    (b"[" * 100_000, "invalid JSON"),
    (b"1" * 5_000, "invalid JSON"),
    (b'"x"', "must be an object"),
    (b'{"prompt": "\xff"}', "invalid UTF-8 at byte 12"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
def test_a_bad_line_is_named_or_left_out(tmp_path: Path, bad: bytes, reason: str) -> None:
    good = [b'{"prompt": "%d"}' % k for k in range(9)]
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\n".join(good))
    undisturbed = read(path)
    path.write_bytes(b"\n".join([*good[:6], bad, *good[6:]]))
    with pytest.raises(BadInput) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:7: ")
    assert reason in message
    assert "\n" not in message
    found = read_problems(str(path), skip_bad=True)
    assert found.problems == undisturbed
    assert len(found.skipped) == 1
    assert message.startswith(found.skipped[0])


def test_rows_of_json_and_parquet_are_counted(tmp_path: Path) -> None:
    rows: list[Row] = [{"prompt": "a"}, {"prompt": "b"}, {"prompt": ""}]
    for name, write in WRITERS[1:]:
        path = write(tmp_path / name, rows)
        with pytest.raises(BadInput) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: row 3: prompt is empty")
        assert len(read(path, skip_bad=True)) == 2


@pytest.mark.parametrize("row", [{"id": "a", "prompt": "x"}, {"prompt": "x", "answer": 2}])
def test_a_duplicate_names_both_lines(tmp_path: Path, row: Row) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"prompt": "other"}, row, {"prompt": "more"}, row])
    with pytest.raises(BadInput) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:4: id ")
    assert f"{path}:2 " in str(caught.value)
    assert len(read(path, skip_bad=True)) == 3


def test_equal_questions_may_have_ids_of_their_own(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"id": k, "prompt": "x"} for k in range(3)])
    assert [problem.id for problem in read(path)] == ["0", "1", "2"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "two.json").write_text('{"a": [], "b": []}')
    (tmp_path / "broken.json").write_text('[\n{"prompt": }\n]')
    (tmp_path / "p.csv").write_text("prompt\nx\n")
    (tmp_path / "bad.jsonl").write_text("{}\n{}\n")
    write_table(tmp_path / "none.parquet", []).rename(tmp_path / "rowless.parquet")
    write_table(tmp_path / "other.parquet", [{"x": 1}])
    for name, reason in {
        "missing.jsonl": ": no such file",
        "": ": is a folder",
        "empty.jsonl": ": is empty",
        "blank.jsonl": ": is empty",
        "list.json": ": is empty",
        "two.json": ": must hold a list",
        "broken.json": ":2: invalid JSON at column 12",
        "p.csv": ": its name must end in .jsonl",
        "bad.jsonl": f": every row is bad, the first: {tmp_path / 'bad.jsonl'}:1: no prompt",
        "rowless.parquet": ": is empty",
        "other.parquet": ": every row is bad",
    }.items():
        path = tmp_path / name
        with pytest.raises(BadInput) as caught:
            read(path, skip_bad=True)
        assert str(caught.value).startswith(f"{path}{reason}")


def test_a_truncated_table_is_bad_input(tmp_path: Path) -> None:
    path = write_table(tmp_path / "p.parquet", [{"prompt": str(k)} for k in range(1000)])
    whole = path.read_bytes()
    for size in range(1, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match=r"no readable Parquet|cannot be read"):
            read(path)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_a_float_of_any_width_is_the_number_that_was_written(
    tmp_path: Path, kind: pa.DataType
) -> None:
    answers = pa.array([0.1, 2.5, None, -3.0], pa.float64()).cast(kind)
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b", "c", "d"], "answer": answers}), path)
    assert [problem.answer for problem in read(path)] == ["0.1", "2.5", None, "-3"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([9 * 10**18], pa.timestamp("us")),
        pa.array([10**9], pa.date32()),
        pa.array([0], pa.timestamp("us", tz="Mars/X")),
    ],
)
def test_times_that_no_calendar_has_are_bad_input(tmp_path: Path, column: pa.Array) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "metadata": column}), path)
    with pytest.raises(BadInput, match="no readable Parquet") as refused:
        read(path)
    assert "\n" not in str(refused.value)


def test_a_limit_keeps_the_first_and_checks_all(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"prompt": str(k)} for k in range(5)])
    assert read(path, limit=2) == read(path)[:2]
    assert read(path, limit=9) == read(path)
    with path.open("a") as file:
        file.write("{}\n")
    with pytest.raises(BadInput, match=":6: no prompt"):
        read(path, limit=2)
    with pytest.raises(BadInput, match="limit must be at least 1"):
        read(path, limit=0)


def test_the_arithmetic_task_is_reached_by_its_spec() -> None:
    spec = "task:arithmetic?n=9&seed=3&steps=2..3&numbers=0..50&operators=+-&mod=7&template=words"
    problems = make_problems(
        n=9, seed=3, steps=(2, 3), numbers=(0, 50), operators="+-", mod=7, template="words"
    )
    assert list(read_problems(spec).problems) == problems
    assert list(read_problems(spec, limit=4).problems) == problems[:4]
    assert len(read_problems("task:arithmetic").problems) == 100


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("task:arithmetik", "did you mean 'arithmetic'"),
        ("task:arithmetic?step=4", "did you mean 'steps'"),
        ("task:arithmetic?template=word", "template must be one of symbols, words"),
        ("task:arithmetic?steps=0..2", "steps must be"),
        ("task:arithmetic?n=0", "n must be"),
    ],
)
def test_a_bad_task_spec_says_why(spec: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        read_problems(spec)

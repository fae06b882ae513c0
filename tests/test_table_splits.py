"""Tables become files whose bytes say nothing of how the rows were handed over."""

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treeward.export import table_splits
from treeward.export.ahead import ahead
from treeward.export.dataset_folder import ROW_GROUP
from treeward.export.dataset_spec import TEXT, list_of, split_of
from treeward.export.table_splits import write_table_splits

SIZE = 2 * ROW_GROUP + 77
SCHEMA = pa.schema(
    [pa.field("id", TEXT, False), pa.field("problem_id", TEXT, False), ("said", list_of(TEXT))]
)
ROWS = pa.table(
    [
        [f"row {n}" for n in range(SIZE)],
        [f"problem {n // 9}" for n in range(SIZE)],
        [[str(n)] * (n % 4) for n in range(SIZE)],
    ],
    schema=SCHEMA,
)


def pieces(*cuts: int) -> list[pa.Table]:
    edges = [0, *cuts, SIZE]
    return [ROWS.slice(start, end - start) for start, end in pairwise(edges)]


@pytest.mark.parametrize("validation", [0.0, 0.3])
def test_where_tables_begin_and_end_leaves_no_trace(tmp_path: Path, validation: float) -> None:
    written = []
    names = {*ROWS["problem_id"].to_pylist()} if validation else ()
    splits = {name: split_of(name, validation) for name in names}
    for name, tables in {
        "one": pieces(),
        "two": pieces(5, 6, 6, ROW_GROUP, ROW_GROUP + 1),
        "many": pieces(*range(1000, SIZE, 1000)),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        counts = write_table_splits(folder, SCHEMA, tables, {"made": "here"}, splits)
        assert sum(counts.values()) == SIZE
        written.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert written[0] == written[1] == written[2]
    for path in (tmp_path / "one").iterdir():
        found = pq.read_table(path)
        assert found.schema.metadata == {b"made": b"here"}
        wanted = [
            split_of(name, validation) == path.stem for name in ROWS["problem_id"].to_pylist()
        ]
        assert found.replace_schema_metadata(None).equals(ROWS.filter(pa.array(wanted)))
        assert pq.read_metadata(path).row_group(0).num_rows == min(ROW_GROUP, found.num_rows)


@pytest.mark.parametrize("most", [1, 100, 5000])
def test_much_text_makes_more_row_groups_wherever_tables_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Of so many bytes, or of one row; nothing else in the files is another."""
    monkeypatch.setattr(table_splits, "MOST_BYTES", most)
    rows, written = ROWS.slice(0, 300), []
    for name, size in (("whole", 300), ("pieces", 7)):
        (tmp_path / name).mkdir()
        tables = (rows.slice(start, size) for start in range(0, 300, size))
        write_table_splits(tmp_path / name, SCHEMA, tables, {}, {})
        written.append((tmp_path / name / "train.parquet").read_bytes())
    assert written[0] == written[1]
    with pq.ParquetFile(tmp_path / "whole" / "train.parquet") as file:
        groups = [file.read_row_group(at) for at in range(file.num_row_groups)]
    assert pa.concat_tables(groups).replace_schema_metadata(None).equals(rows)
    sizes = [(len(group), table_splits._text_bytes(group)) for group in groups]
    assert all(n == 1 or size <= most for n, size in sizes)
    assert len(groups) > 1


def test_items_are_made_ahead_in_order_and_failures_come_where_they_are_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number
        raise OSError("no more")

    coming = ahead(items())
    assert next(coming) == 0
    deadline = time.monotonic() + 30
    while made != [0, 1] and time.monotonic() < deadline:
        time.sleep(0.001)
    assert made == [0, 1]
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(OSError, match="no more"):
        next(coming)


def test_whoever_stops_early_leaves_no_thread() -> None:
    source = iter(range(10))
    coming = ahead(source)
    assert next(coming) == 0
    coming.close()  # type: ignore[attr-defined]  # it is a generator
    assert next(source) == 2, "one was made ahead, and no more"

"""A part is there whole, with what it takes to check it, or not at all."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from treeward.export.durable import disk_errors, file_sha256, seal, unseal
from treeward.export.parts import (
    ROW_GROUP,
    committed_parts,
    committed_trees,
    read_manifest,
    write_part,
    write_table,
)
from treeward.export.schema import SCHEMAS, SORT_KEYS, TABLES
from treeward.search.errors import BadInput, DamagedData, TreewardError

Limit = Callable[[int], AbstractContextManager[None]]
Maker = Callable[..., dict[str, Any]]


def test_a_part_holds_its_rows_sorted(random_part: Maker, tmp_path: Path) -> None:
    tables = random_part(1)
    part = write_part(tmp_path, "w0", tables, {"policy": "nano"})
    assert part == tmp_path / "parts" / "w0-000001"
    for name in TABLES:
        with pq.ParquetFile(part / f"{name}.parquet", page_checksum_verification=True) as file:
            read = file.read()
        keys = [(key, "ascending") for key in SORT_KEYS[name]]
        assert read.equals(tables[name].sort_by(keys))
        assert read.schema.equals(SCHEMAS[name])


def test_files_carry_what_readers_rely_on(random_part: Maker, tmp_path: Path) -> None:
    part = write_part(tmp_path, "w0", random_part(1), {"policy": "nano"})
    with pq.ParquetFile(part / "nodes.parquet") as file:
        metadata = file.metadata
    assert metadata.metadata[b"treeward.policy"] == b"nano"
    assert metadata.metadata[b"treeward.schema_version"] == b"1"
    group = metadata.row_group(0)
    names = [metadata.schema.column(s.column_index).name for s in group.sorting_columns]
    assert names == ["tree_id", "pre"]
    column = group.column(0)
    assert (column.compression, column.has_column_index, column.has_offset_index) == (
        "ZSTD",
        True,
        True,
    )


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (2 * ROW_GROUP - 1, [2 * ROW_GROUP - 1]),
        (2 * ROW_GROUP, [ROW_GROUP, ROW_GROUP]),
        (5 * ROW_GROUP // 2 + 1, [5 * ROW_GROUP // 4 + 1, 5 * ROW_GROUP // 4]),
    ],
)
def test_row_groups_stay_within_bounds(
    random_part: Maker, tmp_path: Path, rows: int, sizes: list[int]
) -> None:
    trees = random_part(1)["trees"].take(pa.array([0] * rows, pa.int64()))
    write_table(tmp_path / "trees.parquet", "trees", trees, {})
    with pq.ParquetFile(tmp_path / "trees.parquet") as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == sizes
    assert ROW_GROUP >= 16_000
    assert 2 * ROW_GROUP <= 64_000


def test_the_manifest_names_trees_rows_and_checksums(random_part: Maker, tmp_path: Path) -> None:
    tables = random_part(2, trees=("t2", "t1"))
    part = write_part(tmp_path, "w0", tables, {})
    manifest = read_manifest(part)
    assert manifest.trees == ("t1", "t2")
    for name in TABLES:
        record = manifest.files[f"{name}.parquet"]
        assert record.rows == tables[name].num_rows
        assert record.sha256 == file_sha256(part / f"{name}.parquet")


def test_sequences_continue_for_each_worker(random_part: Maker, tmp_path: Path) -> None:
    for worker, tree in (("w0", "a"), ("w0", "b"), ("w1-x", "c"), ("w0", "d")):
        write_part(tmp_path, worker, random_part(1, trees=(tree,)), {})
    names = ["w0-000001", "w0-000002", "w0-000003", "w1-x-000001"]
    assert [part.name for part in committed_parts(tmp_path)] == names
    found = {tree: part.name for tree, part in committed_trees(tmp_path).items()}
    assert found == dict(zip("abdc", names, strict=True))


def test_equal_rows_make_equal_bytes(random_part: Maker, tmp_path: Path) -> None:
    tables = random_part(3)
    turned = {name: table.take(list(range(len(table)))[::-1]) for name, table in tables.items()}
    one = write_part(tmp_path / "one", "w0", tables, {"policy": "nano"})
    two = write_part(tmp_path / "two", "w0", turned, {"policy": "nano"})
    for name in [*(f"{table}.parquet" for table in TABLES), "manifest.json"]:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_what_is_staged_does_not_exist(random_part: Maker, tmp_path: Path) -> None:
    left = tmp_path / ".staging" / "w0-000001"
    left.mkdir(parents=True)
    (left / "nodes.parquet").write_bytes(b"half")
    (left / "stray").write_bytes(b"half")
    assert committed_trees(tmp_path) == {}
    part = write_part(tmp_path, "w0", random_part(1), {})
    assert not left.exists()
    assert not (part / "stray").exists()


def test_a_refused_write_leaves_nothing_at_any_size(
    random_part: Maker, file_size_limit: Limit, tmp_path: Path
) -> None:
    tables = random_part(4)
    whole = write_part(tmp_path / "whole", "w0", tables, {})
    largest = max(path.stat().st_size for path in whole.iterdir())
    run = tmp_path / "run"
    for size in range(0, largest, 600):
        with file_size_limit(size), pytest.raises(TreewardError) as refused:
            write_part(run, "w0", tables, {})
        message = str(refused.value)
        assert message.startswith(f"{run}: cannot write part w0-000001: ")
        assert "again" in message
        assert "\n" not in message
        assert committed_parts(run) == []
        assert list((run / ".staging").iterdir()) == []
    assert write_part(run, "w0", tables, {}).name == "w0-000001"


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    with (
        pytest.raises(TreewardError, match=r"No space left on device; free some space"),
        disk_errors(tmp_path, "cannot write"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")


@pytest.mark.parametrize("place", [10, 60, 120, -10])
def test_a_flipped_bit_in_sealed_json_is_found(tmp_path: Path, place: int) -> None:
    path = tmp_path / "sealed.json"
    body = {"schema_version": 1, "value": 0.1, "text": "\u2028 \U0001f600", "none": None}
    path.write_bytes(seal(body))
    assert unseal(path, 1) == body
    data = bytearray(path.read_bytes())
    for bit in range(8):
        data[place] ^= 1 << bit
        path.write_bytes(data)
        with pytest.raises(DamagedData, match=r"sealed\.json"):
            unseal(path, 1)
        data[place] ^= 1 << bit


def test_json_that_is_too_deep_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "sealed.json"
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(DamagedData, match=r"sealed\.json: damaged: not the JSON"):
        unseal(path, 1)


def test_a_newer_version_is_told_from_damage(tmp_path: Path) -> None:
    path = tmp_path / "sealed.json"
    path.write_bytes(seal({"schema_version": 2}))
    with pytest.raises(BadInput, match="schema_version 2"):
        unseal(path, 1)


def test_order_of_rows_is_by_text_then_number(random_part: Maker, tmp_path: Path) -> None:
    part = write_part(tmp_path, "w0", random_part(5, trees=("b", "a", "B")), {})
    nodes = pq.read_table(part / "nodes.parquet")
    assert pc.unique(nodes["tree_id"]).to_pylist() == ["B", "a", "b"]

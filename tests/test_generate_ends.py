"""Whatever ends a run, what it opened is closed: a thread left behind keeps the process alive."""

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treeward.export import disk
from treeward.export.durable import file_sha256
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.parts import FileRecord
from treeward.export.plan import make_plan
from treeward.export.row_groups import RowGroups
from treeward.export.schema import REPEATED
from treeward.export.verify import read_checked
from treeward.search.errors import BadInput, DamagedData, TreewardError


def test_a_commit_that_the_disk_refuses_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(threading.enumerate())
    refused = []

    def refuse(path: Path, to: Path) -> None:
        if to.parent.name == "parts":
            refused.append(to)
            raise OSError(28, "No space left on device", str(path))
        rename(path, to)

    rename = disk.rename
    monkeypatch.setattr(disk, "rename", refuse)
    quick = ("search.simulations=1", "search.rollouts=1")
    plan = make_plan(Options(problems="task:arithmetic?n=1&seed=1", assignments=quick))
    with pytest.raises(TreewardError, match="No space left"):
        generate(plan, tmp_path / "run", concurrency=1)
    assert refused
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(timeout=10)
    assert not [thread for thread in left if thread.is_alive()]


def test_a_run_of_an_earlier_version_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    quick = ("search.simulations=1", "search.rollouts=1")
    plan = make_plan(Options(problems="task:arithmetic?n=1&seed=1", assignments=quick))
    generate(plan, tmp_path / "run", concurrency=1)
    (nodes,) = (tmp_path / "run").glob("parts/*/nodes.parquet")
    table = pq.read_table(nodes).drop_columns(["n_taken"])
    pq.write_table(table.append_column("n_right_last", table["n_right"]), nodes)
    with pytest.raises(BadInput, match="has no column 'n_taken': an earlier version made it"):
        generate(plan, tmp_path / "run", concurrency=1)
    with pytest.raises(BadInput, match="has no column 'n_taken': an earlier version made it"):
        RowGroups("nodes", ("n_taken",)).whole(nodes)
    with pytest.raises(BadInput, match="has no column 'n_taken': an earlier version made it"):
        read_checked(nodes, "nodes", FileRecord(sha256=file_sha256(nodes), rows=len(table)))


def test_a_column_of_nodes_that_cannot_be_unknown_is_read_without_nulls(tmp_path: Path) -> None:
    path = tmp_path / "nodes.parquet"
    counts = pa.table({"n_taken": pa.array([1, None], pa.int32())})
    pq.write_table(counts, path)
    with pytest.raises(BadInput, match="has no column"):
        RowGroups("nodes", ("n_taken",)).whole(path)
    for name in REPEATED["nodes"]:
        counts = counts.append_column(name, pa.array(["a", "a"]))
    pq.write_table(counts, path)
    with pytest.raises(DamagedData, match="column n_taken has nulls"):
        RowGroups("nodes", ("n_taken",)).whole(path)

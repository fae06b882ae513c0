"""Whatever ends a run, what it opened is closed: a thread left behind keeps the process alive."""

import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from treeward.export import disk
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.search.errors import BadInput, TreewardError


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
    pq.write_table(pq.read_table(nodes).drop_columns(["creation"]), nodes)
    with pytest.raises(BadInput, match="has no column 'creation': an earlier version made it"):
        generate(plan, tmp_path / "run", concurrency=1)

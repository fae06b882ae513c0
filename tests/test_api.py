"""What Python users call: interrupts, running event loops, paths, and kinds that do not exist."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

import treeward
from treeward.search.critic import Prefix, Scores
from treeward.search.errors import BadInput
from treeward.search.scripted import ScriptedCritic

PROBLEMS = "task:arithmetic?n=4&seed=3"
QUICK = ("search.simulations=2", "search.rollouts=1")


class Impatient(ScriptedCritic):
    """Presses Ctrl-C when it is first asked, as somebody at the keyboard would."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, steps: Scores(0.5, None, None), "impatient")
        self.asked = 0

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        self.asked += 1
        if self.asked == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return super().score(prefixes)


@pytest.fixture(autouse=True)
def keyboard() -> Iterator[None]:
    """Hears Ctrl-C as a terminal's process does; one started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        treeward.generate(PROBLEMS, out, critics=Impatient(), assignments=QUICK, concurrency=1)


def test_ctrl_c_ends_the_script_and_the_same_call_goes_on(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupted(tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert treeward.open_run(tmp_path).sql("FROM trees").num_rows < 4
    critic = ScriptedCritic(lambda prompt, steps: Scores(0.5, None, None), "impatient")
    grown = treeward.generate(PROBLEMS, tmp_path, critics=critic, assignments=QUICK)
    assert grown.sql("FROM trees").num_rows == 4


def in_a_loop(call: object) -> None:
    """Calls something while an event loop runs that leaves Ctrl-C alone, as a notebook's does."""

    async def cell() -> None:
        assert callable(call)
        call()

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(cell())
    finally:
        loop.close()


def test_a_running_event_loop_is_no_obstacle(tmp_path: Path) -> None:
    threads = threading.active_count()
    in_a_loop(lambda: treeward.generate(PROBLEMS, tmp_path, assignments=QUICK))
    assert treeward.open_run(tmp_path).sql("FROM trees").num_rows == 4
    assert threading.active_count() == threads


def test_ctrl_c_ends_a_call_in_a_running_event_loop(tmp_path: Path) -> None:
    threads = threading.active_count()
    in_a_loop(lambda: interrupted(tmp_path))
    assert treeward.open_run(tmp_path).sql("FROM trees").num_rows < 4
    assert threading.active_count() == threads


def test_ctrl_c_ends_a_call_under_asyncio_run(tmp_path: Path) -> None:
    """Whose own handler would only cancel the task that waits."""

    async def cell() -> None:
        interrupted(tmp_path)

    threads = threading.active_count()
    asyncio.run(cell())
    assert treeward.open_run(tmp_path).sql("FROM trees").num_rows < 4
    assert threading.active_count() == threads


def test_problems_may_be_a_path(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "1 +2", "answer": "3"}\n')
    grown = treeward.generate(problems, tmp_path / "run", policy="nano", assignments=QUICK)
    assert grown.sql("FROM trees").num_rows == 1


def test_at_least_one_tree_grows_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="concurrency must be at least 1, got 0"):
        treeward.generate(PROBLEMS, tmp_path / "run", concurrency=0)
    assert not (tmp_path / "run").exists()


def test_paths_may_be_texts(tmp_path: Path) -> None:
    config, tests = tmp_path / "c.toml", tmp_path / "tests.jsonl"
    config.write_text("[search]\nsimulations = 2\nrollouts = 1\n")
    tests.write_text('{"prompt": "1 +2"}\n')
    runs = [
        treeward.generate(
            "task:arithmetic?n=1", str(tmp_path / name), config=str(config), seed=seed
        )
        for seed, name in enumerate(("one", "two"))
    ]
    (tree,) = runs[0].sql("SELECT tree_id FROM trees").to_pylist()
    for other in (runs[1], str(tmp_path / "two")):
        written = runs[0].view(tmp_path / "both.html", tree["tree_id"], against=other)
        assert written.out.exists()
    with pytest.raises(BadInput, match="against: needs the id of a tree"):
        runs[0].view(tmp_path / "run.html", against=runs[1])
    report = runs[0].export("prm", str(tmp_path / "data"), test_sets=[str(tests)])
    assert sum(report.rows.values()) > 0


def test_sums_are_integers(tmp_path: Path) -> None:
    run = treeward.generate("task:arithmetic?n=1", tmp_path / "run", assignments=QUICK)
    (kind,) = run.sql("SELECT sum(n_nodes) AS k FROM trees").schema.types
    assert kind == pa.int64()
    assert run.sql("SELECT sum(2::HUGEINT ** 70::INT) AS k").num_rows == 1


def test_a_kind_that_does_not_exist_is_bad_input(tmp_path: Path) -> None:
    run = treeward.generate("task:arithmetic?n=1", tmp_path / "run", assignments=QUICK)
    with pytest.raises(BadInput, match=r"kind: no 'PRM'.*prm"):
        run.export("PRM", tmp_path / "out")

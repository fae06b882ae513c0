"""Runs grown with critics: their identity, what they refuse, and going on after a kill."""

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import treeward
from treeward.cli import main
from treeward.export.estimate import estimate
from treeward.export.generate import Outcome, generate
from treeward.export.journal import read_entries
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder
from treeward.export.verify import verify_run
from treeward.search.critic import Critic, Prefix, Scores
from treeward.search.errors import BadInput, CallFailed, SettingsConflict
from treeward.search.scripted import ScriptedCritic

PROBLEMS = "task:arithmetic?n=2&seed=3"
QUICK = ("search.simulations=3", "search.rollouts=2")


def opinion(prompt: str, steps: Sequence[str]) -> Scores:
    """Longer is better, up to a point: one byte more is one thousandth."""
    value = min(len("".join(steps).replace("\n", "")), 1000) / 1000
    return Scores(value, value, 1 - value) if steps else Scores(0.5, None, None)


class Counting(ScriptedCritic):
    """Counts what it scores."""

    def __init__(self, name: str = "one") -> None:
        super().__init__(opinion, name)
        self.scored = 0

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        self.scored += len(prefixes)
        return super().score(prefixes)


def options(critics: Critic | None, *more: str) -> Options:
    return Options(problems=PROBLEMS, critics=critics, assignments=(*QUICK, *more))


def rows(run: Path, table: str, order: str) -> pa.Table:
    return run_query(open_run_folder(run), f"SELECT * FROM {table} ORDER BY {order}")


def tables(run: Path) -> list[pa.Table]:
    return [
        rows(run, "trees", "tree_id"),
        rows(run, "nodes", "tree_id, pre"),
        rows(run, "rollouts", "tree_id, rollout_id"),
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("critics") / "run"
    generate(make_plan(options(Counting())), path, concurrency=8)
    return path


def test_without_critics_a_run_knows_nothing_of_them() -> None:
    settings = make_plan(options(None)).identity.settings
    assert not [name for name in settings if "critic" in name]
    with_critics = make_plan(options(Counting())).identity.settings
    assert {name: with_critics[name] for name in settings} == settings
    assert {name: with_critics[name] for name in with_critics.keys() - settings.keys()} == {
        "critic.fingerprint": "one",
        "search.critic_value": 1.0,
        "search.critic_progress": 0.0,
        "search.critic_outcome": 0.0,
        "search.critic_rollouts": 8.0,
    }


def test_nodes_hold_what_the_critic_said(run: Path) -> None:
    nodes = rows(run, "nodes", "tree_id, node_id").to_pylist()
    text = {(node["tree_id"], node["node_id"]): node["step_text"] for node in nodes}
    for node in nodes:
        steps = [text[node["tree_id"], at] for at in node["path"][1:]]
        said = Scores(node["value_critic"], node["progress_critic"], node["outcome_critic"])
        assert said == opinion("", steps)
    assert verify_run(run) == ()


def test_another_critic_is_another_run(run: Path) -> None:
    with pytest.raises(SettingsConflict, match="run has 'one', asked for 'two'"):
        generate(make_plan(options(Counting("two"))), run, concurrency=1)
    with pytest.raises(SettingsConflict, match="run has 'one', asked for none"):
        generate(make_plan(options(None)), run, concurrency=1)


def test_rows_do_not_depend_on_concurrency(run: Path, tmp_path: Path) -> None:
    generate(make_plan(options(Counting())), tmp_path, concurrency=1)
    assert tables(tmp_path) == tables(run)


_KILLED = """
import sys, time
from pathlib import Path
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.search.critic import Scores
from treeward.search.scripted import ScriptedCritic

def opinion(prompt, steps):
    time.sleep(0.005)
    value = min(len("".join(steps).replace("\\n", "")), 1000) / 1000
    return Scores(value, value, 1 - value) if steps else Scores(0.5, None, None)

options = Options(problems=sys.argv[2], critics=ScriptedCritic(opinion, "one"),
                  assignments=sys.argv[3:])
generate(make_plan(options), Path(sys.argv[1]), concurrency=2)
"""


def test_a_killed_run_asks_neither_policy_nor_critic_again(run: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(_KILLED)
    command = [sys.executable, "-c", script, str(tmp_path), PROBLEMS, *QUICK]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "journal"
    while process.poll() is None:
        data = b"".join(file.read_bytes() for file in journal.glob("*"))
        if data.count(b'"scored"') >= 3:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    kept = [reply for file in journal.glob("*") for reply in read_entries(file)[0].values()]
    scored = sum(len(reply.scores) for reply in kept)
    assert scored >= 3
    critic = Counting()
    generate(make_plan(options(critic)), tmp_path, concurrency=5)
    assert tables(tmp_path) == tables(run)
    assert critic.scored == len(rows(run, "nodes", "pre")) - scored


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("search.critic_outcome=1", "give --critics DIR"),
        ("search.critic_rollouts=4", "give --critics DIR"),
        ("search.rollouts=0", "without critics"),
    ],
)
def test_settings_of_critics_without_critics_are_refused(assignment: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make_plan(options(None, assignment))


def test_a_plan_counts_the_calls_of_critics() -> None:
    plain, scored = (estimate(make_plan(options(critic))) for critic in (None, Counting()))
    assert scored.max_calls - plain.max_calls == scored.n_problems * scored.max_nodes
    alone = estimate(make_plan(options(Counting(), "search.rollouts=0")))
    assert (alone.max_rollouts, alone.max_calls) == (0, plain.max_calls)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs a command where every folder holds the same critics."""
    learned = ModuleType("treeward.critics.learned")

    def load_critics(folder: Path, *, device: str, threads: int | None, alone: bool) -> Critic:
        assert alone, "the embedded model runs in deterministic mode"
        if not folder.is_dir():
            raise BadInput(f"{folder}: no critics")
        return Counting(f"{folder.name} on {device}")

    learned.load_critics = load_critics  # type: ignore[attr-defined]  # a module made by hand
    monkeypatch.setitem(sys.modules, "treeward.critics.learned", learned)

    def run_command(*arguments: Any) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run_command


def test_the_commands(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    critics, out = tmp_path / "critics", tmp_path / "run"
    sets = [part for setting in QUICK for part in ("--set", setting)]
    generate_it = ("generate", "task:arithmetic?n=2", "--out", out, *sets)
    assert command(*generate_it, "--critics", critics)[0] == 2
    assert not out.exists()
    critics.mkdir()
    assert command("score", out, "--critics", critics)[0] == 2
    assert command(*generate_it, "--critics", critics)[0] == 0
    code, _, err = command(*generate_it)
    assert code == 3
    assert "critic.fingerprint: run has 'critics on cpu', asked for none" in err
    code, said, err = command("score", out, "--critics", critics)
    assert code == 0
    assert "2 trees scored by critic" in said
    assert "2/2 trees have scores" in err
    code, said, _ = command("score", out, "--critics", critics, "--json")
    assert (code, '"scored": 0' in said, '"before": 2' in said) == (0, True, True)
    assert command("verify", out)[0] == 0


class Failing(Counting):
    """Has a score for nothing."""

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        raise CallFailed("timeout", "late")


def test_failed_trees_count_for_the_exit_code_also_when_they_were_there_before(
    tmp_path: Path,
) -> None:
    plan = make_plan(options(Failing()))
    first = generate(plan, tmp_path, concurrency=2)
    again = generate(plan, tmp_path, concurrency=2)
    assert (first.grown, first.failed, first.failed_before) == (2, 2, 0)
    assert (again.grown, again.before, again.failed, again.failed_before) == (0, 2, 0, 2)
    assert "2 were there before, 2 of them with failed calls" in str(again)
    for outcome in (first, again):
        codes = [outcome.exit_code(share) for share in (None, 0.0, 0.5, 1.0)]
        assert codes == [4, 1, 1, 4]


def test_the_share_of_failed_trees_is_of_all_trees() -> None:
    outcome = Outcome(grown=1, before=3, failed=1, failed_before=0, left=0)
    assert [outcome.exit_code(share) for share in (0.2, 0.25)] == [1, 4]
    sound = Outcome(grown=1, before=3, failed=0, failed_before=0, left=0)
    assert [sound.exit_code(share) for share in (None, 0.0)] == [0, 0]


def test_the_python_calls(tmp_path: Path) -> None:
    grown = treeward.generate(
        "task:arithmetic?n=1", tmp_path, critics=Counting(), assignments=QUICK
    )
    (count,) = grown.sql("SELECT count(*) AS n, count(value_critic) AS said FROM nodes").to_pylist()
    assert count["n"] == count["said"]
    critic = Counting("two")
    scored = treeward.score(tmp_path, critic)
    assert critic.scored > 0
    assert scored.sql("FROM scores").num_rows == count["n"]

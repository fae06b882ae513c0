"""What a stranger meets at the terminal: one clear line and the documented exit code."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

GOOD = '{"prompt": "1 +2", "answer": "3"}\n'
QUICK = ("--set", "search.simulations=1", "--set", "search.rollouts=1")


Command = Callable[..., Any]


@pytest.fixture
def nano_run(treeward: Command, tmp_path: Path) -> Path:
    """A finished run of three problems."""
    out = tmp_path / "run"
    assert treeward("generate", "task:arithmetic?n=3", "--out", out, *QUICK).code == 0
    return out


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('{"answer": "3"}\n', ":1: "),
        (GOOD * 1 + "\n" * 5 + "{nonsense\n", ":7: "),
        ('{"id": "a", "prompt": "1"}\n{"id": "a", "prompt": "2"}\n', ":2: "),
        ("", "empty"),
    ],
    ids=["no prompt", "invalid JSON at line 7", "duplicate ids", "empty file"],
)
def test_bad_problems_stop_before_anything_is_written(
    treeward: Command, tmp_path: Path, rows: str, says: str
) -> None:
    problems, out = tmp_path / "problems.jsonl", tmp_path / "run"
    problems.write_text(rows)
    ran = treeward("generate", problems, "--policy", "nano", "--out", out)
    assert ran.code == 2
    assert str(problems) in ran.err
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert not out.exists()


def test_problems_are_looked_at_before_anything_else(treeward: Command, tmp_path: Path) -> None:
    ran = treeward("generate", tmp_path / "none.jsonl", "--policy", "nonsense", "--out", tmp_path)
    assert ran.code == 2
    assert "none.jsonl" in ran.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--set", "search.simulation=3"), "search.simulations"),
        (("--set", "search.simulations=many"), "search.simulations"),
        (("--set", "policy.temperature=1e-50"), "at least 1e-06"),
        (("--set", "policy.temperature=inf"), "must be a finite number, got inf"),
        (("--set", "policy.temperature=nan"), "must be a finite number, got nan"),
        (("--set", f"policy.temperature=1{'0' * 400}"), "must be a finite number, got 10000"),
        (
            ("--set", "backend.device=cuda:99"),
            "backend.device is cuda:99 and this machine has none",
        ),
        (("--set", "backend.device=meta"), "backend.device is meta and this machine has none"),
        (("--set", "backend.device=cpu:7"), "backend.device is cpu:7 and this machine has none"),
        (("--set", "backend.device=gpu"), "must be a torch device such as cpu or cuda"),
        (("--seed", str(2**63)), "seed must be at least 0 and below 2^63"),
        (("--set", "policy.temperature=0"), "at least 1e-06"),
        (("--set", "policy.temperature=-.5"), "at least 1e-06, got -0.5"),
        (("--set", "nonsense"), "section.key=value"),
        (("--policy", "nanoo"), "nano"),
        (("--set", "prompt.template=nano.toml"), "nano.toml"),
        (("--search", "mtcs"), "mcts"),
    ],
)
def test_an_unknown_setting_names_the_nearest(
    treeward: Command, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    ran = treeward("generate", "task:arithmetic?n=2", "--out", tmp_path / "run", *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_model_says_what_it_lacks(treeward: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = treeward(
        "generate", "task:arithmetic?n=2", "--policy", tmp_path / "empty", "--out", tmp_path / "run"
    )
    assert ran.code == 2
    assert "config.json" in ran.err
    assert not (tmp_path / "run").exists()


def test_nano_is_not_taken_for_problems_it_cannot_read(treeward: Command, tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"prompt": "How many legs have two cats?", "answer": "8"}\n')
    ran = treeward("generate", problems, "--out", tmp_path / "run")
    assert ran.code == 2
    assert "--policy" in ran.err
    ran = treeward("generate", problems, "--policy", "nano", "--out", tmp_path / "run")
    assert ran.code == 2
    assert "cannot read" in ran.err
    assert not (tmp_path / "run").exists()


def test_other_settings_are_refused_with_the_difference(treeward: Command, nano_run: Path) -> None:
    before = sorted(path for path in nano_run.rglob("*") if path.is_file())
    ran = treeward(
        "generate", "task:arithmetic?n=3", "--out", nano_run, *QUICK[:3], "search.rollouts=2"
    )
    assert ran.code == 3
    assert "search.rollouts: run has 1, asked for 2" in ran.err
    assert sorted(path for path in nano_run.rglob("*") if path.is_file()) == before


def test_the_same_command_again_does_nothing(treeward: Command, nano_run: Path) -> None:
    before = {path: path.read_bytes() for path in nano_run.rglob("*") if path.is_file()}
    ran = treeward("generate", "task:arithmetic?n=3", "--out", nano_run, *QUICK, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["grown"] == 0
    assert json.loads(ran.out)["before"] == 3
    assert {path: path.read_bytes() for path in nano_run.rglob("*") if path.is_file()} == before


def test_a_folder_that_cannot_be_written_to_is_one_line(treeward: Command) -> None:
    # Below /proc nobody can make a folder, root included.
    ran = treeward("generate", "task:arithmetic?n=2", "--out", "/proc/treeward/run", *QUICK)
    assert ran.code == 2
    assert "/proc/treeward" in ran.err
    assert ran.err.count("\n") == 1


def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_later(
    treeward: Command,
    tmp_path: Path,
    file_size_limit: Callable[[int], AbstractContextManager[None]],
) -> None:
    out = tmp_path / "run"
    command = ("generate", "task:arithmetic?n=6", "--out", out, "--json")
    with file_size_limit(6_000):
        ran = treeward(*command)
    assert ran.code == 1
    # A slow machine shows progress before it.
    *_, last = ran.err.splitlines()
    assert last.startswith(f"error: {out}")
    assert ran.err.count("error: ") == 1
    assert not any((out / "parts").iterdir())
    ran = treeward(*command)
    assert ran.code == 0
    assert json.loads(ran.out)["grown"] == 6
    assert treeward("verify", out).code == 0


def test_status_query_export_and_verify_work_on_a_run(
    treeward: Command, nano_run: Path, tmp_path: Path
) -> None:
    status = json.loads(treeward("status", nano_run, "--json").out)
    assert (status["n_problems"], status["n_trees"]) == (3, 3)
    counted = treeward("query", nano_run, "SELECT count(*) AS n FROM trees", "--format", "json")
    assert json.loads(counted.out) == [{"n": 3}]
    for kind in ("srl", "rlvr", "critic"):
        report = treeward("export", nano_run, kind, "--out", tmp_path / kind, "--json")
        assert report.code == 0, report.err
        assert (tmp_path / kind / "README.md").is_file()
    assert treeward("verify", nano_run).code == 0


def test_damage_is_found_and_named(treeward: Command, nano_run: Path) -> None:
    file = next(nano_run.glob("parts/*/nodes.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    ran = treeward("verify", nano_run)
    assert ran.code == 5
    assert str(file) in ran.out + ran.err


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT nonsense FROM nodes", "nonsense"),
        ("DELETE FROM nodes", "SELECT"),
        ("SELECT 1; SELECT 2", "one"),
    ],
)
def test_a_bad_statement_is_one_line(
    treeward: Command, nano_run: Path, sql: str, says: str
) -> None:
    ran = treeward("query", nano_run, sql)
    assert ran.code == 2
    assert says in ran.err
    assert ran.out == ""


def test_what_a_model_wrote_cannot_act_on_the_terminal_by_way_of_an_error(
    treeward: Command, nano_run: Path
) -> None:
    ran = treeward("query", nano_run, "SELECT (chr(27) || '[2J' || answer)::INT FROM trees")
    assert ran.code == 2
    assert "\N{REPLACEMENT CHARACTER}[2J" in ran.err
    assert "\x1b" not in ran.err


def test_an_error_of_several_lines_keeps_them(treeward: Command, nano_run: Path) -> None:
    others = ("search.rollouts=2", "--set", "search.width=3")
    ran = treeward("generate", "task:arithmetic?n=3", "--out", nano_run, *QUICK[:3], *others)
    assert ran.code == 3
    lines = ran.err.splitlines()
    assert lines[0].startswith("error: ")
    assert any(line.strip().startswith("search.width: run has") for line in lines)


def program(*arguments: str | Path) -> list[str]:
    """The command line of a command in a process of its own."""
    return [sys.executable, "-m", "treeward.cli", *map(str, arguments)]


LONG = ("SELECT repeat('x', 90) FROM range(9000)", "--format", "csv")


@pytest.mark.parametrize("command", [("status", "{run}"), ("query", "{run}", *LONG)])
def test_output_that_cannot_be_written_is_one_line(
    nano_run: Path, command: tuple[str, ...]
) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            program(*(each.format(run=nano_run) for each in command)),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: standard output: ")
    assert "No space left on device" in ran.stderr
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("status", "{run}"), ("query", "{run}", *LONG)])
def test_a_reader_that_has_read_enough_ends_a_command_quietly(
    nano_run: Path, command: tuple[str, ...]
) -> None:
    with subprocess.Popen(
        program(*(each.format(run=nano_run) for each in command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.close()
        assert ran.stderr.read() == b""
    assert ran.returncode == 0


def test_damage_is_reported_by_the_exit_code_though_nobody_reads(nano_run: Path) -> None:
    next(nano_run.glob("parts/*/nodes.parquet")).write_bytes(b"")
    with subprocess.Popen(program("verify", nano_run), stdout=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        ran.stdout.close()
    assert ran.returncode == 5


def test_a_dry_run_prints_the_plan_and_writes_nothing(treeward: Command, tmp_path: Path) -> None:
    ran = treeward("generate", "task:arithmetic?n=3", "--out", tmp_path / "run", "--dry-run")
    assert ran.code == 0
    assert "3 problems" in ran.out
    assert "the first prompt" in ran.out
    assert not (tmp_path / "run").exists()


def test_an_unknown_command_names_the_nearest(treeward: Command) -> None:
    ran = treeward("generat")
    assert ran.code == 2
    assert "did you mean 'generate'?" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        "demo",
        "generate",
        "status",
        "query",
        "export",
        "verify",
        "doctor",
        "train sft",
        "eval policy",
    ],
)
def test_help_names_every_option_with_its_default(treeward: Command, command: str) -> None:
    ran = treeward(*command.split(), "--help")
    assert ran.code == 0
    assert "Usage: treeward" in ran.out


def test_doctor_names_the_embedded_model(treeward: Command, tmp_path: Path) -> None:
    checks = {check["name"]: check for check in json.loads(treeward("doctor", "--json").out)}
    assert checks["nano"]["ok"]
    assert all(check["remedy"] for check in checks.values() if not check["ok"])


def test_eval_policy_prints_one_document_and_writes_its_problems(
    treeward: Command, tmp_path: Path
) -> None:
    out = tmp_path / "problems.parquet"
    command = ("eval", "policy", "nano", "task:arithmetic?n=3", "--samples", "2", "--out", out)
    ran = treeward(*command, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["pass_at"].keys() == {"1", "2"}
    assert found["pass_at"]["1"]["level"] == 0.9
    assert [row["n"] + row["n_unknown"] for row in found["problems"]] == [2, 2, 2]
    assert pq.read_table(out).to_pylist() == found["problems"]
    shown = treeward(*command).out
    assert "pass@2" in shown
    assert "maj@2" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nano", "none.jsonl"), "none.jsonl"),
        (("nanoo", "task:arithmetic?n=2"), "nano"),
        (("nano", "task:arithmetic?n=2", "--samples", "2", "--k", "3"), "--samples"),
        (("nano", "task:arithmetic?n=2", "--set", "policy.temprature=1"), "policy.temperature"),
        (("nano", "task:arithmetic?n=2", "--set", "search.width=2"), "unknown setting"),
        (("nano", "task:arithmetic?n=2", "--set", "policy.temperature=0"), "at least 1e-06"),
        (("nano", "task:arithmetic?n=2", "--backend", "http"), "give its base URL"),
        (
            ("nano", "task:arithmetic?n=2", "--backend=vllm", "--set=policy.temperature=1e-6"),
            "policy.temperature must be from 0.01 to 2.0 with vLLM, got 1e-06",
        ),
        (("nano", "task:arithmetic?n=1", "--samples", "1", "--out", "/proc"), "must be a file in"),
        (("nano", "task:arithmetic?n=1", "--out", "/none/x.parquet"), "must be a file in a folder"),
    ],
)
def test_eval_policy_refuses_in_one_line(
    treeward: Command, arguments: tuple[str, ...], says: str
) -> None:
    ran = treeward("eval", "policy", *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert ran.out == ""

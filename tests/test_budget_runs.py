"""Runs with a budget, and runs in shards, on disk: the same rows whoever grows them and how."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.conftest import Ran
from tests.test_resume import kill_at, tables

from treeward.export.compact import compact
from treeward.export.estimate import estimate
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.run_folder import open_run_folder
from treeward.export.set_aside import set_aside
from treeward.export.status import describe, run_status
from treeward.export.verify import verify_run
from treeward.search.errors import DamagedData, SettingsConflict

PROBLEMS = "task:arithmetic?n=7&seed=3"
TOKENS = 3500
SETTINGS = (
    *("search.width=3", "search.rollouts=16", "rollouts.width=0.35", "rollouts.batch=2"),
    *("budget.block=3", "budget.hopeless=4"),
)
OPTIONS = Options(
    problems=PROBLEMS, algorithm="rollouts", budget_tokens=TOKENS, assignments=SETTINGS
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("budget") / "run"
    assert generate(make_plan(OPTIONS), path, concurrency=64).exit_code(None) == 0
    return path


@pytest.fixture(scope="module")
def undisturbed(run: Path) -> dict[str, pa.Table]:
    return tables(run)


def test_a_run_stays_within_its_budget_and_says_what_it_ended(
    run: Path, undisturbed: dict[str, pa.Table]
) -> None:
    assert verify_run(run) == ()
    trees = undisturbed["trees"].to_pylist()
    drawn = sum(row["policy_tokens"] for row in trees)
    stopped = [row["stopped"] for row in trees]
    assert 0.5 * TOKENS < drawn <= TOKENS
    assert {row["status"] for row in trees} == {"ok"}
    assert None in stopped
    assert set(stopped) & {"hopeless", "settled", "uncertain"}
    rules = set(undisturbed["nodes"]["stop_rule"].to_pylist())
    assert {"narrow", "budget"} <= rules
    status = run_status(open_run_folder(run))
    known = [row for row in undisturbed["nodes"].to_pylist() if row["value"] is not None]
    assert status.tokens_per_label == drawn / len(known)
    assert status.budget_tokens == TOKENS
    assert sum(status.stopped.values()) == len(stopped) - stopped.count(None)
    assert f"{TOKENS:,} tokens, of them {TOKENS - drawn:,} left" in describe(status)


@pytest.mark.parametrize("concurrency", [1, 8])
def test_rows_do_not_depend_on_concurrency(
    tmp_path: Path, undisturbed: dict[str, pa.Table], concurrency: int
) -> None:
    generate(make_plan(OPTIONS), tmp_path, concurrency=concurrency)
    assert tables(tmp_path) == undisturbed


@pytest.mark.parametrize("replies", [4, 12])
def test_a_killed_run_comes_to_the_same_rows(
    tmp_path: Path, undisturbed: dict[str, pa.Table], replies: int
) -> None:
    options = ("--search", "rollouts", "--budget-tokens", str(TOKENS))
    kill_at(replies, PROBLEMS, tmp_path, *options, *(f"--set={setting}" for setting in SETTINGS))
    generate(make_plan(OPTIONS), tmp_path, concurrency=5)
    assert tables(tmp_path) == undisturbed
    assert not any((tmp_path / "journal").iterdir())


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_run_goes_on_after_its_last_whole_block(
    run: Path, tmp_path: Path, undisturbed: dict[str, pa.Table], blocks: int
) -> None:
    """As if it had died when so many were committed: 3, 3 and 1 problems."""
    half = shutil.copytree(run, tmp_path / "half")
    parts = sorted((half / "parts").iterdir())
    assert len(parts) == 3
    for part in parts[blocks:]:
        shutil.rmtree(part)
    outcome = generate(make_plan(OPTIONS), half, concurrency=4)
    assert (outcome.before, outcome.grown, outcome.left) == (3 * blocks, 7 - 3 * blocks, 0)
    assert tables(half) == undisturbed


def test_a_missing_block_is_damage(run: Path, tmp_path: Path) -> None:
    half = shutil.copytree(run, tmp_path / "half")
    shutil.rmtree(min((half / "parts").iterdir()))
    with pytest.raises(DamagedData, match="come in blocks of 3"):
        generate(make_plan(OPTIONS), half, concurrency=4)


@pytest.mark.parametrize(
    ("block", "name"), [(0, "nodes.parquet"), (1, "manifest.json"), (2, "trees.parquet")]
)
def test_what_comes_after_a_damaged_block_is_set_aside_with_it(
    run: Path,
    tmp_path: Path,
    undisturbed: dict[str, pa.Table],
    treeward: Callable[..., Ran],
    block: int,
    name: str,
) -> None:
    broken = shutil.copytree(run, tmp_path / "broken")
    parts = sorted((broken / "parts").iterdir())
    (parts[block] / name).write_bytes(b"")
    mended = treeward("verify", broken, "--set-aside")
    assert mended.code == 0
    for part in parts[block:]:
        assert f"{part}: set aside as {broken / 'damaged' / part.name}" in mended.err
    said = "(a run with a budget goes on after its last whole block)"
    assert mended.err.count(said) == len(parts) - block - 1
    assert sorted((broken / "parts").iterdir()) == parts[:block]
    outcome = generate(make_plan(OPTIONS), broken, concurrency=4)
    assert (outcome.before, outcome.left) == (3 * block, 0)
    assert tables(broken) == undisturbed


def test_a_part_with_blocks_from_both_sides_of_the_damage_is_set_aside(
    run: Path, tmp_path: Path, undisturbed: dict[str, pa.Table]
) -> None:
    """Blocks 0 and 2 lie in one merged part, and block 1 is damaged."""
    broken = shutil.copytree(run, tmp_path / "broken")
    middle = sorted((broken / "parts").iterdir())[1]
    middle.rename(tmp_path / middle.name)
    compact(broken)
    (tmp_path / middle.name).rename(middle)
    (middle / "nodes.parquet").write_bytes(b"")
    assert len(set_aside(broken, verify_run(broken))) == 2
    generate(make_plan(OPTIONS), broken, concurrency=4)
    assert tables(broken) == undisturbed


def test_damage_to_the_problems_comes_before_what_they_order(run: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(run, tmp_path / "broken")
    parts = sorted((broken / "parts").iterdir())
    (parts[0] / "nodes.parquet").write_bytes(b"")
    (broken / "problems.parquet").write_bytes(b"")
    with pytest.raises(DamagedData, match=r"problems\.parquet: .*restore it"):
        set_aside(broken, verify_run(broken))
    assert sorted((broken / "parts").iterdir()) == parts


def test_another_budget_is_another_run(run: Path, undisturbed: dict[str, pa.Table]) -> None:
    with pytest.raises(SettingsConflict, match=r"budget\.tokens: run has 3500, asked for 3501"):
        generate(make_plan(replace(OPTIONS, budget_tokens=3501)), run, concurrency=4)
    again = generate(make_plan(OPTIONS), run, concurrency=4)
    assert (again.grown, again.before) == (0, 7)
    assert tables(run) == undisturbed


def nameless(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows without the ids of trees, which a budget is part of."""
    rows = {name: table.to_pylist() for name, table in tables(run).items()}
    for table in rows.values():
        for row in table:
            del row["tree_id"]
        table.sort(key=repr)
    return rows


def test_a_budget_that_is_not_used_up_changes_no_row(tmp_path: Path) -> None:
    small = replace(OPTIONS, limit=3, assignments=("search.simulations=3",), algorithm="mcts")
    generate(make_plan(replace(small, budget_tokens=10**6)), tmp_path / "rich", concurrency=4)
    generate(make_plan(replace(small, budget_tokens=None)), tmp_path / "plain", concurrency=4)
    assert nameless(tmp_path / "rich") == nameless(tmp_path / "plain")


def test_a_plan_knows_its_budget_and_its_share() -> None:
    whole = make_plan(replace(OPTIONS, budget_tokens=None, assignments=SETTINGS[:4]))
    assert estimate(make_plan(OPTIONS)).max_policy_tokens == TOKENS
    assert estimate(whole).max_policy_tokens > TOKENS
    assert not any(name.startswith("budget.") for name in whole.identity.settings)
    third = make_plan(replace(OPTIONS, budget_tokens=None, assignments=SETTINGS[:4], shard="3/3"))
    assert [problem.id for problem in third.share] == [p.id for p in whole.problems[2::3]]
    assert (estimate(third).n_problems, third.identity) == (2, whole.identity)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--budget-tokens", "0"), "0 is not in the range x>=1"),
        (("--set", "budget.block=8"), "budget.block=8 is read only with --budget-tokens"),
        (("--shard", "0/3"), "--shard must be I/N with I from 1 to N"),
        (("--shard", "4/3"), "got '4/3'"),
        (("--shard", "1"), "got '1'"),
        (("--shard", "-1/3"), "got '-1/3'"),
        (("--shard", "1/2", "--budget-tokens", "9"), "a shard sees only its own"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(
    tmp_path: Path, treeward: Callable[..., Ran], options: tuple[str, ...], says: str
) -> None:
    refused = treeward("generate", PROBLEMS, "--out", tmp_path / "run", *options)
    assert (refused.code, refused.out) == (2, "")
    assert says in refused.err
    assert not (tmp_path / "run").exists()


QUICK = ("--set", "search.simulations=2", "--set", "search.rollouts=2")


def test_shards_are_the_run(tmp_path: Path, treeward: Callable[..., Ran]) -> None:
    """Each in a folder of its own; their parts in one folder are the whole run."""
    whole = tmp_path / "whole"
    assert treeward("generate", PROBLEMS, "--out", whole, *QUICK).code == 0
    shards = [tmp_path / f"shard-{at}" for at in (1, 2, 3)]
    for at, out in enumerate(shards, start=1):
        ran = treeward("generate", PROBLEMS, "--out", out, *QUICK, "--shard", f"{at}/3")
        assert (ran.code, f"{3 if at == 1 else 2} trees grown" in ran.out) == (0, True)
        assert verify_run(out) == ()
    columns = [tables(out) for out in shards]
    for name, rows in tables(whole).items():
        union = pa.concat_tables(shard[name] for shard in columns)
        keys = ["tree_id", {"trees": "seed", "nodes": "pre", "rollouts": "rollout_id"}[name]]
        assert union.sort_by([(key, "ascending") for key in keys]) == rows
    for out in shards[1:]:
        shutil.copytree(out / "parts", shards[0] / "parts", dirs_exist_ok=True)
    assert verify_run(shards[0]) == ()
    assert tables(shards[0]) == tables(whole)
    again = treeward("generate", PROBLEMS, "--out", shards[0], *QUICK)
    assert (again.code, "0 trees grown, 7 were there before" in again.out) == (0, True)


def test_shards_of_given_solutions_are_the_run(
    tmp_path: Path, treeward: Callable[..., Ran]
) -> None:
    """Three problems; the third shard of four has one, the fourth none."""
    rows: list[dict[str, object]] = [
        {"prompt": "5 +3 *2", "answer": "16", "responses": ["5+3=8\n8*2=16\n", "5+3=9\n"]},
        {"prompt": "7 -2 +4", "answer": "9", "steps": ["7-2=5"]},
        {"prompt": "1 +2", "answer": "3", "steps": ["1+2=3", "A3"]},
    ]
    file, whole = tmp_path / "s.jsonl", tmp_path / "whole"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert treeward("label", file, "--policy", "nano", "--out", whole).code == 0
    found: dict[str, list[pa.Table]] = {name: [] for name in tables(whole)}
    for at in (1, 2, 3, 4):
        asked = ("label", file, "--policy", "nano", "--shard", f"{at}/4", "--json")
        out = tmp_path / str(at)
        planned = json.loads(treeward(*asked, "--out", out, "--dry-run").out)
        ran = treeward(*asked, "--out", out)
        assert (ran.code, json.loads(ran.out)["grown"]) == (0, int(at < 4)), ran.err
        assert planned["n_problems"] == int(at < 4)
        assert planned["max_rollouts"] == {1: 1 + 2 * 32, 2: 1 + 32, 3: 1 + 32, 4: 0}[at]
        for name, rows_of in tables(out).items() if at < 4 else ():
            found[name].append(rows_of)
    for name, expected in tables(whole).items():
        keys = ["tree_id", {"trees": "seed", "nodes": "pre", "rollouts": "rollout_id"}[name]]
        union = pa.concat_tables(found[name])
        assert union.sort_by([(key, "ascending") for key in keys]) == expected


def test_shards_can_be_compacted_before_they_are_put_together(
    tmp_path: Path, treeward: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treeward.export.part_writer.PART_NODES", 1)
    shards = [tmp_path / f"shard-{at}" for at in (1, 2)]
    for at, out in enumerate(shards, start=1):
        treeward("generate", PROBLEMS, "--out", out, *QUICK, "--shard", f"{at}/2")
        assert "merged into 1" in treeward("compact", out).out
    held = [tables(out)["trees"].num_rows for out in shards]
    shutil.copytree(shards[1] / "parts", shards[0] / "parts", dirs_exist_ok=True)
    assert verify_run(shards[0]) == ()
    assert tables(shards[0])["trees"].num_rows == sum(held)


def test_one_folder_takes_the_shards_one_after_the_other(
    tmp_path: Path, treeward: Callable[..., Ran]
) -> None:
    run = tmp_path / "run"
    for at in (1, 2):
        shard = ("--shard", f"{at}/2", "--limit", 3)
        assert treeward("generate", PROBLEMS, "--out", run, *QUICK, *shard).code == 0
        status = json.loads(treeward("status", run, "--json").out)
        assert (status["n_problems"], status["n_trees"]) == (3, [2, 3][at - 1])
    names = sorted(part.name for part in (run / "parts").iterdir())
    assert names == ["shard-1-of-2-000001", "shard-2-of-2-000001"]
    empty = treeward("generate", PROBLEMS, "--out", run, *QUICK, "--limit", 3, "--shard", "9/9")
    assert (empty.code, "0 trees grown" in empty.out) == (0, True)


def test_a_shard_of_a_run_with_another_seed_is_damage(
    tmp_path: Path, treeward: Callable[..., Ran]
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    for at, seed, out in ((1, 0, run), (2, 7, other)):
        shard = ("--shard", f"{at}/2", "--limit", 4, "--seed", seed)
        assert treeward("generate", PROBLEMS, "--out", out, *QUICK, *shard).code == 0
    shutil.copytree(other / "parts", run / "parts", dirs_exist_ok=True)
    found = treeward("verify", run)
    assert found.code == 5
    assert "shard-2-of-2-000001/trees.parquet: tree_id" in found.err
    assert "with the settings in run.json" in found.err
    assert treeward("verify", run, "--set-aside").code == 0
    assert run_status(open_run_folder(run)).n_trees == 2


def test_label_has_a_budget_too(tmp_path: Path, treeward: Callable[..., Ran]) -> None:
    problem = make_plan(replace(OPTIONS, limit=1)).problems[0]
    row = {"prompt": problem.prompt, "answer": problem.answer, "verifier": problem.verifier}
    steps = [*(problem.solution or ())]
    (tmp_path / "given.jsonl").write_text(json.dumps({**row, "steps": steps}) + "\n")
    run = tmp_path / "run"
    command = ("label", tmp_path / "given.jsonl", "--policy", "nano", "--out", run)
    assert treeward(*command, "--budget-tokens", 900).code == 0
    status = json.loads(treeward("status", run, "--json").out)
    assert (status["n_trees"], status["budget_tokens"]) == (1, 900)
    assert 0 < status["policy_tokens"] <= 900

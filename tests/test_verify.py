"""`verify` names every file that does not hold what was written, and every broken law."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.fakes import SAMPLER

from treeward.export.invariants import LAWS, broken_laws
from treeward.export.journal import Journal
from treeward.export.parts import write_part
from treeward.export.run_folder import Identity, open_run_folder, writing
from treeward.export.schema import SCHEMAS
from treeward.export.verify import Level, require_sound, verify_run
from treeward.search.errors import DamagedData
from treeward.search.problem import Problem
from treeward.search.replies import Failure, Reply

Maker = Callable[..., dict[str, Any]]

IDENTITY = Identity(settings={"seed": 0}, samplers=(SAMPLER,), versions={})
PART = "parts/w0-000001"
FILES = [
    "run.json",
    "problems.parquet",
    f"{PART}/manifest.json",
    f"{PART}/trees.parquet",
    f"{PART}/nodes.parquet",
    f"{PART}/rollouts.parquet",
]


@pytest.fixture(scope="module")
def sound_run(random_part: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run of three random trees; only read."""
    path = tmp_path_factory.mktemp("run")
    problems = [Problem(id=f"p-{tree}", prompt=tree) for tree in "abc"]
    with writing(path, IDENTITY, problems):
        write_part(path, "w0", random_part(1, identity=IDENTITY), {})
    return path


@pytest.fixture
def run(sound_run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may damage."""
    shutil.copytree(sound_run, tmp_path / "run")
    return tmp_path / "run"


def damaged(run: Path) -> list[Path]:
    return [finding.file for finding in verify_run(run) if finding.level is Level.DAMAGE]


def test_a_sound_run_has_no_findings(run: Path) -> None:
    assert verify_run(run) == ()
    require_sound(verify_run(run))


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_wherever_it_is(run: Path, name: str) -> None:
    path = run / name
    whole = path.read_bytes()
    for step in range(8):
        data = bytearray(whole)
        data[step * (len(data) - 1) // 7] ^= 1 << step
        path.write_bytes(data)
        assert damaged(run) == [path]
        with pytest.raises(DamagedData, match=path.name):
            require_sound(verify_run(run))


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_found(run: Path, name: str) -> None:
    path = run / name
    for keep in (0, 7, path.stat().st_size // 2, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:keep])
        assert damaged(run) == [path]


@pytest.mark.parametrize("name", FILES[1:])
def test_a_missing_file_is_found(run: Path, name: str) -> None:
    (run / name).unlink()
    assert damaged(run) == [run / name]


def test_leftovers_are_told_but_are_no_damage(run: Path) -> None:
    (run / ".staging" / "w0-000002").mkdir()
    (run / PART / "notes.txt").write_text("mine")
    Journal(run / "journal").record("d", "key", Reply((), Failure("timeout", "late")))
    findings = verify_run(run)
    assert {finding.level for finding in findings} == {Level.INFO}
    assert [finding.file.name for finding in findings] == ["notes.txt", "w0-000002", "d.jsonl"]
    (run / "journal" / "d.jsonl").write_bytes(b"{}\n")
    assert damaged(run) == [run / "journal" / "d.jsonl"]


def test_a_tree_is_in_one_part_only_and_its_problem_in_the_run(
    run: Path, random_part: Maker
) -> None:
    write_part(run, "w1", random_part(1, trees=("a",), identity=IDENTITY), {})
    write_part(run, "w2", random_part(1, trees=("new",), identity=IDENTITY), {})
    messages = [finding.message for finding in verify_run(run)]
    assert messages == [
        f"tree_id {IDENTITY.tree_id('p-a')} is in w0-000001 too",
        "problem_id p-a is in w0-000001 too",
        "problem p-new is not in problems.parquet",
    ]


def test_a_part_of_a_run_with_other_settings_is_damage(
    sound_run: Path, random_part: Maker, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", replace(IDENTITY, settings={"seed": 7})
    with writing(run, other, open_run_folder(sound_run).problems()):
        write_part(run, "w0", random_part(1, trees=("a",), identity=other), {})
    assert verify_run(run) == ()
    part = write_part(run, "w1", random_part(1, trees=("b", "c"), identity=IDENTITY), {})
    first, problem = min((IDENTITY.tree_id(each), each) for each in ("p-b", "p-c"))
    assert [str(finding) for finding in verify_run(run)] == [
        f"damage: {part / 'trees.parquet'}: tree_id {first} is not that of problem {problem} with "
        "the settings in run.json: another run's (and 1 more)"
    ]


@pytest.mark.parametrize("seed", range(6))
def test_random_trees_keep_every_law(random_part: Maker, seed: int) -> None:
    assert list(broken_laws(random_part(seed))) == []


def plus(amount: float) -> Callable[[Any], Any]:
    return lambda value: amount if value is None else value + amount


def step(parent: int, *, taken: int = 1, right: bool | None = None) -> dict[str, Any]:
    return {"parent": parent, "logprob": None, "n_taken": taken, "right": right}


# One change of one cell, and the first words of the laws that it breaks.
BREAKS: list[tuple[str, str, str, Callable[[Any], Any], set[str]]] = [
    ("trees", "true", "n_nodes", plus(1), {"n_nodes counts"}),
    ("trees", "true", "n_rollouts", plus(1), {"n_rollouts counts"}),
    ("trees", "true", "n_right", plus(10_000), {"counts are"}),
    ("trees", "true", "n_right", plus(1), {"n_right and"}),
    ("trees", "true", "n_unknown", plus(1), {"n_right and"}),
    ("rollouts", "true", "verdict", lambda _: "?", {"its verdict is"}),
    ("trees", "true", "pass_rate", lambda rate: 0.123 if rate is None else None, {"pass_rate is"}),
    ("trees", "true", "pass_rate", plus(1e-9), {"pass_rate is"}),
    ("trees", "true", "best_node_id", plus(10_000), {"best_node_id is"}),
    ("trees", "true", "tree_id", lambda _: "z", {"its tree", "n_nodes counts"}),
    ("nodes", "leaf", "node_id", plus(900), {"n_nodes counts", "its path"}),
    ("nodes", "leaf", "parent_id", lambda _: None, {"node 0,", "n_children", "its interval is"}),
    ("nodes", "leaf", "parent_id", plus(900), {"its parent", "n_children", "its interval is"}),
    ("nodes", "root", "depth", plus(1), {"the root"}),
    ("nodes", "root", "path", lambda _: [1], {"the root"}),
    ("nodes", "root", "creation", lambda _: "sampled", {"the root, and"}),
    ("nodes", "leaf", "creation", lambda _: "root", {"the root, and"}),
    ("nodes", "leaf", "depth", plus(1), {"its path"}),
    ("nodes", "leaf", "path", lambda path: path[1:], {"its path"}),
    ("nodes", "leaf", "pre", lambda _: 0, {"n_nodes counts", "its interval lies"}),
    ("nodes", "leaf", "post_end", plus(900), {"its interval lies", "its interval is"}),
    ("nodes", "root", "post_end", plus(1), {"its interval is"}),
    ("nodes", "leaf", "problem_id", lambda _: "q", {"it has its tree's"}),
    ("nodes", "leaf", "child_rank", plus(9), {"n_children counts"}),
    ("nodes", "leaf", "n_children", plus(1), {"n_children counts"}),
    ("nodes", "leaf", "prior", plus(0.1), {"its children's priors"}),
    ("nodes", "root", "fails_from", lambda _: 0, {"fails_from is"}),
    ("nodes", "fails", "fails_from", lambda _: None, {"fails_from is"}),
    ("nodes", "fails", "fails_from", plus(900), {"fails_from goes"}),
    ("nodes", "rolled", "n_right", lambda _: 99, {"counts are"}),
    ("nodes", "rolled", "n_unknown", lambda _: -1, {"counts are"}),
    ("nodes", "leaf", "n_taken", lambda _: 0, {"counts are"}),
    ("nodes", "leaf", "beyond", lambda _: [step(0)], {"each step beyond"}),
    ("nodes", "leaf", "beyond", lambda _: [step(-2)], {"each step beyond"}),
    ("nodes", "leaf", "beyond", lambda _: [step(-1, taken=0)], {"each step beyond"}),
    ("nodes", "leaf", "beyond", lambda _: [step(-1, right=True), step(0)], {"each step beyond"}),
    ("nodes", "leaf", "n_tokens", plus(1), {"n_tokens"}),
    ("nodes", "rolled", "value_low", lambda _: 0.99, {"value lies"}),
    ("nodes", "rolled", "value_high", lambda _: 1.5, {"value lies"}),
    ("nodes", "rolled", "value_high", lambda _: None, {"value lies"}),
    ("nodes", "rolled", "value_high", lambda _: float("nan"), {"value lies"}),
    ("nodes", "root", "value_tree", lambda _: 0.5, {"value_tree lies"}),
    ("nodes", "root", "progress", lambda _: -1.5, {"progress_low"}),
    ("nodes", "root", "q", lambda _: 1.01, {"q lies"}),
    ("nodes", "leaf", "value_critic", lambda _: -0.1, {"critics' scores"}),
    ("nodes", "leaf", "progress_critic", lambda _: 1.1, {"critics' scores"}),
    ("nodes", "root", "outcome_critic", lambda _: 0.5, {"critics' scores"}),
    ("nodes", "rolled", "n_rollouts", lambda _: 0, {"without rollouts", "counts are"}),
    ("nodes", "ended", "verdict", lambda _: None, {"it has a verdict"}),
    ("nodes", "root", "verdict", lambda _: "right", {"it has a verdict", "its verdict is"}),
    ("nodes", "ended", "verdict_reason", lambda _: "none", {"its verdict is"}),
    ("rollouts", "true", "verdict_reason", lambda _: "none", {"its verdict is"}),
    ("rollouts", "true", "n_tokens", plus(1), {"n_tokens"}),
    ("rollouts", "true", "node_id", plus(900), {"node_id is"}),
    ("rollouts", "true", "evidence_from", plus(900), {"evidence_from is"}),
    ("rollouts", "true", "rollout_id", plus(9_000), {"n_rollouts counts"}),
    ("rollouts", "true", "tree_id", lambda _: "z", {"its tree", "n_rollouts counts", "node_id is"}),
]


def matches(row: dict[str, Any], where: str) -> bool:
    chosen: bool = {
        "true": True,
        "root": row.get("node_id") == 0,
        "leaf": bool(row.get("node_id")) and row.get("n_children") == 0,
        "rolled": row.get("n_rollouts", 0) > 0 and row.get("n_right", 0) > 0,
        "fails": row.get("fails_from") is not None,
        "ended": bool(row.get("is_terminal")),
    }[where]
    return chosen


@pytest.mark.parametrize(("table", "where", "column", "change", "laws"), BREAKS)
def test_a_changed_cell_breaks_its_laws(
    random_part: Maker,
    table: str,
    where: str,
    column: str,
    change: Callable[[Any], Any],
    laws: set[str],
) -> None:
    tables = random_part(1)
    rows = tables[table].to_pylist()
    row = next(row for row in rows if matches(row, where))
    row[column] = change(row[column])
    tables[table] = pa.Table.from_pylist(rows, schema=SCHEMAS[table])
    chosen = [law for law in LAWS if law.says.startswith(tuple(laws))]
    broken = [line.partition(": ")[2] for _, line in broken_laws(tables, chosen)]
    for law in laws:
        assert any(line.startswith(law) for line in broken), broken


def test_every_law_is_broken_by_some_change() -> None:
    seen = {law for *_, laws in BREAKS for law in laws}
    untested = {law.says for law in LAWS if not any(law.says.startswith(word) for word in seen)}
    assert untested == {"a value where a solution ends is what its verdict says"}


@pytest.mark.parametrize(("verdict", "value"), [("right", 0.5), ("wrong", 1.0), ("unknown", 0.0)])
def test_a_value_where_a_solution_ends_follows_from_its_verdict(
    random_part: Maker, verdict: str, value: float
) -> None:
    tables = random_part(1, trees=tuple("abcdefgh"))
    rows = tables["nodes"].to_pylist()
    row = next(row for row in rows if row["verdict"] == verdict)
    for end in ("", "_low", "_high"):
        row[f"value{end}"] = {"right": 1.0, "wrong": 0.0}.get(verdict)
    tables["nodes"] = pa.Table.from_pylist(rows, schema=SCHEMAS["nodes"])
    assert list(broken_laws(tables)) == []
    for end in ("", "_low", "_high"):
        row[f"value{end}"] = value
    tables["nodes"] = pa.Table.from_pylist(rows, schema=SCHEMAS["nodes"])
    assert [line.partition(": ")[2] for _, line in broken_laws(tables)] == [
        "a value where a solution ends is what its verdict says"
    ]

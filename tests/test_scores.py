"""Scores are added to a run once, whole, beside its parts; views, status and verify know them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import SAMPLER

from treeward.export.open_critic import critic_name
from treeward.export.parts import write_part
from treeward.export.queries import run_query
from treeward.export.run_folder import Identity, RunFolder, open_run_folder, writing
from treeward.export.scores import score_run, score_tree
from treeward.export.status import describe, run_status
from treeward.export.verify import Level, verify_run
from treeward.search.critic import Prefix, Scores
from treeward.search.errors import BadInput, DamagedData, TreewardError
from treeward.search.problem import Problem
from treeward.search.replies import Failure
from treeward.search.scripted import ScriptedCritic

Limit = Callable[[int], AbstractContextManager[None]]
Maker = Callable[..., dict[str, Any]]
TREES = tuple("abcdef")


def opinion(prompt: str, steps: Sequence[str]) -> Scores:
    digest = hashlib.sha256("/".join([prompt, *steps]).encode()).digest()
    value, progress, outcome = (byte / 255 for byte in digest[:3])
    return Scores(value, 2 * progress - 1, outcome) if steps else Scores(value, None, None)


class Counting(ScriptedCritic):
    """Keeps the batches that it was given."""

    def __init__(self, name: str = "one") -> None:
        super().__init__(opinion, name)
        self.batches: list[list[Prefix]] = []

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        self.batches.append(list(prefixes))
        return super().score(prefixes)


def make_run(path: Path, settings: dict[str, Any]) -> RunFolder:
    problems = [Problem(id=f"p-{tree}", prompt=f"say {tree}", answer="1") for tree in TREES]
    identity = Identity(settings=settings, samplers=(SAMPLER,), versions={})
    with writing(path, identity, problems) as run:
        return run


def add_part(path: Path, worker: str, random_part: Maker, seed: int, *trees: str) -> None:
    identity = open_run_folder(path).identity
    write_part(path, worker, random_part(seed, trees=trees, identity=identity), {})


def id_in(run: Path, tree: str) -> str:
    return open_run_folder(run).identity.tree_id(f"p-{tree}")


@pytest.fixture
def run(random_part: Maker, tmp_path: Path) -> Path:
    """A run of four random trees in two parts; two of its problems have no tree."""
    path = tmp_path / "run"
    make_run(path, {"backend.mode": "deterministic"})
    add_part(path, "w0", random_part, 1, "a", "b")
    add_part(path, "w1", random_part, 2, "c", "d")
    return path


def query(run: Path, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_query(open_run_folder(run), sql).to_pylist()
    return found


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damaged(run: Path) -> list[tuple[str, str]]:
    return [
        (str(finding.file.relative_to(run)), finding.message)
        for finding in verify_run(run)
        if finding.level is Level.DAMAGE
    ]


def test_every_node_gets_the_scores_of_its_prefix(run: Path) -> None:
    before = files(run / "parts")
    critic = Counting()
    scoring = score_run(run, critic)
    assert (scoring.scored, scoring.before, scoring.failed) == (4, 0, 0)
    assert scoring.critic == critic_name(critic)
    assert files(run / "parts") == before
    rows = query(
        run,
        "SELECT t.prompt, n.path, n.value_critic, n.progress_critic, n.outcome_critic, "
        "s.value, s.progress, s.outcome, s.error FROM nodes n JOIN trees t USING (tree_id) "
        "JOIN scores s USING (tree_id, node_id)",
    )
    text = {(row["tree_id"], row["node_id"]): row["step_text"] for row in query(run, "FROM nodes")}
    nodes = query(run, "SELECT tree_id, problem_id, node_id, path, value_critic, progress_critic, "
                  "outcome_critic FROM nodes")  # fmt: skip
    assert len(rows) == len(nodes) == len(text)
    for node in nodes:
        steps = [text[node["tree_id"], at] for at in node["path"][1:]]
        said = Scores(node["value_critic"], node["progress_critic"], node["outcome_critic"])
        assert said == opinion(node["problem_id"].replace("p-", "say "), steps)
    for row in rows:
        assert row["value"] == row["value_critic"]
        assert row["progress"] == row["progress_critic"]
        assert (row["outcome"], row["error"]) == (row["outcome_critic"], None)
    assert verify_run(run) == ()


def test_one_pass_a_leaf_and_each_alone_in_deterministic_runs(run: Path) -> None:
    critic = Counting()
    score_run(run, critic)
    (leaves,) = query(run, "SELECT count(*) AS n FROM nodes WHERE n_children = 0")
    assert [len(batch) for batch in critic.batches] == [1] * leaves["n"]


def test_leaves_of_a_tree_go_together_in_other_runs(random_part: Maker, tmp_path: Path) -> None:
    make_run(tmp_path, {"backend.mode": "normal"})
    add_part(tmp_path, "w0", random_part, 1, "a", "b")
    critic = Counting()
    score_run(tmp_path, critic)
    assert len(critic.batches) == 2


def test_the_same_critic_again_does_nothing_until_trees_are_new(
    run: Path, random_part: Maker
) -> None:
    score_run(run, Counting())
    before = files(run)
    again = Counting()
    scoring = score_run(run, again)
    assert (scoring.scored, scoring.before, again.batches) == (0, 4, [])
    assert files(run) == before
    add_part(run, "w2", random_part, 3, "e", "f")
    later = Counting()
    assert (scored := score_run(run, later)).scored == 2
    assert scored.before == 4
    assert {prefix.problem.id for batch in later.batches for prefix in batch} == {"p-e", "p-f"}
    assert {path: data for path, data in files(run).items() if path in before} == before
    assert verify_run(run) == ()
    (count,) = query(run, "SELECT count(*) AS n, count(value_critic) AS scored FROM nodes")
    assert count["n"] == count["scored"]


def test_several_critics_are_told_apart(run: Path) -> None:
    one, two = (score_run(run, Counting(name)).critic for name in ("one", "two"))
    assert one != two
    rows = query(run, "SELECT critic, count(*) AS n FROM scores GROUP BY critic")
    (nodes,) = query(run, "SELECT count(*) AS n, count(value_critic) AS scored FROM nodes")
    assert {row["critic"]: row["n"] for row in rows} == {one: nodes["n"], two: nodes["n"]}
    assert nodes["scored"] == 0, "nobody said which of the two is meant"
    status = run_status(open_run_folder(run))
    assert status.scores == {one: nodes["n"], two: nodes["n"]}
    assert one in describe(status)


def test_a_run_grown_with_critics_shows_what_they_said_then(
    random_part: Maker, tmp_path: Path
) -> None:
    make_run(tmp_path, {"critic.fingerprint": "then"})
    add_part(tmp_path, "w0", random_part, 1, "a")
    score_run(tmp_path, Counting())
    (count,) = query(tmp_path, "SELECT count(*) AS n, count(value_critic) AS scored FROM nodes")
    assert count["scored"] == 0
    assert count["n"] == len(query(tmp_path, "FROM scores"))
    assert "nodes_as_grown" not in [row["name"] for row in query(tmp_path, "SHOW TABLES")]


def test_macros_walk_scored_nodes(run: Path) -> None:
    score_run(run, Counting())
    rows = query(run, f"SELECT value_critic FROM subtree('{id_in(run, 'a')}', 0)")
    assert rows
    assert all(row["value_critic"] is not None for row in rows)


def test_a_failure_is_data_and_shorter_prefixes_are_scored(run: Path) -> None:
    def short_sighted(prompt: str, steps: Sequence[str]) -> Scores:
        if len(steps) > 2:
            raise BadInput("the prefix is\ntoo long")
        return opinion(prompt, steps)

    scoring = score_run(run, ScriptedCritic(short_sighted))
    rows = query(run, "SELECT depth, s.* FROM scores s JOIN nodes USING (tree_id, node_id)")
    for row in rows:
        failed = row["depth"] > 2
        assert (row["value"] is None) == failed
        assert row["error"] == ("the prefix is too long" if failed else None)
    assert scoring.failed == sum(row["depth"] > 2 for row in rows) > 0
    assert scoring.exit_code == 4
    assert verify_run(run) == ()
    again = score_run(run, ScriptedCritic(short_sighted))
    assert (again.scored, again.failed, again.failed_before) == (0, 0, scoring.failed)
    assert again.exit_code == 4
    assert f"without scores/{again.critic} in the run" in str(again)
    shutil.rmtree(run / "scores" / again.critic)
    anew = score_run(run, ScriptedCritic(opinion))
    assert (anew.scored, anew.failed, anew.failed_before) == (scoring.scored, 0, 0)


def test_a_way_that_fails_leaves_what_others_said() -> None:
    """0 - 1 - {2, 3}: the way to 3 fails, and 1 is on the way to 2 too."""
    nodes = [
        {"node_id": 0, "path": [0], "n_children": 1, "step_text": ""},
        {"node_id": 1, "path": [0, 1], "n_children": 2, "step_text": "a"},
        {"node_id": 2, "path": [0, 1, 2], "n_children": 0, "step_text": "b"},
        {"node_id": 3, "path": [0, 1, 3], "n_children": 0, "step_text": "bad"},
    ]

    def picky(prompt: str, steps: Sequence[str]) -> Scores:
        if "bad" in steps:
            raise BadInput("no")
        return opinion(prompt, steps)

    said = score_tree(ScriptedCritic(picky), Problem(id="p", prompt="?"), nodes, alone=False)
    assert said == {
        **{node: opinion("?", ["a", "b"][:node]) for node in (0, 1, 2)},
        3: Failure("critic", "no"),
    }


def test_scores_that_the_disk_refuses_leave_nothing(run: Path, file_size_limit: Limit) -> None:
    with file_size_limit(800), pytest.raises(TreewardError, match="scores"):
        score_run(run, Counting())
    assert query(run, "FROM scores") == []
    assert damaged(run) == []
    assert score_run(run, Counting()).scored == 4
    assert verify_run(run) == ()


def test_what_was_scored_is_kept_when_the_critic_breaks(run: Path) -> None:
    def breaking(prompt: str, steps: Sequence[str]) -> Scores:
        if prompt == "say c":
            raise KeyError("bug")
        return opinion(prompt, steps)

    with pytest.raises(KeyError):
        score_run(run, ScriptedCritic(breaking, "one"))
    scoring = score_run(run, Counting("one"))
    assert (scoring.before, scoring.scored) == (2, 2)
    assert verify_run(run) == ()


def test_only_one_writes_at_a_time(run: Path) -> None:
    found = open_run_folder(run)
    with (
        writing(run, found.identity, found.problems()),
        pytest.raises(TreewardError, match="is writing to this run"),
    ):
        score_run(run, Counting())


@pytest.mark.parametrize("name", ["critic.json", "main-000001/manifest.json",
                                  "main-000001/scores.parquet"])  # fmt: skip
def test_damage_is_found_wherever_it_is(run: Path, name: str) -> None:
    path = run / "scores" / score_run(run, Counting()).critic / name
    whole = path.read_bytes()
    for step in range(8):
        data = bytearray(whole)
        data[step * (len(data) - 1) // 7] ^= 1 << step
        path.write_bytes(data)
        assert [file for file, _ in damaged(run)] == [str(path.relative_to(run))]
    path.write_bytes(whole[:-1])
    assert [file for file, _ in damaged(run)] == [str(path.relative_to(run))]
    path.unlink()
    assert [file for file, _ in damaged(run)] == [str(path.relative_to(run))]


def test_a_lost_file_of_scores_is_damage_to_readers_too(run: Path) -> None:
    place = run / "scores" / score_run(run, Counting()).critic
    (place / "main-000001" / "scores.parquet").unlink()
    with pytest.raises(DamagedData, match="missing from a committed part"):
        query(run, "FROM scores")


def test_scores_of_what_is_not_there_are_damage(run: Path, random_part: Maker) -> None:
    place = run / "scores" / score_run(run, Counting()).critic
    other = run.parent / "other"
    make_run(other, {"backend.mode": "deterministic"})
    add_part(other, "w0", random_part, 9, "a", "e")
    theirs = other / "scores" / score_run(other, Counting()).critic / "main-000001"
    theirs.rename(place / "main-000002")
    said = [message for _, message in damaged(run)]
    assert f"tree_id {id_in(run, 'a')} is in main-000001 too" in said
    assert any("every node of its tree is there once" in message for message in said)
    place.rename(place.with_name("0" * 16))
    said = [message for _, message in damaged(run)]
    assert "says of another critic than its folder is named for" in said
    assert "holds the scores of another critic" in said


def test_damaged_trees_are_not_blamed_on_scores(run: Path) -> None:
    score_run(run, Counting())
    (run / "parts" / "w0-000001" / "trees.parquet").write_bytes(b"")
    assert [file for file, _ in damaged(run)] == ["parts/w0-000001/trees.parquet"]


def test_scores_from_nowhere_in_a_part_are_damage(tmp_path: Path, random_part: Maker) -> None:
    for name, settings in (("without", {}), ("with", {"critic.fingerprint": "x"})):
        identity = make_run(tmp_path / name, settings).identity
        tables = random_part(1, trees=("a",), identity=identity)
        column = tables["nodes"].schema.get_field_index("value_critic")
        half = [0.5] * len(tables["nodes"])
        field = tables["nodes"].schema.field(column)
        tables["nodes"] = tables["nodes"].set_column(column, field, [half])
        write_part(tmp_path / name, "w0", tables, {})
    assert damaged(tmp_path / "with") == []
    assert damaged(tmp_path / "without") == [
        ("parts/w0-000001/nodes.parquet", "has critics' scores and run.json no critics")
    ]


def test_a_critic_is_named_by_all_that_its_scores_depend_on() -> None:
    assert critic_name(Counting("one")) == critic_name(Counting("one"))
    assert critic_name(Counting("one")) != critic_name(Counting("two"))
    assert len(critic_name(Counting())) == 16
    json.dumps(Counting().identity)

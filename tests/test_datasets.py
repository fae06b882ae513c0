"""Datasets say what the run says, in the same bytes each time, and load where they are to load."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from itertools import pairwise
from math import comb
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.dataset_world import PROBLEMS, Row, contents, export, grow, make_run, problem, put, sql

import treeward
from treeward.export.dataset_folder import staged
from treeward.export.dataset_spec import Expert
from treeward.export.datasets import ExportSettings, Kind, export_dataset
from treeward.export.run_folder import Identity, RunFolder, open_run_folder, writing
from treeward.export.tree_stream import stream
from treeward.search.errors import BadInput, DamagedData, TreewardError
from treeward.search.models import resolve_model
from treeward.search.steps import clean_step
from treeward.search.templates import load_template
from treeward.search.tree import Tree

SIX = ExportSettings(min_rollouts=6)


@pytest.fixture(scope="module")
def trees() -> list[Tree]:
    return grow()


@pytest.fixture(scope="module")
def run(trees: list[Tree], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run in parts of five trees; only read."""
    return make_run(tmp_path_factory.mktemp("run"), trees, size=5)


@pytest.mark.parametrize("kind", list(Kind))
def test_the_same_bytes_each_time_however_the_run_was_cut_into_parts(
    run: RunFolder, trees: list[Tree], kind: Kind, tmp_path: Path
) -> None:
    other = make_run(tmp_path / "run", trees[::-1], size=2)
    export(run, kind, tmp_path / "first", validation=0.3)
    export(run, kind, tmp_path / "second", validation=0.3)
    export(other, kind, tmp_path / "third", validation=0.3)
    first = contents(tmp_path / "first")
    assert {"README.md", "export.json", "data/train.parquet"} < first.keys()
    assert first == contents(tmp_path / "second") == contents(tmp_path / "third")


def test_small_windows_give_the_same_items(run: RunFolder) -> None:
    columns = ["node_id", "step_text"]
    small = list(stream(run, columns, window_nodes=1))
    assert small == list(stream(run, columns))
    assert [item.problem for item in small] == list(PROBLEMS)
    assert [item.problem.id for item in small if item.tree is None] == ["not grown"]


@pytest.mark.parametrize("kind", list(Kind))
def test_it_loads_as_the_hub_s_library_loads_it(
    run: RunFolder, kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    rows = export(run, kind, tmp_path / "out", validation=0.3)
    loaded = datasets.load_dataset(
        str(tmp_path / "out"), kind.value, cache_dir=str(tmp_path / "cache")
    )
    assert sorted(loaded) == ["train", "validation"]
    assert [row for split in ("train", "validation") for row in loaded[split]] == rows
    # The card declares the features that the files have, so nothing is guessed or cast.
    schema = pq.read_schema(tmp_path / "out" / "data" / "train.parquet")
    assert loaded["train"].features == datasets.Features.from_arrow_schema(schema)


@pytest.mark.parametrize("kind", list(Kind))
def test_no_problem_straddles_the_splits(run: RunFolder, kind: Kind, tmp_path: Path) -> None:
    members: dict[float, set[str]] = {}
    for share in (0.3, 0.6):
        out = tmp_path / str(share)
        export(run, kind, out, validation=share)
        split = {
            path.stem: set(pq.read_table(path)["problem_id"].to_pylist())
            for path in (out / "data").iterdir()
        }
        assert not split["train"] & split["validation"]
        members[share] = split["validation"]
    assert members[0.3] < members[0.6]
    ids = [row["id"] for row in export(run, kind, tmp_path / "all")]
    assert len(set(ids)) == len(ids)


def test_one_question_under_two_ids_is_in_one_split(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    rows: list[Row] = [
        {"id": f"{n} {a}", "prompt": f"{n} +2", "answer": str(n + 2)}
        for n in range(1, 9)
        for a in "xy"
    ]
    # Chats that only end alike are questions of their own.
    chat = [{"role": "system", "content": "1"}, {"role": "user", "content": "1 +2"}]
    rows += [
        {**rows[0], "id": f"{n} z", "prompt": [{**chat[0], "content": str(n)}, chat[1]]}
        for n in range(10, 16)
    ]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = ("search.simulations=2", "search.rollouts=2")
    made = treeward.generate(problems, tmp_path / "run", policy="nano", assignments=quick)
    for kind in (Kind.PRM, Kind.RLVR, Kind.SFT, Kind.CRITIC):
        made.export(kind, tmp_path / kind, validation=0.5)
        ids = [
            {*pq.read_table(path)["problem_id"].to_pylist()}
            for path in sorted((tmp_path / kind / "data").iterdir())
        ]
        asked = [{id_.split()[0] for id_ in some} for some in ids]
        assert len(asked) == 2
        assert not asked[0] & asked[1]


def test_every_label_follows_from_the_run_by_sql(run: RunFolder, tmp_path: Path) -> None:
    """Errors by the run's own macro, and successes by the pre-order intervals."""
    first_errors = sql(
        run,
        "SELECT n.tree_id, n.node_id, e.node_id AS error "
        "FROM nodes n, first_error(n.tree_id, n.node_id, min_rollouts := 6) e",
    )
    errors = {(row["tree_id"], row["node_id"]): row["error"] for row in first_errors}
    successes = sql(
        run,
        "SELECT DISTINCT top.tree_id, top.node_id FROM nodes top JOIN nodes below "
        "ON below.tree_id = top.tree_id AND below.pre BETWEEN top.pre AND top.post_end "
        "WHERE below.n_right > 0 OR below.verdict = 'right'",
    )
    right = {(row["tree_id"], row["node_id"]) for row in successes}
    rows = export(run, Kind.PRM, tmp_path / "out", min_rollouts=6)
    for row in rows:
        tree, nodes, index = row["tree_id"], row["node_ids"], row["first_error"]
        assert errors.get((tree, nodes[-1])) == (None if index < 0 else nodes[index])
        assert row["labels"] == [(tree, node) in right for node in nodes]
    assert {row["first_error"] for row in rows} == {-1, 0, 2}


def test_evidence_survives_and_labels_are_never_null(run: RunFolder, tmp_path: Path) -> None:
    rows = export(run, Kind.PRM, tmp_path / "out", min_rollouts=6)
    columns = ("value", "n_right", "n_rollouts", "value_low", "value_high", "progress", "verdict")
    found = sql(run, f"SELECT tree_id, node_id, step_text, {', '.join(columns)} FROM nodes")
    nodes = {(node["tree_id"], node["node_id"]): node for node in found}
    for row in rows:
        steps = [nodes[row["tree_id"], node] for node in row["node_ids"]]
        assert row["completions"] == [step["step_text"].rstrip("\n") for step in steps]
        assert row["soft_labels"] == [step["value"] for step in steps]
        for name in columns[1:-1]:
            assert row[name] == [step[name] for step in steps]
        assert all(isinstance(label, bool) for label in row["labels"] + row["label_mask"])
        ends = {"right": True, "wrong": False, None: None}
        assert row["final_answer_correct"] is ends[steps[-1]["verdict"]]
    soft = {value for row in rows for value in row["soft_labels"]}
    assert any(0 < value < 1 for value in soft if value is not None)
    assert {row["final_answer_correct"] for row in rows} == {True, False, None}


def test_rows_are_the_longest_decided_paths(run: RunFolder, tmp_path: Path) -> None:
    """No row is the beginning of another; with the steps left out they are all there is."""
    report = export_dataset(run, Kind.PRM, tmp_path / "out", SIX)
    rows = pq.read_table(tmp_path / "out" / "data" / "train.parquet").to_pylist()
    paths = {(row["tree_id"], *row["node_ids"]) for row in rows}
    assert len(paths) == len(rows)
    assert not any(path[:end] in paths for path in paths for end in range(2, len(path)))
    steps = {path[:end] for path in paths for end in range(2, len(path) + 1)}
    assert len(steps) == report.kept["steps right"] + report.kept["steps wrong"]
    (nodes,) = sql(run, "SELECT count(*) AS n FROM nodes WHERE depth > 0")
    assert len(steps) + sum(n for why, n in report.left_out.items() if "steps" in why) == nodes["n"]
    assert report.left_out["problems without a finished tree"] == 1
    assert report.left_out["trees without a decided step"] == 1  # no reference answer: unknown
    assert report.kept["rows of trees without any success"] == sum(
        row["problem_id"] == "hard" for row in rows
    )


def test_srl_makes_a_row_of_each_step_but_the_last(run: RunFolder, tmp_path: Path) -> None:
    rows = export(run, Kind.SRL, tmp_path / "out", expert=Expert.BOTH)
    solved = [row for row in rows if row["problem_id"] == "solved"]
    reference = ["Step 1: good", "Step 2: fine", "Answer: 7"]
    for k, row in enumerate((r for r in solved if r["expert_source"] == "reference"), start=1):
        assert [*row["prefix_steps"], row["target_step"]] == reference[:k]
        assert (row["k"], row["n_steps"], row["ground_truth"], row["weight"]) == (k, 3, "7", 1.0)
    # Of a solution that says its answer, the answer's step is not written twice.
    said = [row for row in rows if row["problem_id"] == "said" and row["k"] == 1]
    assert {row["expert_source"]: row["n_steps"] for row in said} == {"reference": 2, "tree": 3}
    per_solution = Counter((row["problem_id"], row["expert_source"]) for row in rows)
    assert all(
        per_solution[row["problem_id"], row["expert_source"]] == row["n_steps"] - 1 for row in rows
    )
    (chat,) = {json.dumps(row["prompt"]) for row in rows if row["problem_id"] == "chat"}
    assert json.loads(chat)[0] == {"role": "system", "content": "be brief"}
    assert all(row["prompt"][-1]["content"] == row["problem_id"] for row in rows)


def test_the_step_with_the_answer_is_a_target_where_asked_for(
    run: RunFolder, tmp_path: Path
) -> None:
    without = export(run, Kind.SRL, tmp_path / "without", expert=Expert.BOTH)
    rows = export(run, Kind.SRL, tmp_path / "with", expert=Expert.BOTH, answer_step=True)
    assert [row for row in rows if row["k"] < row["n_steps"]] == without
    last = [row for row in rows if row["k"] == row["n_steps"]]
    assert len(last) == len({(row["problem_id"], row["expert_source"]) for row in rows}) > 0
    (solved,) = (
        row for row in last if (row["problem_id"], row["expert_source"]) == ("solved", "reference")
    )
    assert solved["prefix_steps"] == ["Step 1: good", "Step 2: fine"]
    assert solved["target_step"] == "Answer: 7"


def test_trees_give_verified_solutions_as_they_were_sampled(run: RunFolder, tmp_path: Path) -> None:
    rows = export(run, Kind.SFT, tmp_path / "out", expert=Expert.TREE)
    best = sql(
        run,
        "SELECT t.problem_id AS id, string_agg(s.step_text, '' ORDER BY s.depth) AS text "
        "FROM trees t, best_path(t.tree_id) s GROUP BY ALL",
    )
    assert {row["problem_id"]: row["completion"] for row in rows} == {
        row["id"]: row["text"] for row in best
    }
    assert all("good" in row["completion"] and "Answer: 7\n" in row["completion"] for row in rows)
    assert all(row["prompt"] == put(row["problem_id"]) for row in rows)
    assert all(row["messages"][-1]["content"] == row["completion"] for row in rows)


@pytest.mark.parametrize(
    ("expert", "sources"),
    [
        (
            None,
            {"solved": "reference", "said": "reference", "not grown": "reference", "chat": "tree"},
        ),
        (Expert.REFERENCE, {"solved": "reference", "open": "reference", "not grown": "reference"}),
        (Expert.TREE, {"solved": "tree", "said": "tree", "chat": "tree"}),
    ],
)
def test_whose_solutions_are_taken(
    run: RunFolder, tmp_path: Path, expert: Expert | None, sources: dict[str, str]
) -> None:
    rows = export(run, Kind.SFT, tmp_path / "out", expert=expert)
    found = {row["problem_id"]: row["expert_source"] for row in rows}
    assert sources.items() <= found.items()
    assert "hard" not in found
    if expert is not None:
        assert set(found.values()) == {expert.value}


def test_sft_for_a_chat_template_has_messages_only(run: RunFolder, tmp_path: Path) -> None:
    """Its text depends on the model's own template; a delimiter would ask for another step."""
    rows = export(run, Kind.SFT, tmp_path / "out", template="chat", expert=Expert.REFERENCE)
    row = next(row for row in rows if row["problem_id"] == "solved")
    assert "prompt" not in row
    assert "completion" not in row
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert row["messages"][-1]["content"] == "good\n\nfine\n\nThe answer is \\boxed{7}."


def test_rlvr_keeps_the_measured_pass_rate(run: RunFolder, tmp_path: Path) -> None:
    rows = {row["problem_id"]: row for row in export(run, Kind.RLVR, tmp_path / "out")}
    assert rows.keys() == {problem.id for problem in PROBLEMS} - {"open"}
    roots = sql(run, "SELECT problem_id, n_right, n_rollouts FROM nodes WHERE node_id = 0")
    for root in roots:
        if root["problem_id"] == "open":
            continue
        row = rows[root["problem_id"]]
        assert row["n_rollouts"] == root["n_rollouts"]
        assert row["pass_rate"] == root["n_right"] / root["n_rollouts"]
        assert row["difficulty"] == 1 - row["pass_rate"]
    assert (rows["not grown"]["pass_rate"], rows["not grown"]["n_rollouts"]) == (None, 0)
    row = rows["hard"]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "7"}
    assert row["ground_truth"] == row["answer"] == row["solution"] == "7"
    assert row["extra_info"] == {
        "split": "train",
        "index": 11,
        "problem_id": "hard",
        "verifier": "number",
    }
    assert json.loads(json.loads(row["info"])["metadata"]) == {"level": 9}


@pytest.mark.parametrize(
    ("answer", "solution"),
    [("x^2+1", "\\boxed{x^2+1}"), ("\\boxed{3}", "\\boxed{3}"), ("$\\pi$", "$\\pi$")],
)
def test_rlvr_writes_formulas_so_that_checkers_find_them(
    tmp_path: Path, answer: str, solution: str
) -> None:
    math_verify = pytest.importorskip("math_verify")
    identity = Identity(settings={}, samplers=(), versions={})
    problems = [problem("formula", answer=answer, verifier="math")]
    with writing(tmp_path / "run", identity, problems) as run:
        (row,) = export(run, Kind.RLVR, tmp_path / "out")
    assert row["solution"] == solution
    assert math_verify.parse(solution, parsing_timeout=None)


def test_critic_rows_hold_every_step_and_flag_it_once(run: RunFolder, tmp_path: Path) -> None:
    rows = export(run, Kind.CRITIC, tmp_path / "out")
    (counts,) = sql(
        run,
        "SELECT count(*) FILTER (depth > 0) AS nodes, "
        "count(*) FILTER (depth > 0 AND n_children = 0) AS leaves FROM nodes",
    )
    assert len(rows) == counts["leaves"]
    steps = [
        (row["tree_id"], node)
        for row in rows
        for node, new in zip(row["node_ids"], row["is_new"], strict=True)
        if new
    ]
    assert len(steps) == len(set(steps)) == counts["nodes"]
    nodes = {
        (node["tree_id"], node["node_id"]): node
        for node in sql(run, "SELECT tree_id, node_id, n_right, n_rollouts, verdict FROM nodes")
    }
    for row in rows:
        path = [nodes[row["tree_id"], node] for node in row["node_ids"]]
        for name in ("n_right", "n_rollouts", "verdict"):
            assert row[name] == [step[name] for step in path]
        assert row["problem_n_rollouts"] == nodes[row["tree_id"], 0]["n_rollouts"]


def test_critics_learn_progress_from_shares_of_equal_tries(run: RunFolder, tmp_path: Path) -> None:
    columns = "tree_id, node_id, n_right AS k, n_rollouts AS n, verdict, prover_k"
    nodes = {(n["tree_id"], n["node_id"]): n for n in sql(run, f"SELECT {columns} FROM nodes")}
    ends = {"right": 1.0, "wrong": 0.0}

    def best_of(node: Row, most: int) -> float:
        k, n = node["k"], max(node["n"], most)
        return ends.get(node["verdict"], 1 - comb(n - k, most) / comb(n, most))

    tries, unknown = set(), 0
    for row in export(run, Kind.CRITIC, tmp_path / "out"):
        path = [nodes[row["tree_id"], node] for node in (0, *row["node_ids"])]
        for said, (parent, child) in zip(row["progress"], pairwise(path), strict=True):
            inside = [node for node in (parent, child) if node["verdict"] not in ends]
            if not all(node["n"] for node in inside):
                assert said is None
                unknown += 1
                continue
            most = min(parent["prover_k"], max(1, min(node["n"] for node in inside) // 2))
            tries.add(most)
            after, before = (best_of(node, most) for node in (child, parent))
            assert said == pytest.approx(after - before)
    assert len(tries) > 1
    assert unknown


@pytest.mark.parametrize(
    ("text", "clean"),
    [("a\n", "a"), ("a", "a"), ("a\n\n", "a"), ("a\nb", "a b"), ("\n", ""), ("a \n", "a ")],
)
def test_no_step_can_be_read_as_two(text: str, clean: str) -> None:
    assert clean_step(text, "\n") == clean


def test_an_export_replaces_its_like_and_nothing_else(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export(run, Kind.PRM, out)
    other = export(run, Kind.PRM, out, min_rollouts=3)
    assert {row["label_rule"] for row in other} == {"any_success@1(min_rollouts=3)"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    before = contents(out)
    with pytest.raises(BadInput, match="holds a prm export, not srl"):
        export(run, Kind.SRL, out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"'notes\.txt', which no export made"):
        export(run, Kind.PRM, out)
    assert contents(out) == before | {"notes.txt": b"mine"}
    with pytest.raises(BadInput, match="is no export"):
        export(run, Kind.PRM, run.path)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BadInput, match="is a file"):
        export(run, Kind.PRM, file)


@pytest.mark.parametrize("name", [".out.old", ".out.half"])
def test_what_no_export_made_beside_it_is_left_alone(
    run: RunFolder, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes").write_text("precious")
    with pytest.raises(BadInput, match=rf"\{name}: holds 'notes' and is no export; move it away"):
        export(run, Kind.PRM, tmp_path / "out")
    assert contents(tmp_path) == {f"{name}/notes": b"precious"}


def test_a_death_between_the_two_renames_loses_no_former_export(
    run: RunFolder, tmp_path: Path
) -> None:
    out, old = tmp_path / "out", tmp_path / ".out.old"
    export(run, Kind.PRM, out)
    before = contents(out)
    out.rename(old)
    with pytest.raises(BadInput, match="out: holds a prm export, not srl"):
        export(run, Kind.SRL, out)
    assert contents(tmp_path) == {f"out/{name}": data for name, data in before.items()}
    out.rename(old)
    with pytest.raises(KeyboardInterrupt), staged(out, Kind.PRM):
        raise KeyboardInterrupt
    assert contents(tmp_path) == {f"out/{name}": data for name, data in before.items()}
    out.rename(old)
    export(run, Kind.PRM, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_kind_that_was_put_aside_is_not_replaced(run: RunFolder, tmp_path: Path) -> None:
    out, old = tmp_path / "out", tmp_path / ".out.old"
    export(run, Kind.SRL, out)
    out.rename(old)
    out.mkdir()
    before = contents(tmp_path)
    with pytest.raises(BadInput, match=r"\.out\.old: holds a srl export, not prm"):
        export(run, Kind.PRM, out)
    assert contents(tmp_path) == before


def test_what_fails_leaves_the_former_export_whole(
    run: RunFolder,
    tmp_path: Path,
    file_size_limit: Callable[[int], AbstractContextManager[None]],
) -> None:
    out = tmp_path / "out"
    export(run, Kind.PRM, out)
    before = contents(out)
    with file_size_limit(4096), pytest.raises(TreewardError, match="cannot write the dataset"):
        export(run, Kind.PRM, out)
    damaged = tmp_path / "run"
    shutil.copytree(run.path, damaged)
    (damaged / "parts" / "main-000002" / "nodes.parquet").write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(DamagedData, match=r"main-000002/nodes\.parquet: cannot be read"):
        export(open_run_folder(damaged), Kind.PRM, out)
    assert contents(out) == before
    assert {path.name for path in tmp_path.iterdir()} == {"out", "run"}


def test_an_export_waits_for_no_other_at_its_place(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "data"
    died = tmp_path / "died"
    with staged(out, Kind.PRM) as folder:
        (folder / "README.md").write_text("first")
        shutil.copytree(folder, died)
        with pytest.raises(TreewardError, match="another export is writing here"):
            export(run, Kind.PRM, out)
    assert (out / "README.md").read_text() == "first"
    died.rename(tmp_path / ".data.half")
    shutil.rmtree(out)
    assert export(run, Kind.PRM, out)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Kind.PRM, {"expert": Expert.TREE}, "expert has no meaning for a prm export"),
        (Kind.SFT, {"answer_step": True}, "answer_step has no meaning for a sft export"),
        (Kind.RL, {"rule": "any_success"}, "rule has no meaning for a rl export"),
        (Kind.PRM, {"margin": 0.2}, "margin has no meaning for a prm export"),
        (Kind.RLVR, {"min_rollouts": 4}, "min_rollouts has no meaning for a rlvr export"),
        (Kind.SRL, {"expert": "teacher"}, "one of reference, tree, both, got 'teacher'"),
        (Kind.PRM, {"validation": 1.0}, r"validation must be in \[0, 1\)"),
        (Kind.PRM, {"rule": "human"}, "no label rule 'human'"),
        (Kind.SRL, {"template": "stepz"}, "no template 'stepz'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    run: RunFolder, tmp_path: Path, kind: Kind, settings: Row, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        export(run, kind, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_without_rows_the_reasons_are_given(trees: list[Tree], tmp_path: Path) -> None:
    empty = make_run(tmp_path / "run", [], size=1)
    with pytest.raises(BadInput, match=r"nothing to export as prm: 14 problems without a finished"):
        export(empty, Kind.PRM, tmp_path / "out")
    hard = [tree for tree in trees if tree.problem.id == "hard"]
    run = make_run(tmp_path / "hard", hard, size=1)
    with pytest.raises(BadInput, match="14 problems without a right path in the tree"):
        export(run, Kind.SFT, tmp_path / "out", expert=Expert.TREE)
    assert not (tmp_path / "out").exists()


def test_a_policys_own_template_is_never_taken_for_one_of_ours(tmp_path: Path) -> None:
    """Whatever it is called; the policy's folder has it."""
    nano = resolve_model("nano", Path("unused")).path
    policy = shutil.copytree(nano, tmp_path / "policy")
    own = replace(load_template("nano"), max_step_tokens=20, question="{prompt} \n")
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | {"treeward_template": asdict(own)}))
    quick = ("search.simulations=2", "search.rollouts=2")
    task = "task:arithmetic?n=3&seed=1"
    made = treeward.generate(task, tmp_path / "run", policy=str(policy), assignments=quick)
    with pytest.raises(BadInput, match=r"its template 'nano' is none of ours; give its \.toml"):
        made.export("prm", tmp_path / "prm")
    made.export("rl", tmp_path / "rl", template=str(policy))
    rows = pq.read_table(tmp_path / "rl" / "data").to_pylist()
    assert rows
    assert all(row["prompt"].endswith(" \n") for row in rows)


def test_a_template_that_was_a_file_is_asked_for(trees: list[Tree], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", trees, size=50, template="mine")
    with pytest.raises(BadInput, match=r"its template 'mine' is none of ours; give its \.toml"):
        export(run, Kind.SFT, tmp_path / "out")
    (tmp_path / "mine.toml").write_text('question = "Q {prompt}\\n"\n')
    rows = export(run, Kind.SFT, tmp_path / "out", template=str(tmp_path / "mine.toml"))
    assert rows[0]["prompt"] == f"Q {rows[0]['problem_id']}\n"


def test_the_card_says_where_it_comes_from_and_what_is_missing(
    run: RunFolder, tmp_path: Path
) -> None:
    report = export_dataset(run, Kind.PRM, tmp_path / "out", SIX)
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "at least 6 rollouts",
        "temperature 1.0",
        '- `prompt.template`: "steps"',
        "- treeward 0",
        "`made`",
        *(f"- {why}: {count}" for why, count in report.left_out.items()),
        *(f"- `{name}`: " for name in pq.read_schema(report.out / "data" / "train.parquet").names),
    ):
        assert said in card


def test_what_a_problem_says_cannot_write_a_part_of_the_card(tmp_path: Path) -> None:
    forged = "x`\n\n## Licence\n\n- `all`: MIT <script>\x1b[2J"
    asked = [problem(forged, answer="3", source=forged)]
    with writing(tmp_path / "run", Identity(settings={}, samplers=(), versions={}), asked) as run:
        (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": asked[0].prompt}))
        export(run, Kind.RLVR, tmp_path / "out", test_sets=(tmp_path / "test.jsonl",))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("\n## Licence\n") == 1
    assert card.count("`x'  ## Licence  - 'all': MIT <script>\N{REPLACEMENT CHARACTER}[2J`") == 3
    assert card.count("<script>") == 3

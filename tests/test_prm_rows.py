"""Rows of `prm`, made of many trees at once, against the same rows made one by one."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.plain_rules import PLAIN, any_success, chances, rows_kept
from tests.random_trees import random_tree

from treeward.export import datasets_prm
from treeward.export.datasets import ExportSettings, Kind, export_dataset
from treeward.export.label_spec import parse_rule
from treeward.export.labels import load_rule
from treeward.export.list_columns import clean_steps
from treeward.export.page_tree import trees_data
from treeward.export.parts import write_part
from treeward.export.queries import connected
from treeward.export.row_ids import row_ids
from treeward.export.run_folder import Identity, RunFolder, writing
from treeward.export.schema import SCHEMAS, SCORES
from treeward.export.score_store import write_scores
from treeward.export.tree_windows import windows
from treeward.search.errors import BadInput, DamagedData
from treeward.search.problem import Message, Problem
from treeward.search.steps import clean_step

Row = dict[str, Any]

ABSENT: Row = {"string": "", "int32": 0, "int64": 0, "double": 0.0, "bool": False}


def padded(table: str, rows: list[Row]) -> pa.Table:
    """A table of a run with what is not given at all, or nothing where that is allowed."""

    def fill(field: pa.Field) -> Any:
        return None if field.nullable else ABSENT.get(str(field.type), [])

    schema = SCHEMAS[table]
    full = [{field.name: row.get(field.name, fill(field)) for field in schema} for row in rows]
    return pa.Table.from_pylist(full, schema=schema)


def forest(seed: int, size: int) -> dict[str, list[Row]]:
    """Trees by problem, with texts and token ids."""
    rng = np.random.default_rng(seed)
    trees = {}
    for number in range(size):
        rows = random_tree(rng)
        for row in rows:
            # Steps of one tree differ in their ids: those that do not share a node.
            ids = [row["node_id"], *rng.integers(0, 50_000, rng.integers(0, 6)).tolist()]
            text = "".join(str(rng.choice(["a", "b\n", "\n", "é"])) for _ in range(3))
            row |= {
                "token_ids": ids if row["pre"] else [],
                "step_text": text,
                "progress": row["value"],
            }
            row |= {"tree_id": f"t{number:03}", "problem_id": f"p{number}"}
        trees[f"p{number}"] = rows
    return trees


@pytest.fixture(scope="module")
def trees() -> dict[str, list[Row]]:
    return forest(0, 40)


def chat_of(name: str) -> tuple[Message, ...] | None:
    """The chat that asks a problem; every problem whose name ends with 7 goes on from one."""
    asked = (Message("user", "first"), Message("assistant", "yes"))
    return (*asked, Message("user", f"what is {name}?")) if name.endswith("7") else None


@pytest.fixture
def run(trees: dict[str, list[Row]], tmp_path: Path) -> Iterator[RunFolder]:
    """A run whose parts hold the trees of every third problem, and one problem without a tree."""
    problems = [
        Problem(id=name, prompt=f"what is {name}?", messages=chat_of(name))
        for name in [*trees, "not grown"]
    ]
    identity = Identity(settings={"prompt.template": "steps"}, samplers=(), versions={})
    with writing(tmp_path / "run", identity, problems) as run:
        for first in range(3):
            some = list(trees.values())[first::3]
            roots = [{**tree[0], "n_nodes": len(tree)} for tree in some]
            tables = {
                "trees": padded("trees", roots),
                "nodes": padded("nodes", [row for tree in some for row in tree]),
                "rollouts": padded("rollouts", []),
            }
            write_part(run.path, "main", tables, {})
        yield run


def hard(rows: list[Row], _: list[list[Row]]) -> list[int]:
    return any_success(rows)


def exported(run: RunFolder, out: Path, **settings: Any) -> list[Row]:
    export_dataset(run, Kind.PRM, out, ExportSettings(**settings))
    rows: list[Row] = pq.read_table(out / "data" / "train.parquet").to_pylist()
    return rows


@pytest.mark.parametrize("cut", ["", " | cut(wrong=mask, undecided=mask)", " | cut(wrong=keep)"])
@pytest.mark.parametrize("text", ["any_success", "posterior", "soft", "threshold(by=interval)"])
def test_rows_are_those_made_one_by_one(
    run: RunFolder, trees: dict[str, list[Row]], tmp_path: Path, text: str, cut: str
) -> None:
    everything = list(trees.values())
    rule = load_rule(text + cut, trees=everything)
    signs_of = PLAIN.get(text, hard)
    expected = []
    for name, tree in trees.items():
        signs = signs_of(tree, everything)
        right = chances(tree, everything) if text == "posterior" else [None] * len(tree)
        for path, flags in rows_kept(tree, signs, rule.spec.cut.values):
            steps = [tree[at] for at in path]
            wrong = [flag and signs[at] == -1 for at, flag in zip(path, flags, strict=True)]
            ends = {"right": True, "wrong": False}
            expected.append(
                {
                    "problem_id": name,
                    "tree_id": tree[0]["tree_id"],
                    "prompt": f"what is {name}?",
                    "messages": (chat := chat_of(name)) and [turn._asdict() for turn in chat],
                    "completions": [clean_step(step["step_text"], "\n") for step in steps],
                    "labels": [f and signs[at] == 1 for at, f in zip(path, flags, strict=True)],
                    "soft_labels": [step["value"] for step in steps],
                    "label_mask": flags,
                    **{
                        column: [step[column] for step in steps]
                        for column in ("n_right", "n_rollouts", "value_low", "value_high")
                    },
                    "progress": [step["progress"] for step in steps],
                    "right_chances": [right[at] for at in path],
                    "label_rule": str(rule.spec),
                    "first_error": wrong.index(True) if True in wrong else -1,
                    "final_answer_correct": ends.get(steps[-1]["verdict"]),
                    "node_ids": [step["node_id"] for step in steps],
                }
            )
    found = exported(run, tmp_path / "out", rule=text + cut)
    ids = [row.pop("id") for row in found]
    for row, other in zip(found, expected, strict=True):
        assert row.pop("right_chances") == pytest.approx(other.pop("right_chances"), abs=1e-9)
    assert found == expected
    assert len({*ids}) == len(ids)
    assert all(len(id_) == 32 and int(id_, 16) >= 0 for id_ in ids)


@pytest.mark.parametrize("rule", ["soft(of=share)", "any_success & soft(of=share)"])
def test_what_is_learned_by_soft_is_the_measure_that_it_names(
    run: RunFolder, trees: dict[str, list[Row]], tmp_path: Path, rule: str
) -> None:
    other = 0
    for row in exported(run, tmp_path / "out", rule=rule + " | cut(wrong=keep, undecided=mask)"):
        by_id = {node["node_id"]: node for node in trees[row["problem_id"]]}
        for at, soft in zip(row["node_ids"], row["soft_labels"], strict=True):
            node = by_id[at]
            n, verdict = node["n_rollouts"], node["verdict"]
            share = node["n_right"] / n if n else None
            assert soft == {"right": 1.0, "wrong": 0.0}.get(verdict, share)
            other += soft != node["value"]
    assert other


@pytest.mark.parametrize("most", [1, 40, 300, 10**6])
def test_how_much_text_an_array_may_hold_changes_no_row(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    whole = exported(run, tmp_path / "whole")
    sizes: list[int] = []

    def part(*given: Any) -> pa.Table:
        table = one_part(*given)
        texts = table["completions"].combine_chunks().flatten()
        sizes.append(pc.sum(pc.binary_length(texts)).as_py() or 0)
        assert sizes[-1] <= most or table.num_rows == 1
        return table

    one_part = datasets_prm._part
    monkeypatch.setattr(datasets_prm, "_part", part)
    monkeypatch.setattr(datasets_prm, "MOST_BYTES", most)
    assert exported(run, tmp_path / "in parts") == whole
    assert len(sizes) > 1 or most == 10**6


def test_windows_of_any_size_hold_the_same_trees(run: RunFolder) -> None:
    def seen(size: int) -> dict[str, list[int]]:
        found = {}
        for window in windows(run, ("n_right",), window_nodes=size):
            names = window.problems["problem_id"].take(window.problem_T).to_pylist()
            assert names == window.trees["problem_id"].to_pylist()
            edges = [*window.batch.start_T.tolist(), window.batch.size]
            counts = window.batch.counts("n_right").tolist()
            for name, start, end in zip(names, edges, edges[1:], strict=False):
                found[name] = counts[start:end]
        return found

    whole = seen(10**6)
    assert len(whole) == 40
    assert seen(1) == seen(57) == whole


def test_nodes_that_are_not_their_trees_are_refused(
    run: RunFolder, trees: dict[str, list[Row]], tmp_path: Path
) -> None:
    part = run.path / "parts" / "main-000002"
    for change in ({"tree_id": "other"}, None):
        some = [tree for number, tree in enumerate(trees.values()) if number % 3 == 1]
        rows = [row for tree in some for row in tree]
        rows = [row | change for row in rows] if change else rows[:-1]
        pq.write_table(padded("nodes", rows), part / "nodes.parquet")
        with pytest.raises(DamagedData, match=r"main-000002/nodes\.parquet: .*restore it"):
            exported(run, tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "column"), [("trees", "n_nodes"), ("nodes", "n_right"), ("nodes", "verdict")]
)
def test_a_column_of_another_type_is_refused(
    run: RunFolder, tmp_path: Path, table: str, column: str
) -> None:
    path = run.path / "parts" / "main-000002" / f"{table}.parquet"
    rows = pq.read_table(path)
    there = rows.schema.get_field_index(column)
    kind = pa.int64() if column == "verdict" else pa.string()
    other = pa.array([None if column == "verdict" else "many"] * len(rows), kind)
    pq.write_table(rows.set_column(there, column, other), path)
    with pytest.raises(DamagedData, match=rf"{table}\.parquet: column {column} holds {kind} and"):
        exported(run, tmp_path / "out")


def test_critics_may_have_scored_the_run_since(
    run: RunFolder, trees: dict[str, list[Row]], tmp_path: Path
) -> None:
    """A critic that says right of nodes with an even number, and nothing of every third tree."""
    text = "threshold(of=value_critic)"
    with pytest.raises(BadInput, match="no critic has scored"):
        exported(run, tmp_path / "out", rule=text)
    scored = [tree for number, tree in enumerate(trees.values()) if number % 3]
    rows = [
        {"critic": "c", "tree_id": row["tree_id"], "node_id": row["node_id"]}
        | {"value": float(row["node_id"] % 2 == 0)}
        for tree in scored
        for row in tree
    ]
    write_scores(run, "c", {}, pa.Table.from_pylist(rows, schema=SCORES))
    found = exported(run, tmp_path / "out", rule=text)
    assert {row["tree_id"] for row in found} == {
        tree[0]["tree_id"] for tree in scored if len(tree) > 1
    }
    for row in found:
        assert row["labels"] == [node % 2 == 0 for node in row["node_ids"]]
    agreed = exported(run, tmp_path / "out", rule=f"any_success & {text}")
    for row in agreed:
        signs = any_success(trees[row["problem_id"]])
        of_node = {
            node["node_id"]: sign == 1
            for node, sign in zip(trees[row["problem_id"]], signs, strict=True)
        }
        assert row["labels"] == [of_node[node] for node in row["node_ids"]]
        assert row["labels"] == [node % 2 == 0 for node in row["node_ids"]]
    write_scores(run, "d", {}, pa.Table.from_pylist(rows, schema=SCORES))
    with pytest.raises(BadInput, match=r"2 critics have scored .* name one: value_critic:c"):
        exported(run, tmp_path / "out", rule=text)


def test_a_rule_may_name_the_critics_that_it_reads(
    run: RunFolder, trees: dict[str, list[Row]], tmp_path: Path
) -> None:
    """One critic calls even nodes right, the other all but every third."""
    says: dict[str, Callable[[int], bool]] = {
        "c": lambda node: node % 2 == 0,
        "d": lambda node: node % 3 > 0,
    }
    for critic, right in says.items():
        rows = [
            {"critic": critic, "tree_id": row["tree_id"], "node_id": row["node_id"]}
            | {"value": float(right(row["node_id"]))}
            for tree in trees.values()
            for row in tree
        ]
        write_scores(run, critic, {}, pa.Table.from_pylist(rows, schema=SCORES))
    with pytest.raises(BadInput, match=r"value_critic:e: that critic has not .*; c, d have"):
        exported(run, tmp_path / "out", rule="threshold(of=value_critic:e)")
    for critic, right in says.items():
        text = f"threshold(of=value_critic:{critic}) | cut(wrong=keep)"
        rows = exported(run, tmp_path / critic, rule=text)
        assert rows
        assert all(row["labels"] == [right(node) for node in row["node_ids"]] for row in rows)
        assert {row["label_rule"] for row in rows} == {str(parse_rule(text))}
    both = " & ".join(f"threshold(of=value_critic:{critic})" for critic in says)
    rows = exported(run, tmp_path / "both", rule=f"{both} | cut(undecided=mask)")
    known = {
        (label, *(right(node) for right in says.values()))
        for row in rows
        for label, known, node in zip(
            row["labels"], row["label_mask"], row["node_ids"], strict=True
        )
        if known
    }
    assert known == {(True, True, True), (False, False, False)}
    # A page labels its tree likewise.
    rule = load_rule("threshold(of=value_critic:d)")
    with connected(run) as connection:
        ((shown, _),) = trees_data(connection, run, [rows[0]["tree_id"]], rule, rollouts=False)
    nodes = shown["nodes"]
    assert len(nodes["node_id"]) > 1
    expected = ["right" if says["d"](node) else "wrong" for node in nodes["node_id"]]
    assert nodes["label"] == expected


@pytest.mark.parametrize("delimiter", ["\n", "\n\n", ". "])
def test_steps_are_cleaned_all_at_once_as_one_by_one(delimiter: str) -> None:
    rng = np.random.default_rng(0)
    pieces = ["", "a", " ", "\n", "\n\n", ". ", "é", "\t"]
    texts = ["".join(rng.choice(pieces, rng.integers(0, 7))) for _ in range(500)]
    found = clean_steps(pa.array(texts), delimiter)
    assert found.to_pylist() == [clean_step(text, delimiter) for text in texts]
    assert clean_steps(pa.array([], pa.string()), delimiter).to_pylist() == []


CUT = ["", "a\n", "b", "é\n", "\n", "", "c d\n"]


@pytest.mark.parametrize(
    "texts", [CUT, CUT[::-1], ["", ""], ["\n"], ["a"], [*CUT, "\na"], [*CUT, "a\n\n"], ["a\nb\n"]]
)
@pytest.mark.parametrize("start", [0, 1])
def test_steps_as_a_search_cuts_them_are_cleaned_alike(texts: list[str], start: int) -> None:
    found = clean_steps(pa.array(texts).slice(start), "\n")
    assert found.to_pylist() == [clean_step(text, "\n") for text in texts[start:]]


WORD = 2**64 - 1


def mix(word: int) -> int:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ (word >> shift)) * factor & WORD
    return word ^ (word >> 31)


def test_ids_are_those_of_the_formula() -> None:
    """Whatever else is in the batch; mix is checked on a published value of SplitMix64."""
    golden = 0x9E3779B97F4A7C15
    assert mix(golden) == 0xE220A8397B1DCDAF  # the first output from seed 0
    trees, numbers = [f"tree ø{number}" for number in range(4)], [0, 1, 2, 70_000, 2**31 - 1]
    pairs = [(tree, number) for tree in range(len(trees)) for number in numbers]
    tree_R, node_R = np.array(pairs).T
    found = row_ids(("prm", "a rule"), trees, tree_R, node_R).to_pylist()
    start = hashlib.blake2b(b"prm\na rule", digest_size=16).digest()
    for id_, (tree, number) in zip(found, pairs, strict=True):
        digest = hashlib.blake2b(start + trees[tree].encode(), digest_size=16).digest()
        lanes = [int.from_bytes(digest[at : at + 8], "big") for at in (0, 8)]
        assert id_ == "".join(f"{mix((lane + number * golden) & WORD):016x}" for lane in lanes)
    assert len({*found}) == len(found)
    assert (
        row_ids(("prm", "a rule"), trees[2:3], tree_R[:5], node_R[:5]).to_pylist() == found[10:15]
    )
    assert row_ids(("prm", "another"), trees, tree_R, node_R).to_pylist()[0] != found[0]


def test_no_rows_have_no_ids() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert row_ids(("prm", "a rule"), [], none, none).to_pylist() == []

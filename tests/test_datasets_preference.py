"""Pairs are what SQL finds to be the best and the worst step of a node."""

from pathlib import Path

import pytest
from tests.dataset_world import Row, export, grow, make_run, put, sql

from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.run_folder import RunFolder
from treeward.search.errors import BadInput

EXTREMES = """
SELECT tree_id, parent_id, max(value) - min(value) AS margin,
    arg_max(node_id, (value, -node_id)) AS best, arg_min(node_id, (value, node_id)) AS worst
FROM nodes WHERE value IS NOT NULL AND depth > 0
GROUP BY tree_id, parent_id HAVING count(*) > 1 AND max(value) - min(value) >= {margin} - 1e-9
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), grow(), size=5)


@pytest.mark.parametrize("margin", [0.05, 0.2, 0.9])
def test_the_best_step_of_each_node_against_the_worst(
    run: RunFolder, tmp_path: Path, margin: float
) -> None:
    rows = export(run, Kind.PREFERENCE, tmp_path / "out", margin=margin)
    expected = {
        (row["tree_id"], row["parent_id"]): (row["best"], row["worst"], row["margin"])
        for row in sql(run, EXTREMES.format(margin=margin))
    }
    found = {
        (row["tree_id"], row["parent_id"]): (row["chosen_id"], row["rejected_id"], row["margin"])
        for row in rows
    }
    assert found == expected
    assert len(rows) == len(found) > 0


def test_a_pair_just_at_the_margin_is_kept(run: RunFolder, tmp_path: Path) -> None:
    """A quarter of four and none have values .3 and .1, which floats put less than .2 apart."""
    rows = export(run, Kind.PREFERENCE, tmp_path / "out", margin=0.05)
    place = min(rows, key=lambda row: row["margin"])["id"]
    at = min(row["margin"] for row in rows)
    for margin, kept in ((at + 1e-12, True), (at + 1e-6, False)):
        found = export(run, Kind.PREFERENCE, tmp_path / str(margin), margin=margin)
        assert (place in {row["id"] for row in found}) is kept
        pairs = sql(run, f"FROM contrastive_pairs(margin := {margin!r}) WHERE difference <= {at!r}")
        assert bool(pairs) is kept


def test_a_prompt_and_a_step_are_what_the_policy_reads_and_writes(
    run: RunFolder, tmp_path: Path
) -> None:
    nodes: dict[tuple[str, int], Row] = {
        (node["tree_id"], node["node_id"]): node for node in sql(run, "SELECT * FROM nodes")
    }
    for row in export(run, Kind.PREFERENCE, tmp_path / "out"):
        for side in ("chosen", "rejected"):
            node = nodes[row["tree_id"], row[f"{side}_id"]]
            path = [nodes[row["tree_id"], at]["step_text"] for at in node["path"][1:]]
            assert row["shared_steps"] == "".join(path[:-1])
            said = put(row["problem_id"]) + "".join(path)
            assert row["prompt"] + row[side] == said
            for name in ("n_right", "n_rollouts", "value", "value_low", "value_high"):
                assert row[f"{side}_{name}"] == node[name]
        assert row["separated"] == (row["chosen_value_low"] > row["rejected_value_high"])


def test_in_a_chat_the_shared_steps_are_a_turn_that_goes_on(run: RunFolder, tmp_path: Path) -> None:
    plain = export(run, Kind.PREFERENCE, tmp_path / "plain")
    chats = export(run, Kind.PREFERENCE, tmp_path / "chats", template="chat")
    assert any(row["shared_steps"] for row in plain)
    for text, chat in zip(plain, chats, strict=True):
        assert chat["chosen"] == [{"role": "assistant", "content": text["chosen"]}]
        opened = [{"role": "assistant", "content": text["shared_steps"]}]
        assert chat["prompt"] == chat["messages"] + (opened if text["shared_steps"] else [])
        assert chat["id"] == text["id"]


def test_every_node_is_a_pair_or_counted(run: RunFolder, tmp_path: Path) -> None:
    report = export_dataset(run, Kind.PREFERENCE, tmp_path / "out", ExportSettings())
    inner = sql(run, "SELECT count(*) AS n FROM nodes WHERE n_children > 0")[0]["n"]
    left = {why: n for why, n in report.left_out.items() if not why.startswith("problems")}
    assert report.kept["pairs"] + sum(left.values()) == inner


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.5, float("nan")])
def test_a_margin_is_above_zero(margin: float) -> None:
    with pytest.raises(BadInput, match=r"margin must be in \(0, 1\]"):
        ExportSettings(margin=margin)

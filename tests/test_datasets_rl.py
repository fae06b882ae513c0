"""Token advantages add up to what they were made from, and belong to sampled ids alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.dataset_world import Row, export, grow, make_run, put, sql

from treeward.export.dataset_spec import Kind
from treeward.export.datasets_rl import spans
from treeward.export.rollout_stream import with_rollouts
from treeward.export.run_folder import Identity, RunFolder, open_run_folder, writing
from treeward.export.tree_stream import stream
from treeward.search.errors import BadInput
from treeward.train.spans import Span, per_token


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), grow(), size=5)


@pytest.fixture(scope="module")
def rows(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return export(run, Kind.RL, tmp_path_factory.mktemp("out") / "rl")


def node(n_tokens: int, value: float | None, tree: float | None = None) -> dict[str, Any]:
    return {"token_ids": [0] * n_tokens, "value": value, "value_tree": tree}


def test_spans_by_hand() -> None:
    """Steps of 2, 3 and 1 tokens of values .5, unknown and 1, from a root of .25."""
    found = spans(node(0, 0.25), [node(2, 0.5), node(3, None), node(1, 1.0)], 6, 1.0)
    assert [tuple(span.values()) for span in found] == [
        (0, 6, 0.75, "outcome"),
        (0, 2, 0.25, "step"),
        (2, 6, 0.5, "step"),  # the unknown step shares a span with the next
    ]
    # Tree evidence goes before strict evidence; what is left after the last node is one span.
    found = spans(node(0, 0.9, 0.5), [node(2, 0.9, 0.75)], 6, 0.0)
    assert [tuple(span.values()) for span in found] == [
        (0, 6, -0.5, "outcome"),
        (0, 2, 0.25, "step"),
        (2, 6, -0.75, "step"),
    ]
    # Without a value at the root there is nothing to compare the outcome with.
    found = spans(node(0, None), [node(2, 0.75)], 6, 1.0)
    assert [tuple(span.values()) for span in found] == [(2, 6, 0.25, "step")]
    assert spans(node(0, None), [], 6, 1.0) == []


def test_steps_add_up_to_the_outcome(run: RunFolder, rows: list[Row]) -> None:
    found = sql(
        run, "SELECT tree_id, coalesce(value_tree, value) AS value FROM nodes WHERE depth=0"
    )
    roots = {row["tree_id"]: row["value"] for row in found}
    for row in rows:
        expected = row["reward"] - roots[row["tree_id"]]
        (outcome,) = (span for span in row["advantages"] if span["source"] == "outcome")
        steps = [span for span in row["advantages"] if span["source"] == "step"]
        assert outcome["value"] == pytest.approx(expected)
        assert sum(span["value"] for span in steps) == pytest.approx(expected)
        # The steps cover every token once, in order.
        assert [span["start"] for span in steps] == [0, *(span["end"] for span in steps[:-1])]
        assert steps[-1]["end"] == outcome["end"] == len(row["token_ids"])


def test_the_trainer_s_spans_take_them(rows: list[Row]) -> None:
    row = max(rows, key=lambda row: len(row["advantages"]))
    steps = [Span(**span) for span in row["advantages"] if span["source"] == "step"]
    tokens = per_token(steps, len(row["token_ids"]))
    weights = [span.value for span in steps for _ in range(span.end - span.start)]
    np.testing.assert_allclose(tokens, weights, rtol=1e-6)


def test_a_row_is_a_solution_that_the_policy_sampled(run: RunFolder, rows: list[Row]) -> None:
    """Every end and every rollout is a row by its ids, once; text and counts come from the run."""
    nodes = sql(run, "SELECT * FROM nodes ORDER BY tree_id, pre")
    by_id = {(n["tree_id"], n["node_id"]): n for n in nodes}

    def above(tree: str, at: int) -> list[int]:
        path = by_id[tree, at]["path"][1:]
        return [token for step in path for token in by_id[tree, step]["token_ids"]]

    ends = {
        (n["tree_id"], *above(n["tree_id"], n["node_id"])): n
        for n in nodes
        if n["verdict"] in ("right", "wrong")
    }
    rolled: dict[Any, list[Row]] = {}
    for rollout in sql(run, "SELECT * FROM rollouts WHERE verdict <> 'unknown'"):
        tree = rollout["tree_id"]
        key = (tree, *above(tree, rollout["node_id"]), *rollout["token_ids"])
        rolled.setdefault(key, []).append(rollout)
    found = {(row["tree_id"], *row["token_ids"]): row for row in rows}
    assert len(found) == len(rows)
    assert found.keys() == ends.keys() | rolled.keys()
    assert rolled.keys() - ends.keys()
    assert ends.keys() & rolled.keys()
    for key, row in found.items():
        drawn = len(rolled.get(key, ()))
        ended = ends[key]["n_samples"] if key in ends else 0
        assert row["n_samples"] == max(drawn, ended)
        assert bytes(row["token_ids"]).decode() == row["text"]
        assert row["reward"] == float(row["text"].endswith("Answer: 7\n"))
        assert row["prompt"] == put(row["problem_id"])
        passed = [by_id[row["tree_id"], at] for at in row["node_ids"]]
        ids = [token for step in passed for token in step["token_ids"]]
        assert row["token_ids"][: len(ids)] == ids


def test_small_windows_give_the_same_rollouts(run: RunFolder) -> None:
    def read(**sizes: int) -> list[Any]:
        items = with_rollouts(stream(run, ["node_id"]), ["rollout_id", "text"], **sizes)
        return [(item.problem.id, item.rollouts.to_pylist()) for item in items]

    assert read(window_nodes=1) == read()
    total = sql(run, "SELECT count(*) AS n FROM rollouts")[0]["n"]
    assert sum(len(rollouts) for _, rollouts in read()) == total > 0


def test_given_steps_have_no_advantages(tmp_path: Path) -> None:
    identity = Identity(settings={"search.algorithm": "given"}, samplers=(), versions={})
    with writing(tmp_path / "run", identity, []):
        pass
    with pytest.raises(BadInput, match="were given, not sampled by the policy"):
        export(open_run_folder(tmp_path / "run"), Kind.RL, tmp_path / "out")

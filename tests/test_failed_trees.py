"""Trees in which calls failed leave a run and are grown anew; nothing else of it changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from treeward.export import disk
from treeward.export.compact import compact
from treeward.export.failed_trees import failed_trees
from treeward.export.generate import Outcome, generate
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder
from treeward.export.scores import score_run
from treeward.export.verify import verify_run
from treeward.search.critic import Scores
from treeward.search.errors import BadInput, CallFailed, TreewardError
from treeward.search.policy import Ask, Draw
from treeward.search.scripted import ScriptedCritic
from treeward.search.transformers_policy import TransformersPolicy

QUICK = ("search.simulations=2", "search.rollouts=2")
VIEWS = {"trees": "tree_id", "nodes": "tree_id, pre", "rollouts": "tree_id, rollout_id"}


def plan_of(**more: Any) -> Plan:
    return make_plan(Options(problems="task:arithmetic?n=4&seed=3", assignments=QUICK, **more))


def grow(plan: Plan, run: Path, *, retry_failed: bool = False) -> Outcome:
    return generate(plan, run, concurrency=4, retry_failed=retry_failed)


def tables(run: Path) -> list[pa.Table]:
    folder = open_run_folder(run)
    return [
        run_query(folder, f"SELECT * FROM {view} ORDER BY {order}") for view, order in VIEWS.items()
    ]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Problems whose calls fail."""
    ids: set[str] = set()
    draw = TransformersPolicy.draw

    async def flaky(policy: TransformersPolicy, ask: Ask) -> list[Draw]:
        if ask.stick_to in ids:
            raise CallFailed("timeout", "late")
        return await draw(policy, ask)

    monkeypatch.setattr(TransformersPolicy, "draw", flaky)
    return ids


@pytest.fixture
def half(broken: set[str], tmp_path: Path) -> Path:
    """A run of four trees, two of which failed, that a critic has scored."""
    plan, run = plan_of(), tmp_path / "half"
    broken |= {plan.problems[0].id, plan.problems[2].id}
    outcome = grow(plan, run)
    assert (outcome.grown, outcome.failed) == (4, 2)
    broken.clear()
    score_run(run, critic())
    return run


def critic() -> ScriptedCritic:
    def opinion(_: str, steps: Sequence[str]) -> Scores:
        return Scores(1 / (1 + len(steps)), 0.0 if steps else None, 0.5 if steps else None)

    return ScriptedCritic(opinion, "short")


@pytest.mark.parametrize("compacted", [False, True])
def test_failed_trees_are_grown_anew_and_others_left(
    half: Path, tmp_path: Path, compacted: bool
) -> None:
    if compacted:
        compact(half)
    before = tables(half)[0].filter(pa.compute.field("status") == "ok")
    asked_for_nothing = grow(plan_of(), half)
    assert (asked_for_nothing.grown, asked_for_nothing.failed_before) == (0, 2)
    assert "2 of them with failed calls (--retry-failed grows them anew)" in str(asked_for_nothing)

    again = grow(plan_of(), half, retry_failed=True)
    assert (again.grown, again.before, again.failed, again.failed_before) == (2, 2, 0, 0)
    assert again.exit_code(None) == 0
    assert failed_trees(half) == set()
    score_run(half, critic())
    assert verify_run(half) == ()
    sound = tmp_path / "sound"
    grow(plan_of(), sound)
    score_run(sound, critic())
    assert tables(half) == tables(sound)
    assert before.num_rows == 2
    kept = tables(half)[0].filter(pa.compute.is_in(pa.compute.field("tree_id"), before["tree_id"]))
    assert kept == before


def test_where_trees_cannot_be_taken_out_all_stay(
    half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables(half)

    def refuse(*_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "exchange", refuse)
    with pytest.raises(TreewardError, match="cannot take trees out"):
        grow(plan_of(), half, retry_failed=True)
    assert tables(half) == before


def test_a_run_with_a_budget_keeps_its_failed_trees(broken: set[str], tmp_path: Path) -> None:
    plan = plan_of(budget_tokens=4000)
    broken.add(plan.problems[1].id)
    assert grow(plan, tmp_path).failed == 1
    with pytest.raises(BadInput, match="a run with a budget cannot grow single trees anew"):
        grow(plan, tmp_path, retry_failed=True)


def test_only_the_trees_of_a_shard_are_grown_anew(broken: set[str], tmp_path: Path) -> None:
    first, second = (plan_of(shard=f"{at}/2") for at in (1, 2))
    broken |= {problem.id for problem in first.problems}
    for plan in (first, second):
        grow(plan, tmp_path)
    broken.clear()
    assert grow(second, tmp_path, retry_failed=True).grown == 2
    assert len(failed_trees(tmp_path)) == 2

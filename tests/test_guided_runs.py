"""Runs of the guided searches on disk: their settings, plans, rows and datasets."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.conftest import Ran

from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.estimate import estimate
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder
from treeward.export.verify import verify_run
from treeward.search.critic import Scores
from treeward.search.errors import BadInput
from treeward.search.scripted import ScriptedCritic

PROBLEMS = "task:arithmetic?n=2&seed=3"
QUICK = {
    "beam": ("search.width=2", "search.rollouts=1", "beam.beams=2"),
    "best_of_n": ("search.width=3",),
    "adaptive": ("search.width=1", "search.rollouts=1", "search.simulations=6"),
}


def opinion(prompt: str, steps: Sequence[str]) -> Scores:
    """The shorter the better."""
    value = 1 / (1 + len("".join(steps)))
    return Scores(value, 0.0, value) if steps else Scores(value, None, None)


def options(search: str, *more: str, critics: bool = True) -> Options:
    return Options(
        problems=PROBLEMS,
        algorithm=search,
        critics=ScriptedCritic(opinion) if critics else None,
        assignments=(*QUICK[search], *more),
    )


@pytest.mark.parametrize("search", QUICK)
def test_a_run_is_sound_and_stays_within_its_plan(search: str, tmp_path: Path) -> None:
    plan = make_plan(options(search))
    generate(plan, tmp_path, concurrency=2)
    assert verify_run(tmp_path) == ()
    most = estimate(plan)
    (found,) = run_query(
        open_run_folder(tmp_path),
        "SELECT max(n_nodes) AS nodes, sum(n_rollouts)::INT AS rollouts, count(*) AS trees, "
        "sum(policy_tokens)::INT AS tokens, bool_and(status = 'ok') AS ok FROM trees",
    ).to_pylist()
    assert (found["trees"], found["ok"]) == (2, True)
    assert 1 < found["nodes"] <= most.max_nodes
    assert 0 < found["rollouts"] <= most.max_rollouts
    assert 0 < found["tokens"] <= most.max_policy_tokens
    settings = ExportSettings(min_rollouts=1)
    report = export_dataset(open_run_folder(tmp_path), Kind.PRM, tmp_path / "prm", settings)
    assert sum(report.rows.values()) > 0


def test_the_commands(tmp_path: Path, treeward: Callable[..., Ran]) -> None:
    """Without critics, from the command line to a dataset; the same command again does nothing."""
    settings = [word for setting in QUICK["adaptive"] for word in ("--set", setting)]
    command = ("generate", PROBLEMS, "--search", "adaptive", *settings, "--out", tmp_path / "run")
    assert "at most" in treeward(*command, "--dry-run").out
    assert treeward(*command).code == 0
    again = treeward(*command)
    assert (again.code, "2 were there before" in again.out) == (0, True)
    assert treeward("verify", tmp_path / "run").code == 0
    exported = treeward("export", tmp_path / "run", "prm", "--out", tmp_path / "prm")
    assert exported.code == 0, exported.err


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (options("beam", "best_of_n.aggregate=min"), "is a setting of --search best_of_n"),
        (options("beam", "beam.beams=0"), "beam.beams must be at least 1"),
        (options("beam", "search.rollouts=0", critics=False), "at least 1 without critics"),
        (options("adaptive", "adaptive.prior=1"), "unknown setting 'adaptive.prior'"),
        (options("best_of_n", "best_of_n.aggregate=median"), "best_of_n.aggregate"),
        (options("best_of_n", "best_of_n.aggregate=min", critics=False), "weighs critics and the"),
        (options("best_of_n", "search.critic_value=0"), "are all 0, and nothing else ranks"),
    ],
)
def test_settings_that_do_not_fit_are_refused(asked: Options, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make_plan(asked)


def test_best_of_n_asks_for_no_rollouts_from_its_nodes() -> None:
    """So it needs none to be allowed, with critics or without."""
    for critics in (True, False):
        plan = make_plan(options("best_of_n", "search.rollouts=0", critics=critics))
        assert estimate(plan).max_rollouts == 2 * 3


def test_without_critics_a_run_knows_nothing_of_how_they_are_put_together() -> None:
    names = {
        critics: set(make_plan(options("best_of_n", critics=critics)).identity.settings)
        for critics in (True, False)
    }
    assert "best_of_n.aggregate" in names[True] - names[False]

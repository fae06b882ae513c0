"""Fast rollouts in runs on disk: settings, rows, and labels that do not know of them."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pytest
from tests.conftest import Ran
from tests.test_forest import FAST, READER, grow, script
from tests.worlds import completion

from treeward.export.columns import Origin, tree_tables
from treeward.export.dataset_spec import ExportSettings, template_of
from treeward.export.estimate import estimate
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder, writing
from treeward.export.status import describe, run_status
from treeward.export.verify import verify_run
from treeward.search.critic import Prefix
from treeward.search.errors import BadInput, SettingsConflict
from treeward.search.fast import FastRollouts
from treeward.search.groups import SameStep
from treeward.search.models import NANO_FAST, resolve_model
from treeward.search.phases import weigh
from treeward.search.replies import Reply
from treeward.search.requests import Kind, Request
from treeward.search.scripted import ScriptedPolicy
from treeward.search.step_ends import CustomEnd
from treeward.search.tokens import byte_tokens
from treeward.search.tree import Rollouts
from treeward.search.verdicts import Reason

PROBLEMS = "task:arithmetic?n=3&seed=3"
QUICK = ("search.simulations=3", "search.rollouts=4", "fast.rollouts=2", "fast.policy=nano-fast")
ORDER = {"trees": "tree_id", "nodes": "tree_id, pre", "rollouts": "tree_id, rollout_id"}


def options(*assignments: str) -> Options:
    return Options(problems=PROBLEMS, assignments=assignments)


def tables(run: Path) -> dict[str, pa.Table]:
    found = open_run_folder(run)
    return {
        name: run_query(found, f"SELECT * FROM {name} ORDER BY {order}")
        for name, order in ORDER.items()
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast") / "run"
    generate(make_plan(options(*QUICK)), folder, concurrency=3)
    return folder


def test_a_run_says_who_drew_what(run: Path) -> None:
    assert verify_run(run) == ()
    found = tables(run)
    samplers = run_query(open_run_folder(run), "FROM samplers ORDER BY sampler_id").to_pylist()
    assert [(s["policy"], s["purpose"]) for s in samplers] == [
        ("nano", "evidence"),
        ("nano-fast", "steering"),
    ]
    spent = run_query(
        open_run_folder(run),
        "SELECT tree_id, sum(n_tokens)::BIGINT AS fast_tokens FROM rollouts WHERE sampler_id = 1 "
        "GROUP BY tree_id ORDER BY tree_id",
    )
    assert spent.to_pylist() == found["trees"].select(["tree_id", "fast_tokens"]).to_pylist()
    for row in found["rollouts"].to_pylist():
        assert (row["evidence_from"] is None) == (row["sampler_id"] == 1)


def test_status_tells_their_tokens_apart(run: Path) -> None:
    status = run_status(open_run_folder(run))
    (spent,) = run_query(
        open_run_folder(run),
        "SELECT sum(policy_tokens)::BIGINT AS own, sum(fast_tokens)::BIGINT AS fast FROM trees",
    ).to_pylist()
    assert (status.policy_tokens, status.fast_tokens) == (spent["own"], spent["fast"])
    assert f"{spent['fast']:,} by the fast sampler" in describe(status)


def test_no_label_knows_of_fast_rollouts() -> None:
    """All rows of nodes are, bit for bit, those of the same tree without them."""
    origin = Origin(reader=READER, search="mcts", policy="scripted", seed=7)
    for tree in grow(ScriptedPolicy(script), search=FAST).values():
        bare = copy.copy(tree)
        bare.rollouts = of_the_policy(tree.rollouts)
        assert len(bare.rollouts.node) < len(tree.rollouts.node)
        ours, theirs = (tree_tables(each, "t", origin) for each in (tree, bare))
        assert ours["nodes"].equals(theirs["nodes"])
        for name in ("pass_rate", "solved", "best_node_id"):
            assert ours["trees"][name] == theirs["trees"][name]


def of_the_policy(rollouts: Rollouts) -> Rollouts:
    own = [at for at, sampler in enumerate(rollouts.sampler_id) if sampler == 0]
    return Rollouts(
        **{
            field.name: [getattr(rollouts, field.name)[at] for at in own]
            for field in fields(Rollouts)
        }
    )


@pytest.mark.parametrize("concurrency", [1, 2])
def test_rows_do_not_depend_on_concurrency(run: Path, tmp_path: Path, concurrency: int) -> None:
    generate(make_plan(options(*QUICK)), tmp_path, concurrency=concurrency)
    assert tables(tmp_path) == tables(run)


def test_a_run_of_fast_rollouts_alone_has_no_labels_inside_its_trees(tmp_path: Path) -> None:
    plan = make_plan(options("search.rollouts=0", "fast.rollouts=2", "fast.max_rollout_tokens=40"))
    (warning,) = plan.warnings
    assert "labels will be null" in warning
    generate(plan, tmp_path, concurrency=3)
    assert verify_run(tmp_path) == ()
    (row,) = run_query(
        open_run_folder(tmp_path),
        "SELECT count(*) FILTER (NOT is_terminal AND coalesce(value, value_low) IS NOT NULL) AS "
        "labels, count(*) FILTER (n_rollouts > 0 OR stop_rule IS NOT NULL) AS counted, "
        "max(visits) AS visits FROM nodes",
    ).to_pylist()
    assert (row["labels"], row["counted"]) == (0, 0)
    assert row["visits"] > 1
    (fast,) = run_query(
        open_run_folder(tmp_path),
        "SELECT max(n_tokens) AS longest, min(sampler_id) AS sampler FROM rollouts",
    ).to_pylist()
    assert (fast["longest"] <= 40, fast["sampler"]) == (True, 1)


def test_the_commands(tmp_path: Path, treeward: Callable[..., Ran]) -> None:
    quick = ("fast.rollouts=4", "fast.policy=nano-fast", "search.simulations=2")
    settings = [word for setting in quick for word in ("--set", setting)]
    command = ("generate", "task:arithmetic?n=4", *settings)
    planned = treeward(*command, "--out", tmp_path / "run", "--dry-run")
    assert "fast rollouts by nano-fast: at most 144 with 13,824 tokens" in planned.out
    assert treeward(*command, "--out", tmp_path / "run").code == 0
    again = treeward(*command, "--out", tmp_path / "run")
    assert (again.code, "4 were there before" in again.out) == (0, True)
    assert treeward("verify", tmp_path / "run").code == 0
    other = treeward(*command, "--set", "fast.weight=1", "--out", tmp_path / "run")
    assert (other.code, "fast.weight: run has 0.125, asked for 1.0" in other.err) == (3, True)


def test_a_plan_counts_fast_rollouts_apart() -> None:
    plain = estimate(make_plan(options(*QUICK[:2])))
    fast = estimate(make_plan(options(*QUICK)))
    nodes = 3 * plain.max_nodes
    assert (plain.fast_policy, plain.max_fast_rollouts, plain.max_fast_tokens) == (None, 0, 0)
    assert (fast.fast_policy, fast.max_fast_rollouts) == ("nano-fast", 2 * nodes)
    assert fast.max_fast_tokens == 2 * nodes * 96
    assert fast.max_calls == plain.max_calls + nodes
    assert replace(fast, fast_policy=None, max_fast_rollouts=0, max_fast_tokens=0) == replace(
        plain, max_calls=fast.max_calls
    )


def test_without_fast_rollouts_a_run_knows_nothing_of_them() -> None:
    identity = make_plan(options()).identity
    assert not any(name.startswith("fast.") for name in identity.settings)
    assert len(identity.samplers) == 1


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (
            options("fast.policy=nano-fast"),
            "fast.policy='nano-fast' is read only with fast.rollouts",
        ),
        (options("fast.rollouts=-1"), "fast.rollouts must be at least 0, got -1"),
        (options("fast.rollouts=4"), "would be drawn just as the policy's own rollouts"),
        (options("fast.rollouts=4", "fast.policy=nano"), "drawn just as the policy's own rollouts"),
        (options("fast.rollouts=4", "fast.weight=0"), "fast.weight must be greater than 0"),
        (options("fast.rollouts=4", "fast.temperature=0"), "fast.temperature must be finite"),
        (
            replace(options("fast.rollouts=4", "fast.temperature=2.5"), backend="vllm"),
            "fast.temperature must be from 0.01 to 2.0 with vLLM, got 2.5",
        ),
        (
            replace(options("fast.rollouts=4", "fast.policy=nano-fast"), backend="vllm"),
            "'nano-fast' would be a second model, and vLLM runs one at a time in a process; serve",
        ),
        (options("fast.rollouts=4", "fast.max_rollout_tokens=97"), "must be at most .* is 96, got"),
        (options("fast.rollouts=4", "fast.polcy=nano"), "did you mean 'fast.policy'"),
        (options("fast.rollouts=4", "fast.policy=nano-fats"), "did you mean 'nano-fast'"),
        (
            options("search.algorithm=omega", *QUICK),
            "mcts, beam, adaptive, and the search is omega",
        ),
        (options("search.rollouts=0"), "give --critics DIR or fast.rollouts=4"),
        (options("prompt.steps=tokens"), "prompt.step_tokens goes with prompt.steps=tokens"),
        (options("prompt.steps=line", "prompt.step_tokens=9"), "give both or neither"),
        (options("prompt.steps=tokens", "prompt.step_tokens=25"), "policy.max_step_tokens=25"),
        (options("prompt.steps=sentense"), "did you mean 'sentence'"),
    ],
)
def test_settings_that_do_not_fit_name_the_way_out(asked: Options, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make_plan(asked)


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("tokenizer.json", '"+": 14', '"\u00d7": 14', r"token 14 is '\u00d7' and should be '\+'"),
        ("generation_config.json", ": 1,", ": 25,", r"ends with tokens \[1, 25\] and should"),
        ("tokenizer.json", '"Isolated"', '"Removed"', "it splits .* into other tokens"),
    ],
)
def test_a_fast_policy_must_have_the_policys_tokens(
    tmp_path: Path, file: str, old: str, new: str, says: str
) -> None:
    shutil.copytree(resolve_model(NANO_FAST, tmp_path).path, tmp_path / "other")
    path = tmp_path / "other" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadInput, match=says):
        make_plan(options("fast.rollouts=4", f"fast.policy={tmp_path / 'other'}"))


def test_fast_rollouts_weigh_as_told() -> None:
    # 1 of 2, and 3 of 4 that weigh a half each: (1 + 1.5) of (2 + 2).
    own = Request(kind=Kind.ROLLOUT, node=5, prefix_ids=(), n=2, first=0)
    fast = own._replace(n=4, sampler_id=1)
    counts = weigh(
        [own, fast], [reply(1, 2), reply(3, 4)], FastRollouts(n=4, weight=0.5, max_tokens=9)
    )
    assert counts == {5: (2.5, 4.0)}


def reply(right: int, known: int) -> Reply:
    """One of its completions has an unknown verdict."""
    ends = [Reason.MATCH] * right + [Reason.MISMATCH] * (known - right) + [Reason.CHECKER_LIMIT]
    return Reply(tuple(completion("x", end) for end in ends))


@pytest.mark.parametrize(
    ("steps", "text", "expected"),
    [
        ("prompt.steps=paragraph", "a\n\nb", ["a\n\n", "b"]),
        ("prompt.steps=sentence", "It is. So", ["It is.", " So"]),
    ],
)
def test_steps_are_chosen_by_a_setting_which_the_run_remembers(
    tmp_path: Path, steps: str, text: str, expected: list[str]
) -> None:
    plan = make_plan(options("search.simulations=1", "search.rollouts=1", steps))
    cut = plan.reader(byte_tokens()).cut(tuple(text.encode()))
    assert [bytes(step).decode() for step in cut] == expected
    with writing(tmp_path, plan.identity, plan.problems) as folder:
        assert template_of(folder, ExportSettings()).rule == plan.template.rule


def test_a_callable_ends_steps_and_its_name_stands_for_it(tmp_path: Path) -> None:
    def plan_with(name: str, **more: str) -> Plan:
        end = CustomEnd(name, lambda text: text.endswith("="))
        assignments = ("search.simulations=2", "search.rollouts=1", *more.values())
        return make_plan(Options(problems=PROBLEMS, assignments=assignments, step_end=end))

    generate(plan_with("equations"), tmp_path, concurrency=1)
    assert verify_run(tmp_path) == ()
    steps = run_query(
        open_run_folder(tmp_path), "SELECT step_text FROM nodes WHERE depth > 0 AND NOT is_terminal"
    ).to_pylist()
    assert steps
    assert all(row["step_text"].endswith("=") for row in steps)
    # Made anew, as by the same program on another day, it is the same run.
    assert plan_with("equations").identity == plan_with("equations").identity
    with pytest.raises(SettingsConflict, match="run has 'custom:equations', asked"):
        generate(plan_with("others"), tmp_path, concurrency=1)
    with pytest.raises(BadInput, match="both say what a step is"):
        plan_with("equations", steps="prompt.steps=line")


def test_a_callable_tells_siblings_apart_and_its_name_stands_for_it(tmp_path: Path) -> None:
    asked: list[tuple[Prefix, str, str]] = []

    def alike(prefix: Prefix, first: str, other: str) -> bool:
        asked.append((prefix, first, other))
        return True

    def plan_with(name: str, algorithm: str, *assignments: str) -> Plan:
        few = ("search.simulations=6", "search.rollouts=1", "policy.temperature=1.5")
        return make_plan(
            Options(
                problems=PROBLEMS,
                algorithm=algorithm,
                assignments=(*few, *assignments),
                same_step=SameStep(name, alike),
            )
        )

    generate(plan_with("alike", "mcts"), tmp_path, concurrency=1)
    assert asked
    siblings = run_query(
        open_run_folder(tmp_path),
        "SELECT p.depth, a.step_text AS first, b.step_text AS other FROM nodes a "
        "JOIN nodes b USING (tree_id, parent_id) JOIN nodes p "
        "ON p.tree_id = a.tree_id AND p.node_id = a.parent_id WHERE a.node_id < b.node_id",
    ).to_pylist()
    pairs = {(row["depth"], row["first"], row["other"]) for row in siblings}
    assert {(len(prefix.steps), first, other) for prefix, first, other in asked} <= pairs
    assert {prefix.problem.id for prefix, *_ in asked} <= {
        problem.id for problem in plan_with("alike", "mcts").problems
    }
    with pytest.raises(SettingsConflict, match="run has 'custom:alike', asked"):
        generate(plan_with("others", "mcts"), tmp_path, concurrency=1)
    with pytest.raises(BadInput, match="same_step=custom:alike groups siblings for the search"):
        plan_with("alike", "beam")
    with pytest.raises(BadInput, match=r"without mcts.group_distance; leave one"):
        plan_with("alike", "mcts", "mcts.group_distance=0.2")

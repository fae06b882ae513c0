"""Where no problem's prompt leaves room for a solution in the model's context, nothing begins."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fake_server import Event, FakeServer, Wire, serving

from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.search.backends import check_room
from treeward.search.errors import BadInput
from treeward.search.models import resolve_model
from treeward.search.policy import PolicySettings
from treeward.search.tokens import load_tokens
from treeward.search.vllm_policy import VllmSettings

NANO = resolve_model("nano", Path("unused"))
CONTEXT = json.loads((NANO.path / "config.json").read_text())["max_position_embeddings"]
PROMPTS = ("7+5", "7+5-3+11+4")


def planned(folder: Path, *assignments: str) -> Plan:
    problems = folder / "problems.jsonl"
    rows = [json.dumps({"prompt": prompt, "answer": "12"}) for prompt in reversed(PROMPTS)]
    problems.write_text("\n".join(rows))
    return make_plan(Options(problems=str(problems), policy="nano", assignments=assignments))


async def never(body: Event, wire: Wire) -> None:
    raise AssertionError(f"asked for {body}")


def test_one_problem_that_leaves_room_is_enough(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    reader = plan.reader(load_tokens(NANO.path))
    shortest = min(len(reader.prompt_ids(problem)) for problem in plan.problems)
    room = CONTEXT - shortest
    assert (
        planned(tmp_path, f"policy.max_rollout_tokens={room}").sampling.max_rollout_tokens == room
    )
    with pytest.raises(BadInput) as refused:
        planned(tmp_path, f"policy.max_rollout_tokens={room + 1}")
    assert str(refused.value) == (
        f"policy.max_rollout_tokens={room + 1} and the shortest prompt, of {shortest} tokens, need "
        f"more than the {CONTEXT} positions of 'nano'; set policy.max_rollout_tokens to at most "
        f"{room}"
    )


def test_problems_that_the_policy_cannot_be_asked_can_be_left_out(tmp_path: Path) -> None:
    file = tmp_path / "problems.jsonl"
    prompts = ("7 +5", "three plus four")
    file.write_text("\n".join(json.dumps({"prompt": each, "answer": "7"}) for each in prompts))
    asked = Options(problems=str(file), policy="nano")
    with pytest.raises(BadInput, match=r"^problem \w+: .* cannot read .*--skip-bad leaves such"):
        make_plan(asked)
    plan = make_plan(replace(asked, skip_bad=True))
    assert [problem.prompt for problem in plan.problems] == ["7 +5"]
    assert len(plan.skipped) == 1
    file.write_text(json.dumps({"prompt": prompts[1], "answer": "7"}))
    with pytest.raises(BadInput, match=r"can be asked none of the problems; problem \w+: .*read"):
        make_plan(replace(asked, skip_bad=True))


@pytest.mark.parametrize("command", [["generate"], ["eval", "policy", "nano"]])
def test_commands_refuse_before_they_write(
    treeward: Callable[..., Any], tmp_path: Path, command: list[str]
) -> None:
    out = tmp_path / "out"
    where = ["--out", out] if command == ["generate"] else []
    longer = ["--set", f"policy.max_rollout_tokens={CONTEXT}"]
    ran = treeward(*command, "task:arithmetic?n=2&seed=1", *where, *longer)
    assert ran.code == 2
    assert re.fullmatch(r"\S*error: policy\.max_rollout_tokens=512 and .*\n", ran.err), ran.err
    assert not out.exists()


def test_what_a_server_reads_is_what_its_card_says(
    treeward: Callable[..., Any], tmp_path: Path
) -> None:
    card = {"id": str(NANO.path), "root": str(NANO.path), "max_model_len": 64}
    server = FakeServer(never, card, load_tokens(NANO.path).encode)
    with serving(server):
        ran = treeward(
            "generate",
            "task:arithmetic?n=2&seed=1",
            "--policy",
            server.url,
            "--out",
            tmp_path / "o",
        )
    assert ran.code == 2
    assert "need more than the 64 positions of" in ran.err


def test_a_fast_policy_needs_room_too(tmp_path: Path) -> None:
    small = tmp_path / "small"
    shutil.copytree(NANO.path, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 64}))
    fast = (f"fast.policy={small}", "fast.rollouts=1", "fast.max_rollout_tokens")
    assert planned(tmp_path, *fast[:2], f"{fast[2]}=20").fast is not None
    with pytest.raises(BadInput, match=r"^fast\.max_rollout_tokens=96 .* set fast\.max_rollout_"):
        planned(tmp_path, *fast[:2], f"{fast[2]}=96")


def test_a_prompt_that_fills_the_context_by_itself_needs_another_model() -> None:
    running, sampling = VllmSettings(context=40), PolicySettings()
    with pytest.raises(BadInput, match=r"; take a model that reads more$"):
        check_room(NANO, running, "policy", sampling, 40)
    check_room(NANO, VllmSettings(), "policy", sampling, 40)

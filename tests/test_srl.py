import dataclasses
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treeward import generate, open_run
from treeward.export.durable import file_sha256
from treeward.search.errors import BadInput
from treeward.search.models import resolve_model
from treeward.search.policy import Ask, Draw
from treeward.search.prompts import Template
from treeward.search.steps import Budget, Finish, Stepper
from treeward.search.templates import load_template
from treeward.search.tokens import load_tokens
from treeward.train.srl import BAD_FORMAT, Srl, SrlSettings, as_written

NANO = resolve_model("nano", Path("unused")).path
TOKENS = load_tokens(NANO)
Command = Callable[..., Any]

RUN_SETTINGS = ("search.simulations=2", "search.rollouts=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("srl") / "run"
    generate("task:arithmetic?n=8&seed=3", folder, assignments=RUN_SETTINGS)
    return folder


@pytest.fixture(scope="module", params=["srl", "rlvr"])
def dataset(request: pytest.FixtureRequest, run: Path) -> tuple[str, Path]:
    out = run.parent / request.param
    open_run(run).export(request.param, out)
    return request.param, out


def rows(path: Path, *records: dict[str, Any]) -> Path:
    default = {"id": "r", "prompt": [{"role": "user", "content": "12 *3 -4"}]}
    default |= {"prefix_steps": [], "target_step": "12*3=36"}
    full = [default | {"id": f"r{i}"} | record for i, record in enumerate(records)]
    strings = pa.list_(pa.string())
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    names = {"id": pa.string(), "prompt": messages, "prefix_steps": strings}
    schema = pa.schema({**names, "target_step": pa.string()})
    pq.write_table(pa.Table.from_pylist(full, schema=schema), path)
    return path


def environment(data: Path, template: Template | None = None, **changes: Any) -> Srl:
    return Srl(data, template or load_template("nano"), TOKENS, SrlSettings(**changes))


def draw(text: str, finish: Finish = Finish.STEP) -> Draw:
    return Draw(tuple(TOKENS.encode(text)), 0.0, finish)


def test_the_prompt_is_the_problem_and_the_steps_so_far(tmp_path: Path) -> None:
    data = rows(tmp_path / "d.parquet", {"prefix_steps": ["12*3=36"], "target_step": "36-4=32"})
    (prompt,) = environment(data).prompts
    assert TOKENS.text_of(prompt.ids) == "12 *3 -4\n12*3=36\n"
    assert TOKENS.text_of(prompt.prefix_ids) == "12*3=36\n"
    assert prompt.id == "r0"


def test_a_step_is_rewarded_by_its_numbers_and_a_bad_one_is_minus_one(tmp_path: Path) -> None:
    world = environment(rows(tmp_path / "d.parquet", {}))
    draws = [draw("12*3=36\n"), draw("12*3=35\n"), draw("\n"), draw("12*3=36", Finish.LENGTH)]
    grades = world.grade(0, draws)
    assert list(grades.rewards) == pytest.approx([1.0, 2 / 3, BAD_FORMAT, BAD_FORMAT])
    assert grades.shares == {
        "completions/bad_format_ratio": 0.5,
        "completions/wrong_end_ratio": 0.0,
    }


@pytest.mark.parametrize(
    ("target", "steps", "rewards", "alike"),
    [
        # An answer repeats a number of the step that it skips: 2 * 1 / 4 and no step at all.
        ("32+5=37", ["32+5=37", "32+6=38", "A32"], (1, 1 / 3, 0), (1, 1 / 3, 1 / 2)),
        # The mark ends a solution, also where nothing follows it.
        ("32+5=37", ["32+5=37", "32+6=38", "32A"], (1, 1 / 3, 0), (1, 1 / 3, 1 / 2)),
        ("A37", ["A37", "A38", "37+5=42"], (1, 0, 0), (1, 0, 1 / 2)),
    ],
)
def test_an_answer_is_unlike_a_step(
    tmp_path: Path,
    target: str,
    steps: list[str],
    rewards: tuple[float, ...],
    alike: tuple[float, ...],
) -> None:
    data = rows(tmp_path / "d.parquet", {"target_step": target})
    for match_ends, expected in ((True, rewards), (False, alike)):
        world = environment(data, match_ends=match_ends)
        grades = world.grade(0, [sampled(f"{step}\n", world) for step in steps])
        assert grades.rewards == pytest.approx(expected)
        assert grades.shares["completions/wrong_end_ratio"] == pytest.approx(1 / 3)


def sampled(text: str, world: Srl) -> Draw:
    """A draw that ends as the sampler ends it."""
    token_ids = tuple(TOKENS.encode(text))
    stepper = Stepper.after((), TOKENS, world.rule, Budget(step=99, total=99))
    (finish,) = filter(None, map(stepper.feed, token_ids))
    return Draw(token_ids, 0.0, finish)


BOXED = "so \\boxed{32}"


@pytest.mark.parametrize(
    ("target", "text", "finish", "reward"),
    [
        ("36-4=32", "36-4=32", Finish.STEP, 1.0),
        # An end token after the right step ends the solution all the same.
        ("36-4=32", "36-4=32", Finish.END, 0.0),
        ("36-4=32", BOXED, Finish.STEP, 0.0),
        (BOXED, BOXED, Finish.END, 1.0),
        # Where only an end token ends a solution, an answer without one goes on.
        (BOXED, BOXED, Finish.STEP, 0.0),
    ],
)
def test_an_end_token_ends_and_nothing_else_where_answers_do_not(
    tmp_path: Path, target: str, text: str, finish: Finish, reward: float
) -> None:
    chat = dataclasses.replace(load_template("chat"), chat=False)
    tokens: Any = Texts()
    data = rows(tmp_path / "d.parquet", {"target_step": target})
    world = Srl(data, chat, tokens, SrlSettings(match_ends=True))
    grades = world.grade(0, [Draw(tuple(map(ord, text)), 0.0, finish)])
    assert grades.rewards == (reward,)
    assert grades.shares["completions/wrong_end_ratio"] == float(reward == 0.0)


def test_ends_are_matched_where_some_targets_answer(tmp_path: Path) -> None:
    answer, step = {"target_step": "A37"}, {"target_step": "32+5=37"}
    both = environment(rows(tmp_path / "both.parquet", answer, step))
    assert both.grade(1, [sampled("A32\n", both)]).rewards == (0.0,)
    none = environment(rows(tmp_path / "none.parquet", step))
    assert none.grade(0, [sampled("A32\n", none)]).rewards == (0.5,)


def test_the_models_step_comes_first_in_the_comparison(tmp_path: Path) -> None:
    """`2 1 2` against `1 3 2` would be 1/3: difflib's ratio is not symmetric."""
    world = environment(rows(tmp_path / "d.parquet", {"target_step": "2 1 2"}))
    assert world.grade(0, [draw("1 3 2\n")]).rewards == pytest.approx((2 / 3,))


def test_a_row_needs_no_more_room_than_its_own_step(tmp_path: Path) -> None:
    """A long question and long steps before another row do not add up; a whole step fits all."""
    long = {"prompt": [{"role": "user", "content": "12 *3 -4 +5 -6 +7 -8 +9 -1 +2"}]}
    late = {"prefix_steps": ["12*3=36", "36-4=32"], "target_step": "32+5=37"}
    step = TOKENS.encode("12*3=36\n")
    world = environment(
        rows(tmp_path / "d.parquet", long, late, {}), max_completion_length=len(step)
    )
    for prompt in world.prompts:
        ask = Ask(
            prompt_ids=prompt.prompt_ids,
            prefix_ids=prompt.prefix_ids,
            kind=world.kind,
            seeds=(1,),
            settings=world.sampling,
            rule=world.rule,
            stick_to="",
        )
        assert ask.positions == len(prompt.ids) + len(step)
        budget = Budget(step=world.sampling.max_step_tokens, total=ask.room)
        stepper = Stepper.after(prompt.prefix_ids, TOKENS, world.rule, budget)
        assert [stepper.feed(token) for token in step] == [*(None,) * (len(step) - 1), Finish.STEP]


@dataclasses.dataclass(frozen=True)
class Texts:
    """Stands in for tokens where a draw's ids are characters."""

    unknown_id: int | None = None

    def text_of(self, ids: Any) -> str:
        return "".join(map(chr, ids))

    def encode(self, text: str) -> list[int]:
        return [ord(char) for char in text]

    encode_prompt = encode

    def before_unread(self, ids: Any) -> None:
        """All is read."""


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>3 times 12, 99?</think>12*3=36\n\n", 1.0),
        ("\n <think></think>12*3=36\n\n", 1.0),
        ("12*3=36\n\n", BAD_FORMAT),
        ("first <think>a</think>12*3=36\n\n", BAD_FORMAT),
        ("<think>12*3=36\n\n", BAD_FORMAT),
        ("<think>a</think>\n\n", BAD_FORMAT),
        ("<think>a</think>12*3=36<think>b</think>\n\n", BAD_FORMAT),
        ("<think>a<think>b</think>12*3=36\n\n", BAD_FORMAT),
        ("<think>a</think></think>12*3=36\n\n", BAD_FORMAT),
        ("<think>a</think>12*3=36, \\boxed{36}\n\n", 0.0),
        ("<think>\\boxed{36}?</think>12*3=36\n\n", 1.0),
    ],
)
def test_thoughts_are_free_where_the_template_asks_for_them(
    tmp_path: Path, text: str, reward: float
) -> None:
    think = dataclasses.replace(load_template("think"), chat=False)
    tokens: Any = Texts()
    world = Srl(rows(tmp_path / "d.parquet", {}), think, tokens, SrlSettings(match_ends=True))
    spoken = Draw(tuple(map(ord, text)), 0.0, Finish.STEP)
    assert world.grade(0, [spoken]).rewards == (reward,)


def test_an_experts_thoughts_are_free_too(tmp_path: Path) -> None:
    """A tree's steps are as sampled; what is like them is like what they say after thinking."""
    think = dataclasses.replace(load_template("think"), chat=False)
    tokens: Any = Texts()
    target = {"target_step": "<think>We need 12, 3 and 4.</think>12*3=36"}
    data = rows(tmp_path / "d.parquet", target)
    texts = ("<think>Or 5?</think>12*3=36\n\n", "<think></think>We need 12, 3 and 4. 12*3=36\n\n")
    world = Srl(data, think, tokens, SrlSettings())
    spoken = [Draw(tuple(map(ord, text)), 0.0, Finish.STEP) for text in texts]
    assert world.grade(0, spoken).rewards == pytest.approx((1.0, 2 * 3 / 9))
    silent = rows(tmp_path / "e.parquet", {"target_step": "<think>12</think>"})
    with pytest.raises(BadInput, match="has no numbers"):
        Srl(silent, think, tokens, SrlSettings())
    odd = tmp_path / "odd.parquet"
    row = {"id": "r", "prompt": [{"role": "user", "content": "?"}], "prefix_steps": ["1"]}
    pq.write_table(pa.Table.from_pylist([row | {"target_step": 12}]), odd)
    with pytest.raises(BadInput, match="target_step must be a text, got 12"):
        Srl(odd, think, tokens, SrlSettings())


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"target_step": "so it is"}, "row 1: target_step 'so it is' has no numbers; .*similarity"),
        ({"target_step": None}, "row 1: target_step is null"),
        ({"prompt": [{"role": "user", "content": "12 ?"}]}, "row 1: .*cannot read"),
        ({"prompt": []}, "row 1: "),
        ({"prompt": None}, "row 1: prompt is null"),
        ({"prompt": [None]}, "row 1: prompt: each chat message must be an object"),
        ({"prompt": [{"role": "user", "content": None}]}, "row 1: prompt: content must be text"),
        ({"prefix_steps": None}, "row 1: prefix_steps is null"),
        ({"prefix_steps": ["12*3=36", None]}, "row 1: prefix_steps must not have nulls"),
        (
            {"prefix_steps": ["12*3=36", "so \u2014 36"]},
            r"row 1: prefix_steps hold .*, after '.*36",
        ),
        ({"id": None}, "row 1: id is null"),
    ],
)
def test_rows_that_teach_nothing_are_named(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        environment(rows(tmp_path / "d.parquet", {}, record))


def test_rows_that_repeat_an_id_are_drawn_for_on_their_own(tmp_path: Path) -> None:
    data = rows(tmp_path / "d.parquet", {"id": "a"}, {"id": "b"}, {"id": "a"})
    ids = [prompt.id for prompt in environment(data).prompts]
    assert ids[:2] == ["a", "b"]
    assert len(set(ids)) == 3


def test_other_datasets_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no rows to learn from"):
        environment(rows(tmp_path / "none.parquet"))
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(BadInput, match="no column prompt, so it is no srl dataset"):
        environment(tmp_path / "other.parquet")


def test_a_digest_stands_for_all_that_decides_rewards(tmp_path: Path) -> None:
    digests = {
        environment(rows(tmp_path / "d.parquet", record)).about["sha256"]
        for record in ({}, {"target_step": "12*3=37"}, {"prefix_steps": ["1+1=2"]})
    }
    assert len(digests) == 3


ASSIGNMENTS = {
    "steps": "6",
    "save_every": "2",
    "log_every": "1",
    "prompts_per_step": "2",
    "group_size": "4",
    "learning_rate": "1e-3",
    "max_refills": "50",
    "threads": "1",
    "lora_r": "2",
}


def arguments(kind: str, data: Path, out: Path, *more: str) -> list[str]:
    settings = [f"--set=train.{name}={value}" for name, value in ASSIGNMENTS.items()]
    return ["train", kind, str(data), "--model", "nano", "--out", str(out), *settings, *more]


def bits(out: Path) -> list[str]:
    last = out / "checkpoints" / "step-000006"
    files = [out / "model.safetensors", *sorted(last.glob("*.safetensors"))]
    assert len(files) == 3
    return [file_sha256(path) for path in files]


def lines(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(line.pop("step_time") > 0 for line in found)
    return found


def test_a_killed_run_resumes_to_the_same_bits(
    treeward: Command, dataset: tuple[str, Path], tmp_path: Path
) -> None:
    kind, data = dataset
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert treeward(*arguments(kind, data, straight)).code == 0

    shell = [sys.executable, "-m", "treeward.cli", *arguments(kind, data, killed)]
    with subprocess.Popen(shell, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        seen = [line.split()[0] for line in (next(process.stderr) for _ in range(3))]
        assert process.poll() is None
        process.kill()
    assert (process.returncode, seen) == (-signal.SIGKILL, ["step=1", "step=2", "step=3"])
    assert not (killed / "model.safetensors").exists()

    assert treeward(*arguments(kind, data, killed, "--resume")).code == 0
    assert lines(killed) == lines(straight)
    assert bits(killed) == bits(straight)


def test_a_trained_model_is_a_policy_that_knows_its_template(
    treeward: Command, dataset: tuple[str, Path], tmp_path: Path
) -> None:
    kind, data = dataset
    out = tmp_path / "out"
    result = treeward(*arguments(kind, data, out, "--json", "--set=train.steps=1"))
    assert json.loads(result.out) == {"out": str(out), "ended": None}
    generate(
        "task:arithmetic?n=1&seed=9", tmp_path / "run", policy=str(out), assignments=RUN_SETTINGS
    )
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["prompt.template"] == "nano"


OWN = """
max_step_tokens = 24
max_rollout_tokens = 96
answer = "A{answer}"
[rule]
answer_mark = "A"
"""


def test_a_template_of_ones_own_goes_with_the_model_that_learned_it(
    treeward: Command, dataset: tuple[str, Path], tmp_path: Path
) -> None:
    """And a resume with the file changed is another run."""
    kind, data = dataset
    own, out = tmp_path / "own.toml", tmp_path / "out"
    own.write_text(OWN)
    given = arguments(kind, data, out, "--set=train.steps=1", f"--set=train.template={own}")
    assert treeward(*given).code == 0
    changed = OWN.replace("96", "90")
    own.write_text(changed)
    refused = treeward(*given, "--resume")
    assert refused.code == 3
    assert "data.template is" in refused.err
    own.unlink()
    options = ("--policy", out, *(f"--set={each}" for each in RUN_SETTINGS))
    run = tmp_path / "run"
    ran = treeward("generate", "task:arithmetic?n=1&seed=9", "--out", run, *options)
    assert ran.code == 0, ran.err
    settings = json.loads((run / "run.json").read_text())["settings"]
    assert (settings["prompt.template"], settings["policy.max_rollout_tokens"]) == ("own", 96)
    eval_ran = treeward("eval", "policy", out, "task:arithmetic?n=1&seed=9", "--samples", "1")
    assert eval_ran.code == 0, eval_ran.err
    # The steps to predict are written in nano's template, and this model reads another.
    more = arguments(kind, data, tmp_path / "other", "--model", str(out), "--set=train.steps=1")
    other = treeward(*more)
    if kind == "srl":
        assert other.code == 2
        assert "its steps are written in the template 'nano'" in other.err
        other = treeward(*more, "--set=train.template=nano")
    assert other.code == 0, other.err


@pytest.mark.parametrize(
    ("steps", "delimiter"),
    [(("steps=paragraph",), "\n\n"), (("steps=tokens", "step_tokens=3"), "\n"), ((), "\n")],
)
def test_steps_to_predict_are_those_of_the_run_where_text_parts_them(
    tmp_path: Path, steps: tuple[str, ...], delimiter: str
) -> None:
    asked = (*RUN_SETTINGS, *(f"prompt.{each}" for each in steps))
    grown = generate("task:arithmetic?n=2", tmp_path / "run", assignments=asked)
    grown.export("srl", tmp_path / "data")
    own = load_template("nano")
    data = tmp_path / "data"
    for part in (data, data / "data", data / "data" / "train.parquet"):
        template = as_written(part, own, named=False)
        assert template.rule.delimiter == delimiter
        assert template.rule.step_tokens is None
    assert as_written(tmp_path, own, named=False) == own


def test_an_early_end_is_work_done_in_part(
    treeward: Command, dataset: tuple[str, Path], tmp_path: Path
) -> None:
    kind, data = dataset
    budget = "--set=train.token_budget=100"
    result = treeward(*arguments(kind, data, tmp_path / "out", budget))
    assert result.code == 4
    assert "ended early: the budget of 100 sampled tokens is spent" in result.out
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_wrong_settings_name_the_right_ones(
    treeward: Command, dataset: tuple[str, Path], tmp_path: Path
) -> None:
    kind, data = dataset
    given = arguments(kind, data, tmp_path / "out", "--set=train.group_sizes=4")
    result = treeward(*given)
    assert result.code == 2
    assert "train.group_size" in result.err
    assert not (tmp_path / "out").exists()

"""Options of the trainers through the code that a training runs; what nothing would read."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import Ran
from tests.test_objective import Completion, plain_loss
from tests.test_rl import NANO, SETTINGS, TOKENS, World, metrics, train
from tests.test_train_critics import SETTINGS as CRITICS
from tests.test_train_critics import WriteRows, worlds
from torch import nn

from treeward.critics.heads import CriticModel, Head
from treeward.critics.learned import reader_for
from treeward.search.policy import Draw, PolicySettings
from treeward.search.requests import Kind
from treeward.search.steps import Finish
from treeward.search.templates import load_template
from treeward.train.advantages import EPSILON, ScaleRewards
from treeward.train.checkpoint import State
from treeward.train.critic_data import CriticData, read_critic_data
from treeward.train.critic_job import CriticJob
from treeward.train.environment import Grades, Prompt
from treeward.train.forward import load_trainable
from treeward.train.learning import Drawn, Learner, lessons
from treeward.train.loop import Update, run_loop
from treeward.train.objective import LossType
from treeward.train.optim import Schedule
from treeward.train.output import Json
from treeward.train.settings import TrainSettings
from treeward.train.spans import Span

LIMIT = 10
"""Tokens that a completion may have; `plain_loss` takes as many."""


def group(prompt: str, texts: Sequence[str], steps: Sequence[float]) -> Drawn:
    """A group whose first completion alone is rewarded; steps are of the first two tokens."""
    spans = tuple((Span(0, 2, value, "step"),) if value else () for value in steps)
    return Drawn(
        prompt=Prompt(id=prompt, prompt_ids=tuple(TOKENS.encode(prompt))),
        draws=tuple(Draw(tuple(TOKENS.encode(text)), 0.0, Finish.END) for text in texts),
        grades=Grades(rewards=(1.0, *[0.0] * (len(texts) - 1)), steps=spans, step_weight=0.5),
    )


GROUPS = [
    group("61 *7\n", ("16+7=3\n", "A1\n", "61*7=427\n", "6\n"), (0.6, -0.8, 0, 0)),
    group("61 *7 +1\n", ("7*6-1=40\n", "A42\n"), (0, 0)),
]

BOTH = (4 / 15) ** 0.5 + EPSILON
DIVISORS = {
    ScaleRewards.GROUP: (0.5 + EPSILON, 0.5**0.5 + EPSILON, 0.5**0.5 + EPSILON),
    ScaleRewards.BATCH: (BOTH, BOTH, 0.5**0.5 + EPSILON),
    ScaleRewards.NONE: (1.0, 1.0, 1.0),
}
"""Of the first group's outcomes, the second's, and of steps.

Deviations of 1, 0, 0, 0 and of 1, 0: squares 1/4 and 1/2. Of all six, with mean 1/3: (2 * 4/9 +
4 * 1/9) / 5. Steps .6 and -.8 have the mean square 1/2.
"""


def advantages(scale: ScaleRewards) -> list[list[float]]:
    """By hand: the difference to the group's mean on all tokens, half of a step on two of them."""
    first, second, steps = DIVISORS[scale]
    outcomes = [0.75 / first, *[-0.25 / first] * 3, 0.5 / second, -0.5 / second]
    known = [0.6, -0.8, 0.0, 0.0, 0.0, 0.0]
    lengths = [len(draw.token_ids) for group in GROUPS for draw in group.draws]
    return [
        [outcome + (place < 2) * 0.5 * step / steps for place in range(length)]
        for outcome, step, length in zip(outcomes, known, lengths, strict=True)
    ]


@torch.no_grad()
def logprobs(model: Any) -> list[list[float]]:
    """One completion after the other."""
    found = []
    for each in GROUPS:
        prompt = each.prompt.ids
        for draw in each.draws:
            ids = draw.token_ids
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
            found.append(logits.log_softmax(-1)[range(len(ids)), list(ids)].tolist())
    return found


@pytest.mark.parametrize("scale", list(ScaleRewards))
@pytest.mark.parametrize("kind", list(LossType))
def test_what_is_learned_of_groups_has_the_loss_of_a_plain_loop(
    kind: LossType, scale: ScaleRewards
) -> None:
    """The first update has ratios of 1; the second those of weights that moved a little."""
    low, high = 0.05, 0.3
    changes: dict[str, Any] = {"loss_type": kind, "scale_rewards": scale, "num_iterations": 2}
    settings = dataclasses.replace(SETTINGS, **changes, epsilon=low, epsilon_high=high)
    model = load_trainable(NANO, settings)
    noise = torch.Generator().manual_seed(0)
    before = logprobs(model)

    @torch.no_grad()
    def move() -> None:
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=0.003)

    after: list[list[float]] = []

    def update() -> None:
        if not after:
            move()
            after.extend(logprobs(model))

    facts = Learner(model, settings).learn(lessons(GROUPS, settings), LIMIT, update)
    columns = advantages(scale)
    first: list[Completion] = list(zip(before, before, columns, strict=True))
    second: list[Completion] = list(zip(after, before, columns, strict=True))
    losses = [plain_loss(batch, kind, low, high) for batch in (first, second)]
    assert facts["loss"] == pytest.approx(sum(losses) / 2, abs=1e-5)
    for others in ((low, low), (high, high)):
        assert abs(plain_loss(second, kind, *others) - losses[1]) > 5e-4


def test_the_constant_of_dr_grpo_is_what_a_completion_may_have(tmp_path: Path) -> None:
    """Long steps are rewarded, so that the sum over tokens is not nothing."""
    drawn: list[list[int]] = []

    def long(_: int, draws: Sequence[Draw]) -> Grades:
        drawn.append([len(draw.token_ids) for draw in draws])
        return Grades(rewards=tuple(map(float, drawn[-1])))

    world = World(long)
    world.kind = Kind.SAMPLE
    world.sampling = PolicySettings(
        max_step_tokens=LIMIT, max_rollout_tokens=2 * LIMIT, temperature=2.0
    )
    kinds: dict[str, Any] = {"loss_type": LossType.DR_GRPO, "scale_rewards": ScaleRewards.NONE}
    train(world, tmp_path / "out", steps=1, temperature=2.0, **kinds)
    batch: list[Completion] = []
    for lengths in drawn:
        mean = sum(lengths) / len(lengths)
        if len({*lengths}) > 1:
            batch += [([0.0] * n, [0.0] * n, [n - mean] * n) for n in lengths]
    (line,) = metrics(tmp_path / "out")
    expected = plain_loss(batch, LossType.DR_GRPO, 0.2, 0.28)
    assert expected < -0.01
    assert line["loss"] == pytest.approx(expected, abs=1e-5)


class Slope:
    """Has the gradient 1 at every step; a `Job`."""

    def __init__(self, model: nn.Linear) -> None:
        self._model = model
        self.places = [float(model.weight.detach())]

    def start(self) -> State:
        return {}

    def step(self, state: State, update: Update) -> None:
        torch.autograd.backward(self._model.weight.sum())
        update()
        self.places.append(float(self._model.weight.detach()))

    def record(self, state: State) -> Json:
        return {}


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        (Schedule.LINEAR, [0.2, 0.1]),
        # 3/20 (1 + cos(pi d)) at d = 1/3, 2/3
        (Schedule.COSINE, [0.225, 0.075]),
        (Schedule.CONSTANT, [0.3, 0.3]),
    ],
)
def test_steps_are_taken_at_the_rates_of_the_schedule(
    tmp_path: Path, schedule: Schedule, after: list[float]
) -> None:
    """Two steps of warm-up to .3, then three; AdamW's step is the rate where gradients stay."""
    settings = TrainSettings(
        steps=5, learning_rate=0.3, warmup_steps=2, schedule=schedule, log_every=1
    )
    model = nn.Linear(1, 1, bias=False)
    job = Slope(model)
    run_loop(model, tmp_path, settings, job, lambda _: None)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    expected = pytest.approx([0.1, 0.2, 0.3, *after])
    assert [line["learning_rate"] for line in lines] == expected
    taken = [a - b for a, b in zip(job.places, job.places[1:], strict=False)]
    assert taken == pytest.approx([0.1, 0.2, 0.3, *after], abs=1e-5)


WEIGHTS = {Head.VALUE: 1.0, Head.PROGRESS: 2.0, Head.OUTCOME: 0.5}


def critic_step(
    data: CriticData, trunk: Path, out: Path, weights: dict[Head, float]
) -> tuple[torch.Tensor, Json]:
    """The gradient of one step, as one vector, and its line of metrics."""
    named: dict[str, Any] = {f"{head}_weight": weights.get(head, 0.0) for head in Head}
    settings = dataclasses.replace(CRITICS, steps=1, **named)
    model = CriticModel(load_trainable(trunk, settings)).train(False)
    start = torch.Generator().manual_seed(0)
    for parameter in model.heads.parameters():
        nn.init.normal_(parameter, std=0.1, generator=start)
    job = CriticJob(model, data, out, settings)
    state = {"step": 0, **job.start()}
    job.step(state, lambda: None)
    state["step"] = 1
    gradients = [
        torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
        for p in model.parameters()
    ]
    return torch.cat(gradients), job.record(state)


def test_losses_of_critics_count_what_their_weights_say(
    write_critic_rows: WriteRows, tiny_trunk: Path, tmp_path: Path
) -> None:
    """Held-out losses too, which choose the weights that are kept."""
    trunk = load_trainable(tiny_trunk, CRITICS)
    reader = reader_for(trunk, tiny_trunk, load_template("nano"))
    path = write_critic_rows(tmp_path / "data.parquet", worlds(12))
    data = read_critic_data(path, reader, validation=0.3, skip_long=False)
    gradient, line = critic_step(data, tiny_trunk, tmp_path, WEIGHTS)
    alone = {head: critic_step(data, tiny_trunk, tmp_path, {head: 1.0}) for head in Head}
    for split in ("", "eval_"):
        total = sum(weight * alone[head][1][f"{split}loss"] for head, weight in WEIGHTS.items())
        assert line[f"{split}loss"] == pytest.approx(total, rel=1e-5)
        for head in Head:
            assert alone[head][1][f"{split}loss"] == line[f"{split}{head}_loss"] > 0
    expected = torch.stack([weight * alone[head][0] for head, weight in WEIGHTS.items()]).sum(0)
    assert min(float(found.abs().max()) for found, _ in alone.values()) > 0.01
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "assignment", "reader"),
    [
        ("sft", "lora_alpha=8", "train.lora_r=8"),
        ("critics", "lora_alpha=8", "train.lora_r=8"),
        ("srl", "epsilon=0.1", "train.num_iterations=2"),
        ("rlvr", "epsilon_high=0.2", "train.num_iterations=2"),
        ("srl", "max_refills=3", "train.refill=true"),
        ("critics", "targets=hard", "train.value_weight=1"),
        ("critics", "validation=0.3", "a dataset that has no validation split such as"),
        ("rlvr", "step_weight=0.5", "--trees"),
    ],
)
def test_a_setting_that_nothing_would_read_is_refused(
    treeward: Callable[..., Ran], tmp_path: Path, kind: str, assignment: str, reader: str
) -> None:
    """Each is alone in its command, beside what turns off its reader."""
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    (data / "validation.parquet").touch()
    name, _, _ = assignment.partition("=")
    off = {"max_refills": ["--set", "train.refill=false"]}
    off["targets"] = ["--set", "train.value_weight=0"]
    where = (kind, data, "--model", "nano", "--out", out)
    ran = treeward("train", *where, "--set", f"train.{assignment}", *off.get(name, []))
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert f"train.{name}=" in ran.err
    assert f"is read only with {reader}" in ran.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("sft", ("--set=train.lora_alpha=8", "--set=train.lora_r=2")),
        ("srl", ("--set=train.epsilon=0.1", "--set=train.num_iterations=2")),
        ("srl", ("--set=train.max_refills=3",)),
        ("critics", ("--set=train.targets=hard", "--set=train.validation=0.3")),
        ("rlvr", ("--set=train.step_weight=0.5", "--trees=none")),
    ],
)
def test_a_setting_with_its_reader_is_taken(
    treeward: Callable[..., Ran], tmp_path: Path, kind: str, arguments: tuple[str, ...]
) -> None:
    """What is complained of then is the data, which is not there."""
    where = (kind, tmp_path / "none", "--model", "nano", "--out", tmp_path / "out")
    ran = treeward("train", *where, *arguments)
    assert ran.code == 2
    assert str(tmp_path / "none") in ran.err
    assert "is read only with" not in ran.err

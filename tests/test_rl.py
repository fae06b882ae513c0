"""The loop of SRL and RLVR on the embedded model, with rewards that are known beforehand."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from treeward.export.durable import file_sha256
from treeward.search.errors import BadInput, TreewardError
from treeward.search.models import resolve_model
from treeward.search.policy import Draw, PolicySettings
from treeward.search.requests import Kind
from treeward.search.steps import Finish, StepRule
from treeward.search.templates import TEMPLATES
from treeward.search.tokens import load_tokens
from treeward.train import learning
from treeward.train.environment import Grades, Prompt
from treeward.train.forward import load_trainable
from treeward.train.groups import Group
from treeward.train.learning import Drawn, Learner, Lesson, lessons
from treeward.train.optim import Schedule
from treeward.train.rl import Trained, next_visits, teaches, train_rl
from treeward.train.rl_metrics import describe
from treeward.train.rl_settings import RlSettings
from treeward.train.sampler import Sampler
from treeward.train.settings import ReportTo
from treeward.train.spans import Span

NANO = resolve_model("nano", Path("unused")).path
TOKENS = load_tokens(NANO)
SETTINGS = RlSettings(
    steps=2,
    prompts_per_step=2,
    group_size=4,
    learning_rate=1e-3,
    log_every=1,
    threads=1,
)
GradeOf = Callable[[int, Sequence[Draw]], Grades]


class World:
    """Asks for solutions that differ a lot and grades them as a test says; an `Environment`."""

    name = "world"
    reward_name = "wish"
    kind = Kind.ROLLOUT
    sampling = PolicySettings(max_step_tokens=48, max_rollout_tokens=48)
    template = TEMPLATES["nano"]
    rule = StepRule(answer_mark="A")

    def __init__(self, grade: GradeOf, n: int = 5) -> None:
        self._grade = grade
        self.prompts = [
            Prompt(id=f"p{i}", prompt_ids=tuple(TOKENS.encode(f"6{i} *7 +389 -{i}5\n")))
            for i in range(n)
        ]
        self.about = {"sha256": "0" * 64, "rows": n}

    def grade(self, place: int, draws: Sequence[Draw]) -> Grades:
        return self._grade(place, draws)


def alternating(_: int, draws: Sequence[Draw]) -> Grades:
    """Rewards that spread whatever was drawn."""
    return Grades(rewards=tuple(float(i % 2) for i in range(len(draws))))


def ignore(_: dict[str, Any]) -> None:
    """Shows nobody."""


def train(world: World, out: Path, **changes: Any) -> Trained:
    settings = dataclasses.replace(SETTINGS, **changes)
    return train_rl(world, NANO, out, settings, resume=False, progress=ignore)


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def test_what_is_rewarded_becomes_likelier(tmp_path: Path) -> None:
    """Writing many sevens is rewarded; they are one in ten characters at first."""

    def sevens(_: int, draws: Sequence[Draw]) -> Grades:
        texts = [TOKENS.text_of(draw.token_ids) for draw in draws]
        return Grades(rewards=tuple(text.count("7") / len(text) for text in texts))

    train(World(sevens), tmp_path / "out", steps=10, group_size=8, learning_rate=3e-3)
    rewards = [line["reward"] for line in metrics(tmp_path / "out")]
    assert rewards[0] < 0.2
    assert rewards[-1] > 2 * rewards[0]


def test_groups_without_spread_are_drawn_anew(tmp_path: Path) -> None:
    """Of five prompts three never teach: rounds are asked until two groups do, and all count."""
    graded: list[int] = []

    def some(place: int, draws: Sequence[Draw]) -> Grades:
        graded.append(place)
        return alternating(place, draws) if place < 2 else Grades(rewards=(1.0,) * len(draws))

    train(World(some), tmp_path / "out", steps=1)
    (line,) = metrics(tmp_path / "out")
    kept = sum(place < 2 for place in graded)
    assert 2 <= kept < len(graded)
    assert line["groups/kept_share"] == pytest.approx(kept / len(graded))
    assert line["frac_reward_zero_std"] == pytest.approx(1 - kept / len(graded))
    assert line["epoch"] == pytest.approx(len(graded) / 5)


def test_without_refilling_a_step_learns_from_what_it_draws_at_once(tmp_path: Path) -> None:
    """Of five prompts one teaches."""
    graded: list[int] = []

    def one(place: int, draws: Sequence[Draw]) -> Grades:
        graded.append(place)
        return alternating(place, draws) if place == 1 else Grades(rewards=(1.0,) * len(draws))

    trained = train(World(one), tmp_path / "out", steps=6, refill=False)
    assert trained.ended is None
    lines = metrics(tmp_path / "out")
    kept = [graded[at : at + 2].count(1) / 2 for at in range(0, 12, 2)]
    assert len(set(kept)) > 1
    assert [line["groups/kept_share"] for line in lines] == kept
    assert ["grad_norm" in line for line in lines] == [share > 0 for share in kept]
    assert [line["epoch"] for line in lines] == pytest.approx([0.4 * step for step in range(1, 7)])
    train(World(one), tmp_path / "pairs", steps=6, refill=False, log_every=2)
    norms = [line.get("grad_norm") for line in lines]
    assert [line.get("grad_norm") for line in metrics(tmp_path / "pairs")] == [
        first if last is None else last for first, last in zip(norms[::2], norms[1::2], strict=True)
    ]
    spent = lines[2]["sampled_tokens"]
    short = train(World(one), tmp_path / "short", steps=6, refill=False, token_budget=spent)
    assert short.ended == f"the budget of {spent} sampled tokens is spent"
    assert metrics(tmp_path / "short")[2]["sampled_tokens"] == spent


def test_without_refilling_nothing_to_learn_in_any_step_is_an_error(tmp_path: Path) -> None:
    same = World(lambda _, draws: Grades(rewards=(0.0,) * len(draws)))
    with pytest.raises(TreewardError, match=r"no group of 3 steps had a reward spread above 0\.0"):
        train(same, tmp_path / "out", steps=3, refill=False)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    spent = train(same, tmp_path / "spent", steps=3, token_budget=1)
    assert spent.ended == "the budget of 1 sampled tokens is spent"


def test_nothing_to_learn_at_first_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    same = World(lambda _, draws: Grades(rewards=(0.0,) * len(draws)))
    expected = (
        r"step 1: 0 of 6 groups had a reward spread above 0.0 \(mean reward 0\) and a step needs 2;"
    )
    with pytest.raises(TreewardError, match=expected):
        train(same, tmp_path / "out", max_refills=3)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_nothing_to_learn_later_ends_with_the_model_so_far(tmp_path: Path) -> None:
    calls: list[int] = []

    def dries_up(place: int, draws: Sequence[Draw]) -> Grades:
        calls.append(place)
        return alternating(place, draws) if len(calls) <= 2 else Grades(rewards=(None,) * 4)

    trained = train(World(dries_up), tmp_path / "out", max_refills=3, schedule=Schedule.CONSTANT)
    last = metrics(tmp_path / "out")[-1]
    assert (last["step"], last["groups/kept_share"]) == (2, 0.0)
    assert not {"loss", "grad_norm", "learning_rate"} & last.keys()
    assert trained.ended is not None
    assert "step 2: 0 of 6 groups had a reward spread above 0.0 (mean reward unk" in trained.ended
    assert (tmp_path / "out" / "model.safetensors").is_file()
    straight = train(World(alternating), tmp_path / "one", steps=1, schedule=Schedule.CONSTANT)
    assert straight.ended is None
    for name, tensor in weights(tmp_path / "one").items():
        assert not torch.equal(tensor, load_file(NANO / "model.safetensors")[name].float()), name
        assert torch.equal(tensor, weights(tmp_path / "out")[name]), name


def test_a_budget_of_sampled_tokens_ends_training(tmp_path: Path) -> None:
    trained = train(World(alternating), tmp_path / "out", steps=99, token_budget=300)
    assert trained.ended == "the budget of 300 sampled tokens is spent"
    lines = metrics(tmp_path / "out")
    assert lines[-2]["sampled_tokens"] >= 300 > lines[-3]["sampled_tokens"]
    assert ["loss" in line for line in lines] == [True] * (len(lines) - 1) + [False]


def test_what_was_found_before_the_end_of_a_budget_is_learned(tmp_path: Path) -> None:
    """Equal tokens are equal only where all that they found is used."""
    calls: list[int] = []

    def rare(place: int, draws: Sequence[Draw]) -> Grades:
        calls.append(place)
        return alternating(place, draws) if len(calls) == 1 else Grades(rewards=(0.0,) * 4)

    trained = train(World(rare), tmp_path / "out", steps=9, token_budget=1, max_refills=99)
    assert trained.ended == "the budget of 1 sampled tokens is spent"
    (line,) = metrics(tmp_path / "out")
    assert line["groups/kept_share"] == 0.5
    assert line["grad_norm"] > 0


def test_nobody_learns_from_what_nobody_knows(tmp_path: Path) -> None:
    """Completions of unknown reward leave no trace: their part of the batch may be anything."""

    def odd(_: int, draws: Sequence[Draw]) -> Grades:
        return Grades(rewards=(1.0, 0.0, None, None)[: len(draws)])

    def only(_: int, draws: Sequence[Draw]) -> Grades:
        return Grades(rewards=(1.0, 0.0))

    train(World(odd), tmp_path / "four", steps=1)
    train(World(only), tmp_path / "two", steps=1, group_size=2)
    (four,), (two,) = metrics(tmp_path / "four"), metrics(tmp_path / "two")
    assert four["completions/unknown_ratio"] == 0.5
    assert four["loss"] == pytest.approx(two["loss"], abs=1e-6)
    assert four["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-4)


def test_steps_alone_can_teach_a_group_that_all_fail(tmp_path: Path) -> None:
    def blamed(_: int, draws: Sequence[Draw]) -> Grades:
        spans = tuple((Span(0, 1, -0.5, "step"),) if i else () for i in range(len(draws)))
        return Grades(rewards=(0.0,) * len(draws), steps=spans, step_weight=1.0)

    trained = train(World(blamed), tmp_path / "out", steps=1)
    assert trained.ended is None
    assert metrics(tmp_path / "out")[0]["grad_norm"] > 0


def drawn(rewards: Sequence[float | None], steps: Sequence[float], weight: float) -> Drawn:
    """A group of completions of three tokens with one step each."""
    spans = tuple((Span(0, 2, value, "step"),) for value in steps)
    return Drawn(
        prompt=Prompt(id="p", prompt_ids=(1,)),
        draws=tuple(Draw((4, 5, 6), -1.0, Finish.END) for _ in rewards),
        grades=Grades(rewards=tuple(rewards), steps=spans, step_weight=weight),
    )


@pytest.mark.parametrize(
    ("rewards", "steps", "weight", "does"),
    [
        ([0.0, 0.0], [0.5, -0.5], 1.0, True),
        ([0.0, 0.0], [0.5, -0.5], 0.0, False),
        ([0.0, 0.0], [0.0, 0.0], 1.0, False),
        ([None, None], [0.5, -0.5], 1.0, False),
        ([0.0, None], [0.5, -0.5], 1.0, False),
        ([0.0, 0.0, None], [0.0, 0.0, 0.5], 1.0, False),
        ([0.0, 1.0], [0.0, 0.0], 0.0, True),
        ([1 / 3] * 3, [0.0] * 3, 0.0, False),
    ],
)
def test_a_group_teaches_if_what_is_learned_of_it_is_not_all_nothing(
    rewards: list[float | None], steps: list[float], weight: float, does: bool
) -> None:
    group = drawn(rewards, steps, weight)
    assert teaches(group, 0.0) is does
    learned = [
        span.value
        for lesson in lessons([group], SETTINGS)
        for spans in lesson.spans
        for span in spans
    ]
    assert any(abs(value) > 1e-9 for value in learned) is does


def test_steps_are_scaled_over_the_completions_that_are_learned_from() -> None:
    (lesson,) = lessons([drawn([0.0, 0.0, None], [0.3, -0.4, 9.0], 2.0)], SETTINGS)
    size = ((0.3**2 + 0.4**2) / 2) ** 0.5 + 1e-4
    assert [spans[1].value for spans in lesson.spans] == pytest.approx([0.6 / size, -0.8 / size])


def test_metrics_of_rewards_are_those_of_trl() -> None:
    """The spread of a group is the sample's, that of a reward over all of the step its own."""
    groups = [drawn([0.0, 1.0, 1.0, None], [0.0] * 4, 0.0), drawn([1.0] * 4, [0.0] * 4, 0.0)]
    facts = describe(groups, groups[:1], "wish")
    assert facts["reward"] == facts["rewards/wish/mean"] == pytest.approx(6 / 7)
    assert facts["reward_std"] == pytest.approx((np.std([0, 1, 1], ddof=1) + 0) / 2)
    assert facts["rewards/wish/std"] == pytest.approx(np.std([0, 1, 1, 1, 1, 1, 1]))
    assert facts["frac_reward_zero_std"] == facts["groups/kept_share"] == 0.5
    assert facts["completions/unknown_ratio"] == pytest.approx(1 / 8)


def test_the_last_step_is_saved_whenever_saving_is_due(tmp_path: Path) -> None:
    train(World(alternating), tmp_path / "out", steps=5, save_every=2, log_every=3)
    saved = sorted(path.name for path in (tmp_path / "out" / "checkpoints").glob("step-*"))
    assert saved[-1] == "step-000005"
    assert [line["step"] for line in metrics(tmp_path / "out")] == [3, 5]


@pytest.mark.parametrize("change", [{"micro_batch_size": 0}, {"gradient_checkpointing": True}])
def test_passes_and_what_they_keep_change_only_last_bits(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    train(World(alternating), tmp_path / "as it is", steps=1)
    train(World(alternating), tmp_path / "changed", steps=1, **change)
    (one,), (other,) = metrics(tmp_path / "as it is"), metrics(tmp_path / "changed")
    assert other["loss"] == pytest.approx(one["loss"], abs=1e-6)
    assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("again", [False, True])
def test_gradient_checkpointing_computes_layers_again(again: bool) -> None:
    model: Any = load_trainable(NANO, RlSettings(gradient_checkpointing=again)).train()
    passes = []
    attention = model.model.layers[0].self_attn
    attention.register_forward_hook(lambda *_: passes.append(1))
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert len(passes) == 1 + again
    assert model.model.layers[0].mlp.up_proj.weight.grad.abs().max() > 0


def lesson(prompt: str, *columns: tuple[str, float]) -> Lesson:
    completions = [tuple(TOKENS.encode(text)) for text, _ in columns]
    return Lesson(
        group=Group(prompt_ids=tuple(TOKENS.encode(prompt)), completions=tuple(completions)),
        spans=tuple(
            (Span(0, len(ids), advantage, "outcome"),)
            for ids, (_, advantage) in zip(completions, columns, strict=True)
        ),
        logprobs=(0.0,) * len(columns),
    )


def gradient(batch: Sequence[Lesson], **changes: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    model = load_trainable(NANO, SETTINGS)
    settings = dataclasses.replace(SETTINGS, **changes)
    facts = Learner(model, settings).learn(batch, 48, lambda: None)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), facts


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_the_gradient_is_that_of_a_plain_loop_at_the_temperature_of_sampling(
    temperature: float,
) -> None:
    """Of the first update: every ratio is 1, and tokens weigh alike (DAPO)."""
    batch = [
        lesson("61 *7\n", ("61*7=427\n", 1.0), ("61*7=437\n", -2.0)),
        lesson("61 *7 +1\n", ("61*7=427\n427+1=428\n", 0.5), ("A1\n", -0.5)),
    ]
    ours, facts = gradient(batch, temperature=temperature)
    model: Any = load_trainable(NANO, SETTINGS)
    losses, entropies, tokens = [], [], 0
    for each in batch:
        for ids, (span,) in zip(each.group.completions, each.spans, strict=True):
            whole = torch.tensor([[*each.group.prompt_ids, *ids]])
            logits = model(whole).logits[0, len(each.group.prompt_ids) - 1 : -1] / temperature
            logprobs = logits.log_softmax(-1)
            losses.append(-span.value * logprobs[range(len(ids)), list(ids)].sum())
            entropies.append(-float((logprobs.exp() * logprobs).sum().detach()))
            tokens += len(ids)
    (sum(losses) / tokens).backward()
    plain = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-6)
    assert facts["entropy"] == pytest.approx(sum(entropies) / tokens, rel=1e-5)


def test_the_loss_of_a_step_is_the_mean_over_its_updates() -> None:
    """Where an update changes nothing, each has the loss of the first."""
    batch = [lesson("61 *7\n", ("61*7=427\n", 1.0), ("A1\n", -2.0))]
    once, facts = gradient(batch)
    thrice, others = gradient(batch, num_iterations=3)
    assert facts["loss"] != 0
    assert others == pytest.approx(facts, rel=1e-5)
    torch.testing.assert_close(thrice, 3 * once, rtol=1e-4, atol=1e-6)


def test_what_repeats_teaches_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = "61*7=427\n", "61*7=437\n"
    batch = [
        lesson("61 *7\n", (right, 1.0), (wrong, -2.0), (right, 1.0)),
        lesson("61 *7 +1\n", (right, 0.5), (wrong, -0.5)),
    ]
    merged, facts = gradient(batch)

    def apart(groups: list[Group]) -> tuple[list[Group], torch.Tensor]:
        return groups, torch.arange(sum(len(c) for g in groups for c in g.completions))

    monkeypatch.setattr(learning, "merge_repeats", apart)
    alone, others = gradient(batch)
    assert alone.abs().max() > 0.01
    torch.testing.assert_close(merged, alone, rtol=1e-4, atol=1e-6)
    assert facts == pytest.approx(others, abs=1e-6)


def test_a_sampler_holds_no_weights_of_its_own() -> None:
    model = load_trainable(NANO, RlSettings())
    sampler = Sampler(NANO, TOKENS, device="cpu", threads=1, rows=8)
    sampler.follow(model)
    ours = {name: p.data_ptr() for name, p in model.named_parameters()}
    assert {name: p.data_ptr() for name, p in sampler._model.named_parameters()} == ours


def test_sampler_and_trainer_compute_the_same(tmp_path: Path) -> None:
    """Also after updates, so the sampler has followed."""
    train(World(alternating), tmp_path / "out", steps=3, lora_r=2)
    for line in metrics(tmp_path / "out"):
        assert line["sampling/sampling_logp_difference/mean"] < 1e-5


def test_a_second_update_is_off_policy_and_the_first_is_not(tmp_path: Path) -> None:
    train(World(alternating), tmp_path / "one", steps=1)
    train(World(alternating), tmp_path / "two", steps=1, num_iterations=2, learning_rate=3e-3)
    (one,), (two,) = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert one["clip_ratio/region_mean"] == 0
    assert two["clip_ratio/region_mean"] > 0


def test_divergence_from_the_start_is_measured_and_costs(tmp_path: Path) -> None:
    train(World(alternating), tmp_path / "out", steps=3, beta=0.5, lora_r=2, lora_alpha=8.0)
    lines = metrics(tmp_path / "out")
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-9)
    assert lines[2]["kl"] > 1e-6


def test_adapters_alone_are_trained_and_saved_and_the_model_is_whole(tmp_path: Path) -> None:
    """W + (alpha / r) B A, worked out from the checkpoint, is what is written."""
    out = tmp_path / "out"
    changes = {"lora_r": 2, "lora_alpha": 6.0, "save_every": 1}
    train(World(alternating), out, **changes)
    adapters = load_file(out / "checkpoints" / "step-000002" / "model.safetensors")
    assert {".lora_" in name for name in adapters} == {True}
    base, finished = load_file(NANO / "model.safetensors"), weights(out)
    assert finished.keys() == base.keys()
    changed = 0
    for name, before in base.items():
        stem = name.removesuffix(".weight")
        a = adapters.get(f"{stem}.lora_A.default.weight")
        expected = before.float()
        if a is not None:
            expected = expected + 3.0 * (adapters[f"{stem}.lora_B.default.weight"] @ a)
            changed += 1
        assert torch.equal(finished[name], expected), name
    assert changed == 4 * 7


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(name)
    out = tmp_path / "out"
    train(World(alternating), out, report_to=ReportTo.TENSORBOARD)
    board = events.EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    for name in ("loss", "reward", "grad_norm"):
        seen = [(event.step, event.value) for event in board.Scalars(name)]
        lines = [(line["step"], pytest.approx(line[name], rel=1e-5)) for line in metrics(out)]
        assert seen == lines


def test_tensorboard_is_cut_back_to_where_training_resumes(tmp_path: Path) -> None:
    name = "tensorboard.backend.event_processing.event_accumulator"
    events = pytest.importorskip(name)
    out = tmp_path / "out"
    settings: dict[str, Any] = {"report_to": ReportTo.TENSORBOARD, "save_every": 1}
    train(World(alternating), out, **settings)
    checkpoints = sorted((out / "checkpoints").glob("step-*"))
    shutil.rmtree(checkpoints[-1])
    (out / "model.safetensors").unlink()
    again = dataclasses.replace(SETTINGS, **settings)
    train_rl(World(alternating), NANO, out, again, resume=True, progress=ignore)
    board = events.EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    steps = [event.step for event in board.Scalars("loss")]
    assert steps == [line["step"] for line in metrics(out)]


def test_a_prompt_that_leaves_no_room_stops_before_anything_is_written(tmp_path: Path) -> None:
    world = World(alternating)
    world.sampling = PolicySettings(max_rollout_tokens=500)
    with pytest.raises(BadInput, match=r"'p0' has 15 tokens .* 500, but the model has 512"):
        train(world, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("sizes", [[7], [1] * 7, [3, 4], [2, 2, 3]])
def test_every_round_asks_each_prompt_once_however_it_is_cut(sizes: list[int]) -> None:
    visits, asked = [], 0
    for n in sizes:
        visits += list(next_visits(asked, n, 3, seed=4))
        asked += n
    assert visits == list(next_visits(0, 7, 3, seed=4))
    assert sorted(visits[:3]) == [(0, 0), (0, 1), (0, 2)]
    assert sorted(visits[3:6]) == [(1, 0), (1, 1), (1, 2)]


def test_the_same_run_twice_has_the_same_bits(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(World(alternating), tmp_path / name)
    assert len({file_sha256(tmp_path / n / "model.safetensors") for n in ("a", "b")}) == 1
    train(World(alternating), tmp_path / "c", seed=1)
    assert file_sha256(tmp_path / "c" / "model.safetensors") != file_sha256(
        tmp_path / "a" / "model.safetensors"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("group_size", 1),
        ("prompts_per_step", 0),
        ("temperature", 0.0),
        ("max_refills", 0),
        ("token_budget", 0),
        ("max_completion_length", 0),
        ("epsilon", -0.1),
        ("beta", -1.0),
        ("lora_r", -1),
        ("loss_type", "ppo"),
        ("scale_rewards", "all"),
        ("report_to", "wandb"),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(BadInput, match=f"train\\.{name} must be"):
        RlSettings(**changes)

"""TRL's trainers take a step on what is exported for them, and the step changes the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from tests.consumers.conftest import NANO
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)
from trl.rewards import accuracy_reward

Export = Callable[..., Path]


def settings(kind: Any, out: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(out),
        max_steps=1,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        **more,
    )


def load(folder: Path, kind: str, tmp_path: Path) -> Any:
    return load_dataset(str(folder), kind, split="train", cache_dir=str(tmp_path / "cache"))


def causal() -> Any:
    return AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32)


def step(trainer: Any) -> None:
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 1
    losses = [log["train_loss"] for log in trainer.state.log_history if "train_loss" in log]
    assert all(torch.isfinite(torch.tensor(losses)))
    changed = [
        name
        for name, value in trainer.model.named_parameters()
        if not torch.equal(value, before[name])
    ]
    assert changed


@pytest.mark.parametrize("form", ["trl", None])
def test_sft(exported: Export, tokenizer: Any, tmp_path: Path, form: str | None) -> None:
    data = load(exported("sft", form), "sft", tmp_path)
    if form is None:
        data = data.select_columns(["prompt", "completion"])
    trainer = SFTTrainer(
        model=causal(),
        args=settings(SFTConfig, tmp_path),
        train_dataset=data,
        processing_class=tokenizer,
    )
    row = trainer.train_dataset[0]
    text = data[0]["prompt"] + data[0]["completion"]
    assert tokenizer.decode(row["input_ids"]) == text + tokenizer.eos_token
    step(trainer)


@pytest.mark.parametrize("form", ["trl", None])
def test_dpo(exported: Export, tokenizer: Any, tmp_path: Path, form: str | None) -> None:
    data = load(exported("preference", form), "preference", tmp_path)
    trainer = DPOTrainer(
        model=causal(),
        args=settings(DPOConfig, tmp_path),
        train_dataset=data,
        processing_class=tokenizer,
    )
    step(trainer)


@pytest.mark.parametrize("form", ["trl", None])
def test_reward(exported: Export, tokenizer: Any, tmp_path: Path, form: str | None) -> None:
    data = load(exported("preference", form), "preference", tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        NANO, num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = RewardTrainer(
        model=model,
        args=settings(RewardConfig, tmp_path),
        train_dataset=data,
        processing_class=tokenizer,
    )
    step(trainer)


@pytest.mark.parametrize("form", ["trl", None])
def test_grpo(exported: Export, tokenizer: Any, tmp_path: Path, form: str | None) -> None:
    data = load(exported("rlvr", form), "rlvr", tmp_path)
    seen: list[str] = []

    def variety(completions: Any, solution: list[str], **_: Any) -> list[float]:
        """A reward that differs between completions, so that a step has something to learn."""
        seen.extend(solution)
        return [float(len(set(completion[0]["content"]))) for completion in completions]

    trainer = GRPOTrainer(
        model=causal(),
        reward_funcs=[variety, accuracy_reward],
        args=settings(
            GRPOConfig, tmp_path, num_generations=4, max_completion_length=16, temperature=10.0
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    step(trainer)
    assert set(seen) <= set(data["solution"])
    assert seen

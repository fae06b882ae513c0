"""TRL's trainer of process reward models (up to 1.13, then removed) takes a step on `prm`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_dataset
from tests.consumers.conftest import NANO
from transformers import AutoModelForTokenClassification

prm = pytest.importorskip("trl.experimental.prm", reason="this TRL has no such trainer")


@pytest.mark.parametrize("form", ["trl", None])
def test_a_step_on_every_label(
    exported: Callable[..., Path], tokenizer: Any, tmp_path: Path, form: str | None
) -> None:
    folder = exported("prm", form, min_rollouts=4)
    data = load_dataset(str(folder), "prm", split="train", cache_dir=str(tmp_path / "cache"))
    model = AutoModelForTokenClassification.from_pretrained(NANO, num_labels=2, dtype=torch.float32)
    trainer = prm.PRMTrainer(
        model=model,
        args=prm.PRMConfig(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=4,
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )
    for ours, read in zip(data, trainer.train_dataset, strict=True):
        assert [label for label in read["labels"] if label != -100] == [
            int(label) for label in ours["labels"]
        ]
    before = model.score.weight.detach().clone()
    trainer.train()
    assert not torch.equal(model.score.weight, before)

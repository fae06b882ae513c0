"""verl's dataset classes read what is exported for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.dataset.rm_dataset import RMDataset

Export = Callable[..., Path]


@pytest.mark.parametrize("form", ["verl", None])
def test_questions(exported: Export, tokenizer: Any, tmp_path: Path, form: str | None) -> None:
    path = exported("rlvr", form) / "data" / "train.parquet"
    config = OmegaConf.create(
        {"cache_dir": str(tmp_path), "max_prompt_length": 64, "filter_overlong_prompts": True}
    )
    read = RLHFDataset(data_files=[str(path)], tokenizer=tokenizer, config=config)
    rows = pq.read_table(path).to_pylist()
    assert len(read) == len(rows) > 0
    for ours, theirs in zip(rows, (read[at] for at in range(len(read))), strict=True):
        assert theirs["raw_prompt"] == ours["prompt"]
        assert theirs["reward_model"]["ground_truth"] == ours["reward_model"]["ground_truth"]
        assert theirs["data_source"] == ours["data_source"]
        assert theirs["index"] == ours["extra_info"]["index"]


def test_solutions(exported: Export, tokenizer: Any) -> None:
    path = exported("sft", "verl") / "data" / "train.parquet"
    config = OmegaConf.create({"max_length": 128, "truncation": "error", "pad_mode": "no_padding"})
    read = MultiTurnSFTDataset(parquet_files=[str(path)], tokenizer=tokenizer, config=config)
    rows = pq.read_table(path).to_pylist()
    assert len(read) == len(rows) > 0
    for at, row in enumerate(rows):
        learned = read[at]["input_ids"][read[at]["loss_mask"].bool()]
        assert row["messages"][-1]["content"] in tokenizer.decode(learned)


def test_pairs(exported: Export, tokenizer: Any, tmp_path: Path) -> None:
    path = exported("preference", "verl") / "data" / "train.parquet"
    read = RMDataset(str(path), tokenizer, max_length=256, cache_dir=str(tmp_path))
    rows = pq.read_table(path).to_pylist()
    assert len(read) == len(rows) > 0
    for at, row in enumerate(rows):
        pair = read[at]
        for side, name in enumerate(("chosen", "rejected")):
            ids = pair["input_ids"][side][pair["attention_mask"][side].bool()]
            assert tokenizer.decode(ids) == row["prompt"] + row[name] + tokenizer.eos_token

"""OpenRLHF's dataset classes read what is exported for them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import load_dataset
from openrlhf.datasets import PromptDataset, RewardDataset, SFTDataset

Export = Callable[..., Path]


def load(folder: Path, kind: str, tmp_path: Path) -> Any:
    return load_dataset(str(folder), kind, split="train", cache_dir=str(tmp_path / "cache"))


def strategy(**keys: Any) -> Any:
    """What its trainers hand to a dataset: the options of the command line."""
    data = SimpleNamespace(apply_chat_template=False, **keys)
    return SimpleNamespace(args=SimpleNamespace(data=data), is_rank_0=lambda: False)


@pytest.mark.parametrize("template", [None, "chat"])
def test_pairs(exported: Export, tokenizer: Any, tmp_path: Path, template: str | None) -> None:
    folder = exported("preference", "openrlhf", template=template)
    data = load(folder, "preference", tmp_path)
    how = strategy(prompt_key="prompt", chosen_key="chosen", rejected_key="rejected")
    how.args.data.apply_chat_template = template is not None
    read = RewardDataset(data, tokenizer, 256, how, num_processors=1)
    assert len(read) == len(data) > 0
    assert list(read.extras) == list(data["margin"])
    for at, row in enumerate(data):
        for side, text in (("chosen", read.chosens[at]), ("rejected", read.rejects[at])):
            said = row[side] if template is None else row[side][0]["content"] + "\n"
            assert text == said
    ids = read[0][0][0]
    assert ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("template", [None, "chat"])
def test_solutions(exported: Export, tokenizer: Any, tmp_path: Path, template: str | None) -> None:
    data = load(exported("sft", "openrlhf", template=template), "sft", tmp_path)
    how = strategy(input_key="input", output_key="output")
    how.args.data.apply_chat_template = template is not None
    read = SFTDataset(data, tokenizer, 2048, how, num_processors=1)
    assert len(read) == len(data) > 0
    for at, row in enumerate(data):
        said = row["output"] if template is None else row["output"][0]["content"] + "\n"
        assert read.responses[at] == said


def test_questions(exported: Export, tokenizer: Any, tmp_path: Path) -> None:
    data = load(exported("rlvr", "openrlhf"), "rlvr", tmp_path)
    how = strategy(input_key="input", label_key="label")
    how.args.data.apply_chat_template = True
    read = PromptDataset(data, tokenizer, how)
    assert len(read) == len(data) > 0
    for at, row in enumerate(data):
        assert row["label"] in read[at]
        assert row["input"][-1]["content"] + "\n" in read[at]

"""verifiers' environments read `rlvr` as it is."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import load_dataset

vf = pytest.importorskip("verifiers")
pytestmark = pytest.mark.filterwarnings("ignore")  # of other people's libraries


def test_questions(exported: Callable[..., Path], tmp_path: Path) -> None:
    folder = exported("rlvr")
    data = load_dataset(str(folder), "rlvr", split="train", cache_dir=str(tmp_path / "cache"))
    environment = vf.SingleTurnEnv(dataset=data, rubric=vf.Rubric())
    read = environment.get_dataset()
    assert len(read) == len(data) > 0
    for ours, theirs in zip(data, read, strict=True):
        assert [turn["content"] for turn in theirs["prompt"]] == [
            turn["content"] for turn in ours["prompt"]
        ]
        assert theirs["answer"] == ours["ground_truth"]
        info = theirs["info"]
        assert (json.loads(info) if isinstance(info, str) else info)["source"] == "task:arithmetic"

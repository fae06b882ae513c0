"""ms-swift's loader reads what is exported for it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from swift.dataset import load_dataset


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("sft", {"messages"}),
        ("preference", {"messages", "rejected_response", "margin"}),
        ("rlvr", {"messages", "solution"}),
    ],
)
def test_rows(exported: Callable[..., Path], kind: str, columns: set[str]) -> None:
    path = exported(kind, "swift") / "data" / "train.jsonl"
    # Its GRPO keeps all columns, for the reward functions; what it learns from is always kept.
    read, _ = load_dataset(
        str(path), remove_unused_columns=kind != "rlvr", load_from_cache_file=False
    )
    rows = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    assert len(read) == len(rows) > 0
    for ours, theirs in zip(rows, read, strict=True):
        for name in columns:
            if name == "messages":
                assert [(t["role"], t["content"]) for t in theirs[name]] == [
                    (t["role"], t["content"]) for t in ours[name]
                ]
            else:
                assert theirs[name] == ours[name]

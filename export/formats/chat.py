"""Chats as the formats of fine-tuning trainers have them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treeward.export.dataset_spec import Row, Tally

JSON_NAME = "dataset_info.json"

_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}


def said(text: str) -> Row:
    """Returns a turn of the policy."""
    return {"role": "assistant", "content": text}


def text_of(value: str | Sequence[Mapping[str, str]]) -> str:
    """Returns a step as text, whether it is text or a chat with a single turn."""
    return value if isinstance(value, str) else value[0]["content"]


def takes_turns(messages: Sequence[Mapping[str, str]], tally: Tally) -> bool:
    """Returns whether user and assistant alternate from a user on, after at most a system turn.

    LLaMA-Factory throws other chats away with a warning.
    """
    roles = [turn["role"] for turn in messages]
    if roles and roles[0] == "system":
        roles = roles[1:]
    fits = bool(roles) and roles == [("user", "assistant")[at % 2] for at in range(len(roles))]
    if not fits:
        tally.left_out["chats in which user and assistant do not alternate"] += 1
    return fits


def dataset_info(name: str, columns: Mapping[str, str], *, ranking: bool) -> Any:
    """Returns what writes LLaMA-Factory's index of a data folder, by the names of the splits."""

    def make(splits: Iterable[str]) -> dict[str, bytes]:
        entries = {
            f"{name}_{split}": {
                "file_name": f"data/{split}.jsonl",
                "formatting": "sharegpt",
                **({"ranking": True} if ranking else {}),
                "columns": dict(columns),
                "tags": _TAGS,
            }
            for split in splits
        }
        return {JSON_NAME: (json.dumps(entries, indent=2) + "\n").encode()}

    return make

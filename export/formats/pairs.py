"""The kind `preference` in other trainers' formats.

Trainers that put a chat template around an answer cannot begin in the middle of one. For them both
answers hold the steps that they share: their log-probability cancels in the loss of DPO, and a
reward model compares whole prefixes.
"""

from collections.abc import Sequence

from treeward.export.dataset_spec import (
    ID,
    MESSAGES,
    REAL,
    TEXT,
    Column,
    Row,
    Tally,
    struct_of,
)
from treeward.export.formats.chat import dataset_info, said, takes_turns, text_of
from treeward.export.formats.spec import FileType, Shape, fixed
from treeward.search.errors import BadInput

_TURN = struct_of(role=TEXT, content=TEXT)
_MARGIN = Column("margin", REAL, "How much more the chosen step is worth.")
_PLAIN = frozenset({"id", "prompt", "chosen", "rejected"})
_CHAT = frozenset({"id", "messages", "shared_steps", "chosen", "rejected"})
_SHARED = "Both answers begin with the steps that they share, so that none starts in the middle."


def _prompt_kind(columns: Sequence[Column]) -> object:
    return next(column.kind for column in columns if column.name == "prompt")


def _plain_columns(columns: Sequence[Column]) -> Sequence[Column]:
    ours = {column.name: column for column in columns}
    return (ID, ours["prompt"], ours["chosen"], ours["rejected"])


def _plain(row: Row, _: Tally) -> Row:
    return {name: row[name] for name in ("id", "prompt", "chosen", "rejected")}


def _verl_columns(columns: Sequence[Column]) -> Sequence[Column]:
    if _prompt_kind(columns) != TEXT:
        raise BadInput(
            "format verl has preference as plain text only, and this run's prompts are chats; "
            "trl, openrlhf, llamafactory and swift carry them"
        )
    return _plain_columns(columns)


def _answer(row: Row, side: str) -> str:
    return str(row["shared_steps"]) + text_of(row[side])


def _openrlhf_columns(columns: Sequence[Column]) -> Sequence[Column]:
    if _prompt_kind(columns) == TEXT:
        return (*_plain_columns(columns), _MARGIN)
    return (
        ID,
        Column("prompt", MESSAGES, "The problem as a chat."),
        Column("chosen", MESSAGES, "The shared steps, then the one that is worth more."),
        Column("rejected", MESSAGES, "The shared steps, then the one that is worth less."),
        _MARGIN,
    )


def _openrlhf(row: Row, tally: Tally) -> Row:
    if isinstance(row["prompt"], str):
        return _plain(row, tally) | {"margin": row["margin"]}
    return {
        "id": row["id"],
        "prompt": row["messages"],
        "chosen": [said(_answer(row, "chosen"))],
        "rejected": [said(_answer(row, "rejected"))],
        "margin": row["margin"],
    }


def _llamafactory(row: Row, tally: Tally) -> Row | None:
    if not takes_turns(row["messages"], tally):
        return None
    return {
        "id": row["id"],
        "messages": row["messages"],
        "chosen": said(_answer(row, "chosen")),
        "rejected": said(_answer(row, "rejected")),
    }


def _swift(row: Row, _: Tally) -> Row:
    return {
        "id": row["id"],
        "messages": [*row["messages"], said(_answer(row, "chosen"))],
        "rejected_response": _answer(row, "rejected"),
        "margin": row["margin"],
    }


TRL = Shape(
    columns=_plain_columns,
    convert=_plain,
    reads=_PLAIN,
    says="For TRL's DPOTrainer and RewardTrainer.",
    file_type=FileType.PARQUET,
)

VERL = Shape(
    columns=_verl_columns,
    convert=_plain,
    reads=_PLAIN,
    says="What verl's dataset of pairs for reward models reads (`RMDataset`, up to 0.9).",
    file_type=FileType.PARQUET,
)

OPENRLHF = Shape(
    columns=_openrlhf_columns,
    convert=_openrlhf,
    reads=_CHAT | {"prompt", "margin"},
    says="For OpenRLHF's `train_dpo` and `train_rm` with `--prompt_key prompt --chosen_key chosen "
    "--rejected_key rejected`; of chats with `--apply_chat_template` too, and then both answers "
    "begin with the steps that they share.",
)

LLAMAFACTORY = Shape(
    columns=fixed(
        ID,
        Column("messages", MESSAGES, "The problem as a chat."),
        Column("chosen", _TURN, "The shared steps, then the one that is worth more."),
        Column("rejected", _TURN, "The shared steps, then the one that is worth less."),
    ),
    convert=_llamafactory,
    reads=_CHAT,
    says="For LLaMA-Factory's stages `dpo` and `rm`: this folder is a `dataset_dir`, whose "
    f"`dataset_info.json` names the datasets `treeward_preference_SPLIT`. {_SHARED}",
    asides=dataset_info(
        "treeward_preference",
        {"messages": "messages", "chosen": "chosen", "rejected": "rejected"},
        ranking=True,
    ),
)

SWIFT = Shape(
    columns=fixed(
        ID,
        Column("messages", MESSAGES, "The problem, and the answer that is worth more."),
        Column("rejected_response", TEXT, "The answer that is worth less."),
        _MARGIN,
    ),
    convert=_swift,
    reads=_CHAT | {"margin"},
    says=f"For `swift rlhf --rlhf_type dpo` or `rm`, with `--dataset data/train.jsonl`. {_SHARED}",
)

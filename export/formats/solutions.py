"""The kind `sft` in other trainers' formats."""

from collections.abc import Sequence

from treeward.export.dataset_spec import ID, MESSAGES, TEXT, Column, Row, Tally
from treeward.export.formats.chat import dataset_info, takes_turns
from treeward.export.formats.spec import FileType, Shape, fixed

_CHAT = Column("messages", MESSAGES, "The chat; the last turn is the solution.")
_READS = frozenset({"id", "messages", "prompt", "completion"})


def _is_text(columns: Sequence[Column]) -> bool:
    return any(column.name == "completion" for column in columns)


def _trl_columns(columns: Sequence[Column]) -> Sequence[Column]:
    if not _is_text(columns):
        return (ID, _CHAT)
    return (
        ID,
        Column("prompt", TEXT, "What the policy reads."),
        Column("completion", TEXT, "The solution; the trainer puts an end token after it."),
    )


def _trl(row: Row, _: Tally) -> Row:
    names = ("id", "prompt", "completion") if "completion" in row else ("id", "messages")
    return {name: row[name] for name in names}


def _openrlhf_columns(columns: Sequence[Column]) -> Sequence[Column]:
    kind = TEXT if _is_text(columns) else MESSAGES
    return (
        ID,
        Column("input", kind, "What the policy reads."),
        Column("output", kind, "The solution."),
    )


def _openrlhf(row: Row, _: Tally) -> Row:
    if "completion" in row:
        return {"id": row["id"], "input": row["prompt"], "output": row["completion"]}
    return {"id": row["id"], "input": row["messages"][:-1], "output": row["messages"][-1:]}


def _messages(row: Row, _: Tally) -> Row:
    return {"id": row["id"], "messages": row["messages"]}


def _alternating(row: Row, tally: Tally) -> Row | None:
    return _messages(row, tally) if takes_turns(row["messages"], tally) else None


TRL = Shape(
    columns=_trl_columns,
    convert=_trl,
    reads=_READS,
    says="For TRL's SFTTrainer: prompt and completion where the template is plain text, else "
    "messages.",
    file_type=FileType.PARQUET,
)

OPENRLHF = Shape(
    columns=_openrlhf_columns,
    convert=_openrlhf,
    reads=_READS,
    says="For OpenRLHF's `train_sft` with `--input_key input --output_key output`; of chats with "
    "`--apply_chat_template` too.",
)

VERL = Shape(
    columns=fixed(ID, _CHAT),
    convert=_messages,
    reads=frozenset({"id", "messages"}),
    says="For verl's `sft_trainer`, which reads `messages`. The chat holds the bare problem: the "
    "trained model's own chat template makes the text.",
    file_type=FileType.PARQUET,
)

LLAMAFACTORY = Shape(
    columns=fixed(ID, _CHAT),
    convert=_alternating,
    reads=frozenset({"id", "messages"}),
    says="For LLaMA-Factory: this folder is a `dataset_dir`, whose `dataset_info.json` names the "
    "datasets `treeward_sft_SPLIT`. The chat holds the bare problem.",
    asides=dataset_info("treeward_sft", {"messages": "messages"}, ranking=False),
)

SWIFT = Shape(
    columns=fixed(ID, _CHAT),
    convert=_messages,
    reads=frozenset({"id", "messages"}),
    says="For `swift sft --dataset data/train.jsonl`. The chat holds the bare problem.",
)

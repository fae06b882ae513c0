"""The kind `rlvr` in other trainers' formats: what each reads of it, and no more."""

from treeward.export.dataset_spec import ID, MESSAGES, TEXT, Column, Row, Tally
from treeward.export.datasets_rlvr import COLUMNS
from treeward.export.formats.spec import FileType, Shape, fixed

_OURS = {column.name: column for column in COLUMNS}
_VERL = ("id", "data_source", "prompt", "ability", "reward_model", "extra_info")
_TRL = ("id", "prompt", "solution")


def _verl(row: Row, _: Tally) -> Row:
    return {name: row[name] for name in _VERL}


def _trl(row: Row, _: Tally) -> Row:
    return {name: row[name] for name in _TRL}


def _openrlhf(row: Row, _: Tally) -> Row:
    return {"id": row["id"], "input": row["prompt"], "label": row["ground_truth"]}


def _swift(row: Row, _: Tally) -> Row:
    return {"id": row["id"], "messages": row["prompt"], "solution": row["solution"]}


VERL = Shape(
    columns=fixed(*(_OURS[name] for name in _VERL)),
    convert=_verl,
    reads=frozenset(_VERL),
    says="For verl's `RLHFDataset`; a reward function gets `data_source`, the ground truth and "
    "`extra_info`. verl's own functions know its own data sources: give one of yours with "
    "`reward.custom_reward_function.path`.",
    file_type=FileType.PARQUET,
)

TRL = Shape(
    columns=fixed(*(_OURS[name] for name in _TRL)),
    convert=_trl,
    reads=frozenset(_TRL),
    says="For TRL's GRPOTrainer; `trl.rewards.accuracy_reward` reads `solution`.",
    file_type=FileType.PARQUET,
)

OPENRLHF = Shape(
    columns=fixed(
        ID,
        Column("input", MESSAGES, "The problem as a chat."),
        Column("label", TEXT, "The reference answer."),
    ),
    convert=_openrlhf,
    reads=frozenset({"id", "prompt", "ground_truth"}),
    says="For OpenRLHF's `train_ppo_ray` with `--input_key input --label_key label "
    "--apply_chat_template`.",
)

SWIFT = Shape(
    columns=fixed(
        ID,
        Column("messages", MESSAGES, "The problem as a chat."),
        Column("solution", TEXT, "The answer as checkers of solutions parse it."),
    ),
    convert=_swift,
    reads=frozenset({"id", "prompt", "solution"}),
    says="For `swift rlhf --rlhf_type grpo --reward_funcs accuracy`, which reads `solution`.",
)

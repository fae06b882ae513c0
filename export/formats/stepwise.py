"""The kind `prm` in the formats of trainers of process reward models.

None of them has a place for steps that are not to be learned from (`label_mask`): a row is cut
before its first such step. None takes a value beside the label, so evidence stays behind.
"""

from collections.abc import Sequence

from treeward.export.dataset_spec import (
    COUNT,
    FLAG,
    ID,
    MESSAGES,
    TEXT,
    Column,
    Row,
    Tally,
    list_of,
)
from treeward.export.formats.spec import FileType, Shape, fixed

STEP_MARK = "ки"
"""What OpenRLHF and Math-Shepherd put after each step; one token of Mistral's vocabulary."""

QWEN_MARK = "<extra_0>"
"""What Qwen2.5-Math-PRM reads its scores at."""

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."

_READS = frozenset({"id", "prompt", "messages", "completions", "labels", "label_mask"})


def kept_steps(row: Row, tally: Tally) -> int:
    """Returns how many steps of a row come before the first that is not to be learned from."""
    mask = row["label_mask"]
    n_kept = mask.index(False) if False in mask else len(mask)
    if n_kept < len(mask):
        tally.left_out["steps from the first that is not to be learned from"] += len(mask) - n_kept
    if not n_kept:
        tally.left_out["rows without a step to learn from"] += 1
    return n_kept


def _holds(row: Row, mark: str, tally: Tally) -> bool:
    """Returns whether a text already holds the mark of steps, and counts it."""
    asked = [turn["content"] for turn in row["messages"] or ()]
    found = any(mark in text for text in (row["prompt"], *asked, *row["completions"]))
    if found:
        tally.left_out[f"rows whose text holds {mark}, the mark of a step"] += 1
    return found


def has_history(roles: Sequence[str], tally: Tally, what: str = "rows") -> bool:
    """Returns whether a question goes on from a chat, which no text stands for, and counts it.

    A system message is how a question is put, as a template is.

    Args:
        roles: Those of its turns.
        tally: Counts it.
        what: What is left out then.
    """
    if found := sum(role != "system" for role in roles) > 1:
        tally.left_out[f"{what} that go on from a chat, for which the format has no place"] += 1
    return found


def _roles(row: Row) -> list[str]:
    return [turn["role"] for turn in row["messages"] or ()]


def _trl(row: Row, tally: Tally) -> Row | None:
    if has_history(_roles(row), tally):
        return None
    n_kept = kept_steps(row, tally)
    if not n_kept:
        return None
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "completions": row["completions"][:n_kept],
        "labels": row["labels"][:n_kept],
    }


def _openrlhf(row: Row, tally: Tally) -> Row | None:
    if has_history(_roles(row), tally) or _holds(row, STEP_MARK, tally):
        return None
    n_kept = kept_steps(row, tally)
    if not n_kept:
        return None
    steps = [f"{step} {STEP_MARK}\n" for step in row["completions"][:n_kept]]
    return {
        "id": row["id"],
        "input": row["prompt"] + "\n" + "".join(steps),
        "value": ["+" if label else "-" for label in row["labels"][:n_kept]],
    }


def _qwen(row: Row, tally: Tally) -> Row | None:
    if _holds(row, QWEN_MARK, tally):
        return None
    n_kept = kept_steps(row, tally)
    if not n_kept:
        return None
    said = "".join(step + QWEN_MARK for step in row["completions"][:n_kept])
    asked = row["messages"] or [{"role": "user", "content": row["prompt"]}]
    if asked[0]["role"] != "system":
        asked = [{"role": "system", "content": QWEN_SYSTEM}, *asked]
    return {
        "id": row["id"],
        "messages": [*asked, {"role": "assistant", "content": said}],
        "labels": [int(label) for label in row["labels"][:n_kept]],
    }


TRL = Shape(
    columns=fixed(
        ID,
        Column("prompt", TEXT, "The question."),
        Column("completions", list_of(TEXT), "The steps, without separators."),
        Column("labels", list_of(FLAG), "Whether each step is right; never null."),
    ),
    convert=_trl,
    reads=_READS,
    says="TRL's stepwise supervision, which Axolotl's `stepwise_supervised` reads too. TRL has a "
    "trainer for it up to 1.13 (`trl.experimental.prm`). Both take labels as integers, so a value "
    "between 0 and 1 would be cut to 0: only hard labels are here.",
    file_type=FileType.PARQUET,
)

OPENRLHF = Shape(
    columns=fixed(
        ID,
        Column("input", TEXT, f"The question and the steps, each with ` {STEP_MARK}` after it."),
        Column("value", list_of(TEXT), "`+` or `-` for each step."),
    ),
    convert=_openrlhf,
    reads=_READS,
    says="For OpenRLHF's `train_prm`, which it had until March 2026 (`--input_key input "
    f"--label_key value --placeholder_token {STEP_MARK} --reward_tokens + -`). The placeholder "
    "must be one token of the model's vocabulary.",
)

QWEN = Shape(
    columns=fixed(
        ID,
        Column("messages", MESSAGES, f"A chat; the answer has {QWEN_MARK} after each step."),
        Column("labels", list_of(COUNT), "1 or 0 for each mark."),
    ),
    convert=_qwen,
    reads=_READS,
    says="What Qwen2.5-Math-PRM reads: its score of a step is the chance of class 1 at the mark.",
)

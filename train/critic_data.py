"""Reads rows for critics: prefixes as tokens, and what was counted at the end of each step.

Rows of a tree share steps. Each step's evidence stands in one row alone (`is_new`), and that of the
bare question in the first row of its tree, so that nothing is learned twice.
"""

import hashlib
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treeward.critics.reading import PrefixReader, Reading
from treeward.export.dataset_spec import TRAIN, VALIDATION, split_of
from treeward.search.errors import BadInput
from treeward.search.problem import Message, Problem
from treeward.search.verdicts import VALUE_OF, Verdict
from treeward.train.rows import (
    FLAGS,
    NUMBER,
    NUMBERS,
    TEXT,
    TEXTS,
    TURNS,
    check_messages,
    records,
)

Reals = NDArray[np.float64]

_LISTS = {
    "steps": TEXTS,
    "n_right": NUMBERS,
    "n_rollouts": NUMBERS,
    "progress": NUMBERS,
    "verdict": TEXTS,
    "is_new": FLAGS,
}
_ROOT = {
    "problem_id": TEXT,
    "tree_id": TEXT,
    "problem": TEXT,
    "problem_n_right": NUMBER,
    "problem_n_rollouts": NUMBER,
}
_COLUMNS = {**_ROOT, "messages": TURNS, **_LISTS}
UNKNOWN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticRow:
    """Holds a path of a tree; its arrays [1 + S] begin with the bare question."""

    problem_id: str

    asked: str
    """What the problem asks; under two ids it is in one split."""

    reading: Reading

    n_right: Reals
    """Right rollouts. A finished solution with a verdict counts as one rollout of its own."""

    n_rollouts: Reals
    """Right and wrong rollouts; 0 where none is known or another row holds the place."""

    progress: Reals
    """In [-1, 1]; NaN where not known or another row holds the place."""

    outcome: Reals
    """1 or 0 where a solution ends and is known to be right or wrong; else NaN."""

    @property
    def teaches(self) -> bool:
        """Returns whether anything is known here."""
        known = np.isfinite(self.progress) | np.isfinite(self.outcome) | (self.n_rollouts > 0)
        return bool(known.any())


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticData:
    """Holds a dataset; no question is in both splits."""

    train: list[CriticRow]

    validation: list[CriticRow]

    n_too_long: int
    """Rows that were cut off, or left out, where the model cannot read on."""

    def fingerprint(self) -> str:
        """Returns a digest of every token and of whatever is learned."""
        digest = hashlib.sha256()
        for rows in (self.train, self.validation):
            digest.update(len(rows).to_bytes(8, "little"))
            for row in rows:
                digest.update(np.array([len(row.reading.ids), len(row.reading.ends)]).tobytes())
                digest.update(np.array(row.reading.ids + row.reading.ends).tobytes())
                for array in (row.n_right, row.n_rollouts, row.progress, row.outcome):
                    digest.update(array.tobytes())
        return digest.hexdigest()


def validation_files(data: Path) -> list[Path]:
    """Returns the files of a dataset's own validation split; none where it has no such split."""
    return sorted(data.rglob("validation*.parquet")) if data.is_dir() else []


def read_critic_data(
    data: Path, reader: PrefixReader, *, validation: float, skip_long: bool
) -> CriticData:
    """Reads a `critic` dataset.

    Args:
        data: A file or folder. A folder's `validation*.parquet` is held out where there is one.
        reader: Turns prefixes into tokens.
        validation: Else the share that is held out, chosen by a hash of the questions.
        skip_long: Leaves out steps beyond the model's context; else they are errors.

    Raises:
        BadInput: A row, or the whole, cannot be learned from; the message names it.
    """
    splits: dict[str, list[CriticRow]] = {TRAIN: [], VALIDATION: []}
    held_out = validation_files(data)
    n_too_long = 0
    for source, named in [(data, TRAIN), *((path, VALIDATION) for path in held_out)]:
        for where, row in _rows(source, reader):
            if len(row.reading.ids) > reader.context:
                if not skip_long:
                    raise BadInput(
                        f"{where}: needs {len(row.reading.ids)} tokens and the model reads "
                        f"{reader.context}; leave out what is beyond with train.skip_long=true"
                    )
                n_too_long += 1
            known = _first_steps(row, reader.context)
            if known.teaches:
                split = named if held_out else split_of(row.asked, validation)
                splits[split].append(known)
    _check_splits(data, splits)
    return CriticData(train=splits[TRAIN], validation=splits[VALIDATION], n_too_long=n_too_long)


def _check_splits(data: Path, splits: dict[str, list[CriticRow]]) -> None:
    """Raises BadInput unless both splits have rows, of problems of their own."""
    for split, rows in splits.items():
        if not rows:
            raise BadInput(
                f"{data}: no row of the {split} split teaches anything; search more problems, or "
                "set train.validation"
            )
    asked = {split: {row.asked for row in rows} for split, rows in splits.items()}
    if shared := sorted(asked[TRAIN] & asked[VALIDATION]):
        raise BadInput(
            f"{data}: question {shared[0][:60]!r} is in both splits, train and validation; "
            "`treeward export` keeps them apart"
        )


def _rows(source: Path, reader: PrefixReader) -> Iterator[tuple[str, CriticRow]]:
    """Yields every row with the place where it stands."""
    endless = replace(reader, context=sys.maxsize)
    seen: set[tuple[Any, ...]] = set()
    for where, record in records(source, "critic", _COLUMNS, nullable=("messages",)):
        _check(where, record)
        chat = record["messages"]
        problem = Problem(
            id=record["problem_id"],
            prompt=record["problem"],
            messages=tuple(Message(turn["role"], turn["content"]) for turn in chat)
            if chat
            else None,
        )
        root = tuple(record[name] for name in _ROOT)
        try:
            reading = endless.read(problem, record["steps"])
        except BadInput as e:
            raise BadInput(f"{where}: {e}") from e
        yield where, _row(record, problem, reading, first=root not in seen)
        seen.add(root)


def _row(record: dict[str, Any], problem: Problem, reading: Reading, *, first: bool) -> CriticRow:
    """Returns a record as a row; places that another row holds are left unknown."""
    own = np.array([first, *record["is_new"]])
    outcome = np.array([UNKNOWN, *(VALUE_OF.get(said, UNKNOWN) for said in record["verdict"])])
    known = [UNKNOWN if value is None else value for value in record["progress"]]
    n = np.array([record["problem_n_rollouts"], *record["n_rollouts"]], dtype=np.float64)
    k = np.array([record["problem_n_right"], *record["n_right"]], dtype=np.float64)
    ended = np.isfinite(outcome)
    return CriticRow(
        problem_id=problem.id,
        asked=problem.asked,
        reading=reading,
        n_right=np.where(own, np.where(ended, outcome, k), 0.0),
        n_rollouts=np.where(own, np.where(ended, 1.0, n), 0.0),
        progress=np.where(own, np.array([UNKNOWN, *known], dtype=np.float64), UNKNOWN),
        outcome=np.where(own, outcome, UNKNOWN),
    )


def _first_steps(row: CriticRow, context: int) -> CriticRow:
    """Returns a row up to the last step that a model can read; other rows may go on from there."""
    places = sum(end < context for end in row.reading.ends)
    ends = row.reading.ends[:places]
    return replace(
        row,
        reading=Reading(row.reading.ids[: ends[-1] + 1 if ends else 0], ends),
        n_right=row.n_right[:places],
        n_rollouts=row.n_rollouts[:places],
        progress=row.progress[:places],
        outcome=row.outcome[:places],
    )


def _check(where: str, record: dict[str, Any]) -> None:
    """Raises BadInput unless a record says of each of its steps what it should."""
    check_messages(where, record["messages"] or ())
    for name in ("steps", "n_right", "n_rollouts", "is_new"):
        if None in record[name]:
            raise BadInput(f"{where}: {name} must not have nulls; export the dataset again")
    n_steps = len(record["steps"])
    counts = [(record["problem_n_right"], record["problem_n_rollouts"])]
    counts += list(zip(record["n_right"], record["n_rollouts"], strict=False))
    rules = (
        (all(len(record[name]) == n_steps for name in _LISTS), f"lists of {n_steps} entries each"),
        (all(0 <= k <= n for k, n in counts), "0 <= n_right <= n_rollouts"),
        (all(k % 1 == n % 1 == 0 for k, n in counts), "whole n_right and n_rollouts"),
        (all(p is None or -1 <= p <= 1 for p in record["progress"]), "progress in [-1, 1]"),
        (all(v in (None, *Verdict) for v in record["verdict"]), f"verdicts of {list(Verdict)}"),
    )
    for holds, rule in rules:
        if not holds:
            raise BadInput(f"{where}: must have {rule}; export the dataset again")

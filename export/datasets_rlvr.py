"""The dataset `rlvr`: problems whose answers can be checked, under the names that trainers use."""

import json
from collections.abc import Iterator

import pyarrow as pa

from treeward.export.dataset_spec import (
    COUNT,
    ID,
    MESSAGES,
    PROBLEM_ID,
    REAL,
    TEXT,
    Column,
    Dataset,
    ExportSettings,
    Kind,
    Row,
    Tally,
    messages_of,
    row_id,
    split_of,
    struct_of,
)
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Item
from treeward.search.templates import BOXED

COLUMNS = (
    ID,
    PROBLEM_ID,
    Column("prompt", MESSAGES, "The problem as chat messages; the last is the question."),
    Column("data_source", TEXT, "Where the problem comes from."),
    Column("ability", TEXT, "`math`, or `reasoning` where the answer is no number or formula."),
    Column("reward_model", struct_of(style=TEXT, ground_truth=TEXT), "Style `rule`, the answer."),
    Column(
        "extra_info",
        struct_of(split=TEXT, index=pa.int64(), problem_id=TEXT, verifier=TEXT),
        "The split, the problem's place in the run from 0, and how its answers are checked.",
    ),
    Column("solution", TEXT, "The answer as checkers of solutions parse it: boxed if a formula."),
    Column("ground_truth", TEXT, "The reference answer."),
    Column("answer", TEXT, "The same."),
    Column("dataset", TEXT, "How answers are checked: the run's name of the verifier."),
    Column("info", TEXT, "What else is known, as JSON text."),
    Column(
        "pass_rate",
        REAL,
        "Share of right ones among the rollouts from the bare problem; null without any.",
        optional=True,
    ),
    Column("difficulty", REAL, "1 - pass_rate, for the run's policy.", optional=True),
    Column("n_rollouts", COUNT, "The rollouts that pass_rate comes from."),
)


def rlvr(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each problem with an answer."""

    def rows(item: Item) -> Iterator[Row]:
        problem, answer = item.problem, item.problem.answer
        if answer is None:
            tally.left_out["problems without an answer"] += 1
            return
        n_rollouts = item.tree.nodes[0]["n_rollouts"] if item.tree else 0
        pass_rate = item.tree.row.pass_rate if item.tree else None
        tally.kept["problems with a pass rate"] += pass_rate is not None
        info = {"source": problem.source, "metadata": problem.metadata}
        yield {
            "id": row_id(Kind.RLVR, problem.id),
            "problem_id": problem.id,
            "prompt": messages_of(item),
            "data_source": problem.source,
            "ability": "math" if problem.verifier in ("math", "number") else "reasoning",
            "reward_model": {"style": "rule", "ground_truth": answer},
            "extra_info": {
                "split": split_of(problem.asked, settings.validation),
                "index": item.index,
                "problem_id": problem.id,
                "verifier": problem.verifier,
            },
            "solution": _solution(answer, problem.verifier),
            "ground_truth": answer,
            "answer": answer,
            "dataset": problem.verifier,
            "info": json.dumps(info, sort_keys=True),
            "pass_rate": pass_rate,
            "difficulty": None if pass_rate is None else 1 - pass_rate,
            "n_rollouts": n_rollouts,
        }

    return Dataset(
        columns=COLUMNS,
        node_columns=("n_rollouts",),
        rows=rows,
        says=(
            "One row a problem that has a reference answer; the same answer stands under the names "
            "that verl, TRL, open-instruct and verifiers read. The instruction how to mark the "
            "answer is the trainer's.",
            "`pass_rate` is that of the run's policy at its sampling settings, from the few "
            "rollouts that `n_rollouts` counts: 0 of 4 does not mean never.",
        ),
    )


def _solution(answer: str, verifier: str) -> str:
    """Returns an answer as math-verify finds it: a bare formula such as x^2 it does not."""
    plain = verifier != "math" or BOXED in answer or "$" in answer
    return answer if plain else f"{BOXED}{answer}}}"

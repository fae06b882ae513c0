"""Shows an evaluation: as text, as plain data, as a table of its problems."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from treeward.export.config import flatten
from treeward.export.console import table
from treeward.export.durable import disk_errors, write_file
from treeward.export.plan import Plan
from treeward.train.estimates import Estimate
from treeward.train.evaluation import Evaluation

_SCHEMA = pa.schema(
    [
        pa.field("problem_id", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int64(), nullable=False)
            for name in ("n", "n_right", "n_no_answer", "n_length", "n_unknown", "n_undecided")
        ),
        pa.field("majority_answers", pa.list_(pa.string())),
        pa.field("majority_right", pa.float64()),
        pa.field("mean_tokens", pa.float64()),
        pa.field("error", pa.string()),
    ]
)


def as_data(evaluation: Evaluation, about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns one JSON document: what was evaluated and how, estimates, a row for each problem."""
    data = asdict(evaluation)
    for name in ("pass_at", "pass_at_least"):
        data[name] = {str(k): each for k, each in data[name].items()}
    return {**about, **data}


def about_plan(plan: Plan, seed: int) -> dict[str, Any]:
    """Returns all that an evaluation's samples depend on."""
    identity = plan.identity
    used = ("policy.", "prompt.", "backend.")
    settings = {name: each for name, each in identity.settings.items() if name.startswith(used)}
    return {
        "model": plan.model.name,
        "source": sorted({problem.source for problem in plan.problems}),
        "n_skipped": len(plan.skipped),
        "seed": seed,
        "settings": settings | flatten("policy", plan.sampling),
        "versions": dict(identity.versions),
    }


def as_text(evaluation: Evaluation) -> str:
    """Returns the estimates as a table, and below it what is missing."""
    rows = [(f"pass@{k}", each) for k, each in evaluation.pass_at.items()]
    if any(result.n_undecided for result in evaluation.problems):
        rows += [
            (f"pass@{k}, undecided as wrong", each) for k, each in evaluation.pass_at_least.items()
        ]
    rows += [
        (f"maj@{evaluation.samples}", evaluation.majority),
        ("no answer", evaluation.no_answer),
        ("over length", evaluation.length),
        ("unknown", evaluation.unknown),
        ("tokens", evaluation.tokens),
    ]
    level = f"{100 * evaluation.unknown.level:.0f} % interval"
    header = ["", "mean", level, "problems", "interval by"]
    lines = [table(header, [_row(name, estimate) for name, estimate in rows])]
    if evaluation.n_unknown_problems:
        lines.append(
            f"{evaluation.n_unknown_problems} of {evaluation.n_problems} problems have no known "
            f"verdict; the policy could not be asked {evaluation.n_failed_problems} of them"
        )
    return "\n".join(lines)


def _row(name: str, estimate: Estimate) -> list[object]:
    if estimate.low is None or estimate.high is None:
        interval = None
    else:
        interval = f"{estimate.low:.3f} to {estimate.high:.3f}"
    value = None if estimate.value is None else f"{estimate.value:.3f}"
    return [name, value, interval, estimate.n_problems, estimate.method]


def write_problems(evaluation: Evaluation, path: Path, about: Mapping[str, Any]) -> None:
    """Writes a Parquet file with a row for each problem; its footer says what was evaluated.

    Raises:
        BadInput: The path cannot be written to.
        TreewardError: The disk is full or failed.
    """
    rows = [asdict(result) for result in evaluation.problems]
    schema = _SCHEMA.with_metadata({"treeward": json.dumps(about, default=str)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    with disk_errors(path, "cannot write the table of problems"):
        write_file(path, sink.getvalue().to_pybytes())

"""Trains critics of value, progress and outcome: three heads on a language model that learns too.

The loss of a step is, for each head, the mean over the places of its batch where something is
known, weighed by the settings; however the batch is split into forward passes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import save
from torch import nn

from treeward.critics.calibration import Calibration, Fit, calibrate, fit
from treeward.critics.heads import CriticModel, Head
from treeward.critics.learned import ABOUT, HEADS, SCHEMA_VERSION, load_critics, reader_for
from treeward.export.dataset_spec import TRAIN, VALIDATION
from treeward.export.durable import write_file
from treeward.search.errors import BadInput
from treeward.search.models import default_template
from treeward.search.prompts import Template
from treeward.search.settings import refuse_unread
from treeward.search.templates import load_template
from treeward.train.best_weights import load_best
from treeward.train.checkpoint import State
from treeward.train.critic_data import CriticData, CriticRow, read_critic_data, validation_files
from treeward.train.critic_job import CriticJob
from treeward.train.critic_loss import known
from treeward.train.critic_settings import CriticSettings
from treeward.train.forward import load_trainable
from treeward.train.loop import Progress, identity, run_loop, session
from treeward.train.output import Json, output, write_model

CALIBRATION = "calibration.json"
"""Holds what the finished critics say about the held-out rows."""

_TEACHES = {
    Head.VALUE: "counted rollouts",
    Head.PROGRESS: "steps with progress",
    Head.OUTCOME: "verdicts on finished solutions",
}
"""What each head learns from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedCritics:
    """Says what came of a training; what was held out is all that it was measured on."""

    out: Path
    """The folder with the critics."""

    steps: int
    """Steps done."""

    best_step: int
    """The step whose weights were kept."""

    trained: tuple[Head, ...]
    """The heads that had something to learn and weight; the others say nothing."""

    value: Calibration | None
    """The value against counts at inner steps and bare problems; None where untrained or none."""

    progress: Fit | None
    """The progress against counted progress."""

    outcome: Calibration | None
    """The outcome against verdicts at the ends of solutions."""

    def __str__(self) -> str:
        """Returns the report as lines for people."""
        lines = [f"{self.out}: critics of step {self.best_step} of {self.steps}"]
        if untrained := [head for head in Head if head not in self.trained]:
            lines[0] += f", without {' and '.join(untrained)}"
        for name, found in (("value", self.value), ("outcome", self.outcome)):
            if found:
                auc = "unknown" if found.auc is None else f"{found.auc:.3f}"
                lines.append(
                    f"held-out {name}: ECE {found.ece:.3f} (noise {found.ece_noise:.3f}), Brier "
                    f"{found.brier:.3f}, AUC {auc}; {found.places} places, "
                    f"{found.rollouts} outcomes"
                )
        if self.progress:
            lines.append(
                f"held-out progress: RMSE {self.progress.rmse:.3f}, of the mean "
                f"{self.progress.rmse_of_mean:.3f}; {self.progress.places} steps"
            )
        return "\n".join(lines)


def train_critics(
    data: Path,
    model: Path,
    out: Path,
    settings: CriticSettings,
    *,
    resume: bool,
    progress: Progress,
) -> TrainedCritics:
    """Trains critics, writes them where the held-out loss was lowest, and measures them.

    Args:
        data: A `critic` dataset: a Parquet file or a folder.
        model: The Hugging Face folder of the trunk. Without weights they are drawn from the seed.
        out: A new folder; with `resume` one that holds the same run, whole or in part.
        settings: How they are trained.
        resume: Goes on from the latest checkpoint.
        progress: Is called at every logged step.

    Raises:
        BadInput: The data, the model or the output folder cannot be used, or the data teaches none
            of the heads that have weight.
        SettingsConflict: The output folder holds another run.
        DamagedData: A checkpoint does not hold what was written to it.
        TreewardError: The disk is full, or the gradient stopped being a number.
    """
    if held_out := validation_files(data):
        reader = f"a dataset that has no validation split such as {held_out[0]}"
        refuse_unread("train", settings, reader, ("validation",))
    with session(out, settings):
        trunk = load_trainable(model, settings)
        template = (
            load_template(settings.template) if settings.template else default_template(model)
        )
        rows = read_critic_data(
            data,
            reader_for(trunk, model, template),
            validation=settings.validation,
            skip_long=settings.skip_long,
        )
        heads = _taught_heads(data, rows, settings)
        with output(out, identity("critics", settings, model, _about(rows)), resume=resume):
            trained = CriticModel(trunk)
            job = CriticJob(trained, rows, out, settings)
            state = run_loop(trained.train(), out, settings, job, progress)
            load_best(out, trained, state["best_step"], state["best_sha256"])
            others = _files(trained.heads, heads, template)
            write_model(out, trunk, model, settings.save_dtype, others)
            return _measure(out, rows.validation, heads, state, settings)


def _about(rows: CriticData) -> Json:
    """Returns what is known of the data."""
    problems = {row.problem_id for row in rows.train}, {row.problem_id for row in rows.validation}
    return {
        "sha256": rows.fingerprint(),
        "rows": len(rows.train),
        "rows_validation": len(rows.validation),
        "rows_too_long": rows.n_too_long,
        "problems": len(problems[0]),
        "problems_validation": len(problems[1]),
    }


def _taught_heads(data: Path, rows: CriticData, settings: CriticSettings) -> list[Head]:
    """Returns the heads that have something to learn, and are to.

    Raises:
        BadInput: There are none, or what is held out measures none of them.
    """
    weighed = [head for head in Head if getattr(settings, f"{head}_weight")]
    taught = _known_heads(rows.train, weighed, settings)
    if not taught:
        others = _known_heads(rows.train, [*Head], settings)
        give = f", or give train.{others[0]}_weight more than 0" if others else ""
        raise BadInput(
            f"{_lack(data, TRAIN, rows.train, weighed)}, so nothing would be learned; search more "
            f"problems{give}"
        )
    if not _known_heads(rows.validation, taught, settings):
        raise BadInput(
            f"{_lack(data, VALIDATION, rows.validation, taught)}, so no weights would be known to "
            "be the best; search more problems, or hold out more (train.validation, where the "
            "data has no such split)"
        )
    return taught


def _known_heads(rows: list[CriticRow], heads: list[Head], settings: CriticSettings) -> list[Head]:
    """Returns those of some heads for which something is known in some rows."""
    counts = known(rows, settings.targets, "cpu").counts()
    return [head for head in heads if counts[head]]


def _lack(data: Path, split: str, rows: list[CriticRow], heads: list[Head]) -> str:
    """Returns what a split does not have."""
    return (
        f"{data}: the {split} split ({len(rows)} rows) has no "
        f"{' and no '.join(_TEACHES[head] for head in heads)} for {' and '.join(heads)}"
    )


def _files(heads: nn.Module, trained: list[Head], template: Template) -> dict[str, bytes]:
    """Returns the files that make a model folder one of critics."""
    weights = save({name: value.detach().cpu() for name, value in heads.named_parameters()})
    about = {
        "schema_version": SCHEMA_VERSION,
        "trained": trained,
        "heads_sha256": hashlib.sha256(weights).hexdigest(),
        "template": asdict(template),
    }
    return {HEADS: weights, ABOUT: (json.dumps(about, indent=2) + "\n").encode()}


def _measure(
    out: Path, rows: list[CriticRow], heads: list[Head], state: State, settings: CriticSettings
) -> TrainedCritics:
    """Measures the critics as they were written, and writes that beside them."""
    critics = load_critics(out, device=settings.device)
    said = np.concatenate(critics.predict([row.reading for row in rows]))
    k, n, gained, outcome = (
        np.concatenate([getattr(row, name) for row in rows])
        for name in ("n_right", "n_rollouts", "progress", "outcome")
    )
    numbers: dict[str, int] = {}
    of_row = [numbers.setdefault(row.problem_id, len(numbers)) for row in rows]
    problems = np.repeat(of_row, [len(row.n_right) for row in rows])
    ended = np.isfinite(outcome)
    rights, ends = np.where(ended, outcome, 0.0), ended.astype(np.float64)
    value, progress, finished = (head in heads for head in Head)
    report = TrainedCritics(
        out=out,
        steps=state["step"],
        best_step=state["best_step"],
        trained=tuple(heads),
        value=calibrate(said[:, 0], k, np.where(ended, 0.0, n), problems) if value else None,
        progress=fit(said[:, 1], gained) if progress else None,
        outcome=calibrate(said[:, 2], rights, ends, problems) if finished else None,
    )
    body = {"schema_version": SCHEMA_VERSION, **asdict(report)}
    del body["out"]
    write_file(out / CALIBRATION, (json.dumps(body, indent=2) + "\n").encode())
    return report

"""The commands `train` and `eval`: each parses, calls one function, and prints."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from treeward.export.command_line import (
    PATH,
    backend_option,
    config_option,
    json_option,
    print_result,
    progress_console,
    served_option,
    set_option,
)

T = TypeVar("T")


@click.group()
def train() -> None:
    """Train on datasets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """Holds what every command of `train` is given."""

    data: Path
    model: str
    out: Path
    resume: bool
    config: Path | None
    assignments: tuple[str, ...]

    def train(self, trainer: Callable[..., T], kind: type[Any], **others: Any) -> T:
        """Calls a trainer with settings of a kind, from section `train.` of what was given."""
        import os

        from treeward.export.config import build, check_names, read_values
        from treeward.search.models import cache_root, resolve_model

        values = read_values(self.config, self.assignments)
        check_names(values, {"train": kind})
        settings = build(kind, "train", values)
        folder = resolve_model(self.model, cache_root(os.environ)).path
        where = (self.data, folder, self.out, settings)
        return trainer(*where, resume=self.resume, progress=_show_metrics, **others)


def _trainer(command: Callable[..., int | None]) -> click.Command:
    """Makes a command of `train`, which gets what all of them are given as one."""

    @wraps(command)
    def with_given(as_json: bool, **values: Any) -> int | None:
        given = _Given(**{name: values.pop(name) for name in _Given.__slots__})
        return command(given, as_json=as_json, **values)

    options = (
        click.argument("data", type=PATH),
        click.option(
            "--model",
            required=True,
            help="nano, smollm2-135m-instruct, a model folder or a hub id.",
        ),
        click.option("--out", type=PATH, required=True, help="The folder of the trained model."),
        click.option("--resume", is_flag=True, help="Go on from the last checkpoint, bit for bit."),
        config_option,
        set_option,
        json_option,
    )
    for option in reversed(options):
        with_given = option(with_given)
    return train.command()(with_given)


_SHOWN = (
    "step",
    "loss",
    "eval_loss",
    "mean_token_accuracy",
    "reward",
    "groups/kept_share",
    "step_time",
)
"""The metrics that are worth a look while it runs; all are in `metrics.jsonl`."""


def _show_metrics(line: dict[str, Any]) -> None:
    numbers = (f"{name}={line[name]:.4g}" for name in _SHOWN if line.get(name) is not None)
    click.echo(" ".join(numbers), err=True)


@_trainer
def sft(given: _Given, as_json: bool) -> None:
    """Fine-tune a model on the solutions in DATA; settings are in section train."""
    from treeward.train.sft import train_sft
    from treeward.train.sft_settings import SftSettings

    trained = given.train(train_sft, SftSettings)
    print_result({"model": str(trained)}, as_json=as_json, text=lambda: f"{trained}: trained model")


@_trainer
def srl(given: _Given, as_json: bool) -> int:
    """Train a policy to write an expert's next step; DATA is an srl dataset.

    Settings are in section train. Exits with 4 where training ended before its last step.
    """
    from treeward.train.srl import SrlSettings, train_srl

    trained = given.train(train_srl, SrlSettings)
    return _print_trained(trained, as_json)


@_trainer
def critics(given: _Given, as_json: bool) -> None:
    """Train critics of value, progress and outcome; DATA is a critic dataset.

    Settings are in section train. Prints how the critics agree with problems that were held out.
    """
    from treeward.train.critic_settings import CriticSettings
    from treeward.train.critics import train_critics

    trained = given.train(train_critics, CriticSettings)
    print_result(trained, as_json=as_json, text=trained.__str__)


@_trainer
@click.option("--trees", type=PATH, help="A run whose trees tell how much each step gained.")
def rlvr(given: _Given, as_json: bool, trees: Path | None) -> int:
    """Train a policy on verified answers; DATA is an rlvr dataset.

    Settings are in section train. Exits with 4 where training ended before its last step.
    """
    from treeward.train.rlvr import RlvrSettings, train_rlvr

    trained = given.train(train_rlvr, RlvrSettings, trees=trees)
    return _print_trained(trained, as_json)


def _print_trained(trained: Any, as_json: bool) -> int:
    """Prints what came of a training by reinforcement and returns its exit code."""
    ended = f"; ended early: {trained.ended}" if trained.ended else ""
    print_result(trained, as_json=as_json, text=lambda: f"{trained.out}: trained model{ended}")
    return 4 if trained.ended else 0


@click.group(name="eval")
def evaluations() -> None:
    """Measure models."""


@evaluations.command(name="policy")
@click.argument("policy", metavar="MODEL")
@click.argument("problems")
@served_option
@backend_option
@click.option("--samples", type=click.IntRange(min=1), default=8, help="Solutions a problem.")
@click.option(
    "--k",
    "ks",
    type=click.IntRange(min=1),
    multiple=True,
    help="A k of pass@k; may be given more than once.  [default: 1, 2, 4, ... up to --samples]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Take the first N problems.")
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--concurrency", type=click.IntRange(min=1), default=128, help="Problems at once.")
@click.option(
    "--deterministic/--no-deterministic",
    default=None,
    help="Results do not depend on batches.  [default: on for nano]",
)
@click.option("--skip-bad", is_flag=True, help="Leave bad problems out and count them.")
@click.option("--out", type=PATH, help="A Parquet file for a row a problem.")
@config_option
@set_option
@json_option
def eval_policy(
    problems: str,
    samples: int,
    ks: tuple[int, ...],
    seed: int,
    concurrency: int,
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure how often MODEL solves PROBLEMS: pass@k, majority vote, and what solutions cost.

    MODEL and PROBLEMS are what `generate` takes as --policy and as problems.
    Intervals are about the problems, whose samples resemble each other. Verdicts that are unknown
    are counted and left out. Settings are in sections policy, prompt and backend; greedy decoding
    is --samples 1 --set policy.temperature=1e-6 (0.01 with vLLM and servers). Exits with 4 where
    calls failed.
    """
    from treeward.export.console import RunProgress
    from treeward.export.options import Options
    from treeward.export.plan import make_plan
    from treeward.search.errors import BadInput
    from treeward.train.eval_report import about_plan, as_data, as_text, write_problems
    from treeward.train.evaluation import EvalSettings
    from treeward.train.evaluator import SECTIONS, evaluate_plan

    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        raise BadInput(f"--out {out}: must be a file in a folder that is there")
    settings = EvalSettings(samples=samples, ks=ks, seed=seed, concurrency=concurrency)
    plan = make_plan(Options(problems=problems, seed=seed, **options), SECTIONS)
    for reason in plan.skipped:
        click.echo(f"left out: {reason}", err=True)
    progress = RunProgress(progress_console(), "problems")
    try:
        found = evaluate_plan(plan, settings, progress)
    finally:
        progress.close()
    about = about_plan(plan, seed)
    print_result(as_data(found, about), as_json=as_json, text=lambda: as_text(found))
    if out is not None:
        write_problems(found, out, about)
    return 4 if found.n_failed_problems else 0

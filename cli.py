"""The commands. Each parses, calls one function of a floor below, and prints.

Data goes to stdout, everything else to stderr.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console

from treeward import __version__
from treeward.search.errors import TreewardError
from treeward.search.specs import nearest

_PATH = click.Path(path_type=Path)

T = TypeVar("T")


class Commands(click.Group):
    """Names the nearest command where there is none of a name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Returns the command that the arguments name."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(
                f"no command {args[0]!r}; {nearest(args[0], sorted(self.commands))}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"max_content_width": 100, "show_default": True})
@click.version_option(__version__, prog_name="treeward")
def treeward() -> None:
    """Search trees of reasoning steps, and turn what they show into data to train on."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits with its documented code."""
    try:
        code = treeward.main(arguments, prog_name="treeward", standalone_mode=False)
    except click.ClickException as e:
        e.show()
        code = e.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except TreewardError as e:
        click.echo(f"error: {e}", err=True)
        code = e.exit_code
    except BrokenPipeError:
        # The reader of our output is gone, and so is the need for the rest of it.
        sys.stderr.close()
        code = 0
    raise SystemExit(code)


def _console() -> Console:
    return Console(stderr=True)


def _print(result: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Prints a result to stdout, as JSON or as text."""
    if as_json:
        data = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        click.echo(json.dumps(data, default=str))
    else:
        click.echo(text())


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
_config = click.option("--config", type=_PATH, help="Settings in a TOML file.")
_set = click.option(
    "--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting."
)


@treeward.command()
@click.argument("problems")
@click.option("--out", type=_PATH, required=True, help="The run folder.")
@click.option(
    "--policy",
    help="nano, smollm2-135m-instruct, a folder or a hub id.  [default: nano for task: problems]",
)
@click.option("--backend", type=click.Choice(["auto", "transformers"]), default="auto")
@click.option("--search", "algorithm", type=click.Choice(["mcts", "rollouts"]), help="The search.")
@click.option("--critics", type=_PATH, help="A folder of trained critics that steer the search.")
@click.option("--limit", type=click.IntRange(min=1), help="Take the first N problems.")
@click.option("--seed", type=click.IntRange(min=0), default=0)
@click.option("--concurrency", type=click.IntRange(min=1), default=64, help="Trees at once.")
@click.option(
    "--deterministic/--no-deterministic",
    default=None,
    help="Rows do not depend on batches.  [default: on for nano]",
)
@click.option("--skip-bad", is_flag=True, help="Leave bad problems out and count them.")
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
@click.option(
    "--fail-on-error",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Exit with 1 where calls failed in more than this share of the trees.",
)
@_config
@_set
@_json
def generate(
    problems: str,
    out: Path,
    backend: str,
    concurrency: int,
    dry_run: bool,
    fail_on_error: float | None,
    as_json: bool,
    assignments: tuple[str, ...],
    **options: Any,
) -> int:
    """Search a tree for each of PROBLEMS: a file, task:arithmetic?n=200 or gym:NAME?n=200.

    The same command again goes on where it was, and does nothing when all is done.
    """
    from treeward.export.console import RunProgress
    from treeward.export.estimate import estimate
    from treeward.export.generate import generate as run
    from treeward.export.plan import Options, make_plan

    plan = make_plan(Options(problems=problems, assignments=assignments, **options))
    for reason in plan.skipped:
        click.echo(f"left out: {reason}", err=True)
    if dry_run:
        planned = estimate(plan)
        _print(planned, as_json=as_json, text=planned.__str__)
        return 0
    progress = RunProgress(_console())
    try:
        outcome = run(plan, out, concurrency=concurrency, watch=progress)
    finally:
        progress.close()
    _print(outcome, as_json=as_json, text=lambda: f"{out}: {outcome}")
    return outcome.exit_code(fail_on_error)


@treeward.command()
@click.argument("run", type=_PATH)
@_json
def status(run: Path, as_json: bool) -> None:
    """Show how far RUN is and what it cost."""
    from treeward.export.run_folder import open_run_folder
    from treeward.export.status import describe, run_status

    found = run_status(open_run_folder(run))
    _print(found, as_json=as_json, text=lambda: describe(found))


@treeward.command()
@click.argument("run", type=_PATH)
@click.option("--critics", type=_PATH, required=True, help="A folder of trained critics.")
@click.option("--device", default="cpu", help="A torch device.")
@_json
def score(run: Path, critics: Path, device: str, as_json: bool) -> int:
    """Add critics' scores of every node to RUN, without rewriting its trees.

    The same command again scores what is new since. Exits with 4 where a node could not be scored.
    """
    from treeward.export.open_critic import open_critic
    from treeward.export.run_folder import open_run_folder
    from treeward.export.scores import score_run

    alone = open_run_folder(run).identity.is_deterministic
    scoring = score_run(
        run,
        open_critic(critics, device=device, alone=alone),
        lambda done, total: click.echo(f"{done}/{total} trees have scores", err=True),
    )
    _print(scoring, as_json=as_json, text=lambda: f"{run}: {scoring}")
    return scoring.exit_code


@treeward.command()
@click.argument("run", type=_PATH)
@click.argument("sql")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "arrow"]), default="table"
)
@_json
def query(run: Path, sql: str, form: str, as_json: bool) -> None:
    """Run one read-only SQL statement over RUN's views.

    Views: trees, nodes, rollouts, problems, samplers, scores.

    Macros: path_to(tree, node), subtree(tree, node), best_path(tree), siblings(tree, node),
    first_error(tree, node).
    """
    from treeward.export.queries import run_query
    from treeward.export.rendering import write_table
    from treeward.export.run_folder import open_run_folder

    write_table(
        run_query(open_run_folder(run), sql), "json" if as_json else form, sys.stdout.buffer
    )


@treeward.command()
@click.argument("run", type=_PATH)
@click.argument("kind", type=click.Choice(["prm", "srl", "rlvr", "sft", "critic"]))
@click.option("--out", type=_PATH, required=True, help="The dataset folder.")
@click.option("--rule", default="any_success", help="The label rule.")
@click.option(
    "--min-rollouts",
    type=click.IntRange(min=1),
    default=8,
    help="Rollouts without a success that make a prefix wrong.",
)
@click.option(
    "--expert",
    type=click.Choice(["reference", "tree", "both"]),
    help="Whose steps to learn (srl, sft).  [default: reference where given, else tree]",
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.9),
    default=0.0,
    help="Share of problems for a validation split.",
)
@click.option("--template", help="A prompt template, where the run's own was a file.")
@_json
def export(run: Path, kind: str, out: Path, as_json: bool, **settings: Any) -> None:
    """Write a dataset of a KIND from RUN."""
    from treeward.export.dataset_spec import ExportSettings, Kind
    from treeward.export.datasets import export_dataset
    from treeward.export.run_folder import open_run_folder

    report = export_dataset(open_run_folder(run), Kind(kind), out, ExportSettings(**settings))
    _print(report, as_json=as_json, text=lambda: str(report))


@treeward.command()
@click.argument("run", type=_PATH)
@_json
def verify(run: Path, as_json: bool) -> None:
    """Check RUN's checksums, row counts and invariants; exit with 5 where something is damaged."""
    from treeward.export.verify import require_sound, verify_run

    findings = verify_run(run)
    listed = [{"level": f.level, "file": str(f.file), "message": f.message} for f in findings]
    _print(listed, as_json=as_json, text=lambda: "\n".join(map(str, findings)) or f"{run}: sound")
    require_sound(findings)


@treeward.command()
@click.option("--out", type=_PATH, default=Path("runs"), help="Where runs would be written.")
@_json
def doctor(out: Path, as_json: bool) -> None:
    """Show what this machine can run, and what to install for the rest."""
    from treeward.export.console import table
    from treeward.export.doctor import examine

    checks = examine(out)
    rows = [
        ["ok" if check.ok else "--", check.name, check.finding, check.remedy or ""]
        for check in checks
    ]
    _print(
        [asdict(check) for check in checks],
        as_json=as_json,
        text=lambda: table(["", "what", "found", "remedy"], rows, width=90),
    )


@treeward.command()
@click.option("--out", type=_PATH, default=Path("demo-run"), help="Where the demo writes.")
def demo(out: Path) -> None:
    """Show the whole path on the embedded model, in about two minutes."""
    from treeward.train.demo import run_demo

    run_demo(out, Console())


@treeward.group()
def train() -> None:
    """Train on datasets."""


def _trainer(command: Callable[..., int | None]) -> click.Command:
    """Makes a command of `train` with the arguments and options that all of them have."""
    options = (
        click.argument("data", type=_PATH),
        click.option(
            "--model",
            required=True,
            help="nano, smollm2-135m-instruct, a model folder or a hub id.",
        ),
        click.option("--out", type=_PATH, required=True, help="The folder of the trained model."),
        click.option("--resume", is_flag=True, help="Go on from the last checkpoint, bit for bit."),
        _config,
        _set,
        _json,
    )
    for option in reversed(options):
        command = option(command)
    return train.command()(command)


def _train_settings(kind: type[T], config: Path | None, assignments: tuple[str, ...]) -> T:
    """Returns the section `train.` of what was given."""
    from treeward.export.config import build, check_names, read_values

    values = read_values(config, assignments)
    check_names(values, {"train": kind})
    return build(kind, "train", values)


def _model_folder(model: str) -> Path:
    import os

    from treeward.search.models import cache_root, resolve_model

    return resolve_model(model, cache_root(os.environ)).path


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
    numbers = (f"{name}={line[name]:.4g}" for name in _SHOWN if name in line)
    click.echo(" ".join(numbers), err=True)


@_trainer
def sft(
    data: Path,
    model: str,
    out: Path,
    resume: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Fine-tune a model on the solutions in DATA; settings are in section train."""
    from treeward.train.sft import train_sft
    from treeward.train.sft_settings import SftSettings

    settings = _train_settings(SftSettings, config, assignments)
    folder = _model_folder(model)
    trained = train_sft(data, folder, out, settings, resume=resume, progress=_show_metrics)
    _print({"model": str(trained)}, as_json=as_json, text=lambda: f"{trained}: trained model")


@_trainer
def srl(
    data: Path,
    model: str,
    out: Path,
    resume: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> int:
    """Train a policy to write an expert's next step; DATA is an srl dataset.

    Settings are in section train. Exits with 4 where training ended before its last step.
    """
    from treeward.train.srl import SrlSettings, train_srl

    settings = _train_settings(SrlSettings, config, assignments)
    folder = _model_folder(model)
    trained = train_srl(data, folder, out, settings, resume=resume, progress=_show_metrics)
    return _print_trained(trained, as_json)


@_trainer
def critics(
    data: Path,
    model: str,
    out: Path,
    resume: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train critics of value, progress and outcome; DATA is a critic dataset.

    Settings are in section train. Prints how the critics agree with problems that were held out.
    """
    from treeward.train.critic_settings import CriticSettings
    from treeward.train.critics import train_critics

    settings = _train_settings(CriticSettings, config, assignments)
    folder = _model_folder(model)
    trained = train_critics(data, folder, out, settings, resume=resume, progress=_show_metrics)
    _print(trained, as_json=as_json, text=trained.__str__)


@_trainer
@click.option("--trees", type=_PATH, help="A run whose trees tell how much each step gained.")
def rlvr(
    data: Path,
    model: str,
    out: Path,
    trees: Path | None,
    resume: bool,
    config: Path | None,
    assignments: tuple[str, ...],
    as_json: bool,
) -> int:
    """Train a policy on verified answers; DATA is an rlvr dataset.

    Settings are in section train. Exits with 4 where training ended before its last step.
    """
    from treeward.train.rlvr import RlvrSettings, train_rlvr

    settings = _train_settings(RlvrSettings, config, assignments)
    folder = _model_folder(model)
    trained = train_rlvr(
        data, folder, out, settings, trees=trees, resume=resume, progress=_show_metrics
    )
    return _print_trained(trained, as_json)


def _print_trained(trained: Any, as_json: bool) -> int:
    """Prints what came of a training by reinforcement and returns its exit code."""
    ended = f"; ended early: {trained.ended}" if trained.ended else ""
    _print(trained, as_json=as_json, text=lambda: f"{trained.out}: trained model{ended}")
    return 4 if trained.ended else 0


@treeward.group(name="eval")
def evaluations() -> None:
    """Measure models."""


@evaluations.command(name="policy")
@click.argument("model")
@click.argument("problems")
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
@click.option("--out", type=_PATH, help="A Parquet file for a row a problem.")
@_config
@_set
@_json
def eval_policy(
    model: str,
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

    MODEL is nano, smollm2-135m-instruct, a folder or a hub id; PROBLEMS are what `generate` takes.
    Intervals are about the problems, whose samples resemble each other. Verdicts that are unknown
    are counted and left out. Settings are in sections policy, prompt and backend; greedy decoding
    is --samples 1 --set policy.temperature=1e-6. Exits with 4 where calls failed.
    """
    from treeward.export.console import RunProgress
    from treeward.export.plan import Options, make_plan
    from treeward.train.eval_report import about_plan, as_data, as_text, write_problems
    from treeward.train.evaluation import EvalSettings
    from treeward.train.evaluator import SECTIONS, evaluate_plan

    settings = EvalSettings(samples=samples, ks=ks, seed=seed, concurrency=concurrency)
    plan = make_plan(Options(problems=problems, policy=model, seed=seed, **options), SECTIONS)
    for reason in plan.skipped:
        click.echo(f"left out: {reason}", err=True)
    progress = RunProgress(_console(), "problems")
    try:
        found = evaluate_plan(plan, settings, progress)
    finally:
        progress.close()
    about = about_plan(plan, seed)
    if out is not None:
        write_problems(found, out, about)
    _print(as_data(found, about), as_json=as_json, text=lambda: as_text(found))
    return 4 if found.n_failed_problems else 0


if __name__ == "__main__":
    main()

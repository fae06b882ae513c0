"""The commands that grow a run: `generate` and `label`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from treeward.search.settings import Algorithm


def grows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of commands that grow a run."""
    options = (
        click.option("--out", type=PATH, required=True, help="The run folder."),
        click.option(
            "--policy",
            help="nano, smollm2-135m-instruct, a folder, a hub id, or base URLs of servers with "
            "commas between.  [default: nano for task: problems]",
        ),
        served_option,
        backend_option,
        click.option("--limit", type=click.IntRange(min=1), help="Take the first N problems."),
        click.option(
            "--budget-tokens",
            type=click.IntRange(min=1),
            metavar="N",
            help="Tokens to generate in all, at most; trees whose labels are uncertain come first.",
        ),
        click.option(
            "--shard",
            metavar="I/N",
            help="Grow every N-th problem's tree from the I-th on (from 1).",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0),
        click.option(
            "--concurrency", type=click.IntRange(min=1), default=64, help="Trees at once."
        ),
        click.option(
            "--deterministic/--no-deterministic",
            default=None,
            help="Rows do not depend on batches.  [default: on for nano and nano-fast]",
        ),
        click.option("--skip-bad", is_flag=True, help="Leave bad rows out and count them."),
        click.option("--dry-run", is_flag=True, help="Print the plan and do nothing."),
        click.option(
            "--fail-on-error",
            type=click.FloatRange(0, 1),
            metavar="SHARE",
            help="Exit with 1 where calls failed in more than this share of the trees.",
        ),
        click.option(
            "--retry-failed",
            is_flag=True,
            help="Take trees in which calls failed out of RUN and grow them anew.",
        ),
        config_option,
        set_option,
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("problems")
@click.option(
    "--search",
    "algorithm",
    type=click.Choice([each.value for each in Algorithm if each is not Algorithm.GIVEN]),
    help="The search.  [default: mcts]",
)
@click.option("--critics", type=PATH, help="A folder of trained critics that steer the search.")
@grows
def generate(problems: str, **options: Any) -> int:
    """Search a tree for each of PROBLEMS: a file, task:arithmetic?n=200 or gym:NAME?n=200.

    The same command again goes on where it was, and does nothing when all is done.
    """
    from treeward.export.plan import make_plan

    return grow(make_plan, problems, **options)


@click.command()
@click.argument("solutions", type=PATH)
@grows
def label(solutions: Path, **options: Any) -> int:
    """Gather evidence on SOLUTIONS that exist: rollouts of TRL or verl, ProcessBench, or text.

    No search of its own. --policy says whose chance of success is measured: whoever wrote them. It
    is asked how likely each step is, and goes on from where that and outcomes leave doubt.
    `export RUN prm --rule posterior` then says where each goes wrong. --dry-run shows the cost.
    """
    from treeward.export.label_plan import plan_label

    if options["policy"] is None:
        raise click.UsageError("say with --policy whose chance of success is measured")
    return grow(plan_label, str(solutions), **options)


def grow(
    planned: Callable[[Any], Any],
    problems: str,
    *,
    out: Path,
    concurrency: int,
    dry_run: bool,
    fail_on_error: float | None,
    retry_failed: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Plans a run and grows it, or prints the plan; returns the exit code."""
    from treeward.export.console import RunProgress
    from treeward.export.estimate import estimate
    from treeward.export.generate import generate as run
    from treeward.export.options import Options

    plan = planned(Options(problems=problems, **options))
    for reason in plan.skipped:
        click.echo(f"left out: {reason}", err=True)
    for warning in plan.warnings:
        click.echo(warning, err=True)
    if dry_run:
        estimated = estimate(plan)
        print_result(estimated, as_json=as_json, text=estimated.__str__)
        return 0
    progress = RunProgress(progress_console())
    try:
        outcome = run(plan, out, concurrency=concurrency, watch=progress, retry_failed=retry_failed)
    finally:
        progress.close()
    print_result(outcome, as_json=as_json, text=lambda: f"{out}: {outcome}")
    return outcome.exit_code(fail_on_error)

"""The commands. Each parses, calls one function of a floor below, and prints.

Data goes to stdout, everything else to stderr.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console

from treeward import __version__
from treeward.export.command_line import (
    PATH,
    StandardOutput,
    json_option,
    print_result,
)
from treeward.export.commands import generate, label
from treeward.export.console import clean
from treeward.export.view_command import view
from treeward.search.errors import TreewardError
from treeward.search.specs import nearest
from treeward.train.commands import evaluations, train


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
    except (click.Abort, KeyboardInterrupt) as e:
        stopped = e.__cause__ if isinstance(e, click.Abort) else e
        code = getattr(stopped, "exit_code", 130)
        if isinstance(stopped, KeyboardInterrupt) and str(stopped):
            click.echo(clean(str(stopped)), err=True)
    except TreewardError as e:
        # It may quote what a model or a file says.
        click.echo("error: " + "\n".join(map(clean, str(e).split("\n"))), err=True)
        code = e.exit_code
    raise SystemExit(code)


@treeward.command()
@click.argument("run", type=PATH)
@json_option
def status(run: Path, as_json: bool) -> None:
    """Show how far RUN is and what it cost."""
    from treeward.export.run_folder import open_run_folder
    from treeward.export.status import describe, run_status

    found = run_status(open_run_folder(run))
    print_result(found, as_json=as_json, text=lambda: describe(found))


@treeward.command()
@click.argument("run", type=PATH)
@click.option("--critics", type=PATH, required=True, help="A folder of trained critics.")
@click.option("--device", default="cpu", help="A torch device.")
@json_option
def score(run: Path, critics: Path, device: str, as_json: bool) -> int:
    """Add critics' scores of every node to RUN, without rewriting its trees.

    The same command again scores what is new since. Exits with 4 where a node could not be scored;
    its cause is in the view `scores`. To ask about all again, remove RUN/scores/CRITIC.
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
    print_result(scoring, as_json=as_json, text=lambda: f"{run}: {scoring}")
    return scoring.exit_code


@treeward.command()
@click.argument("run", type=PATH)
@click.argument("sql")
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "arrow"]), default="table"
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    help="Seconds after which a query is stopped.",
)
@click.option("--memory", default="4GB", help="What a query may take.")
@json_option
def query(run: Path, sql: str, form: str, timeout: float, memory: str, as_json: bool) -> None:
    """Run one SQL statement that reads RUN's views: a SELECT, EXPLAIN, DESCRIBE or SHOW.

    It reaches nothing but the run, and changes nothing. It runs in a process of its own, which is
    stopped where it takes more time or memory than it may.

    Views: trees, nodes, rollouts, problems, samplers, scores.

    Macros: path_to(tree, node), subtree(tree, node), best_path(tree), siblings(tree, node),
    first_error(tree, node).
    """
    from treeward.export.query_process import query_in_process

    query_in_process(
        run,
        sql,
        "json" if as_json else form,
        StandardOutput(),
        timeout=timeout,
        memory=memory,
    )


@treeward.command()
@click.argument("run", type=PATH)
@click.argument(
    "kind", type=click.Choice(["prm", "srl", "rlvr", "sft", "critic", "preference", "rl"])
)
@click.option("--out", type=PATH, required=True, help="The dataset folder.")
@click.option(
    "--rule",
    help="The label rule (prm): any_success, posterior, threshold, ratio or soft; several with & "
    "must agree; | cut(...) says what rows keep. docs/labels.md lists all settings.  "
    "[default: any_success]",
)
@click.option(
    "--min-rollouts",
    type=click.IntRange(min=1),
    help="Rollouts without a success that make a prefix wrong (any_success).  [default: 8]",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    help="Probability from which a prefix is right or wrong (posterior).  [default: 0.6]",
)
@click.option(
    "--expert",
    type=click.Choice(["reference", "tree", "both"]),
    help="Whose steps to learn (srl, sft).  [default: reference where given, else tree]",
)
@click.option(
    "--answer-step", is_flag=True, help="Also the step that gives the answer is a target (srl)."
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.9),
    default=0.0,
    help="Share of questions for a validation split.",
)
@click.option(
    "--template",
    help="A prompt template, where the run's own is none of ours: a file, or a model's folder.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    help="How much more the chosen step must be worth than the rejected one (preference).  "
    "[default: 0.2]",
)
@click.option(
    "--test-set",
    "test_sets",
    type=PATH,
    multiple=True,
    help="A file of problems that the run's are compared with; overlaps are counted in the card.",
)
@click.option(
    "--licence",
    "licences",
    multiple=True,
    metavar="NAME=LICENCE",
    help="The licence of a model, or of `problems`, for the card.",
)
@click.option(
    "--format",
    type=click.Choice(
        ["trl", "openrlhf", "qwen-prm", "processbench", "verl", "llamafactory", "swift"]
    ),
    help="Write the columns of another trainer.  [default: our own]",
)
@json_option
def export(run: Path, kind: str, out: Path, as_json: bool, **settings: Any) -> None:
    """Write a dataset of a KIND from RUN."""
    import pyarrow as pa

    from treeward.export.dataset_spec import ExportSettings, Kind
    from treeward.export.datasets import export_dataset
    from treeward.export.run_folder import open_run_folder

    # Arrow's own allocator holds a third more, and gets from the kernel again what it gave back.
    pa.set_memory_pool(pa.system_memory_pool())
    report = export_dataset(open_run_folder(run), Kind(kind), out, ExportSettings(**settings))
    print_result(report, as_json=as_json, text=lambda: str(report))


@treeward.command()
@click.argument("run", type=PATH)
@click.option(
    "--set-aside",
    "put_away",
    is_flag=True,
    help="Move damaged parts to RUN/damaged; the same generate command grows their trees again.",
)
@json_option
def verify(run: Path, put_away: bool, as_json: bool) -> None:
    """Check RUN's checksums, row counts and invariants; exit with 5 where something is damaged."""
    from treeward.export.verify import require_sound, verify_run

    findings = verify_run(run)
    if put_away:
        from treeward.export.set_aside import set_aside

        for moved in set_aside(run, findings):
            click.echo(str(moved), err=True)
        findings = verify_run(run)
    listed = [{"level": f.level, "file": str(f.file), "message": f.message} for f in findings]
    print_result(
        listed, as_json=as_json, text=lambda: "\n".join(map(str, findings)) or f"{run}: sound"
    )
    require_sound(findings)


@treeward.command()
@click.argument("run", type=PATH)
@json_option
def compact(run: Path, as_json: bool) -> None:
    """Merge small parts of RUN into larger ones, scores' too; rows stay as they are.

    Nothing else may write to RUN meanwhile. A query that is running may have to be asked again.
    """
    from treeward.export.compact import compact as merge

    done = merge(run)
    print_result(done, as_json=as_json, text=lambda: f"{run}: {done}")


@treeward.command()
@click.option("--out", type=PATH, default=Path("runs"), help="Where runs would be written.")
@click.option("--policy", help="Base URLs of servers: also what these can do.")
@click.option("--model", help="The name that servers serve the model by.  [default: the only one]")
@json_option
def doctor(out: Path, policy: str | None, model: str | None, as_json: bool) -> None:
    """Show what this machine can run, and what to install for the rest."""
    from treeward.export.console import table
    from treeward.export.doctor import examine, examine_servers

    checks = examine(out)
    if policy is not None:
        checks += examine_servers(policy, model)
    rows = [
        ["ok" if check.ok else "--", check.name, check.finding, check.remedy or ""]
        for check in checks
    ]
    print_result(
        [asdict(check) for check in checks],
        as_json=as_json,
        text=lambda: table(["", "what", "found", "remedy"], rows, width=90),
    )


@treeward.command()
@click.option("--out", type=PATH, default=Path("demo-run"), help="Where the demo writes.")
def demo(out: Path) -> None:
    """Show the whole path on the embedded model, in about two minutes."""
    from treeward.train.demo import run_demo

    run_demo(out, Console())


treeward.add_command(generate)
treeward.add_command(label)
treeward.add_command(view)
treeward.add_command(train)
treeward.add_command(evaluations)


if __name__ == "__main__":
    main()

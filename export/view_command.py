"""The command that shows trees: in the terminal, or as a page in a file."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from treeward.export.command_line import PATH, json_option, output_errors, print_result


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--tree",
    "trees",
    multiple=True,
    metavar="ID",
    help="Which tree; given twice, the page shows both side by side.",
)
@click.option("--against", type=PATH, help="The run that the second tree is from.")
@click.option("--out", type=PATH, help="Write one self-contained HTML file.")
@click.option("--rule", help="The label rule of a tree's page.  [default: any_success]")
@click.option("--no-rollouts", is_flag=True, help="Leave the rollouts out of a tree's page.")
@click.option("--plots", type=PATH, help="Also write the run's plots into this folder, as SVG.")
@click.option("--png", is_flag=True, help="With --plots: as PNG too (extra png).")
@json_option
def view(
    run: Path,
    trees: Sequence[str],
    against: Path | None,
    out: Path | None,
    rule: str | None,
    no_rollouts: bool,
    plots: Path | None,
    png: bool,
    as_json: bool,
) -> None:
    """Show RUN, or one of its trees, on a page (--out) or in the terminal.

    Without --tree the page is of the whole run, and the terminal shows its first tree.
    """
    from treeward.export.page_run import run_data
    from treeward.export.plots import write_figures
    from treeward.export.run_folder import open_run_folder
    from treeward.export.view import write_run_page, write_tree_page

    two, tree_page = against or len(trees) > 1, trees and out is not None
    for refused, says in (
        (two and out is None, "two trees side by side need --out FILE.html"),
        (rule is not None and not tree_page, "--rule needs --tree ID and --out FILE.html"),
        (no_rollouts and not tree_page, "--no-rollouts needs --tree ID and --out FILE.html"),
        (png and plots is None, "--png needs --plots DIR"),
        (against and not trees, "--against needs --tree ID"),
    ):
        if refused:
            raise click.UsageError(says)
    folder = open_run_folder(run)
    drawn = [] if plots is None else [*write_figures(run_data(folder)[1], plots, png=png)]
    for path in drawn:
        click.echo(f"{path}", err=True)
    if out is None:
        if trees or plots is None:
            _show(run, trees[0] if trees else None, as_json=as_json)
        elif as_json:
            print_result({"plots": [str(path) for path in drawn]}, as_json=True, text=str)
        return
    if trees:
        other = None if against is None else open_run_folder(against)
        written = write_tree_page(
            folder, trees, out, against=other, rule=rule, rollouts=not no_rollouts
        )
    else:
        written = write_run_page(folder, out)
    print_result(written, as_json=as_json, text=lambda: str(written))


def _show(path: Path, tree_id: str | None, *, as_json: bool) -> None:
    """Draws a tree in the terminal."""
    from treeward.export.run_folder import open_run_folder
    from treeward.export.viewer import draw_tree, first_tree, read_nodes

    run = open_run_folder(path)
    if tree_id is None:
        tree_id, n_trees = first_tree(run)
        click.echo(f"tree {tree_id}, the first of {n_trees:,}; --tree ID shows another", err=True)
    nodes = read_nodes(run, tree_id)
    if as_json:
        print_result(nodes, as_json=True, text=str)
    else:
        with output_errors():
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")
            Console(highlight=False).print(draw_tree(nodes), end="", soft_wrap=True)

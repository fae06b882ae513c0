"""The whole path on the embedded model, told step by step to someone who sees it first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from treeward.export.console import RunProgress, table
from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.generate import generate
from treeward.export.labels import load_rule
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import RunFolder, open_run_folder
from treeward.export.truth import compare, read_trees
from treeward.export.view import write_run_page
from treeward.export.viewer import draw_tree, read_nodes
from treeward.train.demo_training import train_a_little

PROBLEMS = "task:arithmetic?n=32&seed=2026"

_INSTRUCTIVE = """
SELECT tree_id FROM nodes
GROUP BY tree_id
HAVING bool_or(oracle_prefix_correct AND is_terminal) AND count(*) BETWEEN 10 AND 40
ORDER BY count(*) FILTER (NOT oracle_prefix_correct AND NOT is_terminal) DESC, tree_id
LIMIT 1
"""
"""A tree of a size that can be read, with a right end and with wrong steps."""

QUERIES = (
    (
        "How good is a solution that has gone right so far, and one that has gone wrong?",
        "SELECT oracle_prefix_correct AS right_so_far, count(*) AS steps, avg(value) AS value\n"
        "FROM nodes WHERE depth > 0 AND NOT is_terminal GROUP BY ALL ORDER BY 1 DESC",
    ),
    (
        "Which steps lost the most? (progress: how much a step raised the chance of success)",
        "SELECT prompt, trim(step_text, chr(10)) AS step, n.n_right, n.n_rollouts, n.progress\n"
        "FROM nodes n JOIN trees USING (tree_id) WHERE NOT n.is_terminal\n"
        "ORDER BY n.progress, tree_id, node_id LIMIT 5",
    ),
)


def run_demo(out: Path, console: Console) -> None:
    """Searches, labels, queries, exports and trains, and says what it does and what came out.

    Args:
        out: Gets `run/`, `datasets/`, `training/` and `view.html`; done again, it goes on where it
            was.
        console: Where the story is told.
    """
    plan = make_plan(Options(problems=PROBLEMS))
    heading(console, "1. Search")
    console.print(
        f"{len(plan.problems)} problems such as [bold]{plan.problems[0].prompt}[/bold]: start at "
        "the first number, apply one operation after the other.\n"
        "A small language model (nano, 1 million parameters, shipped with Treeward) writes one "
        "step a line, and gets about half of them right to the end. Monte Carlo tree search asks "
        "it for steps; from every step it lets the model finish 8 times and counts how often "
        "the answer is right. Nothing is downloaded, and every token is really sampled.",
        highlight=False,
    )
    progress = RunProgress(Console(stderr=True))
    try:
        generate(plan, out / "run", concurrency=64, watch=progress)
    finally:
        progress.close()
    run = open_run_folder(out / "run")
    console.print(_searched(run), highlight=False)
    show_tree(run, console)
    show_labels(run, console)
    show_queries(run, console)
    write_datasets(run, out / "datasets", console)
    heading(console, "6. Training")
    train_a_little(out / "training", console)
    page = write_run_page(run, out / "view.html").out
    console.print(
        f"\nLook at the run and its trees in a browser: {page}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"\nGo on from here:\n"
        f"  treeward status {run.path}\n"
        f'  treeward query {run.path} "SELECT * FROM nodes LIMIT 5"\n'
        f"  treeward eval policy {out / 'training' / 'model'} 'task:arithmetic?n=50&steps=7'\n"
        f"  treeward generate PROBLEMS.jsonl --policy smollm2-135m-instruct --out runs/mine",
        highlight=False,
        soft_wrap=True,
    )


def heading(console: Console, text: str) -> None:
    """Prints a heading."""
    console.print(Text(f"\n{text}", style="bold cyan"))


def _searched(run: RunFolder) -> str:
    row = _first(
        run,
        "SELECT count(*) AS trees, sum(n_nodes) AS nodes, sum(n_rollouts) AS rollouts, "
        "sum(policy_tokens) AS tokens, avg(pass_rate) AS pass_rate FROM trees",
    )
    return (
        f"Searched {row['trees']} trees: {row['nodes']:,} steps looked at, {row['rollouts']:,} "
        f"rollouts, {row['tokens']:,} tokens. From the bare problem the model is right in "
        f"{row['pass_rate']:.0%} of its rollouts."
    )


def _first(run: RunFolder, sql: str) -> Mapping[str, Any]:
    rows: list[Mapping[str, Any]] = run_query(run, sql).to_pylist()
    return rows[0]


def show_tree(run: RunFolder, console: Console) -> None:
    """Draws one tree in which right and wrong steps can be told apart."""
    heading(console, "2. One tree")
    tree_id = _first(run, _INSTRUCTIVE)["tree_id"]
    prompt = _first(run, f"SELECT prompt FROM trees WHERE tree_id = '{tree_id}'")["prompt"]
    console.print(
        f"[bold]{prompt}[/bold]  Every line is a step the model wrote, with the share of rollouts "
        "that finish right from there: its value, with a 90 % interval.\n"
        "Green steps are right; red ones, marked x, are on a wrong path. This task knows that for "
        "certain, and the search does not look. See how the value falls at an error; where a "
        "second error happens to undo the first, it can rise again.",
        highlight=False,
    )
    console.print(draw_tree(read_nodes(run, tree_id), max_lines=24), end="", soft_wrap=True)


def show_labels(run: RunFolder, console: Console) -> None:
    """Labels every step from its rollouts and compares with what is really so."""
    heading(console, "3. Labels")
    found = compare(read_trees(run), load_rule("any_success", min_rollouts=8))
    console.print(
        "A step is labelled right if any rollout from it succeeds, and wrong from the first step "
        "with none in 8. Not one answer of the oracle is used, so it can judge the labels:\n"
        f"{found.so} steps are on a wrong path; the labels call {found.said} wrong, and "
        f"{found.said_and_so} of those really are "
        f"(precision {found.precision:.2f}, recall {found.recall:.2f}).",
        highlight=False,
    )


def show_queries(run: RunFolder, console: Console) -> None:
    """Asks two questions of the trees in SQL."""
    heading(console, "4. Queries")
    for question, sql in QUERIES:
        console.print(f"{question}", highlight=False)
        console.print(Text(sql, style="dim"))
        result = run_query(run, sql)
        rows = [list(row.values()) for row in result.to_pylist()]
        console.print(Text(table(result.column_names, rows) + "\n"), soft_wrap=True)


def write_datasets(run: RunFolder, out: Path, console: Console) -> None:
    """Writes the datasets that trainers read."""
    heading(console, "5. Datasets")
    for kind in (Kind.PRM, Kind.SRL, Kind.RLVR):
        report = export_dataset(run, kind, out / kind.value, ExportSettings())
        console.print(str(report), highlight=False)

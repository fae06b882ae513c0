"""What the page of a run shows: totals, plots and the list of its trees."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from treeward.export.plots import Figure, figures_of
from treeward.export.queries import reading
from treeward.export.run_folder import RunFolder
from treeward.export.status import RunStatus, run_status
from treeward.export.svg import short

LISTED_TREES = 20_000
EMBEDDED_NODES = 5_000
"""Nodes of the trees that a run's page holds itself, in all."""

_LIST = f"""
SELECT tree_id, problem_id, left(prompt, 400) AS prompt, n_nodes, n_rollouts, policy_tokens,
    round(pass_rate, 4) AS pass_rate, status
FROM trees ORDER BY tree_id LIMIT {LISTED_TREES}
"""


def run_data(run: RunFolder) -> tuple[dict[str, Any], Sequence[Figure]]:
    """Returns the block `page` of a run's page, and the plots.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    with reading(run) as connection:
        status = run_status(run)
        trees = connection.sql(_LIST).to_arrow_table().to_pydict()
        figures = figures_of(run, connection)
        mean = _pass_rate(connection)
    name = run.path.resolve().name
    page = {
        "kind": "run",
        "title": f"run {name}",
        "run": name,
        "says": _says(run),
        "command": f"treeward view {shlex.quote(str(run.path))}",
        "tiles": _tiles(status, mean),
        "n_trees": status.n_trees,
        "trees": trees,
        "embedded": _embedded(trees),
        "left_out": False,
    }
    return page, figures


def _embedded(trees: Mapping[str, Sequence[Any]]) -> list[str]:
    """Returns which trees the page holds itself: all where they are small enough, else none."""
    whole = 0 < sum(trees["n_nodes"]) <= EMBEDDED_NODES
    return list(trees["tree_id"]) if whole else []


def _says(run: RunFolder) -> str:
    settings = run.identity.settings
    parts = [str(sampler.policy) for sampler in run.identity.samplers[:1]]
    parts += [f"{name} {value}" for name, value in settings.items() if name.startswith("search.")]
    return ", ".join(parts)


def _pass_rate(connection: duckdb.DuckDBPyConnection) -> float | None:
    found = connection.execute("SELECT avg(pass_rate) FROM trees").fetchall()[0][0]
    return None if found is None else float(found)


def _tiles(status: RunStatus, pass_rate: float | None) -> list[tuple[str, str, str]]:
    """Returns name, value and note of what the page says first."""
    verdicts = ", ".join(f"{short(count)} {name}" for name, count in status.verdicts.items())
    a_label = status.tokens_per_label
    errors = ", ".join(f"{count:,} {kind}" for kind, count in status.errors.items())
    return [
        ("trees", f"{status.n_trees:,}", f"of {status.n_problems:,} problems"),
        ("solved", f"{status.n_solved:,}", "a right solution was found"),
        (
            "pass rate",
            "\u2013" if pass_rate is None else f"{pass_rate:.2f}".removeprefix("0"),
            "mean over problems",
        ),
        ("nodes", short(status.n_nodes), f"{short(status.n_labels)} with evidence"),
        ("rollouts", short(status.n_rollouts), verdicts or "none"),
        (
            "tokens",
            short(status.policy_tokens),
            "generated" if a_label is None else f"generated, {a_label:.0f} a label",
        ),
        *([("errors", str(sum(status.errors.values())), errors)] if errors else []),
    ]

"""The plots of a run: pass rates, labels by depth, what critics are worth, cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import duckdb

from treeward.export.durable import disk_errors
from treeward.export.label_counts import label_counts
from treeward.export.label_spec import MIN_ROLLOUTS
from treeward.export.run_folder import RunFolder
from treeward.export.svg import Share, bars, shares, short, stacked
from treeward.search.errors import BadInput

PNG_WIDTH = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Holds one plot."""

    name: str
    """Names its files."""
    title: str
    says: str
    """How to read it; plain text."""
    svg: str | None
    """None where there is nothing to plot yet: then `says` tells why."""


_PASS_RATES = """
SELECT CASE WHEN pass_rate = 0 THEN 0 WHEN pass_rate = 1 THEN 11
    ELSE least(1 + floor(10 * pass_rate), 10) END::INTEGER AS place, count(*)
FROM trees WHERE pass_rate IS NOT NULL GROUP BY place
"""
_RATES = ("0", "<.1", "<.2", "<.3", "<.4", "<.5", "<.6", "<.7", "<.8", "<.9", "<1", "1")

# Nodes of one tree share rollouts and luck: the standard error takes trees, not nodes, as
# independent (the ratio estimator of cluster sampling).
_SHARES = """
WITH said AS (
    SELECT tree_id, {said} AS said, ({so})::DOUBLE AS so, ({n})::DOUBLE AS n
    FROM nodes WHERE {said} IS NOT NULL AND {where}
), by_tree AS (
    SELECT least(floor(10 * said), 9)::INTEGER AS place, tree_id,
        sum(said * n) AS said, sum(so) AS so, sum(n) AS n
    FROM said GROUP BY ALL
), bins AS (
    SELECT place, sum(said) / sum(n) AS said, sum(so) / sum(n) AS share, sum(n) AS n,
        count(*) AS trees
    FROM by_tree GROUP BY place
)
SELECT any_value(bins.said), any_value(share),
    CASE WHEN any_value(trees) > 1
    THEN sqrt(sum((by_tree.so - share * by_tree.n) ** 2)) / any_value(bins.n) END,
    any_value(bins.n)
FROM by_tree JOIN bins USING (place) GROUP BY place ORDER BY place
"""
COUNTS = {"so": "n_right", "n": "n_rollouts", "where": "n_rollouts > 0"}
"""Right ones among the rollouts of nodes."""
TRUTH = {
    "so": "oracle_prefix_correct::INTEGER",
    "n": "1",
    "where": "oracle_prefix_correct IS NOT NULL AND depth > 0 AND NOT is_terminal",
}
"""Right ones among prefixes, where the task knows."""
ENDS = {
    "so": "(verdict = 'right')::INTEGER",
    "n": "1",
    "where": "is_terminal AND verdict IN ('right', 'wrong')",
}
"""Right ones among ends of solutions."""

_TOKENS = """
SELECT floor(2 * log2(greatest(policy_tokens, 1)))::INTEGER AS place, count(*)
FROM trees GROUP BY place
"""
_COST = "SELECT coalesce(sum(policy_tokens), 0), coalesce(sum(prompt_tokens), 0) FROM trees"


def figures_of(run: RunFolder, connection: duckdb.DuckDBPyConnection) -> list[Figure]:
    """Returns the plots of a run, on which a connection is open."""
    figures = [_pass_rates(connection), _labels(run)]
    ends = read_shares(connection, "outcome_critic", ENDS)
    truth = read_shares(connection, "value", TRUTH)
    if ends:
        figures.append(_outcome(ends))
    if truth:
        figures.append(_truth(truth))
    figures.append(_tokens(connection))
    critic = _critic(connection)
    figures.insert(len(figures) if critic.svg is None else 2, critic)
    return figures


def markup(figures: Sequence[Figure]) -> str:
    """Returns plots as HTML."""
    return "".join(
        f'<figure class="{"drawn" if figure.svg else "bare"}"><h2>{escape(figure.title)}</h2>'
        f"{figure.svg or ''}<figcaption>{escape(figure.says)}</figcaption></figure>"
        for figure in figures
    )


def write_figures(figures: Sequence[Figure], folder: Path, *, png: bool) -> list[Path]:
    """Writes plots as SVG files, and as PNG too where asked; returns the files.

    Raises:
        BadInput: PNG is asked for and the extra `png` is not installed.
        TreewardError: The folder cannot be written.
    """
    written: list[Path] = []
    with disk_errors(folder, "cannot write the plots"):
        folder.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            if figure.svg is None:
                continue
            written.append(folder / f"{figure.name}.svg")
            written[-1].write_text(figure.svg, "utf-8")
            if png:
                written.append(folder / f"{figure.name}.png")
                written[-1].write_bytes(_png(figure.svg))
    return written


def _png(svg: str) -> bytes:
    try:
        from resvg_py import svg_to_bytes
    except ImportError as e:
        raise BadInput("PNG files need the extra png: pip install 'treeward[png]'") from e
    return bytes(svg_to_bytes(svg_string=svg, width=PNG_WIDTH, background="white"))


def _pass_rates(connection: duckdb.DuckDBPyConnection) -> Figure:
    found = _pairs(connection, _PASS_RATES)
    counts = [found.get(place, 0) for place in range(len(_RATES))]
    return Figure(
        name="pass_rates",
        title="Pass rate",
        says="Share of right rollouts from the bare problem. Trees at 0 and at 1 stand apart: "
        "answers alone teach nothing there.",
        svg=bars(_RATES, counts, x="pass rate", y="trees") if found else None,
    )


def _labels(run: RunFolder) -> Figure:
    counts = label_counts(run)
    series = {name: values[1:].tolist() for name, values in counts._asdict().items()}
    depths = [str(depth) for depth in range(1, len(counts.right))]
    return Figure(
        name="labels",
        title="Labels by depth",
        says=f"By the rule any_success with {MIN_ROLLOUTS} rollouts. A path is counted up to its "
        "first step that is wrong or undecided, as a dataset keeps it.",
        svg=stacked(depths, series, x="depth", y="steps") if depths else None,
    )


def _critic(connection: duckdb.DuckDBPyConnection) -> Figure:
    points = read_shares(connection, "value_critic", COUNTS)
    title = "Critic's value against rollouts"
    if not points:
        says = "Calibration: no critic has scored this run; treeward score adds one. " + (
            "The column value is made of the rollouts themselves and cannot be checked by them."
        )
        return Figure(name="critic", title=title, says=says, svg=None)
    return Figure(
        name="critic",
        title=title,
        says=f"Calibration error {_gap(points):.3f}. Share of right rollouts among nodes that the "
        "critic gives about the same value; it means something if the critic was not trained on "
        "these trees.",
        svg=shares(points, x="value_critic", y="share of right rollouts"),
    )


def _outcome(points: Sequence[Share]) -> Figure:
    return Figure(
        name="outcome",
        title="Critic's outcome against verdicts",
        says=f"Calibration error {_gap(points):.3f}, over ends of solutions with a verdict.",
        svg=shares(points, x="outcome_critic", y="share of right solutions"),
    )


def _truth(points: Sequence[Share]) -> Figure:
    return Figure(
        name="truth",
        title="Value and the truth",
        says="Share of prefixes that the task knows to be right, by value. No calibration: a right "
        "prefix may still fail, and a wrong one come right by luck.",
        svg=shares(points, x="value", y="share of right prefixes"),
    )


def _tokens(connection: duckdb.DuckDBPyConnection) -> Figure:
    found = _pairs(connection, _TOKENS)
    policy, prompt = connection.execute(_COST).fetchall()[0]
    places = range(min(found), max(found) + 1) if found else range(0)
    labels = [short(2 ** (place / 2)) for place in places]
    counts = [found.get(place, 0) for place in places]
    return Figure(
        name="tokens",
        title="Cost of a tree",
        says=f"Tokens that the policy generated, each bar from its number on; in all {policy:,}, "
        f"beside {prompt:,} of prompts.",
        svg=bars(labels, counts, x="tokens", y="trees") if found else None,
    )


def read_shares(
    connection: duckdb.DuckDBPyConnection, said: str, what: dict[str, str]
) -> list[Share]:
    """Returns how often things were so, in tenths of what was said of them.

    Args:
        connection: On a run.
        said: A column of `nodes` in [0, 1].
        what: What it is compared with: one of `COUNTS`, `TRUTH` and `ENDS`.
    """
    rows: list[Any] = connection.execute(_SHARES.format(said=said, **what)).fetchall()
    return [Share(said=row[0], so=row[1], error=row[2], n=int(row[3])) for row in rows]


def _gap(points: Sequence[Share]) -> float:
    """Returns the mean distance between what was said and what was so."""
    total = sum(point.n for point in points)
    return sum(point.n * abs(point.said - point.so) for point in points) / total


def _pairs(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[int, int]:
    return {int(place): int(count) for place, count in connection.execute(sql).fetchall()}

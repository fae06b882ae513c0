"""Measures how fast a tree's page comes up and loaded, beside TreeQuest's page of the same tree.

    make test-browser
    .venv-browser/bin/python -m pip install 'treequest[vis]==0.3.3'
    PYTHONPATH=. .venv-browser/bin/python benchmarks/page_speed.py

Both are opened in the same Chromium, in turns. TreeQuest is given text and value of each node.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
from playwright.sync_api import Browser, sync_playwright
from tests.browser.conftest import SWITCHES
from tests.page_world import make_run, pens, sums
from treequest.vis.renderers import render_html
from treequest.vis.snapshot import EdgeSnapshot, NodeSnapshot, VisualizationSnapshot

from treeward.export.api import open_run
from treeward.export.view import write_tree_page

SIZES = ((7, 4), (60, 64), (500, 64))
"""Expansions and samples each, for at least 20, 2,000 and 20,000 nodes."""

LOADED = """() => new Promise((done) => {
    const look = () => {
        const [paint] = performance.getEntriesByName("first-contentful-paint");
        const [load] = performance.getEntriesByType("navigation");
        if (paint && load.loadEventEnd) done([paint.startTime, load.loadEventEnd]);
        else setTimeout(look, 10);
    };
    look();
})"""

# From a click until the frame after next, which shows what it did.
CLICKED = """(selector) => new Promise((done) => {
    const at = document.querySelector(selector), start = performance.now();
    at.dispatchEvent(new MouseEvent("click", {bubbles: true}));
    requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
})"""

Sides = dict[str, tuple[Path, str]]
"""Pages, and where a click chooses a node, whose panel is then shown."""


@click.command()
@click.option("--chromium", default="/usr/bin/chromium", help="The browser.")
def main(chromium: str) -> None:
    """Prints one table for each size."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(SWITCHES))
        for expansions, width in SIZES:
            nodes, sides = pages(Path(folder) / str(expansions), expansions, width)
            click.echo(f"\n{nodes:,} nodes")
            click.echo("| page | MB | first paint, ms | loaded, ms | click, ms | elements |")
            click.echo("|---|---|---|---|---|---|")
            rounds = [
                {name: measure(browser, *side) for name, side in sides.items()} for _ in "abc"
            ]
            for name, (path, _) in sides.items():
                columns = zip(*(each[name] for each in rounds), strict=True)
                paint, loaded, clicked, elements = map(median, columns)
                click.echo(
                    f"| {name} | {path.stat().st_size / 1e6:.2f} | {paint:.0f} | {loaded:.0f} | "
                    f"{clicked:.0f} | {elements:,.0f} |"
                )
        browser.close()


def pages(folder: Path, expansions: int, width: int) -> tuple[int, Sides]:
    """Grows a tree and writes both pages of it; returns its number of nodes too."""
    script = partial(sums, wide=True)
    run = make_run(
        folder / "run", script, [pens("one")], simulations=expansions, rollouts=1, width=width, c=30
    )
    write_tree_page(run, ["tree-one"], folder / "ours.html")
    nodes = open_run(run.path).sql("FROM nodes ORDER BY node_id").to_pylist()
    render_html(snapshot(nodes), str(folder / "theirs"))
    return len(nodes), {
        "treeward": (folder / "ours.html", "[role=treeitem]:nth-child(3)"),
        "treequest": (folder / "theirs.html", ".node"),
    }


def snapshot(nodes: Sequence[dict[str, Any]]) -> VisualizationSnapshot[Any]:
    """Returns what TreeQuest draws: the same nodes with their text and value; its root is -1."""
    drawn = [
        NodeSnapshot(
            id=node["node_id"] - 1,
            trial_id=None,
            parent_id=None if node["parent_id"] is None else node["parent_id"] - 1,
            depth=node["depth"],
            score=-1.0 if node["value"] is None else node["value"],
            state_repr=node["step_text"],
            action_from_parent=None,
            created_at=None,
            completed_at=None,
            status=None,
        )
        for node in nodes
    ]
    edges = [
        EdgeSnapshot(source=node.parent_id, target=node.id)
        for node in drawn
        if node.parent_id is not None
    ]
    return VisualizationSnapshot.create_with_metadata(drawn, edges, [])


def measure(browser: Browser, path: Path, place: str) -> tuple[float, float, float, float]:
    """Returns first paint, when it had loaded, a click (ms), and how many elements."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(180_000)
    page.goto(path.as_uri())
    page.wait_for_selector(place)
    paint, loaded = page.evaluate(LOADED)
    clicked = median(page.evaluate(CLICKED, place) for _ in range(4))
    elements = page.evaluate("document.querySelectorAll('*').length")
    page.close()
    return paint, loaded, clicked, elements


if __name__ == "__main__":
    main()

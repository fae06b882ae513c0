"""Pages in a real browser: they answer clicks and keys, at any size."""

import sys
from functools import partial
from pathlib import Path

import pytest
from tests.browser.conftest import Open
from tests.page_world import make_run, pens, sums

from treeward.export import page_run
from treeward.export.run_folder import RunFolder
from treeward.export.view import write_run_page, write_tree_page

SIZES = {20: (7, 4), 2_000: (60, 64), 20_000: (500, 64)}
"""Expansions, and samples each, that come to at least so many nodes."""

LOADED = """() => new Promise((done) => {
    const look = () => {
        const [paint] = performance.getEntriesByName("first-contentful-paint");
        const [load] = performance.getEntriesByType("navigation");
        if (paint && load.loadEventEnd) done([paint.startTime, load.loadEventEnd]);
        else setTimeout(look, 10);
    };
    look();
})"""

# From the click on a caret until what it opens or closes is painted.
OPENED = """() => new Promise((done) => {
    const row = document.querySelectorAll("[role=treeitem][aria-expanded]")[1];
    const id = row.id, start = performance.now();
    row.querySelector(".caret").click();
    requestAnimationFrame(() => requestAnimationFrame(() => done([
        performance.now() - start, document.getElementById(id).getAttribute("aria-expanded")])));
})"""

SCROLLED = """() => new Promise((done) => {
    const box = document.querySelector(".tree .rows"), times = [];
    let last = performance.now();
    const step = (now) => {
        times.push(now - last);
        last = now;
        box.scrollTop += 1000;
        if (times.length < 60) requestAnimationFrame(step);
        else done(times.slice(1).sort((a, b) => a - b));
    };
    requestAnimationFrame(step);
})"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two small trees."""
    path = tmp_path_factory.mktemp("runs") / "run"
    return make_run(
        path, sums, [pens("one"), pens("two")], simulations=24, rollouts=8, width=4, c=0.3
    )


@pytest.fixture(scope="module")
def tree_page(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "tree.html"
    write_tree_page(run, ["tree-one"], path)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_a_tree_of_any_size_loads_and_opens(
    show: Open, tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expansions, width = SIZES[size]
    made = make_run(
        tmp_path / "run",
        partial(sums, wide=True),
        [pens("one")],
        simulations=expansions,
        rollouts=1,
        width=width,
        c=30,
    )
    written = write_tree_page(made, ["tree-one"], tmp_path / "tree.html")
    seen = show(tmp_path / "tree.html", height=800)
    nodes = seen.run("JSON.parse(document.getElementById('tree-0').textContent).tree.n_nodes")
    assert nodes >= size
    paint, complete = seen.run(LOADED)
    seen.page.get_by_role("button", name="close all").click()
    times = []
    for expected in ("true", "false") * 4:
        taken, expanded = seen.run(OPENED)
        assert expanded == expected
        times.append(taken)
    seen.page.get_by_role("button", name="open all").click()
    frames = seen.run(SCROLLED)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{nodes:,} nodes, {written.n_bytes / 1e6:.1f} MB: first paint {paint:.0f} ms, "
            f"loaded {complete:.0f} ms, click to open {sorted(times)[4]:.0f} ms (most "
            f"{max(times):.0f}), frames while scrolling {frames[len(frames) // 2]:.0f} ms (most "
            f"{frames[-1]:.0f})\n"
        )
    # What is not on view is not in the document.
    assert seen.page.locator("[role=treeitem]").count() < 60
    seen.page.locator(".tree .rows").press("End")
    last = seen.run(
        "(() => { const t = JSON.parse(document.getElementById('tree-0').textContent);"
        "return t.nodes.step_text.at(-1).trim(); })()"
    )
    assert seen.texts("[aria-selected=true] .text") == [last]
    assert seen.complaints == []


def test_keys_walk_the_tree(show: Open, tree_page: Path) -> None:
    seen = show(tree_page)
    press = seen.page.keyboard.press

    def title() -> str:
        return seen.texts(".panel h2")[0]

    assert title() == "Problem"
    before = seen.rows()
    press("ArrowLeft")
    assert len(seen.rows()) == 1
    press("ArrowRight")
    assert seen.rows() == before
    press("ArrowDown")
    assert title() == "Step 1"
    press("ArrowUp")
    assert title() == "Problem"
    press("b")
    assert "right" in seen.texts(".panel .chips")[0]
    depth = int(title().split()[1])
    press("ArrowLeft")
    assert title() == f"Step {depth - 1}"
    press("Enter")
    assert len(seen.rows()) < len(before)
    press("Enter")
    assert len(seen.rows()) == len(before)
    press("c")
    assert len(seen.rows()) < len(before)
    press("e")
    press("End")
    assert seen.texts("[aria-selected=true] .text") == [before[-1]]
    press("?")
    assert seen.page.locator("dialog").is_visible()
    press("Escape")
    assert not seen.page.locator("dialog").is_visible()
    assert seen.complaints == []


def test_search_leaves_what_matches_and_what_leads_there(show: Open, tree_page: Path) -> None:
    seen = show(tree_page)
    everything = len(seen.rows())
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("make")
    found = seen.texts(".row.found .text")
    assert found
    assert all("make" in text for text in found)
    assert len(found) < len(seen.rows()) < everything
    hits = seen.page.locator(".hits").inner_text()
    assert hits == f"{len(found)} step{'s' * (len(found) > 1)}"
    seen.page.keyboard.press("Enter")
    assert "make" in seen.page.locator(".panel pre").first.inner_text()
    seen.page.keyboard.press("Control+a")
    seen.page.keyboard.type("nothing says this")
    assert seen.rows() == []
    assert seen.page.get_by_text("No step matches.").is_visible()
    seen.page.keyboard.press("Escape")
    assert len(seen.rows()) == everything


def test_filters_and_colours(show: Open, tree_page: Path) -> None:
    seen = show(tree_page)
    seen.page.select_option("#filter", "solved")
    assert len(seen.texts(".row .mark.right")) >= 1
    assert seen.texts(".row .mark.wrong") == []
    seen.page.select_option("#filter", "")
    shade = "getComputedStyle(document.querySelectorAll('.row .dot')[1]).backgroundColor"
    shades = set()
    for colour in ("value", "progress", "visits"):
        seen.page.select_option("#colour", colour)
        seen.texts(".row .dot")
        shades.add(seen.run(shade))
    assert len(shades) == 3
    assert seen.page.locator("#colour option[value=value_critic]").count() == 0


def test_the_address_leads_to_a_node_and_follows_it(show: Open, tree_page: Path) -> None:
    seen = show(tree_page, "node=5")
    assert seen.page.locator(".panel small").first.inner_text() == "node 5"
    seen.page.locator("[role=treeitem]").nth(1).click()
    place = seen.page.url.partition("#")[2]
    node = seen.page.locator(".panel small").first.inner_text().split()[1]
    assert place == f"node={node}"
    assert node != "5"
    seen.page.reload()
    assert seen.page.locator(".panel small").first.inner_text() == f"node {node}"


def test_replay_shows_nodes_in_the_order_in_which_they_were_made(
    show: Open, tree_page: Path
) -> None:
    seen = show(tree_page)
    slider = seen.page.get_by_label("Nodes so far")
    for until in (0, 4, 9):
        slider.fill(str(until))
        assert len(seen.rows()) == until + 1
    total = int(slider.get_attribute("max") or 0)
    seen.page.locator(".play").click()
    seen.page.get_by_text(f"{total + 1} of {total + 1} nodes").wait_for(timeout=20_000)


def test_the_panel_says_what_is_known(show: Open, tree_page: Path) -> None:
    seen = show(tree_page, "node=0")
    panel = seen.page.locator(".panel").inner_text()
    assert "of 8 rollouts right" in panel
    assert "8 rollouts from here" in panel
    assert seen.page.locator(".rollouts li").count() == 8
    seen.page.keyboard.press("f")
    assert "first error" in seen.page.locator(".panel .path").inner_text()
    step = seen.page.locator(".panel .path button").first
    text = step.locator(".text").inner_text()
    step.click()
    assert seen.page.locator(".panel pre").first.inner_text().strip() == text


def test_two_trees_stand_side_by_side(show: Open, tmp_path: Path, run: RunFolder) -> None:
    other = make_run(
        tmp_path / "other", sums, [pens("one")], simulations=9, rollouts=8, seed=77, width=4, c=0.3
    )
    write_tree_page(run, ["tree-one"], tmp_path / "both.html", against=other)
    seen = show(tmp_path / "both.html")
    assert seen.page.locator("section.tree").count() == 2
    assert 0 < len(seen.texts(".mark.only")) < len(seen.rows()) - 2
    shared = seen.page.locator("section.tree").first.locator(".row:not(:has(.only))").nth(2)
    text = shared.locator(".text").inner_text()
    shared.click()
    both = seen.texts("[aria-selected=true] .text")
    assert both == [text, text]
    assert "side=a" in seen.page.url
    assert seen.complaints == []


def test_the_page_of_a_run_lists_and_opens_trees(
    show: Open, tmp_path: Path, run: RunFolder
) -> None:
    write_run_page(run, tmp_path / "run.html")
    seen = show(tmp_path / "run.html")
    listed = seen.page.locator(".trees .rows .row .text")
    assert len(seen.texts(".trees .rows .row .text")) == 2
    assert seen.page.locator("figure svg").count() >= 3
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("two")
    assert seen.texts(".trees .rows .row .text") == [pens("two").prompt]
    listed.first.click()
    assert seen.page.locator("h1").inner_text() == pens("two").prompt
    assert "tree=tree-two" in seen.page.url
    assert len(seen.rows()) > 1
    seen.page.get_by_role("button", name="all trees").click()
    listed.first.wait_for()
    assert seen.page.locator("figure svg").count() >= 3
    assert seen.complaints == []


def test_a_tree_that_the_page_does_not_hold_comes_with_its_command(
    show: Open, tmp_path: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_run, "EMBEDDED_NODES", 10)
    assert write_run_page(run, tmp_path / "run.html").n_trees == 0
    seen = show(tmp_path / "run.html", "tree=tree-one&node=3")
    seen.page.locator(".trees .place").nth(2).click()
    said = seen.texts(".how code")
    assert said == [f"treeward view {run.path} --tree tree-two --out tree.html"]
    assert seen.complaints == []


@pytest.mark.parametrize("width", [380, 1280])
def test_nothing_sticks_out_at_the_side(
    show: Open, tree_page: Path, run: RunFolder, tmp_path: Path, width: int
) -> None:
    write_run_page(run, tmp_path / "run.html")
    for path in (tree_page, tmp_path / "run.html"):
        seen = show(path, "node=5", width=width)
        assert seen.run("document.documentElement.scrollWidth") == width


def test_dark_and_print(show: Open, tree_page: Path) -> None:
    seen = show(tree_page)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = seen.run(ground)
    seen.page.keyboard.press("d")
    dark = seen.run(ground)
    assert dark != light
    seen.page.keyboard.press("d")
    assert seen.run(ground) == light
    seen.page.emulate_media(color_scheme="dark", media="print")
    assert seen.run(ground) == "rgb(255, 255, 255)"
    assert not seen.page.locator(".time").is_visible()
    seen.run("dispatchEvent(new Event('beforeprint'))")
    total = seen.run("JSON.parse(document.getElementById('tree-0').textContent).tree.n_nodes")
    assert seen.page.locator("[role=treeitem]").count() == total

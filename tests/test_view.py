"""Pages, notebooks and plots: what a model wrote stays text, and the same run gives one page."""

import base64
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.page_world import HOSTILE, hostile, make_run, pens, sums
from tests.test_queries import make_run as make_empty_run

from treeward.export.api import open_run
from treeward.export.labels import load_rule
from treeward.export.notebook import MOST_NODES, tree_html
from treeward.export.page import SCRIPTS, as_json, make_page
from treeward.export.page_run import run_data
from treeward.export.run_folder import RunFolder
from treeward.export.view import write_run_page, write_tree_page
from treeward.export.viewer import draw_tree, read_nodes
from treeward.search.errors import BadInput
from treeward.search.problem import Problem

Command = Callable[..., Any]
SVG = "{http://www.w3.org/2000/svg}"

TRICKS = (
    *HOSTILE,
    "</SCRIPT ><script src=//x>",
    "<!--<script>",
    "]]>",
    "\u2028\u2029",
    "\u202e\u2066",
    "\x1b[2J\x00\x9b",
    "\\u003c/script\\u003e",
    "\U000e0001",
    "a\nb\tc",
    '"\\',
)


class Elements(HTMLParser):
    """Reads a page as a browser does; script elements end at the first end tag."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.comments: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += data

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def read(page: bytes) -> Elements:
    elements = Elements()
    elements.feed(page.decode("ascii"))
    elements.close()
    return elements


def blocks(page: bytes) -> dict[str, Any]:
    elements = read(page)
    return {
        str(attrs["id"]): json.loads(text)
        for (tag, attrs), text in zip(elements.tags, elements.texts, strict=True)
        if tag == "script" and "type" in attrs
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two trees; only read."""
    path = tmp_path_factory.mktemp("view") / "run"
    return make_run(
        path, sums, [pens("one"), pens("two")], simulations=9, rollouts=8, width=4, c=0.3
    )


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    problem = Problem(id="h", prompt="".join(HOSTILE), answer="7", verifier="text")
    path = tmp_path_factory.mktemp("view") / "hostile"
    return make_run(path, hostile, [problem], simulations=8, rollouts=2)


@pytest.mark.parametrize("text", TRICKS)
def test_a_block_of_data_holds_any_text_and_ends_where_it_should(text: str) -> None:
    block = as_json({text: [text]})
    assert json.loads(block) == {text: [text]}
    assert block.isascii()
    assert block.isprintable()
    assert not set("<>&") & set(block)
    page = make_page({"page": {"kind": "tree", "title": text}, "tree-0": text})
    elements = read(page)
    assert [tag for tag, _ in elements.tags].count("script") == 3
    assert elements.comments == []
    assert blocks(page) == {"page": {"kind": "tree", "title": text}, "tree-0": text}


def test_only_the_page_s_own_script_and_style_may_act(
    hostile_run: RunFolder, tmp_path: Path
) -> None:
    write_tree_page(hostile_run, ["tree-h"], tmp_path / "page.html")
    write_run_page(hostile_run, tmp_path / "run.html")
    for name in ("page.html", "run.html"):
        page = (tmp_path / name).read_bytes()
        elements = read(page)
        policies = [a["content"] for t, a in elements.tags if a.get("http-equiv")]
        assert len(policies) == 1
        policy = dict(part.split(" ", 1) for part in str(policies[0]).split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == "'none'"
        acting = [
            (tag, text)
            for (tag, attrs), text in zip(elements.tags, elements.texts, strict=True)
            if tag == "style" or (tag == "script" and "type" not in attrs)
        ]
        assert [tag for tag, _ in acting] == ["style", "script"]
        for tag, text in acting:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
        # The policy stands before all that it rules, and nothing names another place.
        assert [tag for tag, _ in elements.tags].index("style") > 3
        for _, attrs in elements.tags:
            assert not {"src", "href", "srcdoc", "style", "action"} & attrs.keys()
            assert not [name for name in attrs if name.startswith("on")]


def test_the_script_has_no_way_to_make_markup_of_text() -> None:
    for name in (*SCRIPTS, "page.css"):
        text = files("treeward.export").joinpath("web", name).read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|DOMParser|createContextual"
            r"|\beval\b|new Function|https?:|//\w+\.|@import|url\(|fetch|XMLHttp|</|<!--",
            text,
        ), name


def test_the_same_run_gives_the_same_bytes(run: RunFolder, tmp_path: Path) -> None:
    for name in "ab":
        write_tree_page(run, ["tree-one"], tmp_path / f"tree-{name}.html")
        write_run_page(run, tmp_path / f"run-{name}.html")
    open_run(run.path).view(tmp_path / "tree-b.html", "tree-one")
    open_run(run.path).view(tmp_path / "run-b.html")
    for kind in ("tree", "run"):
        one, two = ((tmp_path / f"{kind}-{name}.html").read_bytes() for name in "ab")
        assert one == two


def test_a_page_says_what_the_tables_say(run: RunFolder, tmp_path: Path) -> None:
    written = write_tree_page(run, ["tree-one"], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_bytes()
    assert written.n_bytes == len(page)
    found = blocks(page)
    view = open_run(run.path)
    rows = view.sql("FROM nodes WHERE tree_id = 'tree-one' ORDER BY pre").to_pylist()
    shown = found["tree-0"]["nodes"]
    for name in ("node_id", "parent_id", "post_end", "step_text", "n_right", "visits", "verdict"):
        assert (shown[name] or [None] * len(rows)) == [row[name] for row in rows]
    for name in ("value", "value_low", "progress", "logprob"):
        assert shown[name] == [None if r[name] is None else round(r[name], 4) for r in rows]
    assert shown["value_critic"] == []
    assert shown["label"] == load_rule("any_success").label(rows)
    drawn = view.sql("FROM rollouts WHERE tree_id = 'tree-one' ORDER BY rollout_id").to_pylist()
    for name in ("node_id", "text", "verdict", "n_tokens"):
        assert found["rollouts-0"][name] == [row[name] for row in drawn]
    write_tree_page(run, ["tree-one"], tmp_path / "less.html", rollouts=False)
    assert blocks((tmp_path / "less.html").read_bytes())["rollouts-0"]["text"] == []


def test_a_node_costs_a_few_hundred_bytes(run: RunFolder, tmp_path: Path) -> None:
    write_tree_page(run, ["tree-one"], tmp_path / "page.html", rollouts=False)
    page = (tmp_path / "page.html").read_bytes()
    shown = blocks(page)["tree-0"]
    assert len(json.dumps(shown["nodes"])) < 400 * shown["tree"]["n_nodes"]
    assert len(make_page({"page": {}})) < 80_000


def test_a_run_s_page_counts_and_lists(run: RunFolder, tmp_path: Path) -> None:
    write_run_page(run, tmp_path / "run.html")
    page = blocks((tmp_path / "run.html").read_bytes())
    assert page["page"]["trees"]["tree_id"] == ["tree-one", "tree-two"]
    assert page["page"]["embedded"] == ["tree-one", "tree-two"]
    assert {"tree-0", "tree-1", "rollouts-0", "rollouts-1"} < page.keys()
    tiles = {name: value for name, value, _ in page["page"]["tiles"]}
    assert tiles["trees"] == "2"
    nodes = open_run(run.path).sql("SELECT count(*) AS n FROM nodes").to_pylist()[0]["n"]
    assert tiles["nodes"] == str(nodes)


def test_a_run_without_trees_has_a_page(tmp_path: Path) -> None:
    made = make_empty_run(tmp_path / "run")
    page, figures = run_data(made)
    assert page["trees"]["tree_id"] == page["embedded"] == []
    assert all(figure.svg is None for figure in figures)
    write_run_page(made, tmp_path / "run.html")


def test_two_trees_of_a_problem_find_each_other(run: RunFolder, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", sums, [pens("one")], simulations=2, seed=9)
    out = tmp_path / "page.html"
    assert write_tree_page(run, ["tree-one"], out, against=other).n_trees == 2
    found = blocks(out.read_bytes())
    assert [found[f"tree-{n}"]["run"] for n in range(2)] == ["run", "other"]
    with pytest.raises(BadInput, match="no tree of problem 'two'"):
        write_tree_page(run, ["tree-two"], out, against=other)
    with pytest.raises(BadInput, match="one tree or two"):
        write_tree_page(run, ["tree-one"] * 3, out)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--tree", "nope", "--out", "{out}"), "no tree 'nope'"),
        (("--tree", "nope"), "no tree 'nope'"),
        (("--tree", "tree-one", "--out", "{folder}"), "a folder"),
        (("--tree", "tree-one", "--out", "{folder}/none/page.html"), "cannot write the page"),
        (("--tree", "tree-one", "--rule", "any", "--out", "{out}"), "any_success"),
        (("--tree", "tree-one", "--tree", "tree-two"), "--out"),
        (("--rule", "soft", "--out", "{out}"), "--rule needs --tree ID"),
        (("--rule", "soft", "--tree", "tree-one"), "--rule needs --tree ID and --out FILE.html"),
        (("--no-rollouts", "--out", "{out}"), "--no-rollouts needs --tree ID and --out FILE.html"),
        (("--no-rollouts", "--tree", "tree-one"), "--no-rollouts needs --tree ID and --out"),
        (("--png",), "--plots"),
        (("--against", "{folder}", "--out", "{out}"), "--tree"),
    ],
)
def test_what_cannot_be_shown_is_one_clear_line(
    treeward: Command, run: RunFolder, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    given = [part.format(out=tmp_path / "page.html", folder=tmp_path) for part in arguments]
    ran = treeward("view", run.path, *given)
    assert ran.code == 2
    assert says in ran.err
    assert ran.err.rstrip().splitlines()[-1].lower().startswith("error: ")
    assert "Traceback" not in ran.err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("arguments", [("--out", "{out}"), ("--tree", "tree-one"), ()])
def test_a_damaged_run_is_one_clear_line(
    treeward: Command, run: RunFolder, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    for path in (tmp_path / "run").rglob("nodes.parquet"):
        data = bytearray(path.read_bytes())
        data[4:-4096:7] = bytes(len(data[4:-4096:7]))
        path.write_bytes(data)
    given = [part.format(out=tmp_path / "page.html") for part in arguments]
    ran = treeward("view", tmp_path / "run", *given)
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.rstrip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in ran.err


def test_the_command_writes_pages_and_draws_trees(
    treeward: Command, run: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    ran = treeward("view", run.path, "--tree", "tree-one", "--out", out, "--json")
    assert json.loads(ran.out)["n_bytes"] == out.stat().st_size
    assert treeward("view", run.path, "--out", out).out == (
        f"{out}: 2 trees, {out.stat().st_size:,} bytes\n"
    )
    drawn = treeward("view", run.path)
    assert "tree-one, the first of 2" in drawn.err
    assert drawn.out == treeward("view", run.path, "--tree", "tree-one").out
    assert drawn.out == draw_tree(read_nodes(run, "tree-one")).plain


def test_a_terminal_is_shown_no_control_characters(
    treeward: Command, hostile_run: RunFolder
) -> None:
    ran = treeward("view", hostile_run.path, "--tree", "tree-h")
    assert "[31mred" in ran.out
    assert all(char == "\n" or char.isprintable() for char in ran.out)


def test_a_terminal_without_unicode_is_shown_what_it_can(hostile_run: RunFolder) -> None:
    command = [sys.executable, "-m", "treeward.cli", "view", str(hostile_run.path)]
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = subprocess.run(command, env=env, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert b"?" in ran.stdout
    assert b"Traceback" not in ran.stderr


def test_plots_are_files_too(treeward: Command, run: RunFolder, tmp_path: Path) -> None:
    ran = treeward("view", run.path, "--plots", tmp_path / "plots", "--png")
    assert ran.code == 0
    listed = treeward("view", run.path, "--plots", tmp_path / "again", "--json")
    drawn = {Path(path).name for path in json.loads(listed.out)["plots"]}
    assert drawn == {path.name for path in (tmp_path / "again").iterdir()}
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"pass_rates.svg", "labels.svg", "tokens.svg", "labels.png"} <= names
    assert "critic.svg" not in names
    ElementTree.fromstring((tmp_path / "plots" / "labels.svg").read_text())
    head = (tmp_path / "plots" / "labels.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">I", head[16:20]) == (1200,)


def test_a_notebook_shows_a_tree_without_script(run: RunFolder, hostile_run: RunFolder) -> None:
    shown = open_run(run.path).tree("tree-one")._repr_html_()
    assert "Adding" in shown
    shown = open_run(hostile_run.path).tree("tree-h")._repr_html_()
    assert "&lt;script&gt;" in shown
    elements = read(shown.encode("ascii", "ignore"))
    assert {tag for tag, _ in elements.tags} <= {"div", "b", "details", "summary", "bdi", "span"}
    assert {name for _, attrs in elements.tags for name in attrs} <= {"style", "open"}


def test_a_notebook_shows_the_most_sampled_of_a_large_tree() -> None:
    node = {"parent_id": 0, "depth": 1, "step_text": "s", "verdict": None, "n_rollouts": 0}
    nodes = [node | {"node_id": n, "pre": n, "post_end": n, "n_samples": n} for n in range(1000)]
    nodes[0] |= {"parent_id": None, "depth": 0, "post_end": 999}
    shown = tree_html("t", nodes)
    assert shown.count("<bdi>") == MOST_NODES
    assert "1,000 nodes, 200 of them shown" in shown
    assert shown.count("<details") == shown.count("</details>") == 1

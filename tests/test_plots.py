"""Plots count and draw what the tables hold."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from tests.test_queries import make_run as make_empty_run

from treeward.export.labels import Label, load_rule
from treeward.export.parts import write_part
from treeward.export.plots import COUNTS, figures_of, read_shares
from treeward.export.queries import connected
from treeward.export.svg import Share, bars, shares, stacked
from treeward.export.truth import read_trees

SVG = "{http://www.w3.org/2000/svg}"


def test_labels_by_depth_are_those_of_the_rule(
    random_part: Callable[..., Any], tmp_path: Path
) -> None:
    """Counted all at once as the rule counts one by one: what a dataset keeps of every path."""
    names = tuple(f"t{n}" for n in range(60))
    made = make_empty_run(tmp_path / "run", names)
    write_part(made.path, "w0", random_part(3, trees=names[:20]), {})
    write_part(made.path, "w1", random_part(5, trees=names[20:]), {})
    expected: dict[int, list[int]] = {}
    for nodes in read_trees(made):
        labels = load_rule("any_success").label(nodes)
        by_id = {node["node_id"]: label for node, label in zip(nodes, labels, strict=True)}
        for node in nodes:
            if node["depth"] and (node["depth"] == 1 or by_id[node["parent_id"]] is Label.RIGHT):
                place = [Label.RIGHT, Label.WRONG, None].index(by_id[node["node_id"]])
                expected.setdefault(node["depth"], [0, 0, 0])[place] += 1
    with connected(made) as connection:
        figure = next(f for f in figures_of(made, connection) if f.name == "labels")
    titles = [e.text or "" for e in ElementTree.fromstring(figure.svg or "").iter(f"{SVG}title")]
    found: dict[int, list[int]] = {}
    for title in titles:
        name, depth, count = re.split(r", |: ", title)
        place = ["right", "wrong", "undecided"].index(name)
        found.setdefault(int(depth), [0, 0, 0])[place] = int(count)
    assert found == expected


def test_a_critic_is_held_against_rollouts_by_tenths(
    random_part: Callable[..., Any], tmp_path: Path
) -> None:
    """The standard error is that of a ratio of sums over trees, worked out slowly."""
    names = tuple(f"t{n}" for n in range(40))
    made = make_empty_run(tmp_path / "run", names)
    tables = random_part(4, trees=names)
    rng = random.Random(4)
    said = [rng.choice([None, 1.0, rng.random()]) for _ in range(tables["nodes"].num_rows)]
    place = tables["nodes"].schema.get_field_index("value_critic")
    field = tables["nodes"].schema.field(place)
    tables["nodes"] = tables["nodes"].set_column(place, field, pa.array(said, field.type))
    write_part(made.path, "w0", tables, {})
    bins: dict[int, dict[str, list[float]]] = {}
    for row in tables["nodes"].to_pylist():
        if row["value_critic"] is not None and row["n_rollouts"]:
            tenth = min(int(10 * row["value_critic"]), 9)
            tally = bins.setdefault(tenth, {}).setdefault(row["tree_id"], [0.0, 0.0, 0.0])
            tally[0] += row["value_critic"] * row["n_rollouts"]
            tally[1] += row["n_right"]
            tally[2] += row["n_rollouts"]
    with connected(made) as connection:
        found = read_shares(connection, "value_critic", COUNTS)
        figures = {figure.name: figure for figure in figures_of(made, connection)}
    assert len(found) == len(bins) == 10
    for tenth, share in enumerate(found):
        total = [sum(column) for column in zip(*bins[tenth].values(), strict=True)]
        so = total[1] / total[2]
        spread = sum((k - so * n) ** 2 for _, k, n in bins[tenth].values())
        assert share.said == pytest.approx(total[0] / total[2])
        assert share.so == pytest.approx(so)
        assert share.error == pytest.approx(spread**0.5 / total[2])
        assert share.n == total[2]
    gap = sum(s.n * abs(s.said - s.so) for s in found) / sum(s.n for s in found)
    assert f"Calibration error {gap:.3f}." in figures["critic"].says
    assert (figures["critic"].svg or "").count("<circle") == 10


def test_plots_draw_what_they_are_given() -> None:
    drawing = ElementTree.fromstring(
        stacked("ab", {"right": [3, 0], "wrong": [1, 4]}, x="x", y="<")
    )
    boxes = [e for e in drawing.iter(f"{SVG}rect") if e.find(f"{SVG}title") is not None]
    heights = {e[0].text: float(e.attrib["height"]) for e in boxes}
    assert heights.keys() == {"right, a: 3", "wrong, a: 1", "wrong, b: 4"}
    assert heights["wrong, b: 4"] == pytest.approx(4 * heights["wrong, a: 1"], abs=0.2)
    points = [Share(said=0.5, so=0.25, error=None, n=4), Share(said=1.0, so=1.0, error=0.1, n=16)]
    drawing = ElementTree.fromstring(shares(points, x="x", y="y"))
    circles = [(float(e.attrib["cx"]), float(e.attrib["cy"])) for e in drawing.iter(f"{SVG}circle")]
    (x1, y1), (x2, y2) = circles
    assert x1 < x2
    assert y2 < y1
    assert len([e for e in drawing.iter(f"{SVG}path") if e.get("class") == "whisker"]) == 1
    assert ElementTree.fromstring(bars([], [], x="x", y="y")) is not None

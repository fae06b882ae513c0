"""Labels follow from the evidence of a tree, and from nothing else in it."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.random_trees import outcomes

from treeward.export.label_cut import cut
from treeward.export.labels import Label, load_rule
from treeward.export.tree_batch import TreeBatch
from treeward.search.errors import BadInput

Row = dict[str, Any]
R, W = Label.RIGHT, Label.WRONG


class Node:
    """A node of a hand-made tree: `k` of `n` rollouts, children, and how a solution ends here."""

    def __init__(
        self, name: str, k: int = 0, n: int = 0, *below: "Node", end: str | None = None
    ) -> None:
        self.name, self.k, self.n, self.below, self.end = name, k, n, below, end


def rows_of(root: Node) -> list[Row]:
    """The tree's rows in pre-order; node ids run against that order."""
    rows: list[Row] = []

    def add(node: Node, parent: int | None) -> None:
        row: Row = {"node_id": 100 - len(rows), "parent_id": parent, "pre": len(rows)}
        row |= {"n_right": node.k, "n_rollouts": node.n, "verdict": node.end, "name": node.name}
        row |= {"n_taken": 1, "beyond": outcomes(node.k, node.n), "logprob": -0.1}
        rows.append(row)
        for child in node.below:
            add(child, row["node_id"])
        row["post_end"] = len(rows) - 1

    add(root, None)
    return rows


def labels_of(root: Node, min_rollouts: int = 8) -> dict[str, Label | None]:
    rows = rows_of(root)
    labels = load_rule("any_success", min_rollouts=min_rollouts).label(rows)
    return {row["name"]: label for row, label in zip(rows, labels, strict=True)}


def test_a_tree_worked_out_by_hand() -> None:
    """Each line says why its label is what it is."""
    tree = Node(
        *("root", 1, 20),
        Node(
            *("a", 0, 8),  # right: no success of its own in 8, but one below, at a2
            Node("a1", 0, 8, Node("a11", 0, 0)),  # wrong: 0 of 8; below it all is wrong
            Node("a2", 1, 8, Node("a21", end="wrong"), Node("a22", 0, 7)),
        ),
        Node("b", 0, 7, Node("b1", 0, 99), Node("b2", end="wrong")),  # undecided: 0 of 7
        Node("c", 0, 0, Node("c1", 0, 0, Node("c11", end="right"))),  # right: by its end alone
        Node("d", 0, 0, Node("d1", end="unknown")),  # undecided: an unknown end says nothing
        Node("e", end="wrong"),  # wrong: a wrong end needs no rollouts
    )
    expected = dict.fromkeys(["root", "a", "a2", "c", "c1", "c11"], R)
    expected |= dict.fromkeys(["a1", "a11", "a21", "e"], W)
    # What follows an undecided step is undecided: b1 and b2 too.
    undecided = dict.fromkeys(["a22", "b", "b1", "b2", "d", "d1"])
    assert labels_of(tree) == expected | undecided


def test_min_rollouts_is_where_failing_begins_to_count() -> None:
    tree = Node("root", 0, 0, Node("a", 0, 3))
    assert labels_of(tree, min_rollouts=3)["a"] is W
    assert labels_of(tree, min_rollouts=4)["a"] is None


def test_a_bare_problem_is_no_wrong_step() -> None:
    """Where nothing succeeded, the first step is the first that can be wrong."""
    tree = Node("root", 0, 50, Node("a", 0, 8, Node("b", 0, 8)), Node("c", 0, 2))
    assert labels_of(tree) == {"root": None, "a": W, "b": W, "c": None}


def test_a_dataset_keeps_right_steps_and_the_first_wrong_one() -> None:
    tree = Node(
        *("root", 1, 8),
        Node("a", 1, 8, Node("b", 0, 8, Node("c", 0, 8)), Node("d", 0, 2)),
    )
    rows = rows_of(tree)
    rule = load_rule("any_success", min_rollouts=8)
    batch = TreeBatch.of_rows(rows, rule.reads)
    kept = cut(batch, rule.judge_all(batch).sign_N, rule.spec.cut.values)
    assert [row["name"] for row, keep in zip(rows, kept.step_N, strict=True) if keep] == ["a", "b"]
    assert [rows[end]["name"] for end in kept.end_R] == ["b"]


@st.composite
def trees(draw: st.DrawFn) -> Node:
    """Trees of up to 15 nodes with any evidence; names are unique."""
    size = draw(st.integers(1, 15))
    parents = [draw(st.integers(0, node - 1)) for node in range(1, size)]

    def build(node: int) -> Node:
        below = [build(at) for at, parent in enumerate(parents, start=1) if parent == node]
        ends = None if below else draw(st.sampled_from([None, "right", "wrong", "unknown"]))
        n = 0 if ends else draw(st.sampled_from([0, 4, 8, 12]))
        k = draw(st.sampled_from([0, 0, 0, n]))
        return Node(str(node), k, n, *below, end=ends)

    return build(0)


@given(trees())
def test_labels_agree_with_the_rule_read_slowly(tree: Node) -> None:
    expected: dict[str, Label | None] = {}

    def success(node: Node) -> bool:
        return node.k > 0 or node.end == "right" or any(success(child) for child in node.below)

    def walk(node: Node, above: Label | None) -> None:
        """Labels a node from the label of the step above; the question counts as right."""
        expected[node.name] = above
        if above is R:
            failed = W if node.n >= 8 or node.end == "wrong" else None
            expected[node.name] = R if success(node) else failed
        for child in node.below:
            walk(child, R if node is tree else expected[node.name])

    walk(tree, R)
    expected[tree.name] = R if success(tree) else None
    assert labels_of(tree) == expected


@given(trees(), st.randoms(use_true_random=False))
def test_ids_and_the_order_of_siblings_change_nothing(tree: Node, random: Any) -> None:
    def shuffled(node: Node) -> Node:
        below = [shuffled(child) for child in node.below]
        random.shuffle(below)
        return Node(node.name, node.k, node.n, *below, end=node.end)

    assert labels_of(shuffled(tree)) == labels_of(tree)
    rows = rows_of(tree)
    ids = random.sample(range(1000), len(rows))
    named = {row["node_id"]: new for row, new in zip(rows, ids, strict=True)} | {None: None}
    renamed = [
        row | {"node_id": named[row["node_id"]], "parent_id": named[row["parent_id"]]}
        for row in rows
    ]
    rule = load_rule("any_success", min_rollouts=8)
    assert rule.label(renamed) == rule.label(rows)


@given(trees(), st.data())
def test_another_success_never_turns_right_into_wrong(tree: Node, data: st.DataObject) -> None:
    """And it makes its own prefix right, whatever was said before."""
    nodes = [tree]
    for node in nodes:
        nodes += node.below
    before = labels_of(tree)
    inner = [node for node in nodes if not node.end]
    assume(inner)
    lucky = data.draw(st.sampled_from(inner))
    lucky.k, lucky.n = lucky.k + 1, lucky.n + 1
    after = labels_of(tree)
    assert after[lucky.name] is R
    assert all(after[name] is R for name, label in before.items() if label is R)


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'any_success'"):
        load_rule("any_succes", min_rollouts=8)
    with pytest.raises(BadInput, match="min_rollouts must be at least 1, got 0"):
        load_rule("any_success", min_rollouts=0)


def test_the_posterior_rule_calls_what_is_clear_and_leaves_the_rest() -> None:
    """a is clear, its child b is not, so c below b stays undecided; d has failed too often."""
    tree = Node(
        *("root", 8, 10),
        Node("a", 9, 10, Node("b", 1, 4, Node("c", 0, 3))),
        Node("d", 0, 30, Node("e", 0, 30)),
    )
    rows = rows_of(tree)
    rule = load_rule("posterior", confidence=0.8)
    labels, chances = rule.judge(rows)
    found = dict(zip([row["name"] for row in rows], labels, strict=True))
    assert found == {"root": R, "a": R, "b": None, "c": None, "d": W, "e": W}
    assert chances is not None
    assert [bool(chance >= 0.8) for chance in chances] == [label is R for label in found.values()]


def test_the_posterior_rule_learns_from_the_run_and_says_what() -> None:
    """Where wrong ends show that luck is common, the same evidence says less."""
    lucky = Node("root", 9, 10, *(Node(f"s{i}", 3, 24, Node("e", end="wrong")) for i in range(4)))
    strict = Node("root", 9, 10, *(Node(f"s{i}", 0, 24, Node("e", end="wrong")) for i in range(4)))
    asked = Node("root", 9, 10, Node("x", 1, 3))
    rules = [load_rule("posterior", trees=[rows_of(tree)] * 50) for tree in (lucky, strict)]
    chances = []
    for rule in rules:
        said = rule.judge(rows_of(asked)).chances
        assert said is not None
        chances.append(said[1])
    assert chances[0] < chances[1]
    assert "50 trees" in rules[0].says


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "posterior", "min_rollouts": 4}, "is for any_success"),
        ({"name": "any_success", "confidence": 0.9}, "is for posterior"),
        ({"name": "posterior", "confidence": 0.5}, "must be in"),
    ],
)
def test_settings_of_another_rule_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        load_rule(**wrong)

"""What is said of all nodes at once is what the rules say of one after another."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from tests.plain_beliefs import beliefs, chances_of
from tests.plain_rules import PLAIN, chances, parents_of, path_to, rows_kept
from tests.random_trees import outcomes, random_tree

from treeward.export import label_beliefs
from treeward.export.label_beliefs import learned_prior, right_chances
from treeward.export.label_cut import count_steps, cut
from treeward.export.labels import Label, load_rule
from treeward.export.schema import NODES
from treeward.export.tree_batch import TreeBatch
from treeward.search.error_grid import learn_prior, prior
from treeward.search.errors import DamagedData

Row = dict[str, Any]

COLUMNS = (
    *("node_id", "pre", "post_end", "n_right", "n_rollouts", "n_taken", "beyond"),
    *("verdict", "logprob", "value", "value_low", "value_high"),
)


def forest(seed: int, size: int = 60) -> list[list[Row]]:
    rng = np.random.default_rng(seed)
    return [random_tree(rng, deep=float(rng.random())) for _ in range(size)]


def batch_of(trees: list[list[Row]]) -> TreeBatch:
    return TreeBatch.of_rows([row for tree in trees for row in tree], COLUMNS)


@pytest.mark.parametrize("text", PLAIN)
def test_a_batch_is_labelled_as_its_trees_are_one_by_one(text: str) -> None:
    trees = forest(1)
    rule = load_rule(text, trees=trees)
    said = rule.judge_all(batch_of(trees))
    expected = [sign for tree in trees for sign in PLAIN[text](tree, trees)]
    # Roots are no steps: what a rule says of them is its own affair.
    steps = [row["parent_id"] is not None for tree in trees for row in tree]
    found = said.sign_N.tolist()
    assert [s for s, step in zip(found, steps, strict=True) if step] == [
        s for s, step in zip(expected, steps, strict=True) if step
    ]
    assert {-1, 0, 1} == {sign for sign, step in zip(found, steps, strict=True) if step}


def test_probabilities_are_the_model_s() -> None:
    trees = forest(2)
    said = load_rule("posterior", trees=trees).judge_all(batch_of(trees))
    assert said.chance_N is not None
    expected = [chance for tree in trees for chance in chances(tree, trees)]
    assert said.chance_N.tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("together", [1, 7, 20])
def test_of_a_long_run_every_fourth_tree_is_learned_from(
    monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """However its trees come; a tree that was passed over is labelled as any other."""
    monkeypatch.setattr(label_beliefs, "MOST_TREES", 8)
    trees = forest(3, size=20)
    batches = [batch_of(trees[at : at + together]) for at in range(0, len(trees), together)]
    learned_G, n_trees = learned_prior(batches)
    evidence = [beliefs(tree, prior())[0].evidence() for tree in trees[::4]]
    assert n_trees == 5
    assert learned_G == pytest.approx(learn_prior(np.array(evidence)), abs=1e-6)
    chances = right_chances(batch_of(trees), learned_G, n_trees)
    assert ((chances >= 0) & (chances <= 1)).all()


def test_a_tree_is_no_witness_for_itself() -> None:
    """What a run of one tree says is what that tree says; others like it add to it."""
    tree = max(forest(2), key=lambda rows: sum(row["n_rollouts"] for row in rows))
    said = load_rule("posterior", trees=[tree]).judge_all(batch_of([tree]))
    assert said.chance_N is not None
    alone = chances_of(tree, prior())
    assert said.chance_N.tolist() == pytest.approx(alone, abs=1e-3)
    twice = load_rule("posterior", trees=[tree] * 8).judge_all(batch_of([tree]))
    assert twice.chance_N is not None
    assert np.abs(twice.chance_N - alone).max() > 0.01


def test_a_step_without_an_outcome_is_undecided_unless_a_wrong_one_is_before_it() -> None:
    """A chain of three, right by the first or wrong; nothing is known of the last two."""
    trees = [chain(0), chain(16)]
    said = load_rule("posterior", trees=trees * 8).judge_all(batch_of(trees))
    assert said.chance_N is not None
    assert said.chance_N[5] > 0.6
    assert said.sign_N.tolist() == [1, -1, -1, -1, 1, 1, 0, 0]


def chain(k: int) -> list[Row]:
    """A root, which 16 of 16 rollouts leave right, and three steps; k of 16 do the first."""
    right, known = [16, k, 0, 0], [16, 16, 0, 0]
    return [
        {
            **dict.fromkeys(COLUMNS),
            "node_id": node,
            "parent_id": node - 1 if node else None,
            "pre": node,
            "post_end": 3,
            "n_right": right[node],
            "n_rollouts": known[node],
            "n_taken": 1,
            "beyond": outcomes(right[node], known[node]),
            "logprob": -0.5,
        }
        for node in range(4)
    ]


def test_a_step_just_at_the_ratio_is_right() -> None:
    """4 of n is .8 of 5 of n for every n, also where the quotient of floats comes out below."""
    for n in range(5, 41):
        rows = [
            {**dict.fromkeys(COLUMNS), "node_id": at, "parent_id": at - 1 if at else None}
            | {"pre": at, "post_end": 1, "n_right": 5 - at, "n_rollouts": n}
            for at in range(2)
        ]
        assert load_rule("ratio").label(rows) == [None, Label.RIGHT], n
        assert load_rule("ratio(at=0.801)").label(rows) == [None, Label.WRONG], n


def test_what_is_learned_does_not_depend_on_how_trees_are_handed_over() -> None:
    trees = forest(3)
    one = load_rule("posterior", trees=trees)
    many = load_rule("posterior", trees=[batch_of(trees[:7]), batch_of(trees[7:])])
    batch = batch_of(trees)
    first, second = one.judge_all(batch).chance_N, many.judge_all(batch).chance_N
    assert first is not None
    assert second is not None
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("undecided", ["end", "mask"])
@pytest.mark.parametrize("wrong", ["end", "mask", "keep"])
@pytest.mark.parametrize("text", ["any_success", "soft", "any_success & threshold(at=0.3)"])
def test_rows_keep_what_the_cut_says_and_every_step_is_counted_once(
    text: str, wrong: str, undecided: str
) -> None:
    trees = forest(4)
    batch = batch_of(trees)
    rule = load_rule(f"{text} | cut(wrong={wrong}, undecided={undecided})")
    values = rule.spec.cut.values
    assert values == {"wrong": wrong, "undecided": undecided}
    said = rule.judge_all(batch)
    kept = cut(batch, said.sign_N, values)
    expected, start, learnt, in_rows = [], 0, set(), set()
    for tree in trees:
        signs = said.sign_N[start : start + len(tree)].tolist()
        for path, flags in rows_kept(tree, signs, values):
            at = [start + row for row in path]
            expected.append(at)
            in_rows |= {*at}
            learnt |= {row for row, flag in zip(at, flags, strict=True) if flag}
        start += len(tree)
    offsets, rows = batch.paths(kept.end_R)
    assert [part.tolist() for part in np.split(rows, offsets[1:-1])] == expected
    assert set(np.flatnonzero(kept.step_N)) == in_rows
    assert set(np.flatnonzero(kept.learn_N)) == learnt
    inside, outside = count_steps(batch, said.sign_N, kept, values, said.causes)
    steps = sum(len(tree) - 1 for tree in trees)
    assert inside.total() == len(in_rows)
    assert inside.total() + outside.total() == steps
    assert inside["steps right"] + inside["steps wrong"] == len(learnt)


def test_what_each_part_drops_is_counted_where_a_path_first_ends() -> None:
    trees = forest(5)
    batch = batch_of(trees)
    rule = load_rule("any_success & threshold(at=0.3)")
    said = rule.judge_all(batch)
    kept = cut(batch, said.sign_N, rule.spec.cut.values)
    _, outside = count_steps(batch, said.sign_N, kept, rule.spec.cut.values, said.causes)
    expected, start = Counter[str](), 0
    one, other = (PLAIN["any_success & threshold(at=0.3)"], PLAIN["threshold(at=0.3)"])
    for tree in trees:
        both, second = one(tree, trees), other(tree, trees)
        first = load_rule("any_success").label(tree)
        parents = parents_of(tree)
        for at in range(1, len(tree)):
            above = path_to(parents, parents[at])
            ended = next((step for step in above if both[step] != 1), None)
            if ended is not None:
                why = "below a wrong one" if both[ended] == -1 else "below an undecided one"
            elif both[at] != 0:
                continue
            elif first[at] is None:
                why = "undecided by any_success@1(min_rollouts=8)"
            elif second[at] == 0:
                why = "undecided by threshold@1(of=value, at=0.3, by=mean, min_rollouts=1)"
            else:
                why = "labelled differently by the parts of the rule"
            expected[f"steps {why}"] += 1
        start += len(tree)
    assert outside == expected
    assert len(outside) == 5


def test_the_structure_follows_from_the_intervals() -> None:
    trees = forest(6)
    batch = batch_of(trees)
    start = 0
    for tree in trees:
        parents = parents_of(tree)
        assert batch.parent_N[start : start + len(tree)].tolist() == [
            -1 if parent < 0 else start + parent for parent in parents
        ]
        depths = [len(path_to(parents, at)) for at in range(len(tree))]
        assert batch.depth_N[start : start + len(tree)].tolist() == depths
        start += len(tree)
    pieces = list(batch.pieces(100, np.full(batch.size, 2)))
    assert sum(piece.size for piece in pieces) == batch.size
    assert all(piece.size < 50 + 40 for piece in pieces)
    assert len(pieces) > 3


@pytest.mark.parametrize(
    ("pre", "post_end"),
    [
        ([1], [1]),  # no root
        ([0, 2], [1, 2]),  # a row is missing
        ([0, 1], [0, 1]),  # a step outside its tree
        ([0, 1], [2, 1]),  # the tree goes on behind the table
        ([0, 1, 2, 3, 4], [4, 3, 4, 3, 4]),  # intervals that cross
        ([0, 1, 0], [2, 1, 0]),  # a tree that reaches into the next
        ([0, 1], [1, 0]),  # an end before its start
    ],
)
def test_intervals_of_no_trees_are_refused(pre: list[int], post_end: list[int]) -> None:
    rows = [{"pre": a, "post_end": b} for a, b in zip(pre, post_end, strict=True)]
    with pytest.raises(DamagedData, match="not those of whole trees"):
        TreeBatch.of_rows(rows, ("pre", "post_end"))


@pytest.mark.parametrize(
    ("node", "changed"),
    [
        (1, {"n_taken": -1}),
        (0, {"verdict": "wrong"}),
        (1, {"beyond": [{"parent": -2, "logprob": None, "n_taken": 1, "right": True}]}),
        (1, {"beyond": [{"parent": 0, "logprob": None, "n_taken": 1, "right": True}]}),
        (1, {"beyond": [{"parent": -1, "logprob": None, "n_taken": -5, "right": True}]}),
    ],
)
def test_beliefs_about_what_no_solutions_leave_are_refused(node: int, changed: Row) -> None:
    rows = chain(8)
    rows[node] |= changed
    with pytest.raises(DamagedData, match="not those of solutions"):
        load_rule("posterior", trees=[rows])


def test_the_end_of_a_solution_is_all_that_is_said_there() -> None:
    """Where ids alone do not tell an end from a step that goes on, a node can be both."""
    plain, odd = chain(8), chain(8)
    for rows in (plain, odd):
        rows[2] |= {"verdict": "wrong", "post_end": 3}
    odd[3] |= {"beyond": outcomes(3, 3)}
    rule = load_rule("posterior")
    expected = chances(odd, [odd])
    found = load_rule("posterior", trees=[odd]).judge(odd).chances
    assert found == pytest.approx(expected, abs=1e-9)
    first, second = rule.judge(plain).chances, rule.judge(odd).chances
    assert first is not None
    assert second is not None
    assert first[:3] == pytest.approx(second[:3], abs=1e-12)


def test_no_trees_have_no_labels() -> None:
    nothing = TreeBatch.of(NODES.empty_table())
    for text in PLAIN:
        rule = load_rule(text)
        said = rule.judge_all(nothing)
        assert len(said.sign_N) == 0
        assert len(cut(nothing, said.sign_N, rule.spec.cut.values).end_R) == 0

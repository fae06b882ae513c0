"""Monte Carlo tree search: a golden tree, the score's formula, and what holds for any policy."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.worlds import (
    RIGHT,
    UNKNOWN,
    WRONG,
    World,
    check_values,
    completion,
    drawn,
    drive,
    new_tree,
    text,
)

from treeward.search.mcts import mcts
from treeward.search.open_nodes import OpenNodes
from treeward.search.phases import back_up
from treeward.search.replies import Failure, Reply
from treeward.search.requests import Kind, Request
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.tree_policy import Score, puct, select, uct

SAMPLES = {
    "": [completion("a"), completion("b"), completion("a"), completion("a")],
    "a": [completion("c"), completion("d", RIGHT), completion("c"), completion("e", WRONG)],
    "ac": [completion("f", RIGHT)] * 4,
    "b": [completion("g", UNKNOWN), completion("h"), completion("h"), completion("h")],
}
ROLLOUTS = {
    "": [RIGHT, WRONG],
    "a": [RIGHT, RIGHT],
    "b": [WRONG, WRONG],
    "ac": [RIGHT, UNKNOWN],
    "bh": [UNKNOWN, UNKNOWN],
}


def by_hand(request: Request) -> Reply:
    place = text(request.prefix_ids)
    if request.kind is Kind.SAMPLE:
        return Reply(tuple(SAMPLES[place]))
    return Reply(tuple(completion("r", reason) for reason in ROLLOUTS[place]))


def test_a_golden_tree() -> None:
    """Four expansions, one at a time, worked out by hand.

    The root is worth 1/2. Its expansion makes a (3 of 4 samples, worth 1) and b (1 of 4, worth 0).
    a scores 1 + .75 * sqrt(3) / 2 = 1.65 and b 0 + .25 * sqrt(3) / 2 = .22: a is expanded. Of its
    children c is worth 1 (the unknown rollout does not count), d ends right, e ends wrong; d and e
    are closed. Now a has 4 visits and q 3/4 and scores .75 + .75 * sqrt(6) / 5 = 1.12 against
    .25 * sqrt(6) / 2 = .31 of b, so c is expanded, and all of a is closed. What is left for the
    fourth expansion is b; nobody knows what its children are worth, so they get no visits.
    """
    tree = new_tree()
    search = SearchSettings(simulations=4, width=4, rollouts=2, wave=1)
    batches = drive(mcts(tree, search), by_hand)
    expanded = [text(r.prefix_ids) for batch in batches for r in batch if r.kind is Kind.SAMPLE]
    assert expanded == ["", "a", "ac", "b"]
    assert drawn(tree) == "\n".join(
        [
            "root     x0 visits 7 q 0.64",
            "  a      x3 visits 5 q 0.80",
            "    c    x2 visits 2 q 1.00",
            "      f  x4 visits 1 q 1.00 right",
            "    d    x1 visits 1 q 1.00 right",
            "    e    x1 visits 1 q 0.00 wrong",
            "  b      x1 visits 1 q 0.00",
            "    g    x1 visits 0 q ? unknown",
            "    h    x3 visits 0 q ?",
        ]
    )


def family(*children: tuple[int, int, float]) -> Tree:
    """A root and its children, each with samples, visits and the sum of values."""
    tree = new_tree()
    back_up(tree, {ROOT: 0.5})
    for token, (samples, visits, value_sum) in enumerate(children):
        node = ROOT
        for _ in range(samples):
            node = tree.add_step(ROOT, (token,), creation=Creation.SAMPLED, finish=Finish.STEP)
        for _ in range(visits):
            back_up(tree, {node: value_sum / visits})
    return tree


families = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 6), st.floats(0, 1)).map(
        lambda child: (child[0], child[1], child[2] * child[1])
    ),
    min_size=1,
    max_size=4,
)


def pick(score: Score, tree: Tree, c: float = 1.0) -> int:
    """The root's child with the highest score."""
    nodes = tree.nodes
    visits = nodes.visits[ROOT]
    mean = nodes.value_sum[ROOT] / visits
    return score(nodes, nodes.children[ROOT], nodes.n_samples_below[ROOT], visits, mean, c)


@given(families, st.floats(0, 3), st.sampled_from([puct, uct]))
def test_the_score_is_puct_or_uct(
    children: list[tuple[int, int, float]], c: float, score: Score
) -> None:
    tree = family(*children)
    total_visits = 1 + sum(visits for _, visits, _ in children)
    total_value = 0.5 + sum(value for *_, value in children)
    expected = []
    for samples, visits, value_sum in children:
        q = value_sum / visits if visits else total_value / total_visits
        prior = samples / sum(samples for samples, *_ in children)
        by_puct = c * prior * math.sqrt(total_visits) / (1 + visits)
        by_uct = c * math.sqrt(math.log(total_visits) / max(visits, 1))
        expected.append(q + (by_puct if score is puct else by_uct))
    chosen = pick(score, tree, c)
    assert expected[chosen - 1] == pytest.approx(max(expected))


def test_what_visits_take_from_the_prior_by_hand() -> None:
    """Of 4 visits, 0 and 3: q + c / 2 * 2 / (1 + n) is mean + c and .9 + c / 4, and mean is .8."""
    tree = family((1, 0, 0.0), (1, 3, 2.7))
    assert pick(puct, tree, 0.12) == 2
    assert pick(puct, tree, 0.15) == 1


def test_of_equal_scores_the_first_is_taken() -> None:
    tree = family((1, 1, 0.5), (1, 1, 0.5))
    assert pick(puct, tree) == 1
    assert pick(uct, tree) == 1


def test_a_child_without_visits_has_its_parents_value() -> None:
    # The root: one visit of .5 and three of the child beside it.
    for elsewhere, chosen in ((0.4, 1), (0.6, 2)):
        tree = family((1, 0, 0.0), (1, 3, 3 * elsewhere))
        for score in (puct, uct):
            assert pick(score, tree, 0.0) == chosen


def test_uct_is_blind_to_how_often_the_policy_drew_a_step() -> None:
    tree = family((1, 2, 1.0), (5, 3, 1.5))
    # Equal means. PUCT: 1/6 / 3 against 5/6 / 4; UCT: fewer visits win.
    assert pick(puct, tree) == 2
    assert pick(uct, tree) == 1


def two_pairs() -> tuple[Tree, OpenNodes]:
    """Two children with two each; all leaves are ready."""
    tree = family((1, 1, 0.6), (1, 1, 0.5))
    for parent, token in ((1, 7), (1, 8), (2, 7), (2, 8)):
        tree.add_step(parent, (token,), creation=Creation.SAMPLED, finish=Finish.STEP)
    open_nodes = OpenNodes()
    open_nodes.offer(tree, [3, 4, 5, 6])
    return tree, open_nodes


def chosen_of(taken: Sequence[int], width: int) -> list[int]:
    tree, open_nodes = two_pairs()
    for node in taken:
        open_nodes.take(tree, node)
    visits = list(tree.nodes.visits)
    chosen = select(tree, open_nodes, width=width, score=puct, c=0.01)
    assert tree.nodes.visits == visits, "selection leaves no trace"
    return chosen


def test_pending_visits_send_a_wave_to_other_subtrees() -> None:
    assert chosen_of([], 1) == [3]
    # Once node 1 has a pending visit it is worth .6 / 2 for now, less than the .5 of node 2.
    assert chosen_of([], 2) == [3, 5]
    assert sorted(chosen_of([], 9)) == [3, 4, 5, 6]
    assert chosen_of([3, 4, 5], 9) == [6]
    assert chosen_of([3, 4, 5, 6], 9) == []


def test_what_is_chosen_is_not_chosen_again_until_it_is_offered() -> None:
    tree, open_nodes = two_pairs()
    assert sorted(select(tree, open_nodes, width=4, score=puct, c=0.01)) == [3, 4, 5, 6]
    assert not open_nodes.is_open(ROOT)
    open_nodes.offer(tree, [5, ROOT])
    assert select(tree, open_nodes, width=9, score=puct, c=0.01) == [ROOT, 5]


searches = st.builds(
    SearchSettings,
    simulations=st.integers(1, 20),
    width=st.integers(1, 4),
    rollouts=st.integers(1, 3),
    wave=st.integers(1, 6),
    max_depth=st.integers(1, 4),
    c=st.sampled_from([0.0, 1.0, 5.0]),
)
worlds = st.builds(World, st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]))


@settings(max_examples=200)
@given(worlds, searches)
def test_what_holds_for_every_search(world: World, search: SearchSettings) -> None:
    tree = new_tree()
    batches = drive(mcts(tree, search), world)
    expansions = [batch for batch in batches if batch[0].kind is Kind.SAMPLE]
    leaves = [request.node for batch in expansions for request in batch]
    nodes = tree.nodes

    # Every node is expanded once at most, and none below which nothing can follow.
    assert len(set(leaves)) == len(leaves) <= search.simulations
    assert all(len(batch) <= search.wave for batch in expansions)
    assert not any(tree.is_terminal(leaf) for leaf in leaves)
    assert all(nodes.depth[leaf] < search.max_depth for leaf in leaves)
    # It stops early only where nothing is left.
    is_open = [
        not tree.is_terminal(node) and nodes.depth[node] < search.max_depth and node not in leaves
        for node in range(len(tree))
    ]
    assert len(leaves) == search.simulations or not any(is_open)

    # Every sample counts on one node; a failed call is kept where it failed.
    for leaf in leaves:
        family = nodes.children[leaf]
        failed = nodes.failure[leaf] is not None
        assert sum(nodes.n_samples[child] for child in family) == (0 if failed else search.width)
        assert tree.drawn[leaf, "sample", 0] == search.width
    steps = [(nodes.parent[node], nodes.step_ids[node]) for node in range(1, len(tree))]
    assert len(set(steps)) == len(steps)

    # Every inner node has its rollouts, those of a failed call unknown.
    counts = Counter(tree.rollouts.node)
    for node in range(len(tree)):
        assert counts[node] == (0 if tree.is_terminal(node) else search.rollouts)
    check_values(tree)


def test_failures_are_data_and_the_search_goes_on() -> None:
    def reply(request: Request) -> Reply:
        if text(request.prefix_ids) == "a":
            return Reply(failure=Failure("timeout", f"{request.kind} late"))
        return by_hand(request)

    tree = new_tree()
    drive(mcts(tree, SearchSettings(simulations=3, width=4, rollouts=2, wave=1)), reply)
    a, b = tree.nodes.children[ROOT]
    assert tree.nodes.failure[a] == Failure("timeout", "sample late")
    assert not tree.nodes.children[a]
    late = [f for n, f in zip(tree.rollouts.node, tree.rollouts.failure, strict=True) if n == a]
    assert late == [Failure("timeout", "rollout late")] * 2
    assert tree.nodes.visits[a] == 0
    assert tree.nodes.children[b]


@pytest.mark.parametrize("wave", [1, 3])
def test_a_search_ends_when_all_is_closed(wave: int) -> None:
    def reply(request: Request) -> Reply:
        return Reply(tuple(completion(step, RIGHT) for step in "ab"))

    tree = new_tree()
    batches = drive(mcts(tree, SearchSettings(simulations=99, width=2, wave=wave)), reply)
    assert len(batches) == 2, "rollouts at the root, then its expansion"


def test_the_same_replies_grow_the_same_tree() -> None:
    trees = [new_tree(), new_tree()]
    asked: Sequence[list[list[Request]]] = [
        drive(mcts(tree, SearchSettings()), World(3, 0.1)) for tree in trees
    ]
    assert trees[0] == trees[1]
    assert asked[0] == asked[1]

"""AB-MCTS-A: a golden tree, what its arms have seen, and what holds for any policy."""

import math
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.worlds import (
    RIGHT,
    WRONG,
    World,
    check_values,
    completion,
    drawn,
    drive,
    new_tree,
    text,
)

from treeward.search.adaptive import Pending, adaptive, arms, choose, seeded
from treeward.search.algorithms import METHODS
from treeward.search.phases import back_up
from treeward.search.replies import Failure, Reply
from treeward.search.requests import Kind, Request
from treeward.search.settings import Algorithm, NoSettings, SearchSettings
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement


class Means:
    """Draws the mean of every posterior."""

    def beta(self, a: float, b: float) -> float:
        return a / (a + b)


def means(problem_id: str, choice: int) -> Means:
    return Means()


SAMPLES = {
    "": [completion("a"), completion("b"), completion("b")],
    "a": [completion("c"), completion("d", WRONG)],
    "b": [completion("e"), completion("f", RIGHT)],
}
ROLLOUTS = {"": [RIGHT, WRONG], "a": [WRONG, WRONG], "b": [RIGHT, RIGHT], "be": [RIGHT, WRONG]}


def by_hand(request: Request) -> Reply:
    place = text(request.prefix_ids)
    if request.kind is Kind.SAMPLE:
        return Reply(tuple(SAMPLES[place][request.first : request.first + request.n]))
    return Reply(tuple(completion("r", reason) for reason in ROLLOUTS[place]))


def test_a_golden_tree() -> None:
    """Five choices, one at a time; every draw is the mean (1/2 + sum) / (1 + n).

    1. Nothing is below the root: wider. a is made and worth 0.
    2. wider .5/2 = .25, deeper .5/1 = .5: deeper, to a, where nothing is below: wider. But let this
       sample fail: nothing is learned, and so
    3. again: c is not made, d is (the first sample is lost); d ends wrong, worth 0.
    4. At the root wider .25, deeper (0 of 1) .25: among equals wider. b is made and worth 1.
    5. wider (1 of 2) .5, deeper .25: wider. b again: the sample counts and asks for no rollouts.
    """
    failed: list[Request] = []

    def reply(request: Request) -> Reply:
        if request.kind is Kind.SAMPLE and text(request.prefix_ids) == "a" and not failed:
            failed.append(request)
            return Reply(failure=Failure("timeout", "late"))
        return by_hand(request)

    tree = new_tree()
    search = SearchSettings(simulations=5, width=1, rollouts=2, wave=1)
    batches = drive(adaptive(tree, search, means), reply)
    expanded = [text(r.prefix_ids) for batch in batches for r in batch if r.kind is Kind.SAMPLE]
    assert expanded == ["", "a", "a", "", ""]
    assert drawn(tree) == "\n".join(
        [
            "root     x0 visits 4 q 0.38",
            "  a      x1 visits 2 q 0.00",
            "    d    x1 visits 1 q 0.00 wrong",
            "  b      x2 visits 1 q 1.00",
        ]
    )
    assert tree.nodes.failure[1] == Failure("timeout", "late"), "kept where a later one succeeds"
    assert Counter(tree.rollouts.node) == {0: 2, 1: 2, 3: 2}


def grown(*children: tuple[int, float | None, list[float]]) -> Tree:
    """A root and its children, each with samples, its own worth and what its children are worth."""
    tree = new_tree()
    back_up(tree, {ROOT: 0.5})
    for token, (samples, worth, below) in enumerate(children):
        node = ROOT
        for _ in range(samples):
            node = tree.add_step(ROOT, (token,), creation=Creation.SAMPLED, finish=Finish.STEP)
        back_up(tree, {} if worth is None else {node: worth})
        for at, value in enumerate(below):
            made = tree.add_step(node, (at,), creation=Creation.SAMPLED, finish=Finish.STEP)
            back_up(tree, {made: value})
    return tree


units = st.floats(0, 1)
children = st.lists(
    st.tuples(st.integers(1, 5), st.none() | units, st.lists(units, max_size=4)), max_size=4
)


@given(children)
def test_samples_are_what_wider_has_seen_and_all_below_them_deeper(
    family: list[tuple[int, float | None, list[float]]],
) -> None:
    wider, deeper = arms(grown(*family), ROOT)
    own = [(samples, worth) for samples, worth, _ in family if worth is not None]
    assert wider.n == sum(samples for samples, _ in own)
    assert wider.total == pytest.approx(sum(samples * worth for samples, worth in own))
    assert deeper.n == sum(len(below) for *_, below in family)
    assert deeper.total == pytest.approx(sum(sum(below) for *_, below in family))


def test_it_goes_wider_as_often_as_wider_is_better() -> None:
    """Wider has seen 1 of 1, Beta(3/2, 1/2); deeper 1 of 2 (0 and 1), Beta(3/2, 3/2).

    With x = (1 - cos t) / 2 their density and distribution are (1 - cos t) dt / pi and
    (t - sin t cos t) / pi, and the integral of the product over t from 0 to pi is
    1/2 + (2 + 2/3) / pi^2 = .770.

    The share of 4000 choices has a standard error of .0067: it is off by five of them by chance
    once in two million.
    """
    tree = grown((1, 1.0, [0.0, 1.0]))
    chances = seeded(0)
    wider = sum(choose(tree, 9, Pending(), chances("p", i)) == ROOT for i in range(4000)) / 4000
    assert wider == pytest.approx(1 / 2 + 8 / (3 * math.pi**2), abs=0.034)


def test_choices_under_way_count_as_worth_nothing() -> None:
    """Wider .75 (1 of 1), deeper .5; the node with one choice under way has .5 (1 of 2): a tie.

    With two it has (1/2 + 1) / (1 + 3) = .375, and the search goes deeper, where it is .5.
    """
    tree = grown((1, 1.0, []))
    pending = Pending()
    chosen = []
    for _ in range(5):
        chosen.append(choose(tree, 9, pending, Means()))
        pending.add(tree, chosen[-1])
    # Then deeper has one under way, (1/2 + 0) / 2 = .25, against .375 of wider; and so on.
    assert chosen == [0, 0, 1, 0, 0]
    assert sum(tree.nodes.visits) == 3, "choosing leaves no trace"


def test_what_cannot_be_continued_is_not_chosen() -> None:
    tree = grown((1, 1.0, [1.0] * 9), (1, 1.0, [1.0] * 9))
    tree.nodes.judgement[1] = Judgement(RIGHT)
    second = tree.nodes.children[ROOT][1]
    assert choose(tree, 2, Pending(), Means()) == second
    assert choose(tree, 1, Pending(), Means()) == ROOT


def test_chances_are_those_of_a_run_a_problem_and_a_choice() -> None:
    places = [(run, problem, at) for run in (0, 1) for problem in ("p", "q") for at in (0, 1)]
    draws = {place: seeded(place[0])(*place[1:]).beta(0.5, 0.5) for place in places}
    assert len(set(draws.values())) == len(places)
    again = {place: seeded(place[0])(*place[1:]).beta(0.5, 0.5) for place in reversed(places)}
    assert again == draws


searches = st.builds(
    SearchSettings,
    simulations=st.integers(1, 20),
    width=st.integers(1, 3),
    rollouts=st.integers(1, 3),
    wave=st.integers(1, 6),
    max_depth=st.integers(1, 4),
)
worlds = st.builds(World, st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]))


@settings(max_examples=200)
@given(worlds, searches, st.integers(0, 99))
def test_what_holds_for_every_search(world: World, search: SearchSettings, seed: int) -> None:
    tree = new_tree()
    batches = drive(adaptive(tree, search, seeded(seed)), world)
    nodes = tree.nodes
    expansions = [batch for batch in batches if batch[0].kind is Kind.SAMPLE]
    asked = Counter[int]()
    for batch in expansions:
        assert sum(request.n for request in batch) <= search.wave * search.width
        assert len({request.node for request in batch}) == len(batch), "one request a node"
        for request in batch:
            assert request.first == asked[request.node], "no sample is drawn twice"
            asked[request.node] += request.n

    # All expansions are spent, and never where nothing can follow.
    assert sum(asked.values()) == search.simulations * search.width
    assert not any(tree.is_terminal(node) for node in asked)
    assert all(nodes.depth[node] < search.max_depth for node in asked)
    if not world.failing:
        made = {n: sum(nodes.n_samples[c] for c in nodes.children[n]) for n in range(len(tree))}
        assert made == {node: asked[node] for node in range(len(tree))}

    rolled = Counter(tree.rollouts.node)
    for node in range(len(tree)):
        assert rolled[node] == (0 if tree.is_terminal(node) else search.rollouts)
    check_values(tree)
    most = METHODS[Algorithm.ADAPTIVE].bounds(search, NoSettings())
    assert len(tree) <= most.nodes
    assert sum(asked.values()) <= most.samples
    assert len(tree.rollouts.node) <= most.rollouts
    assert sum(map(len, batches)) <= most.calls


def shape(reply: Callable[[Request], Reply]) -> tuple[int, int]:
    """How many children the root gets, and how deep the tree."""
    search = SearchSettings(simulations=40, width=1, rollouts=1, wave=1)
    tree = new_tree()
    drive(adaptive(tree, search, seeded(1)), reply)
    return len(tree.nodes.children[ROOT]), max(tree.nodes.depth)


def test_it_goes_wide_where_samples_are_good_and_deep_where_continuing_is() -> None:
    """First steps are worth w, what comes below d: (w, d) = (.95, .05) and (.05, .95)."""

    def world(first: float, below: float) -> Callable[[Request], Reply]:
        def reply(request: Request) -> Reply:
            at = range(request.first, request.first + request.n)
            if request.kind is Kind.SAMPLE:
                return Reply(tuple(completion(chr(300 + i)) for i in at))
            good = first if len(text(request.prefix_ids)) == 1 else below
            right = hash(request.prefix_ids) % 100 < 100 * good
            return Reply((completion("r", RIGHT if right else WRONG),))

        return reply

    wide, deep = shape(world(0.95, 0.05)), shape(world(0.05, 0.95))
    assert wide[0] > 2 * deep[0]
    assert wide[1] < deep[1]


def test_the_same_replies_grow_the_same_tree() -> None:
    trees = [new_tree(), new_tree()]
    asked = [drive(adaptive(tree, SearchSettings(), seeded(3)), World(3, 0.1)) for tree in trees]
    assert trees[0] == trees[1]
    assert asked[0] == asked[1]
    other = new_tree()
    drive(adaptive(other, SearchSettings(), seeded(4)), World(3, 0.1))
    assert other != trees[0], "the run's seed counts"


def test_a_wave_spreads_over_children_that_are_worth_the_same() -> None:
    """Both children have 2 of 3, .625; with a choice under way below it the first has .5."""
    tree = grown((1, 0.0, [1.0, 1.0]), (1, 0.0, [1.0, 1.0]))
    first, second = tree.nodes.children[ROOT]
    pending = Pending()
    assert choose(tree, 9, pending, Means()) == first
    pending.add(tree, first)
    assert choose(tree, 9, pending, Means()) == second

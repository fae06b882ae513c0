"""What `mcts` can be told beside: widths that adapt, groups, the frontier, a backup with a sign."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treeward.search.algorithms import check_guides
from treeward.search.critic import Scores
from treeward.search.errors import BadInput
from treeward.search.frontier import back_up_signed, frontier_score, select_frontier
from treeward.search.groups import Groups, edit_distance, within_distance
from treeward.search.mcts import Notes, keep, mcts
from treeward.search.mcts_settings import Backup, MctsSettings, Selection, TreePolicy
from treeward.search.open_nodes import OpenNodes
from treeward.search.phases import Judged, back_up
from treeward.search.problem import Problem
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Growth, Kind, Request
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.tree_policy import puct, select
from treeward.search.verdicts import Judgement, Reason
from treeward.search.width import Opinions, allowed, deviation, importance

RIGHT, WRONG, UNKNOWN = Reason.MATCH, Reason.MISMATCH, Reason.CHECKER_LIMIT
FRONTIER = Selection.FRONTIER


def completion(step: str, reason: Reason | None = None) -> Completion:
    return Completion(
        token_ids=tuple(step.encode()),
        logprob=-1.0,
        finish=Finish.STEP if reason is None else Finish.END,
        seed=0,
        judgement=None if reason is None else Judgement(reason),
    )


def new_tree() -> Tree:
    return Tree(Problem(id="p", prompt="?"))


def grow(growth: Growth, reply: Callable[[Request], Reply]) -> list[Request]:
    """Grows a tree to the end; returns the requests for samples."""
    asked = []
    requests = next(growth, None)
    while requests is not None:
        asked += [request for request in requests if request.kind is Kind.SAMPLE]
        try:
            requests = growth.send([reply(request) for request in requests])
        except StopIteration:
            requests = None
    return asked


def add(tree: Tree, parent: int, step: str, times: int = 1) -> int:
    node = parent
    for _ in range(times):
        node = tree.add_step(
            parent, tuple(step.encode()), creation=Creation.SAMPLED, finish=Finish.STEP
        )
    return node


# The width: floor(alpha I) + 1 between c_min and c_max.


@pytest.mark.parametrize(
    ("worth", "alpha", "width"),
    [
        (0.0, None, 2),  # floor(9 * 0) + 1 = 1, and at least 2
        (0.125, None, 2),  # floor(1.125) + 1
        (0.25, None, 3),  # floor(2.25) + 1
        (0.5, None, 5),  # floor(4.5) + 1
        (1.0, None, 10),  # all of c_max
        (1.5, None, 10),  # with standard deviations added; never more
        (None, None, 2),  # nobody knows
        (0.5, 4.0, 3),
        (1.0, 40.0, 10),
        (0.0, 1.0, 2),  # the published alpha: 1, and so c_min,
        (0.999, 1.0, 2),  # whatever the values are,
        (1.0, 1.0, 2),  # up to a difference of 1, which comes to 2
    ],
)
def test_the_width_by_hand(worth: float | None, alpha: float | None, width: int) -> None:
    own = MctsSettings(width_max=10, width_alpha=alpha)
    assert allowed(worth, own, node=1, least=2) == width


def test_the_root_may_have_a_width_of_its_own() -> None:
    own = MctsSettings(width_max=10, width_max_root=60)
    assert allowed(0.5, own, node=ROOT, least=2) == 30  # floor(59 * .5) + 1
    assert allowed(0.5, own, node=1, least=2) == 5
    assert allowed(0.5, MctsSettings(width_max=10), node=ROOT, least=2) == 5


def test_the_roots_least_width_is_its_own_too() -> None:
    """Values differ by nothing, so that all nodes come to their least: 5 at the root, else 2."""
    steps = iter("abcdefghijklmnopqrstuvwxyz")

    def reply(request: Request) -> Reply:
        if request.kind is Kind.SAMPLE:
            found = [completion(next(steps)) for _ in range(request.n)]
            if request.node == ROOT and request.first == 0:
                found[1:] = found[:1] * (request.n - 1)
            return Reply(tuple(found))
        return Reply((completion("r", RIGHT), completion("r", WRONG)))

    tree = new_tree()
    search = SearchSettings(simulations=4, width=2, rollouts=2, wave=1)
    own = MctsSettings(width_max=3, width_root=5, width_max_root=9)
    asked = grow(mcts(tree, search, own=own), reply)
    assert [request.n for request in asked if request.node == ROOT] == [5, 2, 2]
    assert len(tree.nodes.children[ROOT]) == 5, "one of five was new at first"


def test_importance_is_the_largest_difference_to_the_node() -> None:
    tree = new_tree()
    children = [add(tree, ROOT, step) for step in "abc"]
    opinions = Opinions({ROOT: 0.5, 1: 0.75, 2: 0.125})
    assert importance(tree, opinions, ROOT, 0.0) == 0.375, "b; of c nobody knows"
    assert importance(tree, Opinions({1: 0.0}), ROOT, 0.0) is None
    assert importance(tree, Opinions({ROOT: 0.5}), ROOT, 0.0) is None
    # Jeffreys after 6 of 8 has a mean of 6.5 / 9 and a variance of mean (1 - mean) / 10.
    opinions.weight[children[0]] = 8
    sd = (6.5 / 9 * 2.5 / 9 / 10) ** 0.5
    assert deviation(opinions, children[0]) == pytest.approx(sd)
    assert deviation(opinions, children[1]) == 0.0, "exact"
    assert importance(tree, opinions, ROOT, 2.0) == pytest.approx(0.25 + 2 * sd)


def test_a_choice_that_matters_is_asked_for_more_and_one_that_does_not_is_left() -> None:
    """The root's children are worth 0 and 1 of its .5: floor(5 * .5) + 1 = 3 of up to 6.

    Then a third comes and the difference stays. Below, all are worth what their parent is.
    """
    steps = iter("abcdefghijklmnopqrstuvwxyz")

    def reply(request: Request) -> Reply:
        place = bytes(request.prefix_ids).decode()
        if request.kind is Kind.SAMPLE:
            return Reply(tuple(completion(next(steps)) for _ in range(request.n)))
        right = {"": 1, "a": 0, "b": 2, "c": 2}.get(place[:1], 0)
        return Reply(tuple(completion("r", RIGHT if i < right else WRONG) for i in range(2)))

    tree = new_tree()
    search = SearchSettings(simulations=5, width=2, rollouts=2, wave=1)
    asked = grow(mcts(tree, search, own=MctsSettings(width_max=6)), reply)
    at_root = [(request.first, request.n) for request in asked if request.node == ROOT]
    assert at_root == [(0, 2), (2, 1)], "the index goes on counting"
    others = [request.node for request in asked if request.node != ROOT]
    assert len(set(others)) == len(others) == 3
    assert {request.n for request in asked if request.node != ROOT} == {2}


def test_a_node_whose_samples_bring_nothing_new_is_not_asked_again() -> None:
    def reply(request: Request) -> Reply:
        if request.kind is Kind.SAMPLE:
            ends = (completion("a", RIGHT), completion("b", WRONG))
            return Reply(tuple(ends[i % 2] for i in range(request.n)))
        return Reply((completion("r", RIGHT), completion("r", WRONG)))

    tree = new_tree()
    search = SearchSettings(simulations=9, width=2, rollouts=2, wave=1)
    asked = grow(mcts(tree, search, own=MctsSettings(width_max=7)), reply)
    # floor(6 * .5) + 1 = 4 are allowed, 2 are there, 2 more are the same.
    assert [request.n for request in asked] == [2, 2]
    assert tree.nodes.n_samples[1:] == [2, 2]


# Groups.


def by_table(one: Sequence[int], two: Sequence[int]) -> int:
    """The textbook's table of edit distances."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, start=1):
        above, row = row, [i]
        for j, b in enumerate(two, start=1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (a != b)))
    return row[-1]


tokens = st.lists(st.integers(0, 3), max_size=90)


@given(tokens, tokens)
def test_the_edit_distance_is_the_textbooks(one: list[int], two: list[int]) -> None:
    assert edit_distance(one, two) == by_table(one, two)
    assert edit_distance(two, one) == edit_distance(one, two)


def test_a_child_joins_the_first_group_whose_founder_is_near() -> None:
    tree = new_tree()
    steps = ["12*3=36", "40-4=36", "12*3=35", "40-4=3", "12*30=5", "x"]
    children = [add(tree, ROOT, step) for step in steps]
    groups = Groups(within_distance(1 / 7))
    # "12*30=5" is one edit from "12*3=35" and two from its founder.
    assert groups.add(tree, ROOT, children[:3]) == 2
    assert groups.add(tree, ROOT, children[3:]) == 2
    assert groups.of[ROOT] == [[1, 3], [2, 4], [5], [6]]
    assert Groups(within_distance(0.0)).add(tree, ROOT, children) == len(children)


def test_a_group_is_one_arm() -> None:
    """At c = 0: a1 has q 1, b .7, a2 2/3, which is their order where each is an arm.

    a1 and a2 as one have 3 of 4 visits, .75, and are chosen twice before b: first with a1, which
    looks best, and once that is done with a2.
    """
    tree = new_tree()
    for step, samples, visits, total in (("a1", 2, 1, 1.0), ("a2", 2, 3, 2.0), ("b", 1, 2, 1.4)):
        node = add(tree, ROOT, step, samples)
        for _ in range(visits):
            back_up(tree, {node: total / visits})
    open_nodes = OpenNodes()
    open_nodes.offer(tree, [1, 2, 3])
    groups = Groups(lambda _tree, first, other: {first, other} == {1, 2})
    groups.add(tree, ROOT, [1, 2, 3])
    grouped = [
        select(tree, open_nodes, width=1, score=puct, c=0.0, groups=groups)[0] for _ in range(3)
    ]
    assert grouped == [1, 2, 3], "b has .7, a2 by itself .67: a group is judged as one"
    open_nodes.offer(tree, [1, 2, 3])
    alone = [select(tree, open_nodes, width=1, score=puct, c=0.0)[0] for _ in range(3)]
    assert alone == [1, 3, 2]


# The frontier.


def chain() -> Tree:
    """The root with a and b, and c below a."""
    tree = new_tree()
    add(tree, ROOT, "a")
    add(tree, ROOT, "bb")
    add(tree, 1, "c")
    back_up(tree, {ROOT: 0.5})
    back_up(tree, {1: 1.0, 2: 0.0})
    back_up(tree, {3: 1.0})
    return tree


def test_the_frontier_by_hand() -> None:
    """The root has 4 visits and q 2.5 / 4, a has 2 and q 1; in [-1, 1] that is .25 and 1.

    With d_T = 4: F(b) = .4 tanh(.25) + .01 sqrt(1/4) = .1030, F(c) = .4 tanh(1) + .01 sqrt(2/4)
    = .3117; with the surprise (b drew two tokens for 6 nats, c one for 1) at .2 each, b wins.
    """
    tree = chain()
    tree.nodes.logprob[2], tree.nodes.logprob[3] = -6.0, -1.0
    own = MctsSettings(selection=FRONTIER)

    def scores(own: MctsSettings) -> list[float]:
        return [frontier_score(tree, n, own=own, max_depth=4, signed={}) for n in (2, 3)]

    assert scores(own) == pytest.approx([0.1030, 0.3117], abs=1e-4)
    surprised = MctsSettings(selection=FRONTIER, frontier_entropy=0.2)
    assert scores(surprised) == pytest.approx([0.7030, 0.5117], abs=1e-4)
    for settings_, expected in ((own, [3, 2]), (surprised, [2, 3])):
        open_nodes = OpenNodes()
        open_nodes.offer(tree, [2, 3])
        chosen = select_frontier(tree, open_nodes, width=2, own=settings_, max_depth=4, signed={})
        assert chosen == expected
        assert not open_nodes.is_open(ROOT)


def test_the_backup_with_a_sign_by_hand() -> None:
    """A path of four steps; gamma is .1 (the root), 1/4, 1/2, 3/4 and 1."""
    tree = new_tree()
    node = ROOT
    for step in "abcd":
        node = add(tree, node, step)
    side = add(tree, 2, "x")
    signed: dict[int, float] = {}

    def q() -> list[float]:
        return [signed.get(at, 0.0) for at in range(5)]

    back_up_signed(tree, signed, node, 0.0)
    assert q() == pytest.approx([-0.1, -0.25, -0.5, -0.75, -1.0])
    # A wrong end three steps down adds up: 1/3 and 2/3.
    back_up_signed(tree, signed, side, 0.0)
    assert q() == pytest.approx([-0.2, -0.25 - 1 / 3, -0.5 - 2 / 3, -0.75, -1.0])
    # A right one wipes that out above it,
    back_up_signed(tree, signed, side, 1.0)
    assert q() == pytest.approx([0.1, 1 / 3, 2 / 3, -0.75, -1.0])
    # adds to itself, at half the weight where rollouts say .75,
    back_up_signed(tree, signed, side, 0.75)
    assert q() == pytest.approx([0.15, 0.5, 1.0, -0.75, -1.0])
    # and no failure lowers it again.
    back_up_signed(tree, signed, node, 0.0)
    assert q() == pytest.approx([0.15, 0.5, 1.0, -1.5, -2.0])
    assert frontier_score(
        tree,
        node,
        own=MctsSettings(selection=FRONTIER, backup=Backup.SIGNED, frontier_value=1.0),
        max_depth=4,
        signed=signed,
    ) == pytest.approx(-0.9051 + 0.01, abs=1e-4), "tanh(-1.5), at the deepest"


# What holds for all of them.


class World:
    """A random policy of steps that are near each other; replies depend on the request alone."""

    def __init__(self, seed: int, failing: float) -> None:
        self.seed = seed
        self.failing = failing

    def __call__(self, request: Request) -> Reply:
        key = (self.seed, request.kind, request.prefix_ids)
        if random.Random(repr((key, request.first))).random() < self.failing:
            return Reply(failure=Failure("timeout", "late"))
        drawn = []
        for index in range(request.first, request.first + request.n):
            rng = random.Random(repr((key, index)))
            step = rng.choice(["aaaa", "aaab", "bbbb", "cccc", "dddd"])
            ends = request.kind is Kind.ROLLOUT or rng.random() < 0.2
            drawn.append(
                completion(step, rng.choice([RIGHT, WRONG, UNKNOWN])) if ends else completion(step)
            )
        return Reply(tuple(drawn))


worlds = st.builds(World, st.integers(0, 10**6), st.sampled_from([0.0, 0.0, 0.3]))
searches = st.builds(
    SearchSettings,
    simulations=st.integers(1, 25),
    width=st.integers(1, 3),
    rollouts=st.integers(1, 4),
    wave=st.integers(1, 5),
    max_depth=st.integers(1, 4),
    c=st.sampled_from([0.0, 1.0]),
)
distances = st.sampled_from([None, 0.0, 0.25])
widths = st.sampled_from([None, 4, 8])
ways = st.one_of(
    st.builds(
        MctsSettings,
        tree_policy=st.sampled_from(TreePolicy),
        width_max=widths,
        width_root=st.sampled_from([None, 5]),
        group_distance=distances,
    ),
    st.builds(
        MctsSettings,
        selection=st.just(FRONTIER),
        backup=st.sampled_from(Backup),
        width_max=widths,
        group_distance=distances,
    ),
)


@settings(max_examples=200)
@given(worlds, searches, ways)
def test_no_sample_is_lost_and_none_is_asked_twice(
    world: World, search: SearchSettings, own: MctsSettings
) -> None:
    tree = new_tree()
    asked = grow(mcts(tree, search, own=own), world)
    assert len(asked) <= search.simulations
    paid = dict.fromkeys(range(len(tree)), 0)
    arrived = dict(paid)
    for request in asked:
        assert request.first == paid[request.node], "the index goes on counting"
        assert request.n <= (own.width_root or search.width if request.first == 0 else search.width)
        paid[request.node] += request.n
        arrived[request.node] += len(world(request).completions)
    for node in range(len(tree)):
        below = sum(tree.nodes.n_samples[child] for child in tree.nodes.children[node])
        assert below == arrived[node] == tree.nodes.n_samples_below[node]
        assert tree.drawn.get((node, "sample", 0), 0) == paid[node]
    if own.width_max is None:
        assert len({request.node for request in asked}) == len(asked), "once each"
    # A near-duplicate is a node with rollouts of its own like any other.
    for node in range(len(tree)):
        n = sum(start == node for start in tree.rollouts.node)
        assert n == (0 if tree.is_terminal(node) else search.rollouts)


@settings(max_examples=100)
@given(worlds, searches, ways)
def test_a_search_ends_early_only_where_nothing_is_left(
    world: World, search: SearchSettings, own: MctsSettings
) -> None:
    tree = new_tree()
    asked = grow(mcts(tree, search, own=own), world)
    expanded = {request.node for request in asked}
    left = [
        node
        for node in range(len(tree))
        if not tree.is_terminal(node)
        and tree.nodes.depth[node] < search.max_depth
        and node not in expanded
    ]
    assert len(asked) == search.simulations or not left


@settings(max_examples=50)
@given(worlds, searches, ways)
def test_the_same_replies_grow_the_same_tree(
    world: World, search: SearchSettings, own: MctsSettings
) -> None:
    trees = [new_tree(), new_tree()]
    asked = [grow(mcts(tree, search, own=own), world) for tree in trees]
    assert trees[0] == trees[1]
    assert asked[0] == asked[1]


def test_frontier_and_sign_leave_visits_and_means_as_they_are() -> None:
    """Whatever steers, q in the tables is the mean of the evaluations below."""
    tree = new_tree()
    own = MctsSettings(selection=FRONTIER, backup=Backup.SIGNED)
    grow(mcts(tree, SearchSettings(rollouts=2), own=own), World(5, 0.0))
    for node in range(len(tree)):
        assert 0 <= tree.nodes.value_sum[node] <= tree.nodes.visits[node]


# Settings that cannot be meant.


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"width_max": 0}, "mcts.width_max must be at least 1, got 0"),
        ({"width_max": 4, "width_alpha": -1.0}, "mcts.width_alpha must be at least 0, got -1.0"),
        ({"group_distance": 1.0}, r"mcts.group_distance must be in \[0, 1\), got 1.0"),
        ({"width_alpha": 2.0}, "mcts.width_alpha=2.0 is read only with mcts.width_max; give"),
        ({"backup": Backup.SIGNED}, "is read only with mcts.selection=frontier"),
        ({"frontier_depth": 0.5}, "is read only with mcts.selection=frontier"),
        (
            {"selection": FRONTIER, "tree_policy": TreePolicy.UCT},
            "is read only with mcts.selection=tree",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given_: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        MctsSettings(**given_)  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize("name", ["width_max", "width_max_root"])
def test_a_widest_node_is_no_narrower_than_an_expansion(name: str) -> None:
    own = replace(MctsSettings(width_max=4), **{name: 3})  # type: ignore[arg-type] # by name
    says = f"mcts.{name}=3 is below search.width=4, the samples of an expansion"
    with pytest.raises(BadInput, match=says):
        check_guides(SearchSettings(width=4), own, scored=False, fast=False)
    check_guides(SearchSettings(width=3), own, scored=False, fast=False)


def test_a_root_that_is_asked_for_more_may_come_to_as_many() -> None:
    own = MctsSettings(width_max=4, width_max_root=6, width_root=8)
    with pytest.raises(BadInput, match=r"mcts.width_max_root=6 is below mcts.width_root=8"):
        check_guides(SearchSettings(), own, scored=False, fast=False)


def test_exploration_that_a_frontier_does_not_read_is_refused() -> None:
    own = MctsSettings(selection=FRONTIER)
    with pytest.raises(BadInput, match=r"search.c=2.0 is read only with mcts.selection=tree"):
        check_guides(SearchSettings(c=2.0), own, scored=False, fast=False)


def test_a_group_has_the_samples_of_all_its_members() -> None:
    """One of three samples for a, two for the group of b and c: a prior of 1/3 against 2/3."""
    tree = new_tree()
    for step in "abc":
        add(tree, ROOT, step)
    back_up(tree, {ROOT: 0.5})
    open_nodes = OpenNodes()
    open_nodes.offer(tree, [1, 2, 3])
    groups = Groups(lambda _tree, first, other: {first, other} == {2, 3})
    groups.add(tree, ROOT, [1, 2, 3])
    assert select(tree, open_nodes, width=1, score=puct, c=1.0, groups=groups) == [2]


def test_what_critics_say_of_a_node_weighs_their_rollouts_beside_those_counted() -> None:
    tree = new_tree()
    counted, judged, silent, end = (add(tree, ROOT, step) for step in "abcd")
    tree.nodes.scores[judged] = Scores(0.25, None, None)
    tree.nodes.scores[silent] = Scores(None, None, None)
    tree.nodes.judgement[end] = Judgement(RIGHT)
    notes = Notes(
        settings=SearchSettings(critic_rollouts=4),
        own=MctsSettings(width_max=4, width_sd=1.0),
        scored=True,
        fast=None,
        groups=None,
    )
    for node in (counted, judged, silent, end):
        keep(tree, notes, Judged(node, 0.5, 2))
    assert notes.opinions.weight == {counted: 2, judged: 6, silent: 2}, "an end is exact"

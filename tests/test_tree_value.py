"""Tree evidence of trees that a person can work out."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.slow_tree_values import slow_tree_values

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import TreeValue, forest_values, tree_values
from treeward.critics.value import interval
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Completion, Failure
from treeward.search.steps import Finish
from treeward.search.tokens import byte_tokens
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason

READER = Reader(Template(name="test"), byte_tokens())


@dataclass(frozen=True)
class Plant:
    """What a node of a test tree holds."""

    right: int = 0
    wrong: int = 0
    samples: int = 1
    end: Reason | None = None
    children: tuple["Plant", ...] = ()
    creation: Creation = Creation.SAMPLED
    chance: float = math.nan
    others: float = math.nan
    """The probability of the step that all its own rollouts take."""


def end(reason: Reason, samples: int = 1) -> Plant:
    return Plant(samples=samples, end=reason)


def grown(root: Plant, order: np.random.Generator | None = None) -> Tree:
    """A tree with all of that; the order of siblings may be shuffled."""
    tree, planted, to_do = Tree(Problem(id="p", prompt="?", answer="1")), [root], [ROOT]
    for node in to_do:
        children = list(enumerate(planted[node].children))
        if order:
            order.shuffle(children)
        for name, child in children:
            made = [
                tree.add_step(
                    node,
                    tuple(f"{name}\n".encode()),
                    creation=child.creation,
                    finish=Finish.END if child.end else Finish.STEP,
                    judgement=Judgement(child.end) if child.end else None,
                    logprob=math.log(child.chance),
                )
                for _ in range(child.samples)
            ]
            to_do.append(made[0])
            planted.append(child)
    for node, plant in enumerate(planted):
        ends = [Reason.MATCH] * plant.right + [Reason.MISMATCH] * plant.wrong
        roll(tree, node, ends, chance=plant.others)
    return tree


def roll(
    tree: Tree,
    node: int,
    ends: list[Reason],
    through: str = "",
    before: int = 0,
    chance: float = math.nan,
) -> None:
    """Adds rollouts that pass a child where `through` names it, or all take one step."""
    for reason in ends:
        drawn = Completion(
            token_ids=tuple(f"{through}Answer: ?\n".encode()),
            logprob=math.log(chance),
            finish=Finish.END,
            seed=0,
            judgement=Judgement(reason),
        )
        tree.add_rollout(node, nodes_before=before or len(tree), completion=drawn)


def values(tree: Tree) -> TreeValue:
    return tree_values(tree, strict_evidence(tree, READER.cut), as_is=True)


def test_a_tree_worked_out_by_hand() -> None:
    # The root's own rollouts: 2 of 4. Three samples fell on a child with 4 of 4, one on a wrong
    # end; each weighs two rollouts:
    #     V = (2 * 3 * 1 + 2 * 1 * 0 + 2) / (2 * 4 + 4) = 8 / 12
    # Shrunk to (8 + .5) / 13 = .653846 it has a variance of .226331 for one outcome. The mean of
    # the four samples' children is .75, so
    #     between = [3 * .25^2 + 1 * .75^2 + .5 * .226331] / 4 = .215791
    #     within  = 6^2 * (4.5 * .5) / (5^2 * 4)               = .81
    # and all of one outcome's at the end, of which all is known:
    #     Var(V)  = [.215791 * (3 * 4 + 4) + .226331 * 4 + .81 + 4 * (.226331 - .215791)] / 12^2
    #             = .036182
    #     n_effective = .226331 / .036182 - 2 = 4.255
    tree = grown(
        Plant(right=2, wrong=2, children=(Plant(right=4, samples=3), end(Reason.MISMATCH)))
    )
    found = values(tree)
    assert found.value.tolist() == [pytest.approx(2 / 3), 1.0, 0.0]
    assert found.n_effective.tolist() == [pytest.approx(4.255, abs=1e-3), 4.0, np.inf]
    low, high = interval(found.value[:1] * found.n_effective[:1], found.n_effective[:1])
    assert (found.low[ROOT], found.high[ROOT]) == (low[0], high[0])


def test_steps_of_known_probability_worked_out_by_hand() -> None:
    # Three samples: two on a child of probability .5 with 4 of 4, one on a wrong end of .25; the
    # root's rollouts, 1 of 4, all take another step, of .125. So N = 7, and
    #     N (p / pi - p) = .027559, .269582, .565794
    #     a    = 2 * .027559 + .05, 2 * .269582 + .025, .565794 + .0125 = .105118, .564163, .578294
    #     V_o  = (.105118 * 1 + .578294 * .25) / 1.247575               = .200142
    #     V    = .5 * 1 + .25 * 0 + .125 * .25 + .125 V_o               = .556268
    # One outcome's variance is .247383, and .228649 at V_o, which .297141 + .565794 + .0875 draws
    # tell of; all of it lies between steps (b = 1):
    #     others = .228649 (.125 / 1.247575)^2 (4 * .297141 + .565794 + 2 * .0875^2) = .004062
    # What is left may be one step, for .5 * .027559 / 7 + .25 * .269582 / 7 + ... > .125^2:
    #     left   = .228649 * .125^2                                      = .003573
    #     child  = (.5 + .010532)^2 * .09 / 4                            = .005864
    #     alone  = (.25 + .0625 + .015625) * .247383 (.125 + .057942)^2 / 4 = .000679
    #     Var(V) = .014178, that of 17.433 rollouts: .247162 / 17.433
    children = (Plant(right=4, samples=2, chance=0.5), Plant(end=Reason.MISMATCH, chance=0.25))
    tree = grown(Plant(right=1, wrong=3, children=children, others=0.125))
    found = values(tree)
    assert found.value[ROOT] == pytest.approx(0.556268, abs=1e-6)
    assert found.n_effective[ROOT] == pytest.approx(17.433, abs=1e-3)
    # Drawn at another temperature they are as often as they are: (2 * 2 * 1 + 1) / (2 * 3 + 4).
    evidence = strict_evidence(tree, READER.cut)
    assert tree_values(tree, evidence, as_is=False).value[ROOT] == 0.5


@pytest.mark.parametrize("unknown", ["child", "rollouts"])
def test_a_probability_that_is_not_known_leaves_the_draws_to_count(unknown: str) -> None:
    children = (
        Plant(right=4, samples=2, chance=math.nan if unknown == "child" else 0.5),
        Plant(end=Reason.MISMATCH, chance=0.25),
    )
    others = math.nan if unknown == "rollouts" else 0.125
    assert values(grown(Plant(1, 3, children=children, others=others))).value[ROOT] == 0.5


def test_unlikely_steps_are_draws_like_any_others() -> None:
    plain = (Plant(right=4), Plant(wrong=2), end(Reason.MATCH))
    rare = tuple(replace(child, chance=1e-15) for child in plain)
    root = Plant(right=1, children=rare, others=1e-15)
    found, expected = values(grown(root)), values(grown(Plant(right=1, children=plain)))
    assert found.value[ROOT] == pytest.approx(expected.value[ROOT]) == pytest.approx(5 / 7)


def test_rollouts_weigh_their_next_steps_by_what_is_known_of_them() -> None:
    # A step of .9 with 1 of 1 and one of .1 with 0 of 3, whatever their number says.
    tree = grown(Plant(right=1, others=0.9))
    roll(tree, ROOT, [Reason.MISMATCH] * 3, through="x", chance=0.1)
    assert values(tree).value[ROOT] == pytest.approx(0.9)
    # One step is all that there is: then nothing is known but its outcomes.
    found, expected = (values(grown(Plant(3, 5, others=p))) for p in (1.0, math.nan))
    assert found.value[ROOT] == expected.value[ROOT] == 3 / 8
    assert found.n_effective[ROOT] == pytest.approx(8)


def test_one_rollout_that_was_heard_says_how_likely_a_step_is() -> None:
    for chances in ((0.9, math.nan), (math.nan, 0.9)):
        tree = grown(Plant(wrong=1, others=0.1))
        for chance in chances:
            roll(tree, ROOT, [Reason.MATCH], through="x", chance=chance)
        assert values(tree).value[ROOT] == pytest.approx(0.9)


def test_what_lies_below_an_end_is_nothing_to_other_trees() -> None:
    ended, other = grown(Plant(children=(end(Reason.MATCH),))), grown(Plant(3, 1, others=0.5))
    roll(ended, 1, [Reason.MISMATCH], chance=0.5)
    evidence = [strict_evidence(tree, READER.cut) for tree in (ended, other)]
    found = forest_values([ended, other], evidence, as_is=True)
    assert found.value[1:].tolist() == [1.0, *values(other).value]


def test_a_rollout_tells_its_own_node_of_the_child_that_was_made_later() -> None:
    # Of the root's 4, asked first, 2 go into the child and are right. The child has 1 of 4: for
    # itself 1/4, for the root (4 * 1/4 + 2) / (4 + 2), and its step is all that can follow.
    tree = grown(Plant(children=(Plant(right=1, wrong=3, chance=1.0),)))
    roll(tree, ROOT, [Reason.MATCH] * 2, through="0\n", before=1)
    roll(tree, ROOT, [Reason.MISMATCH] * 2, before=1, chance=1e-15)
    assert values(tree).value.tolist() == [pytest.approx(0.5), 0.25]


def test_draws_at_a_child_say_nothing_where_it_has_no_value() -> None:
    # A step was sampled at the child, of which nothing is known; of the root's rollouts, asked
    # first, 2 of 3 that go into the child are right.
    tree = grown(Plant(children=(Plant(children=(Plant(chance=0.5),), chance=1.0),)))
    roll(tree, ROOT, [Reason.MATCH, Reason.MATCH, Reason.MISMATCH], through="0\n", before=1)
    assert values(tree).value[ROOT] == pytest.approx(2 / 3)


def test_what_led_to_a_choice_speaks_for_itself() -> None:
    # The wrong rollout from which the child was cut counts as wrong at the root, though the child
    # has 3 of 3; the one that went there later counts as the child does, as its one draw.
    tree = grown(Plant(children=(Plant(right=2, creation=Creation.CHOSEN, chance=1.0),)))
    roll(tree, ROOT, [Reason.MISMATCH], through="0\n", before=1)
    assert values(tree).value.tolist() == [0.0, 1.0]
    roll(tree, ROOT, [Reason.MATCH], through="0\n")
    assert values(tree).value.tolist() == [0.5, 1.0]


@pytest.mark.parametrize("samples", [1, 4, 64])
def test_a_step_that_must_follow_is_worth_what_its_child_is(samples: int) -> None:
    found = values(grown(Plant(children=(Plant(right=7, wrong=1, samples=samples, chance=1.0),))))
    for column in ("value", "low", "high", "n_effective"):
        parent, child = getattr(found, column)
        assert parent == pytest.approx(child, rel=1e-4)


def test_without_children_it_is_strict_evidence() -> None:
    tree = grown(Plant(right=3, wrong=5))
    found = values(tree)
    low, high = interval(np.array([3.0]), np.array([8.0]))
    assert (found.value[ROOT], found.n_effective[ROOT]) == (3 / 8, pytest.approx(8))
    assert (found.low[ROOT], found.high[ROOT]) == (pytest.approx(low[0]), pytest.approx(high[0]))


def test_ends_are_exact_and_the_rest_unknown_without_evidence() -> None:
    tree = grown(Plant(children=(end(Reason.MATCH), end(Reason.LENGTH), end(Reason.NO_REFERENCE))))
    found = values(tree)
    assert found.value[1:3].tolist() == found.low[1:3].tolist() == found.high[1:3].tolist()
    assert found.value[1:3].tolist() == [1.0, 0.0]
    for column in (found.value, found.low, found.high, found.n_effective):
        assert np.isnan(column[[ROOT, 3]]).all()


def test_a_child_that_nothing_is_known_about_silences_the_samples() -> None:
    tree = grown(Plant(right=1, wrong=3, children=(Plant(right=8), Plant())))
    tree.add_rollout(2, nodes_before=3, failure=Failure("timeout", "no reply"))
    found = values(tree)
    assert found.value[:2].tolist() == [0.25, 1.0]
    assert np.isnan(found.value[2])


def test_rollouts_are_judged_by_the_child_that_they_pass() -> None:
    # Of the root's 4 rollouts, 2 pass the blind child and both are right; the child has 2 of 6 in
    # all. V = (2 * 2/6 + 1) / 4; the cut itself is one of the 4 and no draw beside them.
    tree = grown(Plant(children=(Plant(wrong=4, creation=Creation.BLIND),)))
    roll(tree, ROOT, [Reason.MATCH] * 2, through="0\n", before=1)
    roll(tree, ROOT, [Reason.MATCH, Reason.MISMATCH])
    assert values(tree).value.tolist() == [pytest.approx((2 * 2 / 6 + 1) / 4), pytest.approx(2 / 6)]


def test_what_was_chosen_is_no_draw() -> None:
    # The chosen child is hopeless; that it was made says nothing about how often it comes up. Of
    # later rollouts one passes it: V = (1 * 0/5 + 3) / 4.
    tree = grown(Plant(children=(Plant(wrong=4, creation=Creation.CHOSEN),)))
    roll(tree, ROOT, [Reason.MISMATCH], through="0\n")
    roll(tree, ROOT, [Reason.MATCH] * 3)
    assert values(tree).value.tolist() == [0.75, 0.0]


@st.composite
def plants(draw: st.DrawFn, depth: int = 3) -> Plant:
    if depth and draw(st.booleans()):
        children = tuple(draw(st.lists(plants(depth - 1), min_size=1, max_size=3)))
    else:
        children = ()
    if not children and depth < 3 and draw(st.booleans()):
        return end(draw(st.sampled_from([Reason.MATCH, Reason.MISMATCH])), draw(st.integers(1, 3)))
    right, wrong = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    shares = draw(st.lists(st.floats(1e-8, 1), min_size=5, max_size=5))
    # The last is that of the steps that nobody drew.
    known = draw(st.booleans())
    chance = [share / sum(shares) if known else math.nan for share in shares[:4]]
    children = tuple(replace(child, chance=p) for child, p in zip(children, chance, strict=False))
    return Plant(right, wrong, draw(st.integers(1, 3)), children=children, others=chance[3])


@given(plants())
def test_an_interval_holds_its_value_within_the_unit_interval(root: Plant) -> None:
    found = values(grown(root))
    known = ~np.isnan(found.value)
    low, value, high = found.low[known], found.value[known], found.high[known]
    assert ((low >= 0) & (low <= value) & (value <= high) & (high <= 1)).all()
    assert (found.n_effective[known] >= 0).all()


@given(plants(), st.integers(0, 99))
def test_the_order_of_siblings_does_not_matter(root: Plant, seed: int) -> None:
    tree, other = grown(root), grown(root, np.random.default_rng(seed))
    found, again = values(tree), values(other)
    place_of = {tree.prefix_ids(node): node for node in range(len(tree))}
    for node in range(len(other)):
        place = place_of[other.prefix_ids(node)]
        for column in ("value", "low", "high", "n_effective"):
            one, two = getattr(found, column)[place], getattr(again, column)[node]
            assert one == pytest.approx(two, rel=1e-9, abs=1e-9, nan_ok=True)


@given(plants())
def test_right_and_wrong_are_alike(root: Plant) -> None:
    turned_ends = {Reason.MATCH: Reason.MISMATCH, Reason.MISMATCH: Reason.MATCH, None: None}

    def turned(plant: Plant) -> Plant:
        return Plant(
            plant.wrong,
            plant.right,
            plant.samples,
            turned_ends[plant.end],
            tuple(turned(child) for child in plant.children),
            chance=plant.chance,
            others=plant.others,
        )

    found, mirrored = values(grown(root)), values(grown(turned(root)))
    np.testing.assert_allclose(mirrored.value, 1 - found.value, atol=1e-9)
    np.testing.assert_allclose(mirrored.low, 1 - found.high, atol=1e-6)
    np.testing.assert_allclose(mirrored.n_effective, found.n_effective, rtol=1e-6)


@given(plants(), st.sampled_from([Reason.MATCH, Reason.MISMATCH]))
def test_a_tree_without_exception_covers_the_value_without_exception(
    root: Plant, reason: Reason
) -> None:
    def uniform(plant: Plant) -> Plant:
        n = plant.right + plant.wrong
        return Plant(
            n * (reason is Reason.MATCH),
            n * (reason is Reason.MISMATCH),
            plant.samples,
            plant.end and reason,
            tuple(uniform(child) for child in plant.children),
            chance=plant.chance,
            others=plant.others,
        )

    found = values(grown(uniform(root)))
    known = ~np.isnan(found.value)
    certain = float(reason is Reason.MATCH)
    assert (found.value[known] == certain).all()
    reached = found.high if certain else found.low
    assert (reached[known] == certain).all()


def test_what_all_is_known_of_is_overruled_by_no_rollout() -> None:
    """Three ends have all the probability behind a child: .75. Six rollouts that entered it before
    it was made came to the wrong one, by chance."""
    child = Plant(
        chance=0.5,
        children=(
            Plant(end=Reason.MATCH, chance=0.5),
            Plant(end=Reason.MATCH, chance=0.25),
            Plant(end=Reason.MISMATCH, chance=0.25),
        ),
    )
    tree = grown(Plant(children=(child, Plant(end=Reason.MISMATCH, chance=0.5))))
    roll(tree, ROOT, [Reason.MISMATCH] * 6, through="0\n", before=1)
    found = values(tree)
    assert found.value[:2] == pytest.approx([0.375, 0.75])
    assert (found.low[ROOT], found.high[ROOT]) == pytest.approx((0.375, 0.375))


@pytest.mark.parametrize("share", [0.5, 0.95, 0.9995])
def test_the_more_is_known_of_a_child_the_less_rollouts_tell_that_entered_it(share: float) -> None:
    # A share of the solutions behind the child is known, of which all are right; of the rest a
    # rollout each was wrong and right. Own draws: a sample, which weighs two, and two rollouts;
    # half of all is known as well as all would be from 4 / .5^2 = 16.
    right = Plant(end=Reason.MATCH, chance=share)
    child = Plant(right=1, wrong=1, others=0.0001, chance=0.5, children=(right,))
    tree = grown(Plant(children=(child, Plant(end=Reason.MISMATCH, chance=0.5))))
    value = values(tree).value[1]
    roll(tree, ROOT, [Reason.MISMATCH] * 4, through="0\n", before=1)
    own = 4 / (1 - share) ** 2
    assert values(tree).value[ROOT] == pytest.approx(0.5 * own * value / (own + 4), rel=1e-10)


def test_a_step_that_was_picked_alone_leaves_open_what_others_are_worth() -> None:
    # The wrong step has .4; of the rest nothing is known: V = .6 / 2, Var(V) = .6^2 / 8 = .045.
    # n rollouts have (n .3 + .5) (n .7 + .5) / (n (n + 1)^2) of that: .045 for n = 4.15.
    wrong = Plant(end=Reason.MISMATCH, creation=Creation.CHOSEN, chance=0.4)
    tree = grown(Plant(children=(wrong,)))
    roll(tree, ROOT, [Reason.MISMATCH] * 3, through="0\n")
    found = values(tree)
    n = found.n_effective[ROOT]
    assert found.value[ROOT] == pytest.approx(0.3)
    assert (0.3 * n + 0.5) * (0.7 * n + 0.5) / (n * (n + 1) ** 2) == pytest.approx(0.045)
    assert found.low[ROOT] < 0.1
    assert found.high[ROOT] > 0.6


@pytest.mark.parametrize(("later", "value"), [(0, 3 / 7), (1, 3.5 / 8), (2, 4 / 9)])
def test_what_led_to_a_choice_is_not_overruled_above(later: int, value: float) -> None:
    # Six rollouts of the root entered a child, three of them right. The step behind it was chosen
    # from a wrong one, and all is known of that: .5. With n rollouts that went into it later it is
    # worth (n / 2 + 0) / (n + 1), the child as much from n + 1 draws, and the root
    #     ((n + 1) (n / 2) / (n + 1) + 3) / (n + 1 + 6) = (n / 2 + 3) / (n + 7)
    ends = (Plant(end=Reason.MATCH, chance=0.5), Plant(end=Reason.MISMATCH, chance=0.5))
    chosen = Plant(creation=Creation.CHOSEN, chance=1.0, children=ends)
    tree = grown(Plant(children=(Plant(chance=1.0, children=(chosen,)),)))
    roll(tree, ROOT, [Reason.MATCH, Reason.MISMATCH] * 3, through="0\n", before=1)
    roll(tree, 1, [Reason.MISMATCH], through="0\n", before=2)
    roll(tree, 1, [Reason.MATCH] * later, through="0\n0\n")
    assert values(tree).value[ROOT] == pytest.approx(value)


OTHERS = [Creation.BLIND, *[Creation.CHOSEN] * 2, Creation.GIVEN]


@st.composite
def crowds(draw: st.DrawFn) -> Tree:
    """A tree of all kinds of nodes, with rollouts that pass, enter and leave it."""
    tree = Tree(Problem(id="p", prompt="?", answer="1"))
    known, rng = draw(st.booleans()), draw(st.randoms(use_true_random=False))

    def chance(step: str) -> float:
        return math.nan if not known and rng.random() < 0.1 else rng.choice([0.04, 0.3, 0.9, 1.2])

    chances = {step: chance(step) for step in "abcdA"}
    verdicts = [Reason.MATCH, Reason.MISMATCH, Reason.NO_REFERENCE]
    for _ in range(draw(st.integers(1, 12))):
        inside = [node for node in range(len(tree)) if not tree.is_terminal(node)]
        node, name = rng.choice(inside), rng.choice("abcd")
        if rng.random() < 0.5:
            is_end = rng.random() < 0.3
            for _ in range(rng.randint(1, 3)):
                tree.add_step(
                    node,
                    tuple(f"{name}\n".encode()),
                    creation=rng.choice([*[Creation.SAMPLED] * 5, *OTHERS]),
                    finish=Finish.END if is_end else Finish.STEP,
                    judgement=Judgement(rng.choice(verdicts)) if is_end else None,
                    logprob=math.log(chances[name]),
                )
        steps = [*rng.choices("abcd", k=rng.randint(0, 2)), "Answer: ?"]
        logprobs = tuple(math.log(chances[step[0]]) for step in steps)
        for _ in range(rng.randint(0, 3)):
            drawn = Completion(
                token_ids=tuple("".join(f"{step}\n" for step in steps).encode()),
                logprob=sum(logprobs),
                finish=Finish.END,
                seed=0,
                judgement=Judgement(rng.choice(verdicts)),
                step_logprobs=logprobs if len(logprobs) > 1 else (),
            )
            tree.add_rollout(node, nodes_before=rng.randint(1, len(tree)), completion=drawn)
    return tree


@given(st.lists(crowds(), min_size=1, max_size=3), st.booleans())
def test_it_is_what_plain_loops_make_of_the_formulas(trees: list[Tree], as_is: bool) -> None:
    evidence = [strict_evidence(tree, READER.cut) for tree in trees]
    found = forest_values(trees, evidence, as_is=as_is)
    expected = [
        each
        for tree, told in zip(trees, evidence, strict=True)
        for each in slow_tree_values(tree, told, as_is=as_is)
    ]
    value, n_effective = np.array(expected).T
    np.testing.assert_allclose(found.value, value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.n_effective, n_effective, rtol=1e-6)
    known = ~np.isnan(value)
    assert (found.low <= found.value)[known].all()
    assert (found.value <= found.high)[known].all()
    first = tree_values(trees[0], evidence[0], as_is=as_is)
    for column in ("value", "low", "high", "n_effective"):
        alone, together = getattr(first, column), getattr(found, column)[: len(trees[0])]
        assert alone.tobytes() == together.tobytes(), "no tree minds the others"

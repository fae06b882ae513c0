"""What a tree needs: by counts, as its labels have them."""

import pytest
from tests.worlds import RIGHT, UNKNOWN, WRONG, completion, new_tree

from treeward.critics.standing import standing_of
from treeward.search.growing import absorb_rollouts
from treeward.search.replies import Reply
from treeward.search.requests import Kind, ask
from treeward.search.spending import BudgetSettings, Need, Standing
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason

SETTINGS = BudgetSettings(tokens=1)


def one_step_each(ids: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [ids]


def standing(tree: Tree, settings: BudgetSettings = SETTINGS) -> Need:
    return standing_of(tree, cut=one_step_each, settings=settings)


def step(tree: Tree, token: int, end: Reason | None = None) -> int:
    return tree.add_step(
        ROOT,
        (token,),
        creation=Creation.BLIND,
        finish=Finish.STEP if end is None else Finish.END,
        judgement=None if end is None else Judgement(end),
    )


def roll(tree: Tree, node: int, outcomes: dict[Reason, int], sampler: int = 0) -> None:
    drawn = tuple(completion("r", reason) for reason, n in outcomes.items() for _ in range(n))
    request = ask(tree, node, Kind.ROLLOUT, len(drawn), sampler_id=sampler)
    absorb_rollouts(tree, [request], [Reply(drawn)])


def test_a_bare_root_is_uncertain_whatever_is_known_of_it() -> None:
    tree = new_tree()
    assert standing(tree) == (Standing.UNCERTAIN, 1)
    roll(tree, ROOT, {RIGHT: 8})
    assert standing(tree) == (Standing.UNCERTAIN, 1)


def test_uncertain_labels_are_counted_and_ends_are_none() -> None:
    """8 of 8 is an interval of width .21, 7 of 8 of .37, nothing known of 1."""
    tree = new_tree()
    roll(tree, ROOT, {RIGHT: 8})
    first, second, _ = step(tree, 1), step(tree, 2), step(tree, 3, end=WRONG)
    assert standing(tree) == (Standing.UNCERTAIN, 2)
    roll(tree, first, {RIGHT: 8})
    assert standing(tree) == (Standing.UNCERTAIN, 1)
    roll(tree, second, {RIGHT: 7, WRONG: 1})
    assert standing(tree) == (Standing.UNCERTAIN, 1)
    roll(tree, second, {RIGHT: 40})
    assert standing(tree) == (Standing.SETTLED, 1)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({WRONG: 8}, Standing.HOPELESS),
        ({WRONG: 7}, Standing.UNCERTAIN),
        ({WRONG: 7, UNKNOWN: 9}, Standing.UNCERTAIN),
        ({WRONG: 8, RIGHT: 1}, Standing.UNCERTAIN),
    ],
)
def test_hopeless_is_many_rollouts_from_everywhere_and_none_right(
    outcomes: dict[Reason, int], expected: Standing
) -> None:
    settings = BudgetSettings(tokens=1, settled=0.01)
    tree = new_tree()
    node = step(tree, 1)
    roll(tree, ROOT, {WRONG: 40})
    assert standing(tree, settings).standing is Standing.UNCERTAIN, "nothing is known of the step"
    roll(tree, node, outcomes)
    assert standing(tree, settings).standing is expected


def test_a_right_end_is_hope_and_a_fast_rollout_is_none() -> None:
    tree = new_tree()
    node = step(tree, 1)
    roll(tree, ROOT, {WRONG: 8})
    roll(tree, node, {WRONG: 8})
    roll(tree, node, {RIGHT: 4}, sampler=1)
    assert standing(tree).standing is Standing.HOPELESS
    step(tree, 2, end=RIGHT)
    assert standing(tree).standing is Standing.SETTLED, "of 8 wrong ones the interval is narrow"

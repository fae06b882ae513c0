"""The steps of all samples of a tree, whether or not they became nodes."""

from collections.abc import Sequence

import pytest
from tests.test_evidence import (
    READER,
    RIGHT,
    WRONG,
    cut_path,
    drawn,
    new_tree,
    roll,
    sample,
    through,
)

from treeward.export.beyond import beyond_columns
from treeward.search.growing import absorb_rollouts, absorb_samples, add_path, cut_rollout
from treeward.search.replies import Completion, Reply
from treeward.search.requests import Kind, ask
from treeward.search.samples import Samples, TreeSamples, log_share
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason

Step = tuple[str, bool | None, int]
"""All text up to a step, how it ends, and how many take it."""


def taken_by(tree: Tree) -> list[Step]:
    """The steps that samples of a tree take, in the order of their texts."""
    drawn = TreeSamples(tree, READER.cut)
    drawn.take()
    return listed(drawn.samples)


def listed(samples: Samples) -> list[Step]:
    ids = {step: key for (_, key), step in samples._found.items()}
    texts = [""]
    for step in range(1, len(samples)):
        own = bytes(each for each in ids[step] if each >= 0).decode()
        texts.append(texts[samples.parent[step]] + own)
    found = zip(texts[1:], samples.end[1:], samples.taken[1:], strict=True)
    return sorted(found, key=lambda step: step[0])


def test_samples_share_the_steps_that_they_have_in_common() -> None:
    tree = new_tree()
    ends = [through("a\n", RIGHT), through("a\n", WRONG), through("b\n", RIGHT)]
    roll(tree, ROOT, *ends, through("a\n", RIGHT))
    assert taken_by(tree) == [
        ("a\n", None, 3),
        ("a\nAnswer: 0\n", False, 1),
        ("a\nAnswer: 1\n", True, 2),
        ("b\n", None, 1),
        ("b\nAnswer: 1\n", True, 1),
    ]


@pytest.mark.parametrize("creation", [Creation.BLIND, Creation.CHOSEN])
def test_a_rollout_that_became_nodes_is_one_sample_still(creation: Creation) -> None:
    tree = new_tree()
    roll(tree, ROOT, through("a\n", RIGHT), through("a\n", RIGHT), through("b\n", WRONG))
    before = taken_by(tree)
    cut_rollout(tree, 0, READER.cut, creation=creation)
    assert taken_by(tree) == before
    seen = TreeSamples(tree, READER.cut)
    seen.take()
    cut_rollout(tree, 2, READER.cut, creation=creation)
    seen.take()
    assert listed(seen.samples) == before, "taken as the tree grows it is the same"


def test_a_rollout_goes_through_the_nodes_below_its_start() -> None:
    tree = new_tree()
    (made,) = sample(tree, ROOT, "a\n")
    (below,) = sample(tree, made, "b\n")
    roll(tree, made, through("b\n", RIGHT))
    roll(tree, below, WRONG)
    assert taken_by(tree) == [
        ("a\n", None, 1),
        ("a\nb\n", None, 2),
        ("a\nb\nAnswer: 0\n", False, 1),
        ("a\nb\nAnswer: 1\n", True, 1),
    ]


def test_what_has_no_known_outcome_or_is_another_sampler_s_says_nothing() -> None:
    tree = new_tree()
    roll(tree, ROOT, through("a\n", ("x", Reason.CHECKER_LIMIT)))
    roll(tree, ROOT, RIGHT, sampler=1)
    assert taken_by(tree) == []
    request = ask(tree, ROOT, Kind.SAMPLE, 1)
    absorb_samples(tree, [request], [Reply((drawn("z", Reason.LENGTH),))])
    assert taken_by(tree) == [("z", False, 1)]


def test_a_sample_can_end_where_others_go_on() -> None:
    tree = new_tree()
    (made,) = sample(tree, ROOT, "a\n")
    sample(tree, made, "b\n")
    roll(tree, ROOT, ("a\n", Reason.LENGTH))
    roll(tree, made, ("", Reason.LENGTH))
    steps = taken_by(tree)
    assert ("a\n", None, 1) in steps
    assert steps.count(("a\n", False, 1)) == 2


def test_where_the_policy_is_silent_p_is_the_share_that_takes_the_step() -> None:
    samples = Samples()
    ends = [(3, None), (1, None), (0, -0.7)]
    steps = [
        samples.step(0, (at,), logprob, taken=taken, end=None)
        for at, (taken, logprob) in enumerate(ends)
    ]
    assert [samples.log_chance(step) for step in steps] == [
        pytest.approx(float(log_share(3, 4))),
        pytest.approx(float(log_share(1, 4))),
        -0.7,
    ]
    assert float(log_share(4, 4)) > float(log_share(3, 4)) > float(log_share(0, 4))
    samples.step(0, (1,), -1.5, taken=1, end=None)
    assert samples.log_chance(steps[1]) == -1.5, "who knows it says it for all"


def test_the_columns_hold_all_steps_that_are_no_nodes() -> None:
    """Behind the root: a, its wrong end and c; behind the node b: its right end."""
    tree, empty = new_tree(), new_tree()
    cut_path(tree, through("b\n", WRONG), Creation.BLIND)
    roll(tree, ROOT, through("a\n", WRONG), through("b\n", RIGHT), through("c\n", RIGHT))
    roll(tree, 1, WRONG)
    columns = beyond_columns([tree, empty], READER.cut)
    assert columns["n_taken"].to_pylist() == [0, 2, 2, 0]
    behind = columns["beyond"].to_pylist()
    assert [shape(steps) for steps in behind] == [
        [(-1, 1, None), (0, 1, False), (-1, 1, None), (2, 1, True)],
        [(-1, 1, True)],
        [],
        [],
    ]
    assert [step["logprob"] for step in behind[0]] == [None, None, None, None], "two at once"
    roll(tree, 1, ("b\n", Reason.LENGTH))
    (_, ended), *_ = beyond_columns([tree], READER.cut)["beyond"].to_pylist()[1:]
    assert ended == {"parent": -1, "logprob": 0.0, "n_taken": 1, "right": False}


def test_a_node_is_as_likely_as_a_rollout_that_takes_its_step_says() -> None:
    tree = new_tree()
    end, reason = through("a\n", WRONG)
    untold = Completion(tuple(end.encode()), 0.0, Finish.END, 0, Judgement(reason))
    add_path(tree, ROOT, READER.cut(untold.token_ids), untold, creation=Creation.GIVEN)
    assert beyond_columns([tree], READER.cut)["logprob"].to_pylist() == [None, None, None]
    told = untold._replace(step_logprobs=(-1.5, -0.5))
    request = ask(tree, ROOT, Kind.ROLLOUT, 1)
    absorb_rollouts(tree, [request], [Reply((told,))])
    assert beyond_columns([tree], READER.cut)["logprob"].to_pylist() == [None, -1.5, -0.5]
    cut_rollout(tree, 0, READER.cut, creation=Creation.CHOSEN)
    assert tree.nodes.logprob == [None, -1.5, -0.5]


def shape(steps: Sequence[dict[str, int]]) -> list[tuple[int, int, int | None]]:
    return [(step["parent"], step["n_taken"], step["right"]) for step in steps]

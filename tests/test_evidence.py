"""The counting of strict evidence, on trees grown by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from treeward.critics.evidence import Evidence, Strayed, strict_evidence
from treeward.search.growing import absorb_rollouts, absorb_samples, add_path
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Kind, ask
from treeward.search.steps import Finish
from treeward.search.tokens import byte_tokens
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason

READER = Reader(Template(name="test"), byte_tokens())
RIGHT, WRONG = ("Answer: 1\n", Reason.MATCH), ("Answer: 0\n", Reason.MISMATCH)


def new_tree() -> Tree:
    return Tree(Problem(id="p", prompt="?", answer="1"))


def drawn(text: str, reason: Reason | None) -> Completion:
    return Completion(
        token_ids=tuple(text.encode()),
        logprob=0.0,
        finish=Finish.END if reason else Finish.STEP,
        seed=0,
        judgement=Judgement(reason) if reason else None,
    )


def roll(tree: Tree, node: int, *ends: tuple[str, Reason], sampler: int = 0) -> None:
    request = ask(tree, node, Kind.ROLLOUT, len(ends), sampler_id=sampler)
    absorb_rollouts(tree, [request], [Reply(tuple(drawn(*end) for end in ends))])


def sample(tree: Tree, node: int, *steps: str) -> list[int]:
    request = ask(tree, node, Kind.SAMPLE, len(steps))
    (made,) = absorb_samples(tree, [request], [Reply(tuple(drawn(step, None) for step in steps))])
    return made


def cut_path(tree: Tree, end: tuple[str, Reason], creation: Creation) -> list[int]:
    completion = drawn(*end)
    return add_path(tree, ROOT, READER.cut(completion.token_ids), completion, creation=creation)


def counted(tree: Tree) -> Evidence:
    return strict_evidence(tree, READER.cut)


def through(step: str, end: tuple[str, Reason]) -> tuple[str, Reason]:
    return step + end[0], end[1]


def test_unknown_ends_are_no_rollouts_and_reasons_are_counted_among_the_wrong() -> None:
    tree = new_tree()
    ends = [RIGHT, RIGHT, WRONG, ("x", Reason.LENGTH), ("\n", Reason.NO_ANSWER)]
    roll(tree, ROOT, *ends, ("?", Reason.CHECKER_LIMIT), ("?", Reason.NO_REFERENCE))
    request = ask(tree, ROOT, Kind.ROLLOUT, 3)
    absorb_rollouts(tree, [request], [Reply(failure=Failure("timeout", "no reply"))])
    evidence = counted(tree)
    assert (evidence.n_right[ROOT], evidence.n_wrong[ROOT], evidence.n_unknown[ROOT]) == (2, 3, 5)
    assert (evidence.n_length[ROOT], evidence.n_no_answer[ROOT]) == (1, 1)
    assert evidence.n_rollouts[ROOT] == 5


def test_another_sampler_is_no_evidence() -> None:
    tree = new_tree()
    roll(tree, ROOT, RIGHT, WRONG, sampler=1)
    assert counted(tree).n_rollouts[ROOT] == 0
    assert counted(tree).n_unknown[ROOT] == 0


def test_ends_have_no_rollouts() -> None:
    tree = new_tree()
    end = cut_path(tree, RIGHT, Creation.BLIND)[-1]
    roll(tree, ROOT, RIGHT)
    assert tree.is_terminal(end)
    assert counted(tree).n_rollouts[end] == 0


@pytest.mark.parametrize("creation", [Creation.BLIND, Creation.CHOSEN])
def test_only_a_blind_cut_counts_what_came_before_it(creation: Creation) -> None:
    tree = new_tree()
    before, after = through("a\n", RIGHT), through("a\n", WRONG)
    roll(tree, ROOT, before)
    node, _ = cut_path(tree, before, creation)
    roll(tree, ROOT, after, after)
    evidence = counted(tree)
    assert evidence.n_right[node] == (creation is Creation.BLIND)
    assert evidence.n_wrong[node] == 2
    assert evidence.started_right[node] == evidence.started_wrong[node] == 0


def test_nothing_counts_below_a_node_that_it_does_not_count_for() -> None:
    # The second cut is blind, but it stands on a node that was chosen for what it led to.
    tree = new_tree()
    lucky = through("a\nb\n", RIGHT)
    roll(tree, ROOT, lucky)
    chosen, _ = cut_path(tree, through("a\n", WRONG), Creation.CHOSEN)
    below = cut_path(tree, lucky, Creation.BLIND)[1]
    cut_path(tree, through("z\n", WRONG), Creation.BLIND)
    evidence = counted(tree)
    assert evidence.n_rollouts[ROOT] == 1
    assert evidence.n_rollouts[[chosen, below]].tolist() == [0, 0]


def test_sampled_nodes_take_what_was_asked_for_after_them() -> None:
    tree = new_tree()
    roll(tree, ROOT, through("a\n", RIGHT))
    (node,) = sample(tree, ROOT, "a\n")
    assert counted(tree).n_rollouts[node] == 0
    roll(tree, ROOT, through("a\n", RIGHT), through("b\n", RIGHT))
    roll(tree, node, WRONG)
    evidence = counted(tree)
    assert (evidence.n_right[node], evidence.n_wrong[node]) == (1, 1)
    assert (evidence.started_right[node], evidence.started_wrong[node]) == (0, 1)
    assert evidence.n_rollouts[ROOT] == 3


def test_only_identical_steps_share_a_node() -> None:
    tree = new_tree()
    made = sample(tree, ROOT, "12*3=36\n", "12*3=35\n", "12*3=36\n", "12*3= 36\n")
    assert [tree.nodes.n_samples[node] for node in made] == [2, 1, 1]
    roll(tree, ROOT, through("12*3=36\n", RIGHT), through("12*3=35\n", WRONG))
    evidence = counted(tree)
    assert evidence.n_right[made].tolist() == [1, 0, 0]
    assert evidence.n_wrong[made].tolist() == [0, 1, 0]


def test_the_order_of_rollouts_asked_for_together_does_not_matter() -> None:
    ends = [through(step, end) for step in ("a\n", "b\n", "a\nb\n") for end in (RIGHT, WRONG)]

    def texts_and_counts(order: Sequence[int]) -> dict[str, tuple[int, int]]:
        tree = new_tree()
        roll(tree, ROOT, *(ends[place] for place in order))
        for place in order:
            cut_path(tree, ends[place], Creation.BLIND)
        evidence = counted(tree)
        return {
            READER.text(tree.prefix_ids(node)): (evidence.n_right[node], evidence.n_wrong[node])
            for node in range(len(tree))
        }

    expected = texts_and_counts(range(6))
    assert expected["a\n"] == (2, 2)
    assert expected["a\nb\n"] == (1, 1)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(6).tolist()
        assert texts_and_counts(order) == expected


def test_every_known_rollout_goes_into_a_child_or_strays() -> None:
    tree = new_tree()
    roll(tree, ROOT, through("a\n", RIGHT), ("?", Reason.NO_REFERENCE))
    (made,) = sample(tree, ROOT, "a\n")
    *_, end = cut_path(tree, through("b\n", WRONG), Creation.BLIND)
    ends = [through("a\n", WRONG), through("b\n", WRONG), through("b\n", RIGHT), RIGHT]
    roll(tree, ROOT, *ends)
    evidence, (cut,) = counted(tree), tree.nodes.parent[end : end + 1]
    assert evidence.drawn[[made, cut, end]].tolist() == [2, 2, 1]
    assert evidence.entered[[made, cut, end]].tolist() == [1, 0, 1], "made later, and an end"
    assert evidence.entered_right[[made, cut, end]].tolist() == [1, 0, 0]
    assert evidence.entered_before[[made, cut, end]].tolist() == [1, 0, 0]
    right, wrong = (tuple(text.encode()) for text, _ in (RIGHT, WRONG))
    assert tuple(evidence.strayed()) == (
        Strayed(node=made, step_ids=wrong, logprob=None, is_right=False),
        Strayed(node=cut, step_ids=right, logprob=None, is_right=True),
        Strayed(node=ROOT, step_ids=right, logprob=0.0, is_right=True),
    )


def test_a_stray_step_has_its_own_logprob() -> None:
    tree = new_tree()
    cut_path(tree, through("a\n", RIGHT), Creation.BLIND)
    first, then = through("a\n", ("b\n" + WRONG[0], WRONG[1]))
    whole = drawn(first, then)._replace(logprob=-7.0, step_logprobs=(-1.0, -2.0, -4.0))
    cut_off = drawn("a\n", Reason.LENGTH)
    request = ask(tree, ROOT, Kind.ROLLOUT, 2)
    absorb_rollouts(tree, [request], [Reply((whole, cut_off))])
    strayed = (Strayed(1, tuple(b"b\n"), -2.0, False), Strayed(1, (), None, False))
    assert tuple(counted(tree).strayed()) == strayed

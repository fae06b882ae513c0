"""Trees are columns that only grow; identical samples share a node."""

from hypothesis import given
from hypothesis import strategies as st

from treeward.search.problem import Problem
from treeward.search.replies import Completion, Failure
from treeward.search.steps import Finish
from treeward.search.tree import FAMILY, NO_PARENT, ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason


def new_tree() -> Tree:
    return Tree(Problem(id="p", prompt="?"))


def add(tree: Tree, parent: int, *step: int, judgement: Judgement | None = None) -> int:
    return tree.add_step(
        parent, step, creation=Creation.SAMPLED, finish=Finish.STEP, judgement=judgement
    )


samples = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3)), max_size=40)


@given(samples)
def test_a_tree_is_the_set_of_prefixes_of_what_was_added(draws: list[tuple[int, int]]) -> None:
    """Against a dictionary of prefixes and how often each was sampled."""
    tree = new_tree()
    counts: dict[tuple[int, ...], int] = {}
    for pick, token in draws:
        parent = pick % len(tree)
        node = add(tree, parent, token)
        prefix = (*tree.prefix_ids(parent), token)
        assert tree.prefix_ids(node) == prefix
        counts[prefix] = counts.get(prefix, 0) + 1
    nodes = range(1, len(tree))
    assert {tree.prefix_ids(at): tree.nodes.n_samples[at] for at in nodes} == counts
    assert tree.nodes.parent[ROOT] == NO_PARENT
    for node in nodes:
        parent = tree.nodes.parent[node]
        assert parent < node
        assert tree.nodes.depth[node] == tree.nodes.depth[parent] + 1 == len(tree.path(node)) - 1
        assert list(tree.ancestors(node)) == tree.path(node)[::-1]
        assert tree.child_with(parent, tree.nodes.step_ids[node]) == node
        assert node in tree.nodes.children[parent]
    assert sum(map(len, tree.nodes.children)) == len(tree) - 1
    assert {len(getattr(tree.nodes, name)) for name in tree.nodes.__slots__} == {len(tree)}


def test_only_known_verdicts_are_values() -> None:
    tree = new_tree()
    value_of = {Reason.MATCH: 1.0, Reason.MISMATCH: 0.0, Reason.LENGTH: 0.0, Reason.NO_ANSWER: 0.0}
    for token, reason in enumerate(Reason):
        node = add(tree, ROOT, token, judgement=Judgement(reason))
        assert tree.is_terminal(node)
        assert tree.terminal_value(node) == value_of.get(reason)
    assert not tree.is_terminal(ROOT)
    assert tree.terminal_value(ROOT) is None


def test_a_failed_rollout_keeps_its_cause() -> None:
    tree = new_tree()
    index = tree.add_rollout(ROOT, nodes_before=1, failure=Failure("timeout", "late"))
    assert tree.rollouts.completion[index] is None
    assert tree.rollouts.failure[index] == Failure("timeout", "late")


@given(st.lists(st.lists(st.integers(0, 15), max_size=2 * FAMILY), max_size=6))
def test_samples_of_a_reply_are_added_as_if_one_by_one(replies: list[list[int]]) -> None:
    together, alone = new_tree(), new_tree()
    for number, ids in enumerate(replies):
        completions = [
            Completion(token_ids=(token, 9), logprob=-token / 8, finish=Finish.STEP, seed=number)
            for token in ids
        ]
        parent = number // 3 % len(together)
        before = len(together)
        assert together.add_samples(parent, completions) == range(before, len(together))
        for drawn in completions:
            alone.add_step(
                parent,
                drawn.token_ids,
                creation=Creation.SAMPLED,
                finish=drawn.finish,
                logprob=drawn.logprob,
            )
    assert together == alone
    assert sum(together.nodes.n_samples) == sum(map(len, replies))
    for node in range(1, len(together)):
        place = (together.nodes.parent[node], together.nodes.step_ids[node])
        assert together.child_with(*place) == node
        assert together.child_with(node, (99,)) is None

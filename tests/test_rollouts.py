"""Rollouts after every step: every solution is cut, and shared prefixes share their nodes."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeward.search.problem import Problem
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Kind, Request
from treeward.search.rollouts import rollouts
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish, StepRule, cut
from treeward.search.tokens import byte_tokens
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason

TOKENS = byte_tokens()
RULE = StepRule(answer_mark="A")


def cut_steps(ids: tuple[int, ...]) -> list[tuple[int, ...]]:
    return cut(ids, TOKENS, RULE)


def solution(text: str, finish: Finish, reason: Reason) -> Completion:
    logprobs = tuple(-float(sum(step)) for step in cut_steps(tuple(text.encode())))
    return Completion(
        token_ids=tuple(text.encode()),
        logprob=sum(logprobs),
        finish=finish,
        seed=0,
        judgement=Judgement(reason),
        step_logprobs=logprobs if len(logprobs) > 1 else (),
    )


def random_solution(rng: random.Random) -> Completion:
    steps = "".join(rng.choice("ab") + "\n" for _ in range(rng.randrange(4)))
    if rng.random() < 0.2:
        return solution(steps + "cut off", Finish.LENGTH, Reason.LENGTH)
    return solution(
        steps + f"A{rng.randrange(2)}\n",
        Finish.END,
        rng.choice([Reason.MATCH, Reason.MISMATCH, Reason.CHECKER_LIMIT]),
    )


def grown(
    settings: SearchSettings, seed: int, failing: float = 0
) -> tuple[Tree, list[list[Request]]]:
    """A tree of random solutions, and the batches that were asked."""
    rng = random.Random(seed)
    tree = Tree(Problem(id="p", prompt="?"))
    growth = rollouts(tree, settings, cut_steps)
    batches = [next(growth)]
    while True:
        replies = [
            Reply(failure=Failure("timeout", "late"))
            if len(batches) > 1 and rng.random() < failing
            else Reply(tuple(random_solution(rng) for _ in range(request.n)))
            for request in batches[-1]
        ]
        try:
            batches.append(growth.send(replies))
        except StopIteration:
            return tree, batches


searches = st.builds(
    SearchSettings,
    width=st.integers(1, 8),
    rollouts=st.integers(1, 4),
    wave=st.integers(1, 5),
    max_depth=st.integers(1, 5),
)


@given(searches, st.integers(0, 10**6))
def test_every_solution_is_a_path_of_blind_nodes(settings: SearchSettings, seed: int) -> None:
    tree, _ = grown(settings, seed)
    passed: Counter[tuple[int, ...]] = Counter()
    ends: dict[tuple[int, ...], Judgement | None] = {}
    for node, completion in zip(tree.rollouts.node, tree.rollouts.completion, strict=True):
        if node == ROOT and completion is not None:
            steps = cut_steps(completion.token_ids)
            prefixes = [sum(steps[: k + 1], ()) for k in range(len(steps))]
            passed.update(prefixes)
            ends.setdefault(prefixes[-1], completion.judgement)
    nodes = range(1, len(tree))
    assert {tree.prefix_ids(node): tree.nodes.n_samples[node] for node in nodes} == passed
    for node in nodes:
        assert tree.nodes.creation[node] is Creation.BLIND
        assert tree.nodes.judgement[node] == ends.get(tree.prefix_ids(node))
        assert tree.nodes.visits[node] == 0
        assert tree.nodes.logprob[node] == -sum(tree.nodes.step_ids[node])


def test_steps_of_a_solution_that_came_as_a_whole_are_of_unknown_probability() -> None:
    tree = Tree(Problem(id="p", prompt="?"))
    growth = rollouts(tree, SearchSettings(width=2), cut_steps)
    next(growth)
    whole = [
        Completion(tuple(text.encode()), -1.5, Finish.END, 0, Judgement(Reason.MATCH))
        for text in ("a\nA1\n", "A1\n")
    ]
    growth.send([Reply(tuple(whole))])
    assert tree.nodes.logprob == [None, None, None, -1.5]


@given(searches, st.integers(0, 10**6), st.sampled_from([0.0, 0.4]))
def test_every_inner_prefix_gets_its_rollouts(
    settings: SearchSettings, seed: int, failing: float
) -> None:
    tree, batches = grown(settings, seed, failing)
    assert all(request.kind is Kind.ROLLOUT for batch in batches for request in batch)
    assert [len(batches[0]), batches[0][0].node, batches[0][0].n] == [1, ROOT, settings.width]
    assert all(len(batch) <= settings.wave for batch in batches)
    counts = Counter(tree.rollouts.node)
    for node in range(1, len(tree)):
        inner = not tree.is_terminal(node) and tree.nodes.depth[node] < settings.max_depth
        assert counts[node] == (settings.rollouts if inner else 0)
        assert (tree.nodes.stop_rule[node] is not None) == inner
    assert counts[ROOT] == settings.width
    for node, before in zip(tree.rollouts.node, tree.rollouts.nodes_before, strict=True):
        assert before == (1 if node == ROOT else len(tree))


@pytest.mark.parametrize("kind", ["timeout", "context_length"])
def test_a_failed_first_call_is_kept_on_the_root(kind: str) -> None:
    tree = Tree(Problem(id="p", prompt="?"))
    growth = rollouts(tree, SearchSettings(width=3), cut_steps)
    next(growth)
    failure = Failure(kind, "no")
    with pytest.raises(StopIteration):
        growth.send([Reply(failure=failure)])
    assert tree.nodes.failure == [failure]
    assert tree.rollouts.failure == [failure] * 3

"""Worlds without a model, for tests of searches: replies by hand, and random ones."""

import random
from collections.abc import Callable

import pytest

from treeward.search.problem import Problem
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Growth, Kind, Request
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Tree
from treeward.search.verdicts import Judgement, Reason

RIGHT, WRONG, UNKNOWN = Reason.MATCH, Reason.MISMATCH, Reason.CHECKER_LIMIT


def new_tree() -> Tree:
    return Tree(Problem(id="p", prompt="?"))


def completion(step: str, reason: Reason | None = None) -> Completion:
    return Completion(
        token_ids=tuple(step.encode()),
        logprob=-1.0,
        finish=Finish.STEP if reason is None else Finish.END,
        seed=0,
        judgement=None if reason is None else Judgement(reason),
    )


def drive(growth: Growth, reply: Callable[[Request], Reply]) -> list[list[Request]]:
    """Grows a tree to the end; returns the batches that were asked."""
    batches = []
    requests = next(growth, None)
    while requests is not None:
        batches.append(requests)
        try:
            requests = growth.send([reply(request) for request in requests])
        except StopIteration:
            requests = None
    return batches


def text(ids: tuple[int, ...]) -> str:
    return bytes(ids).decode()


def drawn(tree: Tree) -> str:
    """A tree as lines: step, samples, visits, mean of what was backed up, verdict."""
    lines = []
    stack = [ROOT]
    while stack:
        node = stack.pop()
        nodes = tree.nodes
        name = "  " * nodes.depth[node] + (text(nodes.step_ids[node]) or "root")
        mean = nodes.value_sum[node] / nodes.visits[node] if nodes.visits[node] else None
        judgement = nodes.judgement[node]
        facts = f"x{nodes.n_samples[node]} visits {nodes.visits[node]} q "
        facts += "?" if mean is None else f"{mean:.2f}"
        lines.append(f"{name:8} {facts} {judgement.verdict if judgement else ''}".rstrip())
        stack += reversed(nodes.children[node])
    return "\n".join(lines)


class World:
    """A random policy: what it replies depends on the seed and on the request alone.

    At every prefix there are the same three steps, some of which end the solution.
    """

    def __init__(self, seed: int, failing: float) -> None:
        self.seed = seed
        self.failing = failing

    def __call__(self, request: Request) -> Reply:
        at = (self.seed, request.kind, request.prefix_ids)
        steps, rng = random.Random(repr(at)), random.Random(repr((*at, request.first)))
        if rng.random() < self.failing:
            return Reply(failure=Failure("timeout", "late"))
        if request.kind is Kind.ROLLOUT:
            return Reply(tuple(completion("r", self.reason(rng)) for _ in range(request.n)))
        kinds = [(step, steps.random() < 0.3, self.reason(steps)) for step in "abc"]
        picks = [rng.choice(kinds) for _ in range(request.n)]
        return Reply(tuple(completion(s, reason if ends else None) for s, ends, reason in picks))

    def reason(self, rng: random.Random) -> Reason:
        return rng.choice([RIGHT, WRONG, UNKNOWN])


def check_values(tree: Tree) -> None:
    """Visits are known evaluations in the subtree, and the sum of values is their sum."""
    nodes = tree.nodes
    outcomes: dict[int, list[float]] = {node: [] for node in range(len(tree))}
    for node, rollout in zip(tree.rollouts.node, tree.rollouts.completion, strict=True):
        reason = rollout.judgement.reason if rollout and rollout.judgement else UNKNOWN
        outcomes[node] += {RIGHT: [1.0], WRONG: [0.0]}.get(reason, [])
    own: dict[int, float | None] = {
        node: sum(known) / len(known) if known else tree.terminal_value(node)
        for node, known in outcomes.items()
    }
    for node in range(len(tree)):
        below = nodes.children[node]
        visits = sum(nodes.visits[child] for child in below) + (own[node] is not None)
        assert nodes.visits[node] == visits
        value_sum = sum(nodes.value_sum[child] for child in below) + (own[node] or 0.0)
        assert nodes.value_sum[node] == pytest.approx(value_sum)

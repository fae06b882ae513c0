"""What every search does with replies: turns them into nodes and rollouts of its tree."""

from collections.abc import Callable, Sequence
from functools import partial

from treeward.search.critic import Scores
from treeward.search.replies import Completion, Reply
from treeward.search.requests import Growth, Kind, Request, ask, rest_of
from treeward.search.steps import Cut, Finish
from treeward.search.stopping import StopRule
from treeward.search.tree import Creation, Tree
from treeward.search.verdicts import Verdict


def ask_rollouts(tree: Tree, nodes: Sequence[int], n: int) -> list[Request]:
    """Returns requests for a fixed number of rollouts from each node; none where that is 0."""
    if n == 0:
        return []
    for node in nodes:
        tree.nodes.stop_rule[node] = StopRule.FIXED
    return [ask(tree, node, Kind.ROLLOUT, n) for node in nodes]


def in_parts(
    requests: Sequence[Request], absorb: Callable[[Sequence[Request], Sequence[Reply]], None]
) -> Growth:
    """Asks for rollouts, and perhaps scores, until all are there.

    Args:
        requests: What to ask; nothing is asked where there are none.
        absorb: Takes requests that were asked and their replies; what it makes of them must not
            depend on how many come at once.
    """
    left = list(requests)
    while left:
        part = left[:]
        replies = yield part
        absorb(part, replies)
        left = [] if part == left else rest_of(left, part)


def roll(tree: Tree, requests: Sequence[Request]) -> Growth:
    """Asks for rollouts and adds them to the tree."""
    return in_parts(requests, partial(absorb_rollouts, tree))


def absorb_rollouts(tree: Tree, requests: Sequence[Request], replies: Sequence[Reply]) -> None:
    """Adds the rollouts of some replies to the tree; those that failed are of unknown verdict.

    They stand behind the others of their request.
    """
    nodes_before = len(tree)
    for request, reply in zip(requests, replies, strict=True):
        for completion in reply.completions:
            tree.add_rollout(
                request.node,
                nodes_before=nodes_before,
                sampler_id=request.sampler_id,
                completion=completion,
            )
        for _ in range(request.n - len(reply.completions) if reply.failure else 0):
            tree.add_rollout(
                request.node,
                nodes_before=nodes_before,
                sampler_id=request.sampler_id,
                failure=reply.failure,
            )


def absorb_scores(tree: Tree, requests: Sequence[Request], replies: Sequence[Reply]) -> None:
    """Keeps on each node what critics said about it, or why they said nothing."""
    scores, failures = tree.nodes.scores, tree.nodes.score_failure
    for request, reply in zip(requests, replies, strict=True):
        nodes = range(request.node, request.node + request.n)
        for node, said in zip(nodes, reply.scores, strict=True):
            if isinstance(said, Scores):
                scores[node] = said
            else:
                failures[node] = said


def absorb_samples(
    tree: Tree, requests: Sequence[Request], replies: Sequence[Reply]
) -> list[list[int]]:
    """Adds sampled steps as children; returns for each request the children it made, in order.

    A failed call is kept on the node that was to be expanded, also where a later one succeeds.
    """
    made: list[list[int]] = []
    for request, reply in zip(requests, replies, strict=True):
        tree.nodes.failure[request.node] = reply.failure or tree.nodes.failure[request.node]
        made.append(list(tree.add_samples(request.node, reply.completions)))
    return made


def add_path(
    tree: Tree,
    start: int,
    steps: Sequence[tuple[int, ...]],
    completion: Completion,
    *,
    creation: Creation,
) -> list[int]:
    """Adds the steps of a finished solution below a node; returns their nodes.

    Args:
        tree: Modified in place.
        start: Where the solution starts.
        steps: The completion's ids, cut into steps.
        completion: How it ended.
        creation: Whether its outcome had a say in adding it.
    """
    path = []
    logprobs = completion.logprobs_of(steps)
    for place, (step_ids, logprob) in enumerate(zip(steps, logprobs, strict=True), start=1):
        last = place == len(steps)
        start = tree.add_step(
            start,
            step_ids,
            creation=creation,
            finish=completion.finish if last else Finish.STEP,
            logprob=logprob,
            judgement=completion.judgement if last else None,
        )
        path.append(start)
    return path


def cut_rollout(tree: Tree, index: int, cut: Cut, *, creation: Creation) -> list[int]:
    """Adds the steps of a rollout below where it started and returns their nodes.

    Args:
        tree: Modified in place.
        index: The rollout's; its call did not fail.
        cut: Splits it into steps.
        creation: Whether its outcome had a say in it.
    """
    rollouts = tree.rollouts
    completion = rollouts.completion[index]
    assert completion is not None, "a failed call has no steps"
    rollouts.is_cut[index] = True
    steps = cut(completion.token_ids)
    return add_path(tree, rollouts.node[index], steps, completion, creation=creation)


def count_outcomes(completions: Sequence[Completion]) -> tuple[int, int]:
    """Returns how many are right, and how many have a known verdict."""
    verdicts = [completion.judgement.verdict for completion in completions if completion.judgement]
    right = verdicts.count(Verdict.RIGHT)
    return right, right + verdicts.count(Verdict.WRONG)

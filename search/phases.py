"""The phases that guided searches share: expand, evaluate, back up."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from treeward.search.fast import FAST_SAMPLER, FastRollouts, ask_fast
from treeward.search.growing import (
    absorb_rollouts,
    absorb_samples,
    absorb_scores,
    ask_rollouts,
    count_outcomes,
    in_parts,
)
from treeward.search.leaf_value import critic_opinion, leaf_value
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Kind, Request, ask_scores
from treeward.search.settings import SearchSettings
from treeward.search.tree import NO_PARENT, Tree


def expand(
    tree: Tree,
    requests: list[Request],
    settings: SearchSettings,
    *,
    scored: bool,
    fast: FastRollouts | None = None,
) -> Generator[list[Request], list[Reply], list[int]]:
    """Asks for steps, finds out what those are worth that are new, and returns their nodes.

    Args:
        tree: Modified in place.
        requests: For samples, one a node.
        settings: How nodes are judged.
        scored: Whether there are critics to ask.
        fast: Rollouts that steer beside the policy's own; None for none.
    """
    made = absorb_samples(tree, requests, (yield requests))
    children = [child for of_node in made for child in of_node]
    yield from evaluate(tree, children, settings, scored=scored, fast=fast)
    return children


class Judged(NamedTuple):
    """Says what was found out about one node."""

    node: int
    value: float
    """What it is worth to the search, in [0, 1]."""
    known: float
    """The rollouts with a known verdict behind it, fast ones by their weight."""


def evaluate(
    tree: Tree,
    nodes: Sequence[int],
    settings: SearchSettings,
    *,
    scored: bool,
    fast: FastRollouts | None = None,
) -> Growth:
    """Finds out what nodes are worth and backs it up."""
    found = yield from judge(tree, nodes, settings, scored=scored, fast=fast)
    for family in families(tree, found):
        back_up(tree, {judged.node: judged.value for judged in family})


def judge(
    tree: Tree,
    nodes: Sequence[int],
    settings: SearchSettings,
    *,
    scored: bool,
    fast: FastRollouts | None = None,
) -> Generator[list[Request], list[Reply], list[Judged]]:
    """Finds out what nodes are worth; returns those about which anything is known, in order.

    Where a solution ends that is its verdict; elsewhere what rollouts and critics say together.
    """
    judgements = tree.nodes.judgement
    inner = [node for node in nodes if judgements[node] is None]
    rolled = ask_rollouts(tree, inner, settings.rollouts) + ask_fast(tree, inner, fast)
    asked = ask_scores(tree, nodes) if scored else []
    counts: dict[int, tuple[float, float]] = {}
    done: list[Request] = []
    said: list[Reply] = []

    def absorb(requests: Sequence[Request], replies: Sequence[Reply]) -> None:
        n = sum([request.kind is Kind.ROLLOUT for request in requests])
        absorb_rollouts(tree, requests[:n], replies[:n])
        absorb_scores(tree, requests[n:], replies[n:])
        done.extend(requests[:n])
        said.extend(replies[:n])

    if rolled or asked:
        yield from in_parts([*rolled, *asked], absorb)
        counts = weigh(done, said, fast)
    else:  # then ends are all that anything is known about
        nodes = [node for node in nodes if judgements[node] is not None]
    found = []
    for node in nodes:
        right, known = counts.get(node, (0, 0))
        value = worth(tree, node, settings, (right, known))
        if value is not None:
            found.append(Judged(node, value, known))
    return found


def weigh(
    rolled: Sequence[Request], replies: Sequence[Reply], fast: FastRollouts | None
) -> dict[int, tuple[float, float]]:
    """Returns each node's right rollouts and those with a known verdict, fast ones by weight.

    Args:
        rolled: Requests for rollouts.
        replies: To these, in order.
        fast: Weighs fast rollouts.
    """
    counts: dict[int, tuple[float, float]] = {}
    for request, reply in zip(rolled, replies, strict=True):
        weight = fast.weight if fast and request.sampler_id == FAST_SAMPLER else 1
        right, known = count_outcomes(reply.completions)
        before = counts.get(request.node, (0, 0))
        counts[request.node] = (before[0] + weight * right, before[1] + weight * known)
    return counts


def families(tree: Tree, found: Sequence[Judged]) -> Iterator[list[Judged]]:
    """Yields siblings together, where they stand side by side."""
    parents = tree.nodes.parent
    for _, family in groupby(found, key=lambda judged: parents[judged.node]):
        yield list(family)


def worth(
    tree: Tree, node: int, settings: SearchSettings, counts: tuple[float, float]
) -> float | None:
    """Returns what a node is worth to the search, in [0, 1]; None where nobody knows.

    Args:
        tree: Not modified.
        node: A node whose scores are there, if there are critics.
        settings: Holds the critics' weights.
        counts: Its right rollouts, and those with a known verdict.
    """
    scores = tree.nodes.scores[node]
    if tree.nodes.judgement[node] is not None:
        exact = tree.terminal_value(node)
        return scores.outcome if exact is None and scores else exact
    opinion = critic_opinion(scores, settings) if scores else None
    return leaf_value(*counts, opinion, settings.critic_rollouts)


def back_up(tree: Tree, values: Mapping[int, float]) -> None:
    """Counts a visit of siblings and of all above them for each.

    Args:
        tree: Modified in place.
        values: What siblings are worth; without those nobody knows, which are no visits.
    """
    parents, visits, value_sum = tree.nodes.parent, tree.nodes.visits, tree.nodes.value_sum
    at, n, total = NO_PARENT, len(values), 0.0
    for node, value in values.items():
        visits[node] += 1
        value_sum[node] += value
        total += value  # by `sum` it would depend on the version of Python
        at = parents[node]
    while at != NO_PARENT:
        visits[at] += n
        value_sum[at] += total
        at = parents[at]

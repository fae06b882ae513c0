"""What requests can take of a budget at most, and how many of them surely fit."""

from collections.abc import Sequence

from treeward.search.policy import PolicySampler
from treeward.search.requests import Kind, Request


def least_tokens(samplers: Sequence[PolicySampler], requests: Sequence[Request]) -> int:
    """Returns how many tokens the first rollout that takes any can take, or all samples."""
    if any(request.kind is Kind.SAMPLE for request in requests):
        return most_tokens(samplers, requests)
    costs = (most_tokens(samplers, [request._replace(n=1)]) for request in requests)
    return next(filter(None, costs), 0)


def within(
    samplers: Sequence[PolicySampler], requests: Sequence[Request], tokens: int
) -> list[Request]:
    """Returns the first of some requests, the last of them perhaps in part, that surely fit."""
    fitting = []
    for request in requests:
        cost = most_tokens(samplers, [request._replace(n=1)])
        n = min(request.n, tokens // cost) if cost else request.n
        tokens -= n * cost
        if n:
            fitting.append(request._replace(n=n))
        if n < request.n:
            break
    return fitting


def most_tokens(samplers: Sequence[PolicySampler], requests: Sequence[Request]) -> int:
    """Returns how many tokens some requests can take at most."""
    most = 0
    for request in requests:
        if request.kind in (Kind.SAMPLE, Kind.ROLLOUT):
            settings = samplers[request.sampler_id].settings
            room = max(0, settings.max_rollout_tokens - len(request.prefix_ids))
            to_step = request.kind is Kind.SAMPLE
            most += request.n * (min(room, settings.max_step_tokens) if to_step else room)
    return most

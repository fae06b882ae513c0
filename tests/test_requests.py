"""What is drawn depends on what is asked for, never on when or how it is asked."""

import asyncio
from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from treeward.search.policy import Ask, Draw, PolicySettings
from treeward.search.problem import Problem
from treeward.search.replies import Completion
from treeward.search.requests import Kind, Request, ask, ask_scores, request_key, seeds_of
from treeward.search.scripted import ScriptedPolicy
from treeward.search.steps import Finish, StepRule
from treeward.search.tree import ROOT, Creation, Tree

PROBLEM = Problem(id="p", prompt="?")


def coin(prompt: str, text: str) -> list[tuple[str, float]]:
    return [(f"{len(text)}{side}\n", 0.25) for side in "abcd"]


def drawn(request: Request, run_seed: int = 0) -> list[Draw]:
    """What a policy replies to a request."""
    call = Ask(
        prompt_ids=(1,),
        prefix_ids=request.prefix_ids,
        kind=request.kind,
        seeds=seeds_of(run_seed, PROBLEM.id, request),
        settings=PolicySettings(max_rollout_tokens=20),
        rule=StepRule(),
        stick_to="p",
    )
    return asyncio.run(ScriptedPolicy(coin).draw(call))


def tree_with_a_step() -> tuple[Tree, int]:
    tree = Tree(PROBLEM)
    step = tuple(b"0a\n")
    node = tree.add_step(ROOT, step, creation=Creation.SAMPLED, finish=Finish.STEP)
    return tree, node


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from(Kind))
def test_asking_for_eight_equals_asking_for_four_and_four_more(
    parts: list[int], kind: Kind
) -> None:
    tree, node = tree_with_a_step()
    in_parts = [draw for n in parts for draw in drawn(ask(tree, node, kind, n))]
    tree, node = tree_with_a_step()
    assert drawn(ask(tree, node, kind, sum(parts))) == in_parts


def test_every_continuation_has_a_seed_of_its_own() -> None:
    """64 seeds of 63 bits; by chance two would be equal with probability 2e-16."""
    tree, node = tree_with_a_step()
    requests = [
        ask(tree, at, kind, 4, sampler_id=sampler)
        for at in (ROOT, node)
        for kind in (Kind.SAMPLE, Kind.ROLLOUT)
        for sampler in (0, 1)
        for _ in range(2)
    ]
    seeds = [seed for request in requests for seed in seeds_of(0, "p", request)]
    assert len(set(seeds)) == len(seeds) == 64
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_a_rollout_never_replays_a_sample() -> None:
    """The first steps of 32 rollouts are not those of 32 samples: chance equality is 4**-32."""
    tree = Tree(PROBLEM)
    samples = drawn(ask(tree, ROOT, Kind.SAMPLE, 32))
    rollouts = drawn(ask(tree, ROOT, Kind.ROLLOUT, 32))
    assert [draw.token_ids for draw in samples] != [draw.token_ids[:3] for draw in rollouts]


requests = st.builds(
    Request,
    kind=st.sampled_from(Kind),
    node=st.just(0),
    prefix_ids=st.lists(st.integers(0, 300), max_size=3).map(tuple),
    n=st.integers(1, 12),
    first=st.integers(0, 12),
    sampler_id=st.integers(0, 12),
)


def test_a_key_stands_for_one_request() -> None:
    requests = [
        Request(kind=kind, node=0, prefix_ids=prefix, n=n, first=first, sampler_id=sampler)
        for kind in Kind
        for prefix in ((), (0,), (0, 0), (1, 2), (12,), (256,))
        for n in range(1, 13)
        for first in range(13)
        for sampler in range(13)
    ]
    assert len({request_key(request) for request in requests}) == len(requests)


def test_a_key_stands_for_its_siblings() -> None:
    """However the same ids are cut into a prefix and steps."""
    ids = (1, 2, 1, 1, 2)
    requests = [
        Request(Kind.SCORE, 1, ids[: ends[0]], len(ends) - 1, 0, steps=cut_at(ids, ends))
        for places in range(2, len(ids) + 2)
        for ends in combinations(range(len(ids) + 1), places)
        if ends[-1] == len(ids)
    ]
    assert len({request_key(request) for request in requests}) == len(requests) == 31


def cut_at(ids: tuple[int, ...], ends: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(ids[start:end] for start, end in pairwise(ends))


def test_siblings_made_together_are_scored_together() -> None:
    tree = Tree(PROBLEM)
    first = tree.add_samples(ROOT, [sampled(n) for n in (1, 2)])
    below = tree.add_samples(1, [sampled(n) for n in (3, 4, 5)])
    later = tree.add_samples(ROOT, [sampled(n) for n in (1, 6)])
    requests = ask_scores(tree, [ROOT, *first, *below, *later])
    assert [(r.node, r.n, r.prefix_ids, r.steps) for r in requests] == [
        (0, 1, (), ((),)),
        (1, 2, (), ((1,), (2,))),
        (3, 3, (1,), ((3,), (4,), (5,))),
        (6, 1, (), ((6,),)),
    ]
    assert [(r.node, r.n) for r in ask_scores(tree, [2, 4, 3, 5])] == [
        (2, 1), (4, 1), (3, 1), (5, 1)
    ]  # fmt: skip
    assert ask_scores(tree, []) == []


def sampled(token: int) -> Completion:
    return Completion(token_ids=(token,), logprob=-1.0, finish=Finish.STEP, seed=token)


placed = st.tuples(st.integers(0, 3), st.sampled_from(["p", "p2", "p:sample:0", ""]), requests)


@given(placed, placed)
def test_a_seed_stands_for_one_continuation(
    one: tuple[int, str, Request], other: tuple[int, str, Request]
) -> None:
    """Two of a thousand random pairs share 63 bits with probability 1e-13."""

    def place(run_seed: int, problem: str, request: Request) -> object:
        return (
            run_seed,
            problem,
            request.kind,
            request.sampler_id,
            request.first,
            request.prefix_ids,
        )

    equal = seeds_of(*one)[0] == seeds_of(*other)[0]
    assert equal == (place(*one) == place(*other))
    run_seed, problem, request = one
    more = request._replace(n=request.n + 5)
    later = request._replace(n=1, first=request.first + 5)
    assert seeds_of(run_seed, problem, more)[5] == seeds_of(run_seed, problem, later)[0]


def test_seeds_stay_what_they_are() -> None:
    """A run that is resumed by a later version must go on with the same seeds."""
    request = Request(kind=Kind.ROLLOUT, node=3, prefix_ids=(1, 2), n=4, first=8)
    assert seeds_of(7, "problem", request)[2] == 6705295433378551860

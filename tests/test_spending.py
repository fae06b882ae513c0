"""A budget over many trees: what it may decide by, and that nothing else does."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes import Crash, Exact, Memory
from tests.test_forest import (
    FAST,
    MCTS,
    PROBLEMS,
    READER,
    ROLLOUTS,
    SAMPLING,
    SETTINGS,
    Wrapped,
    fast_script,
    grow,
    script,
    shuffled,
)

from treeward.critics.standing import standing_of
from treeward.search.costs import least_tokens, most_tokens, within
from treeward.search.errors import BadInput
from treeward.search.forest import Forest, Plan, grow_tree
from treeward.search.omega import OmegaSettings, omega
from treeward.search.policy import Ask, Draw, PolicySampler
from treeward.search.requests import Kind, Request, Search, rest_of
from treeward.search.rollouts import rollouts
from treeward.search.scripted import ScriptedPolicy
from treeward.search.spending import (
    BudgetSettings,
    Claim,
    Funds,
    Need,
    Standing,
    allot,
    drawn_for,
    grow_on_budget,
)
from treeward.search.stopping import RolloutsSettings, StopRule
from treeward.search.tree import Tree

STOPPING: Search = partial(
    rollouts,
    settings=SETTINGS,
    cut=READER.cut,
    own=RolloutsSettings(width=0.6, batch=1),
)
BUDGET = BudgetSettings(tokens=1, settled=0.6, hopeless=8)
NEVER_ENOUGH = BudgetSettings(tokens=1, settled=1e-9, hopeless=10**9)
UNCERTAIN, SETTLED, HOPELESS = Standing


def spend(
    policy: ScriptedPolicy,
    tokens: int,
    *,
    search: Search = MCTS,
    block: int = 256,
    concurrency: int = 8,
    recorder: Memory | None = None,
    problems: Sequence[int] = range(len(PROBLEMS)),
    plan: Plan | None = None,
    budget: BudgetSettings = BUDGET,
) -> list[list[Tree]]:
    """Grows a forest on a budget and returns its blocks; fails if that takes 20 seconds."""
    blocks: list[list[Tree]] = []
    forest = forest_of(policy, search, recorder)
    appraise = partial(standing_of, cut=READER.cut, settings=budget)
    funds = Funds(tokens=tokens, block=block, appraise=appraise)
    chosen = iter([PROBLEMS[at] for at in problems])
    plan = plan or Plan(problems=chosen, concurrency=concurrency)

    async def run() -> None:
        async with asyncio.timeout(20):
            try:
                await grow_on_budget(forest, plan, funds, lambda trees: blocks.append([*trees]))
            finally:
                assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing goes on"

    asyncio.run(run())
    return blocks


def forest_of(policy: ScriptedPolicy, search: Search, recorder: Memory | None = None) -> Forest:
    return Forest(
        search=search,
        samplers=[
            PolicySampler(policy=policy, settings=SAMPLING),
            PolicySampler(policy=ScriptedPolicy(fast_script), settings=SAMPLING),
        ],
        reader=READER,
        verifier=Exact(),
        recorder=recorder or Memory(),
        seed=7,
        tree_id=lambda problem: f"tree of {problem.id}",
    )


def spent(blocks: list[list[Tree]]) -> int:
    return sum(drawn_for(tree) for trees in blocks for tree in trees)


SEARCHES = {"mcts": MCTS, "fast": FAST, "rollouts": ROLLOUTS, "stopping": STOPPING}


@pytest.fixture(scope="module", params=SEARCHES)
def search(request: pytest.FixtureRequest) -> Search:
    return SEARCHES[request.param]


@pytest.fixture(scope="module")
def tight(search: Search) -> int:
    """Three quarters of what the search takes."""
    return sum(map(drawn_for, grow(ScriptedPolicy(script), search=search).values())) * 3 // 4


@pytest.fixture(scope="module")
def undisturbed(search: Search, tight: int) -> list[list[Tree]]:
    return spend(ScriptedPolicy(script), tight, search=search, block=7, concurrency=1)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_what_is_funded_does_not_depend_on_the_order_of_replies(
    search: Search, tight: int, undisturbed: list[list[Tree]], concurrency: int
) -> None:
    assert [len(block) for block in undisturbed] == [7, 5]
    stopped = [tree.stopped for block in undisturbed for tree in block]
    assert sum(each is not None for each in stopped) > 0
    policy = shuffled(concurrency)
    again = spend(policy, tight, search=search, block=7, concurrency=concurrency)
    assert again == undisturbed


@pytest.mark.parametrize("at", [0, 1, 5, 13, 21])
def test_a_run_that_died_comes_to_the_same_shares(
    search: Search, tight: int, undisturbed: list[list[Tree]], at: int
) -> None:
    memory = Memory(room=at)
    with pytest.raises(Crash):
        spend(shuffled(at), tight, search=search, block=7, recorder=memory)
    memory.room = 10**6
    again = spend(shuffled(at + 1), tight, search=search, block=7, recorder=memory)
    assert again == undisturbed


def test_a_block_depends_on_what_the_blocks_before_it_left(
    search: Search, tight: int, undisturbed: list[list[Tree]]
) -> None:
    """So a run goes on from its last whole block, whose replies nobody has any more."""
    left = tight - spent(undisturbed[:1])
    assert (
        spend(shuffled(3), left, search=search, block=7, problems=range(7, 12)) == undisturbed[1:]
    )


def test_a_budget_that_is_not_used_up_stops_only_what_needs_no_more(
    search: Search, tight: int
) -> None:
    plain = grow(ScriptedPolicy(script), search=search)
    (trees,) = spend(shuffled(1), 100 * tight, search=search)
    assert [tree.problem.id for tree in trees] == [problem.id for problem in PROBLEMS]
    for tree in trees:
        need = standing_of(tree, cut=READER.cut, settings=BUDGET)
        assert tree.stopped in (None, need.standing)
        assert tree.stopped is not UNCERTAIN
        assert tree.stopped or tree == plain[tree.problem.id]
    (whole,) = spend(shuffled(1), 100 * tight, search=search, budget=NEVER_ENOUGH)
    assert {tree.problem.id: tree for tree in whole} == plain


def test_a_hopeless_tree_ends_early_and_leaves_what_it_does_not_take() -> None:
    """Nothing is right anywhere; a budget of ten times what the trees take does not matter."""

    def wrong(prompt: str, text: str) -> list[tuple[str, float]]:
        ends = "A7\n" if text else "go\n"
        return [(ends, 0.5), (f"{prompt.strip()}\n", 0.5)]

    more = replace(SETTINGS, rollouts=16)
    turns = RolloutsSettings(width=0.05, batch=2)
    long = partial(rollouts, settings=more, cut=READER.cut, own=turns)
    budget = BudgetSettings(tokens=1, settled=0.05, hopeless=4)
    cost = sum(map(drawn_for, grow(ScriptedPolicy(wrong), search=long).values()))
    blocks = spend(ScriptedPolicy(wrong), 10 * cost, search=long, block=6, budget=budget)
    stopped = [tree.stopped for block in blocks for tree in block]
    assert {HOPELESS} <= {*stopped} <= {HOPELESS, None}
    assert spent(blocks) < 0.7 * cost


class Metered(ScriptedPolicy):
    """Fails where more was drawn than there is."""

    def __init__(self, tokens: int) -> None:
        super().__init__(script)
        self.left = tokens

    async def draw(self, ask: Ask) -> list[Draw]:
        draws = await super().draw(ask)
        self.left -= sum(len(draw.token_ids) for draw in draws)
        assert self.left >= 0
        return draws


@settings(deadline=None)
@given(
    st.sampled_from([MCTS, ROLLOUTS, STOPPING]), st.integers(-5, 6000), st.sampled_from([1, 5, 256])
)
def test_no_more_is_spent_than_there_is(search: Search, tokens: int, block: int) -> None:
    policy = Metered(max(tokens, 0))
    blocks = spend(policy, tokens, search=search, block=block)
    assert [tree.problem.id for trees in blocks for tree in trees] == [p.id for p in PROBLEMS]
    assert spent(blocks) == max(tokens, 0) - policy.left


def test_a_budget_below_the_first_requests_leaves_bare_roots() -> None:
    """Solutions have 40 tokens at most: with 39 none can be asked for, with 40 one."""
    (none,) = spend(ScriptedPolicy(script), 39, search=ROLLOUTS)
    assert {(len(tree), drawn_for(tree), tree.stopped) for tree in none} == {(1, 0, UNCERTAIN)}
    assert {tree.nodes.stop_rule[0] for tree in none} == {StopRule.BUDGET}
    (one,) = spend(ScriptedPolicy(script), 40, search=ROLLOUTS)
    # What it did not take does not suffice for the next: the first tree alone has grown.
    assert [len(tree.rollouts.node) for tree in one] == [1] + [0] * 11
    assert [len(tree) > 1 for tree in one] == [True] + [False] * 11
    assert {tree.stopped for tree in one} == {UNCERTAIN}


def test_a_node_says_that_the_budget_ended_it() -> None:
    (trees,) = spend(ScriptedPolicy(script), 630, search=ROLLOUTS)
    for tree in trees:
        asked = Counter(tree.rollouts.node)
        for node, rule in enumerate(tree.nodes.stop_rule):
            whole = asked[node] == (SETTINGS.rollouts if node else SETTINGS.width)
            assert rule != StopRule.FIXED or whole
            assert rule != StopRule.BUDGET or (not whole and tree.stopped)
            assert rule is not None or tree.is_terminal(node)
    assert any(StopRule.BUDGET in tree.nodes.stop_rule for tree in trees)


def test_only_so_many_trees_ask_at_once() -> None:
    plan = Plan(problems=iter(PROBLEMS), concurrency=3)
    most = 0

    async def look(ask: Ask) -> None:
        nonlocal most
        most = max(most, plan.progress.in_flight)
        await asyncio.sleep(0)

    spend(Wrapped(look), 2000, plan=plan)
    assert (most, plan.progress.in_flight, plan.progress.trees) == (3, 0, 12)


def test_stopping_hands_nothing_over_and_loses_nothing() -> None:
    whole = spend(ScriptedPolicy(script), 2000)
    memory = Memory()
    plan = Plan(problems=iter(PROBLEMS), concurrency=4)

    async def before(ask: Ask) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if plan.progress.asked > 30:
            plan.stopping.set()

    assert spend(Wrapped(before), 2000, recorder=memory, plan=plan) == []
    assert 30 < plan.progress.asked == len(memory.kept)
    assert spend(shuffled(2), 2000, recorder=memory) == whole


SMALLEST = {"mcts": 2 * 3 * 10, "fast": 2 * 3 * 10, "rollouts": 40, "stopping": 40}
"""What a wave of samples, or a rollout, can take at most."""


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("tokens", [200, 350])
def test_what_is_left_is_too_little_for_anybody(name: str, tokens: int) -> None:
    """However much a wave of requests might take at its longest."""
    (trees,) = spend(
        ScriptedPolicy(script), tokens, search=SEARCHES[name], budget=NEVER_ENOUGH, concurrency=5
    )
    assert any(tree.stopped for tree in trees)
    assert tokens - spent([trees]) < SMALLEST[name]


OMEGA: Search = partial(omega, settings=SETTINGS, own=OmegaSettings(), cut=READER.cut)


@pytest.mark.parametrize("grown_by", [*SEARCHES.values(), OMEGA], ids=[*SEARCHES, "omega"])
def test_rollouts_that_are_asked_for_in_parts_make_the_same_tree(grown_by: Search) -> None:
    rng, forest = Random(0), forest_of(ScriptedPolicy(script), grown_by)

    async def cut_short(tree: Tree, requests: list[Request]) -> None:
        at = rng.randrange(len(requests))
        if requests[0].kind is Kind.ROLLOUT:
            last = requests[at]
            requests[at:] = [last._replace(n=rng.randint(1, last.n))]

    def told(tree: Tree) -> Tree:
        """Without what each request adds, and what says nothing where no node is chosen."""
        tree.rollouts.nodes_before, tree.prompt_tokens = [], 0
        return tree

    plain, asked = grow(ScriptedPolicy(script), search=grown_by), 0
    for problem in PROBLEMS:
        plan = Plan(problems=iter(()), concurrency=1)
        tree = asyncio.run(grow_tree(forest, plan, problem, cut_short))
        assert tree is not None
        asked += plan.progress.asked - len(tree.drawn)
        before = plain[problem.id].rollouts.nodes_before
        assert grown_by is OMEGA or tree.rollouts.nodes_before[3:] == before[3:]
        assert told(tree) == told(plain[problem.id])
    assert asked > len(PROBLEMS)


def claim(
    standing: Standing, weight: int, most: int, drawn: int = 0, least: int | None = None
) -> Claim:
    return Claim(Need(standing, weight), drawn, most, most if least is None else least)


_STANDINGS = ((UNCERTAIN, 3), (SETTLED, 9), (UNCERTAIN, 1), (HOPELESS, 9))


def test_shares_go_by_what_is_uncertain() -> None:
    """Half of 1,000 for weights 3 and 1; those that are settled or hopeless get nothing."""
    drawn = 900
    claims = [claim(standing, weight, 50, drawn) for standing, weight in _STANDINGS]
    assert allot(claims, 1000) == [375, 0, 125, 0]
    assert allot([claim(HOPELESS, 1, 50, drawn), claim(SETTLED, 1, 50, drawn)], 1000) == [0, 0]


def test_nobody_gets_more_at_once_than_it_has_drawn_or_asks_for() -> None:
    """So that a tree is looked at again before it has drawn twice as much."""
    claims = [claim(UNCERTAIN, 1, 50, drawn) for drawn in (0, 49, 51, 130)]
    assert allot(claims, 10**6) == [50, 50, 51, 130]


def test_what_a_tree_asks_next_must_fit_and_those_with_least_come_first() -> None:
    claims = [claim(UNCERTAIN, 1, 60), claim(UNCERTAIN, 1, 90), claim(UNCERTAIN, 1, 30)]
    assert allot(claims, 180) == [60, 90, 30]
    assert allot(claims, 100) == [60, 0, 30]
    late = [claim(UNCERTAIN, 1, 60, drawn=9), claim(UNCERTAIN, 1, 90, drawn=8)]
    assert allot(late, 100) == [0, 90]
    assert allot(claims, 29) == [0, 0, 0]
    assert allot(claims, -1) == [0, 0, 0]
    assert allot([], 100) == []


def test_a_share_that_is_less_than_a_wave_goes_into_part_of_it() -> None:
    """300 a tree; and where that is less than one rollout, one rollout each, as far as it goes."""
    claims = [claim(UNCERTAIN, 1, 4000, drawn, least=100) for drawn in (7, 9, 8)]
    assert allot(claims, 1800) == [300, 300, 300]
    assert allot(claims, 250) == [100, 0, 100]


SAMPLERS = [PolicySampler(policy=ScriptedPolicy(script), settings=SAMPLING)]


@given(
    st.lists(
        st.builds(
            lambda kind, n, prefix: Request(kind, 0, (0,) * prefix, n, 5),
            st.sampled_from([Kind.ROLLOUT, Kind.SCORE]),
            st.integers(1, 6),
            st.integers(0, 45),
        ),
        min_size=1,
    ),
    st.integers(0, 400),
)
def test_the_most_that_fits_is_asked(requests: list[Request], tokens: int) -> None:
    part = within(SAMPLERS, requests, tokens)
    assert most_tokens(SAMPLERS, part) <= tokens
    rest = rest_of(requests, part) if part else requests
    if rest:
        one = most_tokens(SAMPLERS, [rest[0]._replace(n=1)])
        assert most_tokens(SAMPLERS, part) + one > tokens
    assert sum(each.n for each in (*part, *rest)) == sum(each.n for each in requests)
    assert [each.first for each in rest[1:]] == [5] * len(rest[1:])
    least = least_tokens(SAMPLERS, requests)
    assert most_tokens(SAMPLERS, within(SAMPLERS, requests, least)) == least
    assert (least > 0) == (most_tokens(SAMPLERS, requests) > 0)


@given(
    st.lists(
        st.builds(
            claim,
            st.sampled_from(list(Standing)),
            st.integers(1, 40),
            st.integers(20, 400),
            st.integers(0, 900),
            st.integers(1, 20),
        )
    ),
    st.integers(0, 5000),
)
def test_grants_fit_and_let_somebody_go_on(claims: list[Claim], left: int) -> None:
    grants = allot(claims, left)
    assert sum(grants) <= left
    assert all(
        grant == 0 or grant >= each.least for grant, each in zip(grants, claims, strict=True)
    )
    for grant, each in zip(grants, claims, strict=True):
        assert grant == 0 or each.need.standing is UNCERTAIN
        assert grant <= max(each.most, each.drawn)
    if any(each.least <= left for each in claims if each.need.standing is UNCERTAIN):
        assert any(grants)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"tokens": 0}, "budget.tokens must be at least 1"),
        ({"tokens": 9, "block": 0}, "budget.block must be at least 1"),
        ({"tokens": 9, "hopeless": 0}, "budget.hopeless must be at least 1"),
        ({"tokens": 9, "settled": 0.0}, "budget.settled must be in"),
        ({"block": 8}, "is read only with --budget-tokens; give that as well"),
    ],
)
def test_settings_that_break_a_rule(asked: dict[str, float], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        BudgetSettings(**asked)  # type: ignore[arg-type]  # most are counts

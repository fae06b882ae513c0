"""Trees do not depend on when replies come, and nothing that was replied is asked for again."""

import asyncio
import gc
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import pytest
from tests.fakes import Crash, Exact, Memory

from treeward.search.errors import CallFailed
from treeward.search.fast import FastRollouts
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.garbage import RARELY
from treeward.search.mcts import mcts
from treeward.search.policy import Ask, Draw, PolicySampler, PolicySettings, draws_of
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Failure
from treeward.search.requests import Search
from treeward.search.rollouts import rollouts
from treeward.search.scripted import Script, ScriptedPolicy
from treeward.search.settings import SearchSettings
from treeward.search.steps import StepRule
from treeward.search.tokens import byte_tokens
from treeward.search.tree import Tree
from treeward.search.verdicts import Judgement, Verifier

TEMPLATE = Template(name="t", answer="A{answer}", rule=StepRule(answer_mark="A"))
READER = Reader(TEMPLATE, byte_tokens())
SAMPLING = PolicySettings(max_step_tokens=10, max_rollout_tokens=40)
SETTINGS = SearchSettings(simulations=5, width=3, rollouts=2, wave=2)
MCTS: Search = partial(mcts, settings=SETTINGS)
FAST: Search = partial(mcts, settings=SETTINGS, fast=FastRollouts(n=2, weight=0.5, max_tokens=6))
ROLLOUTS: Search = partial(rollouts, settings=SETTINGS, cut=READER.cut)
PROBLEMS = [Problem(id=f"p{n}", prompt=f"{n}", answer=str(n % 2)) for n in range(12)]


def script(prompt: str, text: str) -> list[tuple[str, float]]:
    if text.count("\n") == 3:
        return [("A0\n", 0.5), ("A1\n", 0.5)]
    return [("go\n", 0.5), (f"{prompt.strip()}\n", 0.3), ("A1\n", 0.2)]


def fast_script(prompt: str, text: str) -> list[tuple[str, float]]:
    """Of a sampler that hurries to an answer."""
    return [("A1\n", 0.75), ("A0\n", 0.25)]


class Wrapped(ScriptedPolicy):
    """The scripted policy behind something that happens before it replies."""

    def __init__(self, before: Callable[[Ask], Awaitable[None]], follows: Script = script) -> None:
        super().__init__(follows)
        self.before = before
        self.calls = 0

    async def draw(self, ask: Ask) -> list[Draw]:
        self.calls += 1
        await self.before(ask)
        return await super().draw(ask)


def shuffled(seed: int, follows: Script = script) -> Wrapped:
    """Replies after a random number of turns of the event loop."""
    rng = random.Random(seed)

    async def wait(ask: Ask) -> None:
        for _ in range(rng.choice([0, 1, 2, 30])):
            await asyncio.sleep(0)

    return Wrapped(wait, follows)


def failing(fails: Callable[[Ask], BaseException | None]) -> Wrapped:
    async def check(ask: Ask) -> None:
        error = fails(ask)
        if error is not None:
            raise error

    return Wrapped(check)


def grow(
    policy: ScriptedPolicy,
    *,
    fast: ScriptedPolicy | None = None,
    search: Search = MCTS,
    concurrency: int = 8,
    recorder: Memory | None = None,
    problems: Sequence[Problem] = PROBLEMS,
    plan: Plan | None = None,
    finished: Callable[[Tree], None] | None = None,
    verifier: Verifier | None = None,
    quick: Callable[[Problem], bool] = lambda _: False,
) -> dict[str, Tree]:
    """Grows a forest and returns its trees by problem; fails if that takes 20 seconds."""
    trees: dict[str, Tree] = {}
    forest = Forest(
        search=search,
        samplers=[
            PolicySampler(policy=policy, settings=SAMPLING),
            PolicySampler(policy=fast or ScriptedPolicy(fast_script), settings=SAMPLING),
        ],
        reader=READER,
        verifier=verifier or Exact(),
        recorder=recorder or Memory(),
        seed=7,
        quick=quick,
        tree_id=lambda problem: f"tree of {problem.id}",
    )
    plan = plan or Plan(problems=iter(problems), concurrency=concurrency)

    def keep(tree: Tree) -> None:
        assert tree.problem.id not in trees
        trees[tree.problem.id] = tree

    async def run() -> None:
        async with asyncio.timeout(20):
            try:
                await grow_forest(forest, plan, finished or keep)
            finally:
                assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing goes on"

    asyncio.run(run())
    return trees


@pytest.fixture(scope="module", params=[MCTS, FAST, ROLLOUTS], ids=["mcts", "fast", "rollouts"])
def search(request: pytest.FixtureRequest) -> Search:
    chosen: Search = request.param
    return chosen


@pytest.fixture(scope="module")
def undisturbed(search: Search) -> dict[str, Tree]:
    return grow(ScriptedPolicy(script), search=search, concurrency=1)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_trees_do_not_depend_on_the_order_of_replies(
    search: Search, undisturbed: dict[str, Tree], concurrency: int
) -> None:
    assert len({len(tree) for tree in undisturbed.values()}) > 3, "the trees differ"
    assert grow(shuffled(concurrency), search=search, concurrency=concurrency) == undisturbed


def test_a_tree_does_not_depend_on_the_others(search: Search, undisturbed: dict[str, Tree]) -> None:
    alone = grow(ScriptedPolicy(script), search=search, problems=PROBLEMS[4:5])
    assert alone == {"p4": undisturbed["p4"]}


@pytest.mark.parametrize("at", [0, 1, 2, 3, 5, 8, 13, 21, 34, 50])
def test_a_run_that_died_goes_on_where_it_was(
    search: Search, undisturbed: dict[str, Tree], at: int
) -> None:
    memory = Memory(room=at)
    with pytest.raises(Crash):
        grow(shuffled(at), search=search, recorder=memory)
    kept = dict(memory.kept)
    assert len(kept) == at
    policy = shuffled(at + 1)
    memory.room = 10**6
    fast = shuffled(at + 2, fast_script)
    assert grow(policy, fast=fast, search=search, recorder=memory) == undisturbed
    assert policy.calls + fast.calls == len(memory.kept) - len(kept)
    assert all(memory.kept[place] == reply for place, reply in kept.items())


def test_recorded_replies_are_enough(search: Search, undisturbed: dict[str, Tree]) -> None:
    memory = Memory()
    grow(ScriptedPolicy(script), search=search, recorder=memory)
    silent = failing(lambda ask: AssertionError("everything is recorded"))
    plan = Plan(problems=iter(PROBLEMS), concurrency=3)
    assert grow(silent, search=search, recorder=memory, plan=plan) == undisturbed
    assert (plan.progress.asked, plan.progress.replayed) == (0, len(memory.kept))
    assert (plan.progress.tokens, plan.progress.trees, plan.progress.in_flight) == (0, 12, 0)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_an_error_waits_for_no_call(concurrency: int) -> None:
    """One call never ends, the one after it ends the run; nothing goes on, says `grow`."""
    asked = 0

    async def before(ask: Ask) -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            await asyncio.Event().wait()
        if asked == 4:
            raise Crash("the disk is full")

    with pytest.raises(Crash, match="the disk is full"):
        grow(Wrapped(before), recorder=Memory(), concurrency=concurrency)


def test_progress_counts_what_happens() -> None:
    memory = Memory()
    plan = Plan(problems=iter(PROBLEMS), concurrency=3)
    trees = grow(ScriptedPolicy(script), recorder=memory, plan=plan)
    progress = plan.progress
    assert (progress.trees, progress.asked, progress.failures) == (12, len(memory.kept), 0)
    drawn = [len(c.token_ids) for reply in memory.kept.values() for c in reply.completions]
    assert progress.tokens == sum(drawn) == sum(tree.policy_tokens for tree in trees.values())


def test_the_tokens_of_a_tree_are_those_asked_for_and_drawn() -> None:
    memory = Memory()
    (tree,) = grow(ScriptedPolicy(script), recorder=memory, problems=PROBLEMS[:1]).values()
    replies = memory.kept.values()
    assert tree.policy_tokens == sum(len(c.token_ids) for r in replies for c in r.completions)
    # Two bytes of prompt, "0\n", for each request, and the steps above its node.
    assert len(tree.drawn) == len(replies)
    assert tree.prompt_tokens == sum(2 + len(tree.prefix_ids(node)) for node, *_ in tree.drawn)


def test_a_fast_rollout_is_drawn_by_the_second_sampler_and_costs_the_first_nothing() -> None:
    for tree in grow(ScriptedPolicy(script), search=FAST).values():
        spent = [0, 0]
        for sampler, drawn in zip(tree.rollouts.sampler_id, tree.rollouts.completion, strict=True):
            assert drawn is not None
            hurried = READER.text(drawn.token_ids) in ("A0\n", "A1\n")
            assert hurried or sampler == 0
            spent[sampler] += len(drawn.token_ids)
        assert tree.fast_tokens == spent[1] > 0
        # Each request for steps at a node brings whole steps, which its children count.
        steps = sum(
            len(ids) * n for ids, n in zip(tree.nodes.step_ids, tree.nodes.n_samples, strict=True)
        )
        assert tree.policy_tokens == spent[0] + steps


def test_fast_rollouts_start_only_where_their_budget_leaves_room() -> None:
    lengths = {True: set[int](), False: set[int]()}
    for tree in grow(ScriptedPolicy(script), search=FAST).values():
        for node in range(len(tree)):
            if not tree.is_terminal(node):
                asked = (node, "rollout", 1) in tree.drawn
                lengths[asked].add(len(tree.prefix_ids(node)))
    assert 0 < max(lengths[True]) < 6 <= min(lengths[False])


def test_a_fast_sampler_that_fails_leaves_evidence_as_it_was() -> None:
    """Its failed calls are data: rollouts of unknown verdict, which say nothing of a node."""

    async def fails(ask: Ask) -> None:
        raise CallFailed("timeout", "late")

    trees = grow(ScriptedPolicy(script), search=FAST, fast=Wrapped(fails))
    plain = grow(ScriptedPolicy(script))
    for name, tree in trees.items():
        assert tree.nodes.value_sum == plain[name].nodes.value_sum
        assert tree.nodes.step_ids == plain[name].nodes.step_ids
        late = [failure.message for failure in tree.rollouts.failure if failure]
        assert len(late) == 2 * sum(sampler == 1 for *_, sampler in tree.drawn)
        assert tree.fast_tokens == 0


class Watched(Exact):
    """Notes on which threads it judges."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        self.threads.add(threading.get_ident())
        return super().judge(problem, answer)


def test_quick_verdicts_need_no_other_thread_and_change_nothing() -> None:
    slow, quick = Watched(), Watched()
    assert grow(ScriptedPolicy(script), verifier=slow) == grow(
        ScriptedPolicy(script), verifier=quick, quick=lambda _: True
    )
    assert quick.threads == {threading.get_ident()}
    assert slow.threads
    assert threading.get_ident() not in slow.threads


def test_the_collector_is_as_it_was_once_a_forest_has_grown() -> None:
    before = gc.get_threshold()
    during = []

    async def look(ask: Ask) -> None:
        during.append(gc.get_threshold())

    grow(Wrapped(look), problems=PROBLEMS[:1])
    assert set(during) == {RARELY}
    with pytest.raises(ValueError, match="bug"):
        grow(failing(lambda ask: ValueError("bug")))
    assert gc.get_threshold() == before != RARELY


def test_only_so_many_trees_grow_at_once() -> None:
    plan = Plan(problems=iter(PROBLEMS), concurrency=3)
    most = 0

    async def look(ask: Ask) -> None:
        nonlocal most
        most = max(most, plan.progress.in_flight)
        await asyncio.sleep(0)

    grow(Wrapped(look), plan=plan)
    assert most == 3


def test_a_failed_call_is_data_and_is_asked_for_again() -> None:
    def fails(ask: Ask) -> BaseException | None:
        return CallFailed("timeout", "late") if ask.stick_to == "p3" else None

    memory = Memory()
    plan = Plan(problems=iter(PROBLEMS), concurrency=8)
    trees = grow(failing(fails), search=MCTS, recorder=memory, plan=plan)
    assert trees["p3"].nodes.failure == [Failure("timeout", "late")]
    assert [f and f.message for f in trees["p3"].rollouts.failure] == ["late"] * SETTINGS.rollouts
    assert plan.progress.failures == SETTINGS.width + SETTINGS.rollouts
    assert not any(tree_id == "tree of p3" for tree_id, _ in memory.kept)
    whole = grow(ScriptedPolicy(script))
    assert {name for name in whole if whole[name] != trees[name]} == {"p3"}
    assert grow(ScriptedPolicy(script), recorder=memory) == whole


class Picky(Wrapped):
    """Fails one seed in three, as often as it is told, and replies when it pleases."""

    def __init__(self, order: int, *, failing: bool = True) -> None:
        super().__init__(shuffled(order).before)
        self.failing = failing
        self.seeds: list[int] = []

    async def draw(self, ask: Ask) -> list[Draw]:
        self.seeds += ask.seeds
        late = CallFailed("timeout", "late")
        pairs = zip(ask.seeds, await super().draw(ask), strict=True)
        draws = draws_of(ask, [late if self.fails(seed) else draw for seed, draw in pairs])
        if isinstance(draws, CallFailed):
            raise draws
        return draws

    def fails(self, seed: int) -> bool:
        return self.failing and seed % 3 == 0


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_continuation_that_failed_costs_no_other(search: Search, concurrency: int) -> None:
    policy, memory = Picky(concurrency), Memory()
    plan = Plan(problems=iter(PROBLEMS), concurrency=concurrency)
    trees = grow(policy, search=search, recorder=memory, plan=plan)
    assert trees == grow(Picky(99), search=search, concurrency=1)
    failed = [seed for seed in policy.seeds if policy.fails(seed)]
    own = [tree.rollouts for tree in trees.values()]
    kept = {each.seed for rows in own for each in rows.completion if each}
    assert plan.progress.failures == len(failed) > 20
    assert not kept & set(failed)
    lost = [failure for rows in own for failure in rows.failure]
    assert {each for each in lost if each} == {Failure("timeout", "late")}
    assert any(reply.failure and reply.completions for reply in memory.kept.values())


def test_only_what_failed_is_asked_for_again() -> None:
    """The first request of each tree is replayed in part; what follows was asked of other nodes."""
    memory, before = Memory(), Picky(1)
    grow(before, search=ROLLOUTS, recorder=memory)
    first = {tree: reply for (tree, _), reply in reversed(memory.kept.items())}
    assert any(reply.failure for reply in first.values())
    after = Picky(2, failing=False)
    plan = Plan(problems=iter(PROBLEMS), concurrency=8)
    assert grow(after, search=ROLLOUTS, recorder=memory, plan=plan) == grow(
        ScriptedPolicy(script), search=ROLLOUTS
    )
    came = {each.seed for reply in first.values() for each in reply.completions}
    assert not came & set(after.seeds)
    assert set(before.seeds) & set(after.seeds) <= {s for s in before.seeds if before.fails(s)}
    assert plan.progress.failures == 0


def test_a_prompt_that_cannot_be_read_fails_its_own_tree_only() -> None:
    blank = Problem(id="blank", prompt="")
    reader = Reader(Template(name="t", question="{prompt}"), READER.tokens)
    plan = Plan(problems=iter([blank, PROBLEMS[0]]), concurrency=1)
    trees: list[Tree] = []
    forest = Forest(
        search=MCTS,
        samplers=[
            PolicySampler(
                policy=ScriptedPolicy(script), settings=PolicySettings(max_rollout_tokens=40)
            )
        ],
        reader=reader,
        verifier=Exact(),
        recorder=Memory(),
        seed=0,
        tree_id=lambda problem: problem.id,
    )
    asyncio.run(grow_forest(forest, plan, trees.append))
    failed, grown = trees
    assert [failure.kind for failure in failed.nodes.failure if failure] == ["prompt"]
    assert len(grown) > 1


def never() -> Wrapped:
    """Replies to the first problem and to no other."""

    async def wait(ask: Ask) -> None:
        if ask.stick_to != "p0":
            await asyncio.Event().wait()

    return Wrapped(wait)


def test_an_error_of_who_receives_trees_ends_the_run() -> None:
    def full(tree: Tree) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        grow(never(), finished=full)


def test_a_bug_in_the_policy_ends_the_run_and_leaves_nothing_behind() -> None:
    """The other requests of the same batch must not go on to record replies."""
    memory = Memory()
    error = ValueError("bug")
    broken = [0]

    async def before(ask: Ask) -> None:
        broken[0] += 1
        if broken[0] == 30:
            raise error
        for _ in range(broken[0] % 7):
            await asyncio.sleep(0)

    with pytest.raises(ValueError, match="bug") as raised:
        grow(Wrapped(before), recorder=memory)
    assert raised.value is error


def test_stopping_finishes_and_records_the_calls_in_flight() -> None:
    memory = Memory()
    plan = Plan(problems=iter(PROBLEMS), concurrency=4)
    asked_then = [0]

    async def before(ask: Ask) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        if plan.progress.asked > 40 and not plan.stopping.is_set():
            plan.stopping.set()
            await asyncio.sleep(0)  # requests that a tree has just handed over are in flight
            asked_then[0] = plan.progress.asked

    trees = grow(Wrapped(before), recorder=memory, plan=plan)
    assert len(trees) < len(PROBLEMS)
    assert plan.progress.asked == asked_then[0] == len(memory.kept)
    assert grow(ScriptedPolicy(script), recorder=memory) == grow(ScriptedPolicy(script))


def test_a_stopped_plan_asks_nothing() -> None:
    plan = Plan(problems=iter(PROBLEMS), concurrency=4)
    plan.stopping.set()
    policy = shuffled(0)
    assert grow(policy, plan=plan) == {}
    assert policy.calls == 0

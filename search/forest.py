"""Grows many trees at once: the only place that awaits, with `spending.py` for budgets.

Every tree is a task that drives its own search. Their requests meet in the policy, which serves
them together; a search gets its replies in the order it asked, so nothing here can change a tree.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, TypeVar

from treeward.search.critic import Prefix, Scores
from treeward.search.errors import BadInput, CallFailed
from treeward.search.fast import FAST_SAMPLER
from treeward.search.garbage import collected_rarely
from treeward.search.policy import Ask, LogprobAsk, PolicySampler, SomeFailed
from treeward.search.problem import Problem
from treeward.search.reader import Reader
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Kind, Recorder, Request, Search, request_key, seeds_of
from treeward.search.scoring import CriticThread
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Tree
from treeward.search.verdicts import Verifier

T = TypeVar("T")

Gate = Callable[[Tree, list[Request]], Awaitable[None]]
"""Leaves in a batch what a tree may ask now; one that may ask nothing is done as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Everything that growing a tree needs, the same for all trees of a run."""

    search: Search
    samplers: Sequence[PolicySampler]
    """What draws, by the ids that requests name; all with the same tokens. The first is the policy
    whose value is measured."""
    reader: Reader
    verifier: Verifier
    recorder: Recorder
    seed: int
    """The run's seed."""

    tree_id: Callable[[Problem], str]
    """Names a problem's tree."""

    critic: CriticThread | None = None
    """What is asked for scores; None where the search asks for none."""

    quick: Callable[[Problem], bool] = lambda _: False
    """Whether answers to a problem are judged in microseconds. Others are judged on threads, and a
    change of threads takes as long as dozens of quick verdicts."""


@dataclass(slots=True)
class Progress:
    """Counts what happens, for whoever shows it; nothing that is written depends on it."""

    trees: int = 0
    in_flight: int = 0
    asked: int = 0
    """Requests that went to a sampler or to a critic."""
    replayed: int = 0
    """Requests that a recorder answered."""
    tokens: int = 0
    """Tokens that samplers generated."""
    failures: int = 0
    """Completions and scores that failed calls did not bring."""


@dataclass(slots=True)
class Plan:
    """What is left to grow, and whether to go on."""

    problems: Iterator[Problem]
    concurrency: int
    progress: Progress = field(default_factory=Progress)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to end early: calls in flight are finished and recorded, no others are made."""


async def grow_forest(forest: Forest, plan: Plan, finished: Callable[[Tree], None]) -> None:
    """Grows a tree for each problem and hands each over as soon as it is done.

    Args:
        forest: What trees are grown with.
        plan: The problems, and how many trees grow at once.
        finished: Receives each finished tree, in no particular order.

    Raises:
        TreewardError: From the policy or from `finished`; trees half grown stay in the recorder.
    """

    async def work() -> None:
        for problem in plan.problems:
            if plan.stopping.is_set():
                return
            plan.progress.in_flight += 1
            tree = await grow_tree(forest, plan, problem)
            plan.progress.in_flight -= 1
            if tree is not None:
                finished(tree)
                plan.progress.trees += 1

    with collected_rarely():
        await together(work() for _ in range(plan.concurrency))


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Returns what all calls return, in order; where one raises, none goes on behind our back."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        await _cancel(tasks)
        raise


async def _in_order(
    calls: Sequence[Coroutine[Any, Any, T]], tasks: list[asyncio.Task[T]]
) -> list[T]:
    """Returns what all calls return, in order, as `together` does, for less.

    Args:
        calls: Are awaited one after the other, so one that raises must cancel the tasks.
        tasks: Those of the calls are added to it; a lone call needs none.
    """
    if len(calls) == 1:
        result = await calls[0]
        await asyncio.sleep(0)  # others get their turn
        return [result]
    tasks += [asyncio.create_task(call) for call in calls]
    try:
        return [await task for task in tasks]
    except BaseException:
        for outcome in await _cancel(tasks):
            if isinstance(outcome, Exception):
                raise outcome from None
        raise


async def _cancel(tasks: Sequence[asyncio.Task[T]]) -> list[T | BaseException]:
    """Ends tasks; returns what became of each."""
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def grow_tree(
    forest: Forest, plan: Plan, problem: Problem, gate: Gate | None = None
) -> Tree | None:
    """Grows one tree, as far as the gate lets it; None if the plan is stopped before it is done."""
    tree = Tree(problem)
    try:
        prompt_ids = forest.reader.prompt_ids(problem)
    except BadInput as e:
        tree.nodes.failure[ROOT] = Failure("prompt", str(e))
        return tree
    tree_id = forest.tree_id(problem)
    growth = forest.search(tree)
    requests = next(growth, None)
    while requests is not None:
        if gate is not None:
            await gate(tree, requests)
        if plan.stopping.is_set():
            return None
        if not requests:
            return tree
        wave: list[asyncio.Task[Reply]] = []
        replies = await _in_order(
            [_answer(forest, plan, tree, tree_id, prompt_ids, each, wave) for each in requests],
            wave,
        )
        try:
            requests = growth.send(replies)
        except StopIteration:
            requests = None
    return tree


async def _answer(
    forest: Forest,
    plan: Plan,
    tree: Tree,
    tree_id: str,
    prompt_ids: tuple[int, ...],
    request: Request,
    wave: Sequence[asyncio.Task[Reply]],
) -> Reply:
    """Returns the reply to one request, from the recorder or from whom it asks.

    Where it raises, nobody will read the replies to the rest of its wave, so it cancels them.
    """
    key = request_key(request)
    before = forest.recorder.known(tree_id, key)
    n_before = 0 if before is None else before.n_came
    if before is None or n_before < request.n:
        plan.progress.asked += 1
        try:
            if request.kind is Kind.SCORE:
                reply = await _score(forest, tree, request, before)
            elif request.kind is Kind.LOGPROBS:
                reply = await _read(forest, tree.problem, prompt_ids, request)
            else:
                reply = await _draw(forest, tree.problem, prompt_ids, request, before)
            n_came = reply.n_came
            if n_came > n_before:
                forest.recorder.record(tree_id, key, reply)
        except Exception:
            for task in wave:
                task.cancel()
            raise
        plan.progress.failures += request.n - n_came
        tokens = _drawn_tokens(request, reply)
        plan.progress.tokens += tokens - (_drawn_tokens(request, before) if before else 0)
    else:
        reply, tokens = before, _drawn_tokens(request, before)
        plan.progress.replayed += 1
    if request.kind is Kind.LOGPROBS:
        tree.prompt_tokens += len(prompt_ids) + sum(map(len, request.steps))
    elif request.sampler_id == FAST_SAMPLER:
        tree.fast_tokens += tokens
    elif request.kind is not Kind.SCORE:
        tree.policy_tokens += tokens
        tree.prompt_tokens += len(prompt_ids) + len(request.prefix_ids)
    return reply


def _drawn_tokens(request: Request, reply: Reply) -> int:
    if request.kind is Kind.LOGPROBS:
        return 0
    return sum([len(completion.token_ids) for completion in reply.completions])


async def _draw(
    forest: Forest,
    problem: Problem,
    prompt_ids: tuple[int, ...],
    request: Request,
    before: Reply | None,
) -> Reply:
    """Asks a sampler for what is missing and has it checked; failed calls become data."""
    sampler = forest.samplers[request.sampler_id]
    seeds = seeds_of(forest.seed, problem.id, request)
    came = {completion.seed: completion for completion in before.completions} if before else {}
    missing = tuple([seed for seed in seeds if seed not in came]) if came else seeds
    call = Ask(
        prompt_ids=prompt_ids,
        prefix_ids=request.prefix_ids,
        kind=request.kind,
        seeds=missing,
        settings=sampler.settings,
        rule=forest.reader.template.rule,
        stick_to=problem.id,
    )
    drawn, failure = missing, None
    try:
        draws = await sampler.policy.draw(call)
    except CallFailed as e:
        some = e.draws if isinstance(e, SomeFailed) else {}
        drawn, draws, failure = tuple(some), [*some.values()], Failure(e.kind, e.message)
    judge, what = forest.reader.judge, (forest.verifier, problem, request.prefix_ids, draws, drawn)
    if forest.quick(problem) or all(draw.finish is not Finish.END for draw in draws):
        completions = judge(*what)
    else:
        completions = await asyncio.to_thread(judge, *what)
    if came:
        came |= {completion.seed: completion for completion in completions}
        completions = tuple([came[seed] for seed in seeds if seed in came])
    return Reply(completions, failure)


async def _read(
    forest: Forest, problem: Problem, prompt_ids: tuple[int, ...], request: Request
) -> Reply:
    """Asks the policy how likely a solution is; replies with it as if it had been drawn.

    A failed call becomes data.
    """
    ids = tuple(chain.from_iterable(request.steps))
    try:
        policy = forest.samplers[request.sampler_id].policy
        call = LogprobAsk(prompt_ids=prompt_ids, ids=ids, stick_to=problem.id)
        logprobs = iter(await policy.logprobs(call))
    except CallFailed as e:
        return Reply(failure=Failure(e.kind, e.message))
    steps = tuple([sum(islice(logprobs, len(step))) for step in request.steps])
    drawn = Completion(ids, sum(steps), Finish.END, 0, step_logprobs=steps if steps[1:] else ())
    return Reply((drawn,))


async def _score(forest: Forest, tree: Tree, request: Request, before: Reply | None) -> Reply:
    """Asks the critic about siblings of which it has not said anything before.

    A failed call becomes data.
    """
    assert forest.critic is not None, "a search asks for scores where there is a critic"
    text, step_ids = forest.reader.text, tree.nodes.step_ids
    *above, _ = [text(step_ids[at]) for at in tree.path(request.node)]
    said: dict[int, Scores | Failure] = dict(enumerate(before.scores)) if before else {}
    silent = [at for at in range(request.n) if not isinstance(said.get(at), Scores)]
    prefixes = [Prefix(tree.problem, (*above, text(request.steps[at]))[1:]) for at in silent]
    said |= zip(silent, await forest.critic.score(prefixes), strict=True)
    return Reply(scores=tuple([said[at] for at in range(request.n)]))

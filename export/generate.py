"""Grows the trees of a run and commits them; the same call again goes on where it was."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from treeward.export.columns import Origin
from treeward.export.failed_trees import drop_trees, failed_trees
from treeward.export.funding import open_funds
from treeward.export.journal import Journal
from treeward.export.part_writer import PartWriter
from treeward.export.parts import committed_parts, committed_trees, require_columns
from treeward.export.plan import Plan
from treeward.export.run_folder import RunFolder, writing
from treeward.search import forest
from treeward.search.backends import is_deterministic, open_policy
from treeward.search.forest import Forest, Progress, grow_forest
from treeward.search.policy import PolicySampler
from treeward.search.problem import Problem
from treeward.search.reader import Reader
from treeward.search.scoring import CriticThread
from treeward.search.spending import Funds, grow_on_budget

Watch = Callable[[Progress, int], None]
"""Called about twice a second with what has happened and how many trees there are to grow."""

_WATCH_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Says how a `generate` call ended."""

    grown: int
    """Trees committed by this call."""

    before: int
    """Trees that were there already."""

    failed: int
    """Trees of this call in which calls failed."""

    failed_before: int
    """Trees in which calls failed of those that were there already."""

    left: int
    """Problems without a tree; more than 0 only where the call was interrupted."""

    interrupted: signal.Signals | None = None
    """The signal that ended it early."""

    def exit_code(self, fail_on_error: float | None) -> int:
        """Returns the documented exit code.

        Args:
            fail_on_error: The share of trees in which calls may fail before that is a failure
                (1) and not work done in part (4); None makes it work done in part.
        """
        if self.interrupted is not None:
            return 128 + self.interrupted
        failed, trees = self.failed + self.failed_before, self.grown + self.before
        if fail_on_error is not None and failed > fail_on_error * trees:
            return 1
        return 4 if failed else 0

    def __str__(self) -> str:
        """Returns one line for a terminal."""
        parts = [f"{self.grown} trees grown"] + [
            f"{count} {what}"
            for count, what in (
                (self.before, "were there before"),
                (self.failed_before, "of them with failed calls (--retry-failed grows them anew)"),
                (self.failed, "with failed calls (see the column error of trees)"),
                (self.left, "still to grow: the same command goes on"),
            )
            if count
        ]
        return ", ".join(parts)


def generate(
    plan: Plan,
    out: Path,
    *,
    concurrency: int,
    watch: Watch | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Grows a tree for each problem that has none yet.

    Args:
        plan: What the run is.
        out: The run folder; made where missing.
        concurrency: Trees that grow at once; no row depends on it.
        watch: Is told how far it is.
        retry_failed: Whether trees in which calls failed are taken out and grown anew.

    Raises:
        SettingsConflict: The folder holds a run with other settings.
        BadInput: The folder holds trees of an earlier version, which have fewer columns, or with
            `retry_failed` a run with a budget.
        TreewardError: The run cannot be written, or the policy cannot be loaded.
    """
    with contextlib.ExitStack() as stack:
        verifier = stack.enter_context(plan.make_verifier())
        run = stack.enter_context(writing(out, plan.identity, plan.problems))
        ids = {problem.id: run.identity.tree_id(problem.id) for problem in plan.share}
        failed_before = _failed_before(run, ids.values(), retry_failed=retry_failed)
        done = committed_trees(run.path)
        left = [problem for problem in plan.share if ids[problem.id] not in done]
        before = len(plan.share) - len(left)
        if not left:
            return Outcome(grown=0, before=before, failed=0, failed_before=failed_before, left=0)
        funds = open_funds(plan, run)
        samplers = _open_samplers(plan)
        reader = plan.reader(samplers[0].policy.tokens)
        journal = stack.enter_context(Journal(run.journal))
        for each in journal.trees() & done.keys():
            journal.drop(each)

        def tree_id(problem: Problem) -> str:
            return ids[problem.id]

        growing = Forest(
            search=plan.make_search(reader, verifier),
            samplers=samplers,
            reader=reader,
            verifier=verifier,
            recorder=journal,
            seed=plan.seed,
            tree_id=tree_id,
            critic=_critic_thread(plan),
            quick=verifier.is_quick,
        )
        worker = plan.shard.worker if plan.shard else "main"
        aside = stack.enter_context(ThreadPoolExecutor(1, "parts"))
        writer = PartWriter(run, journal, tree_id, _origin(plan, reader), aside, worker)
        interrupted = asyncio.run(_grow(growing, writer, left, concurrency, watch, funds))
        return Outcome(
            grown=writer.grown,
            before=before,
            failed=writer.failed,
            failed_before=failed_before,
            left=len(left) - writer.grown,
            interrupted=interrupted,
        )


def _failed_before(run: RunFolder, ids: Iterable[str], *, retry_failed: bool) -> int:
    """Returns how many of some trees are there with failed calls; with `retry_failed` none stays.

    Raises:
        BadInput: Trees of an earlier version are there, or some of a run with a budget are to go.
    """
    for part in committed_parts(run.path):
        require_columns(part / "nodes.parquet", "nodes")
    failed = failed_trees(run.path).intersection(ids)
    if not retry_failed or not failed:
        return len(failed)
    drop_trees(run, failed)
    return 0


def _open_samplers(plan: Plan) -> list[PolicySampler]:
    """Returns the policy, and what draws fast rollouts where there are any."""
    policy = open_policy(plan.model, plan.backend)
    samplers = [PolicySampler(policy=policy, settings=plan.sampling)]
    if plan.fast is not None:
        try:
            same = (plan.fast.model, plan.fast.running) == (plan.model, plan.backend)
            fast = policy if same else open_policy(plan.fast.model, plan.fast.running)
        except BaseException:
            # The thread of a policy that nobody closes would keep the process alive.
            asyncio.run(policy.close())
            raise
        samplers.append(PolicySampler(policy=fast, settings=plan.fast.sampling))
    return samplers


def _critic_thread(plan: Plan) -> CriticThread | None:
    """Returns the plan's critic on a thread of its own; in deterministic mode nothing is shared."""
    if plan.critic is None:
        return None
    return CriticThread(plan.critic, alone=is_deterministic(plan.backend))


def _origin(plan: Plan, reader: Reader) -> Origin:
    return Origin(
        reader=reader,
        search=plan.search.algorithm.value,
        policy=plan.model.name,
        seed=plan.seed,
        prover_k=plan.label.prover_k,
        as_is=plan.sampling.as_is,
    )


async def _grow(
    growing: Forest,
    writer: PartWriter,
    problems: Sequence[Problem],
    concurrency: int,
    watch: Watch | None,
    funds: Funds | None,
) -> signal.Signals | None:
    """Grows the trees and commits them; returns the signal that ended it early, if any did."""
    work = forest.Plan(iter(problems), min(concurrency, len(problems)))
    caught: list[signal.Signals] = []
    watching = asyncio.create_task(_watch(watch, work.progress, len(problems)))
    try:
        with _signals(work, caught):
            if funds is None:
                await grow_forest(growing, work, writer.add)
            else:
                await grow_on_budget(growing, work, funds, writer.add_block)
    finally:
        try:
            # Finished trees are worth keeping, whatever stopped the others.
            writer.commit()
        finally:
            watching.cancel()
            await _close(growing)
    if watch is not None:
        watch(work.progress, len(problems))
    return caught[0] if caught else None


async def _close(growing: Forest) -> None:
    """Ends what draws and scores; the thread of a policy left open keeps the process alive."""
    for policy in {id(sampler.policy): sampler.policy for sampler in growing.samplers}.values():
        await policy.close()
    if growing.critic is not None:
        await growing.critic.close()


async def _watch(watch: Watch | None, progress: Progress, total: int) -> None:
    while watch is not None:
        watch(progress, total)
        await asyncio.sleep(_WATCH_SECONDS)


@contextlib.contextmanager
def _signals(work: forest.Plan, caught: list[signal.Signals]) -> Iterator[None]:
    """Lets the first signal end the run in good order; the second ends the process as usual."""
    loop = asyncio.get_running_loop()
    both = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.getsignal(each) for each in both}

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        work.stopping.set()
        restore()

    def restore() -> None:
        for each in both:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    try:
        for each in both:
            loop.add_signal_handler(each, stop, each)
    except (ValueError, RuntimeError):
        # Not the main thread: whoever runs this thread has the signals.
        yield
        return
    try:
        yield
    finally:
        restore()
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)

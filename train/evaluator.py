"""Asks a policy for solutions of problems, a problem at a time, and has them judged.

What a sample is depends on its seed, problem and index alone, so that 8 samples are the first 8 of
16, and two policies meet the same noise, which makes their difference more certain than either.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from treeward.critics.votes import majority
from treeward.export.options import SECTIONS as ALL_SECTIONS
from treeward.export.plan import Plan
from treeward.search.backends import open_policy
from treeward.search.errors import CallFailed
from treeward.search.forest import Progress, together
from treeward.search.policy import Ask, Draw, Policy, PolicySettings, SomeFailed
from treeward.search.problem import Problem
from treeward.search.reader import Reader
from treeward.search.requests import Kind
from treeward.search.verdicts import Judgement, Reason, Verdict, Verifier
from treeward.train.evaluation import EvalSettings, Evaluation, ProblemResult, summarise
from treeward.train.sampler import seed_of_name

Watch = Callable[[Progress, int], None]
"""Called after each problem with what has happened and how many problems there are."""

SECTIONS = {name: ALL_SECTIONS[name] for name in ("policy", "prompt", "backend")}
"""The settings that an evaluation depends on; see `make_plan`."""


def evaluate_plan(plan: Plan, settings: EvalSettings, watch: Watch | None = None) -> Evaluation:
    """Loads a plan's model and evaluates it on the plan's problems.

    Raises:
        TreewardError: The model cannot be loaded or used.
    """
    with plan.make_verifier() as verifier:
        policy = open_policy(plan.model, plan.backend)
        reader = plan.reader(policy.tokens)
        evaluator = Evaluator(policy, reader, verifier, plan.sampling, settings, watch)
        return asyncio.run(evaluator.evaluate(plan.problems))


class Evaluator:
    """Asks a policy for solutions and has them judged."""

    def __init__(
        self,
        policy: Policy,
        reader: Reader,
        verifier: Verifier,
        sampling: PolicySettings,
        settings: EvalSettings,
        watch: Watch | None = None,
    ) -> None:
        """Takes a policy, which is closed in the end, and what reads and judges it."""
        self._policy = policy
        self._reader = reader
        self._verifier = verifier
        self._sampling = sampling
        self._settings = settings
        self._watch = watch
        self._progress = Progress()
        self._total = 0

    async def evaluate(self, problems: Sequence[Problem]) -> Evaluation:
        """Returns how the policy does on some problems.

        Raises:
            TreewardError: From the policy; a call that failed is data on its problem instead.
        """
        results: dict[int, ProblemResult] = {}
        places = iter(enumerate(problems))
        self._total = len(problems)
        workers = min(self._settings.concurrency, len(problems))
        try:
            await together(self._work(places, results) for _ in range(workers))
        finally:
            await self._policy.close()
        ordered = [results[place] for place in range(len(problems))]
        return summarise(ordered, self._settings)

    async def _work(
        self, places: Iterator[tuple[int, Problem]], results: dict[int, ProblemResult]
    ) -> None:
        progress = self._progress
        for place, problem in places:
            progress.in_flight += 1
            results[place] = result = await self._solve(problem)
            progress.in_flight -= 1
            progress.trees += 1
            progress.failures += result.error is not None
            if self._watch is not None:
                self._watch(progress, self._total)

    async def _solve(self, problem: Problem) -> ProblemResult:
        count = range(self._settings.samples)
        seeds = tuple(sample_seed(self._settings.seed, problem.id, index) for index in count)
        ask = Ask(
            prompt_ids=self._reader.prompt_ids(problem),
            prefix_ids=(),
            kind=Kind.ROLLOUT,
            seeds=seeds,
            settings=self._sampling,
            rule=self._reader.template.rule,
            stick_to=problem.id,
        )
        came, error = tuple(seeds), None
        try:
            draws = await self._policy.draw(ask)
        except CallFailed as e:
            some = e.draws if isinstance(e, SomeFailed) else {}
            came, draws, error = tuple(some), [*some.values()], f"{e.kind}: {e.message}"
        completions = await asyncio.to_thread(
            self._reader.judge, self._verifier, problem, (), draws, came
        )
        self._progress.tokens += sum(len(draw.token_ids) for draw in draws)
        judgements = [each.judgement for each in completions if each.judgement is not None]
        assert len(judgements) == len(came), "a rollout ends its solution"
        judgements += [Judgement(Reason.CALL_FAILED)] * (len(seeds) - len(came))
        return _result(problem, judgements, draws, error)


def sample_seed(seed: int, problem_id: str, index: int) -> int:
    """Returns the seed of one sample: 63 bits of which one it is, never of when it is drawn.

    Args:
        seed: The evaluation's.
        problem_id: What is asked.
        index: Which one of the problem's samples.
    """
    return seed_of_name(f"eval:{seed}:{index}", problem_id)


def _result(
    problem: Problem, judgements: Sequence[Judgement], draws: Sequence[Draw], error: str | None
) -> ProblemResult:
    reasons = [judgement.reason for judgement in judgements]
    verdicts = [judgement.verdict for judgement in judgements]
    vote = majority(problem.verifier, judgements)
    unknown = verdicts.count(Verdict.UNKNOWN)
    tokens = [len(draw.token_ids) for draw in draws]
    return ProblemResult(
        problem_id=problem.id,
        prompt=problem.prompt,
        n=len(verdicts) - unknown,
        n_right=verdicts.count(Verdict.RIGHT),
        n_no_answer=reasons.count(Reason.NO_ANSWER),
        n_length=reasons.count(Reason.LENGTH),
        n_unknown=unknown,
        n_undecided=reasons.count(Reason.CHECKER_LIMIT),
        majority_answers=vote.answers if vote else None,
        majority_right=vote.right if vote else None,
        mean_tokens=sum(tokens) / len(tokens) if tokens else None,
        error=error,
    )

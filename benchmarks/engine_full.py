r"""Prints how full a search keeps its engine.

    python benchmarks/engine_full.py --backend transformers --search mcts
    python benchmarks/engine_full.py --model smollm2-135m-instruct --rounds 1 \
        --problems 'task:arithmetic?n=200&steps=2..3&numbers=0..20&template=words&seed=1'

Grows a forest and records what it asks. Then a fresh engine gets all of these requests at once, as
one offline batch: it never waits and is free to order them. The two are compared by tokens a second
in steady state, the middle of each run by tokens, and by the whole run, which has a slow end in
which few trees are left; and by tokens a second of the processor, which others who use the machine
disturb less and which counts all that the search does beside its engine. Rounds follow each other
and the median of their ratios is printed, with the least and the most. With vLLM the tokens that a
step makes on average, of as many slots, say the same without a clock. Then the tokens of prompts
and prefixes that were computed, and what a searcher without prefix sharing computes, one prefix for
each continuation.
"""

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from treeward.critics.verifier import AnswerVerifier
from treeward.export.journal import Journal
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.models import NANO, ModelFolder, cache_root, resolve_model
from treeward.search.policy import Ask, Draw, LogprobAsk, PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.reader import Reader
from treeward.search.requests import Search
from treeward.search.rollouts import rollouts
from treeward.search.settings import SearchSettings
from treeward.search.tokens import Tokens
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings
from treeward.search.vllm_engine import VllmEngine
from treeward.search.vllm_policy import VllmPolicy, VllmSettings

MIDDLE = (0.2, 0.8)
"""Where the steady state begins and ends, as shares of the tokens."""


NAMES = ("steady state", "whole run", "steady state, processor", "whole run, processor")


def open_policy(model: ModelFolder, backend: str, slots: int) -> TransformersPolicy | VllmPolicy:
    """Returns a model in float32 on one thread."""
    if backend == "vllm":
        settings = VllmSettings(dtype="float32", threads=1, slots=slots, cache_gib=1.0)
        return VllmPolicy(model.path, model.fingerprint, settings)
    plain = TransformersSettings(dtype="float32", threads=1, slots=slots)
    return TransformersPolicy(model.path, model.fingerprint, plain)


@dataclass(slots=True)
class Meter:
    """A policy that notes what it is asked, and when what was drawn came back."""

    policy: TransformersPolicy | VllmPolicy
    asks: list[Ask] = field(default_factory=list)
    came: list[tuple[float, float, int]] = field(default_factory=list)
    """When a reply came, by the wall clock and by the processor's, and its number of tokens."""

    @property
    def tokens(self) -> Tokens:
        """Returns what its token ids stand for."""
        return self.policy.tokens

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns what its replies depend on."""
        return self.policy.identity

    async def draw(self, ask: Ask) -> list[Draw]:
        """Passes an ask on."""
        self.asks.append(ask)
        draws = await self.policy.draw(ask)
        self._note(sum(len(draw.token_ids) for draw in draws))
        return draws

    async def logprobs(self, ask: LogprobAsk) -> list[float]:
        """Passes an ask on."""
        return await self.policy.logprobs(ask)

    def _note(self, tokens: int) -> None:
        self.came.append((time.perf_counter(), time.process_time(), tokens))

    def start(self) -> None:
        """Starts both clocks."""
        self._note(0)

    async def close(self) -> None:
        """Closes the policy."""
        await self.policy.close()

    def speeds(self) -> list[float]:
        """Returns tokens a second in steady state and of the whole run, by each clock."""
        total = sum(tokens for *_, tokens in self.came)
        so_far = list(itertools.accumulate(tokens for *_, tokens in self.came))
        begin, end = (bisect_left(so_far, share * total) for share in MIDDLE)
        return [
            (so_far[last] - so_far[first]) / (self.came[last][clock] - self.came[first][clock])
            for clock in (0, 1)
            for first, last in ((begin, end), (0, len(so_far) - 1))
        ]


async def search_forest(
    meter: Meter, given: argparse.Namespace, problems: Iterator[Problem], journal: Path
) -> None:
    """Grows the trees, with a journal as a run has."""
    template = given.folder.default_template
    reader = Reader(template, meter.tokens)
    settings = SearchSettings()
    searches: dict[str, Search] = {
        "mcts": partial(mcts, settings=settings),
        "rollouts": partial(rollouts, settings=settings, cut=reader.cut),
    }
    sampling = PolicySettings(
        max_step_tokens=template.max_step_tokens, max_rollout_tokens=template.max_rollout_tokens
    )
    with AnswerVerifier(["number"]) as verifier, Journal(journal) as recorder:
        forest = Forest(
            search=searches[given.search],
            samplers=[PolicySampler(policy=meter, settings=sampling)],
            reader=reader,
            verifier=verifier,
            recorder=recorder,
            seed=0,
            tree_id=lambda problem: problem.id,
            quick=verifier.is_quick,
        )
        meter.start()
        try:
            plan = Plan(problems=problems, concurrency=given.concurrency)
            await grow_forest(forest, plan, lambda tree: None)
        finally:
            await meter.close()


async def replay(meter: Meter, asks: Sequence[Ask]) -> None:
    """Sends all asks at once."""
    meter.start()
    await asyncio.gather(*map(meter.draw, asks))
    await meter.close()


class Round(NamedTuple):
    """Holds what a search and an offline batch of its requests came to."""

    ours: list[float]
    """Speeds of the search, as `Meter.speeds` has them."""
    batch: list[float]
    facts: list[str]
    """What was asked and computed, which no round changes."""

    def ratios(self) -> list[float]:
        """Returns the shares of the batch's speeds that the search reached."""
        return [ours / batch for ours, batch in zip(self.ours, self.batch, strict=True)]


def compare(given: argparse.Namespace) -> Round:
    """Returns the speeds of both, one after the other."""
    searched = Meter(open_policy(given.folder, given.backend, given.slots))
    problems = iter(make_plan(Options(problems=given.problems)).problems)
    with tempfile.TemporaryDirectory() as journal:
        asyncio.run(search_forest(searched, given, problems, Path(journal)))
    offline = Meter(open_policy(given.folder, given.backend, given.slots))
    asyncio.run(replay(offline, searched.asks))
    facts = [f"{len(searched.asks):,} requests"]
    for meter in (searched, offline):
        engine = meter.policy.engine
        if isinstance(engine, VllmEngine):
            drawn = sum(tokens for *_, tokens in meter.came)
            facts.append(f"tokens a step: {drawn / engine.steps:.1f}")
    read = searched.policy.engine.read_tokens
    every = sum(len(ask.prompt_ids + ask.prefix_ids) * len(ask.seeds) for ask in searched.asks)
    shared = f"{every:,} without sharing: {every / read:.1f}x"
    facts.append(f"prefixes: {read:,} tokens computed, {shared}")
    return Round(searched.speeds(), offline.speeds(), facts)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--search", choices=("mcts", "rollouts"), default="mcts")
    parser.add_argument("--model", default=NANO)
    parser.add_argument("--problems", default="task:arithmetic?n=200&seed=1", help="a tree each")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    given.folder = resolve_model(given.model, cache_root(os.environ))
    rounds: list[Round] = []
    for _ in range(given.rounds):
        rounds.append(compare(given))
        cells = zip(NAMES, rounds[-1].ratios(), strict=True)
        print("a round:", ", ".join(f"{name} {ratio:.2f}" for name, ratio in cells), flush=True)
    print(
        f"{given.model}, {given.backend}, {given.search}, {given.concurrency} trees at once, "
        f"{given.slots} slots"
    )
    for at, name in enumerate(NAMES):
        ours = statistics.median(found.ours[at] for found in rounds)
        batch = statistics.median(found.batch[at] for found in rounds)
        ratios = sorted(found.ratios()[at] for found in rounds)
        print(
            f"{name:26} {ours:7,.0f} tokens/s, offline {batch:7,.0f}: "
            f"{statistics.median(ratios):.2f} of it [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        )
    print("\n".join(rounds[0].facts))


if __name__ == "__main__":
    main()

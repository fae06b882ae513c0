"""Prints how full a search keeps its engine.

    python benchmarks/engine_full.py --backend transformers --search mcts

Grows a forest and records what it asks. Then a fresh engine gets all of these requests at once, as
one offline batch: it never waits and is free to order them. The two are compared by tokens a second
in steady state, the middle of each run by tokens, and by the whole run, which has a slow end in
which few trees are left. Beside them stand the tokens of prompts and prefixes that were computed,
and what a searcher without prefix sharing computes, one prefix for each continuation.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from treeward.critics.verifier import AnswerVerifier
from treeward.export.journal import Journal
from treeward.search.arithmetic import make_problems
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.models import NANO, resolve_model
from treeward.search.policy import Ask, Draw, PolicySampler, PolicySettings
from treeward.search.prompts import load_template
from treeward.search.reader import Reader
from treeward.search.requests import Search
from treeward.search.rollouts import rollouts
from treeward.search.settings import SearchSettings
from treeward.search.tokens import Tokens
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings
from treeward.search.vllm_policy import VllmPolicy, VllmSettings

MIDDLE = (0.2, 0.8)
"""Where the steady state begins and ends, as shares of the tokens."""


def open_policy(backend: str, slots: int) -> TransformersPolicy | VllmPolicy:
    """Returns nano in float32 on one thread."""
    model = resolve_model(NANO, Path())
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
    came: list[tuple[float, int]] = field(default_factory=list)
    """When a reply came, and how many tokens it brought."""
    started: float = 0.0

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
        self.came.append((time.perf_counter(), sum(len(draw.token_ids) for draw in draws)))
        return draws

    async def close(self) -> None:
        """Closes the policy."""
        await self.policy.close()

    def speeds(self) -> tuple[float, float]:
        """Returns tokens a second in steady state, and of the whole run."""
        total = sum(n for _, n in self.came)
        marks: list[tuple[float, int]] = []
        so_far = 0
        for when, n in self.came:
            so_far += n
            if len(marks) < len(MIDDLE) and so_far >= MIDDLE[len(marks)] * total:
                marks.append((when, so_far))
        (begin, before), (end, after) = marks
        return (after - before) / (end - begin), total / (self.came[-1][0] - self.started)


async def search_forest(
    meter: Meter, search: str, *, trees: int, concurrency: int, journal: Path
) -> None:
    """Grows the trees, with a journal as a run has."""
    template = load_template(NANO)
    reader = Reader(template, meter.tokens)
    settings = SearchSettings()
    searches: dict[str, Search] = {
        "mcts": partial(mcts, settings=settings),
        "rollouts": partial(rollouts, settings=settings, cut=reader.cut),
    }
    sampling = PolicySettings(
        max_step_tokens=template.max_step_tokens, max_rollout_tokens=template.max_rollout_tokens
    )
    with AnswerVerifier(["number"]) as verifier:
        forest = Forest(
            search=searches[search],
            samplers=[PolicySampler(policy=meter, settings=sampling)],
            reader=reader,
            verifier=verifier,
            recorder=Journal(journal),
            seed=0,
            tree_id=lambda problem: problem.id,
            quick=verifier.is_quick,
        )
        problems = iter(make_problems(n=trees, seed=1))
        meter.started = time.perf_counter()
        await grow_forest(forest, Plan(problems, concurrency), lambda tree: None)
    await meter.close()


async def replay(meter: Meter, asks: Sequence[Ask]) -> None:
    """Sends all asks at once."""
    meter.started = time.perf_counter()
    await asyncio.gather(*map(meter.draw, asks))
    await meter.close()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--search", choices=("mcts", "rollouts"), default="mcts")
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--slots", type=int, default=64)
    given = parser.parse_args()
    searched = Meter(open_policy(given.backend, given.slots))
    with tempfile.TemporaryDirectory() as folder:
        growing = search_forest(
            searched,
            given.search,
            trees=given.trees,
            concurrency=given.concurrency,
            journal=Path(folder),
        )
        asyncio.run(growing)
    read = searched.policy.engine.read_tokens
    offline = Meter(open_policy(given.backend, given.slots))
    asyncio.run(replay(offline, searched.asks))
    print(
        f"{given.backend}, {given.search}, {given.trees} trees, {given.concurrency} at once, "
        f"{given.slots} slots: {len(searched.asks):,} requests"
    )
    rates = zip(searched.speeds(), offline.speeds(), strict=True)
    for name, (ours, batch) in zip(("steady state", "whole run"), rates, strict=True):
        print(f"{name:13} {ours:7,.0f} tokens/s, offline {batch:7,.0f}: {ours / batch:.2f} of it")
    every = sum(len(ask.prompt_ids + ask.prefix_ids) * len(ask.seeds) for ask in searched.asks)
    print(f"prefixes      {read:,} tokens computed, {every:,} without sharing: {every / read:.1f}x")


if __name__ == "__main__":
    main()

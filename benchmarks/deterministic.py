"""Shows that deterministic replies have the same bits in any company, and what that costs.

    python benchmarks/deterministic.py --model nano

Sends 1,000 requests of both kinds with 1, 8 and 64 under way at once, in another order each time,
and compares token ids and the exact log-probabilities. Then the same in normal mode, with 64 under
way, for the price in tokens a second.
"""

import argparse
import asyncio
import hashlib
import os
import random
import struct
import sys
import time
from dataclasses import dataclass

from treeward.search.arithmetic import make_problems
from treeward.search.models import ModelFolder, cache_root, resolve_model
from treeward.search.policy import Ask, Draw, Mode, PolicySettings
from treeward.search.prompts import Template
from treeward.search.requests import Kind
from treeward.search.tokens import Tokens
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one round of all requests came to."""

    mode: Mode
    at_once: int
    replies: list[str]
    """A hash of each reply's bits, by request."""
    tokens: int
    seconds: float

    @property
    def speed(self) -> float:
        """Returns sampled tokens a second."""
        return self.tokens / self.seconds


def make_asks(n: int, template: Template, tokens: Tokens) -> list[Ask]:
    """Returns requests at prefixes of 0 to 3 steps, of 1 to 8 continuations each."""
    asks = []
    for place, problem in enumerate(make_problems(n=n, seed=3)):
        steps = template.solution_steps(problem.solution or (), problem.answer or "")
        settings = PolicySettings(max_step_tokens=24, max_rollout_tokens=96)
        asks.append(
            Ask(
                prompt_ids=template.render(problem, tokens),
                prefix_ids=tuple(tokens.encode("".join(steps[: place % 4]))),
                kind=Kind.ROLLOUT if place % 3 else Kind.SAMPLE,
                seeds=tuple(100 * place + index for index in range(1 + place % 8)),
                settings=settings,
                rule=template.rule,
                stick_to=problem.id,
            )
        )
    return asks


def bits_of(draws: list[Draw]) -> str:
    """Returns a hash that any other token id or bit of a log-probability would change."""
    data = [(draw.token_ids, struct.pack("<d", draw.logprob), draw.finish) for draw in draws]
    return hashlib.sha256(repr(data).encode()).hexdigest()


async def run_round(
    model: ModelFolder, template: Template, *, n: int, mode: Mode, at_once: int
) -> Outcome:
    """Sends all requests to a fresh policy, in an order of its own."""
    settings = TransformersSettings(mode=mode, threads=1)
    policy = TransformersPolicy(model.path, model.fingerprint, settings)
    asks = make_asks(n, template, policy.tokens)
    gate = asyncio.Semaphore(at_once)
    replies: dict[int, list[Draw]] = {}

    async def send(place: int) -> None:
        async with gate:
            replies[place] = await policy.draw(asks[place])

    order = random.Random(f"{mode} {at_once}").sample(range(n), n)
    started = time.perf_counter()
    await asyncio.gather(*map(send, order))
    seconds = time.perf_counter() - started
    await policy.close()
    return Outcome(
        mode=mode,
        at_once=at_once,
        replies=[bits_of(replies[place]) for place in range(n)],
        tokens=sum(len(draw.token_ids) for draws in replies.values() for draw in draws),
        seconds=seconds,
    )


def main() -> int:
    """Prints the comparison; returns 1 if any bit differs in deterministic mode."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="nano", help="a model's name or folder")
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    model = resolve_model(options.model, cache_root(os.environ))
    template = model.default_template
    rounds = [(Mode.DETERMINISTIC, n) for n in (1, 8, 64)] + [(Mode.NORMAL, n) for n in (1, 64)]
    print(f"{options.requests} requests to {model.name} ({model.fingerprint}), one thread")
    print(f"{'mode':14}{'at once':>8}{'tokens':>9}{'tokens/s':>10}  replies with other bits")
    outcomes: dict[tuple[Mode, int], Outcome] = {}
    for mode, at_once in rounds:
        outcome = asyncio.run(
            run_round(model, template, n=options.requests, mode=mode, at_once=at_once)
        )
        outcomes[mode, at_once] = outcome
        first = outcomes[mode, 1]
        other = sum(a != b for a, b in zip(first.replies, outcome.replies, strict=True))
        against = "(these are compared with)" if outcome is first else str(other)
        print(f"{mode:14}{at_once:8}{outcome.tokens:9}{outcome.speed:10.0f}  {against}", flush=True)
    exact = [outcomes[Mode.DETERMINISTIC, n] for n in (1, 8, 64)]
    cost = outcomes[Mode.NORMAL, 64].speed / exact[-1].speed
    print(f"with 64 at once, normal mode makes {cost:.2f} times the tokens a second")
    return int(any(outcome.replies != exact[0].replies for outcome in exact))


if __name__ == "__main__":
    sys.exit(main())

"""Asks of nano, and what policies reply to them."""

import asyncio
import random
from collections.abc import Sequence

from treeward.search.arithmetic import make_problems
from treeward.search.models import NANO
from treeward.search.policy import Ask, Draw, LogprobAsk, Policy, PolicySettings
from treeward.search.requests import Kind
from treeward.search.templates import load_template
from treeward.search.tokens import Tokens
from treeward.search.vllm_policy import VllmSettings

TEMPLATE = load_template(NANO)
SETTINGS = VllmSettings(dtype="float32", threads=1, cache_gib=0.25, slots=64)
Result = list[Draw] | BaseException


def asks_for(tokens: Tokens, n: int, *, samples: int = 4, **sampling: float) -> list[Ask]:
    """Asks of both kinds at prefixes of 0 to 3 right steps."""
    rng = random.Random(0)
    asks = []
    for place, problem in enumerate(make_problems(n=n, seed=3)):
        steps = TEMPLATE.solution_steps(problem.solution or (), problem.answer or "")
        settings = {"max_step_tokens": 24, "max_rollout_tokens": 96} | sampling
        asks.append(
            Ask(
                prompt_ids=TEMPLATE.render(problem, tokens),
                prefix_ids=tuple(tokens.encode("".join(steps[: place % 4]))),
                kind=Kind.ROLLOUT if place % 3 else Kind.SAMPLE,
                seeds=tuple(rng.randrange(2**63) for _ in range(samples)),
                settings=PolicySettings(**settings),  # type: ignore[arg-type]  # numbers of both kinds
                rule=TEMPLATE.rule,
                stick_to=problem.id,
            )
        )
    return asks


def draw_all(policy: Policy, asks: Sequence[Ask]) -> list[Result]:
    """What a policy replies to asks that are under way together."""

    async def go() -> list[Result]:
        async with asyncio.timeout(300):
            return await asyncio.gather(*map(policy.draw, asks), return_exceptions=True)

    return asyncio.run(go())


def draws_of(policy: Policy, asks: Sequence[Ask]) -> list[list[Draw]]:
    """The draws, none of which may fail."""
    results = draw_all(policy, asks)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, list)]


def given(prompt: tuple[int, ...], ids: tuple[int, ...]) -> LogprobAsk:
    return LogprobAsk(prompt_ids=prompt, ids=ids, stick_to="p")


def ids_of(results: Sequence[Sequence[Draw]]) -> list[list[tuple[int, ...]]]:
    return [[draw.token_ids for draw in draws] for draws in results]

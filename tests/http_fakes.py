"""What the tests of the http backend share: a model of bytes, asks, and time of their own."""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence

from tests.fake_server import Event, Reply, Token, Wire

from treeward.search.http_policy import HttpPolicy
from treeward.search.http_replicas import Clock, Sleep
from treeward.search.http_settings import HttpService, HttpSettings, Served
from treeward.search.policy import Ask, Draw, PolicySettings
from treeward.search.requests import Kind
from treeward.search.steps import Budget, Finish, Stepper, StepRule
from treeward.search.tokens import byte_tokens

TOKENS = byte_tokens()
END = 256
RULE = StepRule(answer_mark="A")


def says(prompt: tuple[int, ...], seed: int) -> Iterator[Token]:
    """Steps without end; what comes next depends on the seed and on what stands before."""
    text = bytes(prompt)
    while True:
        rng = random.Random(f"{seed}:{text!r}")
        step = rng.choice([b"go\n", b"up\n", b"x" * 12 + b"\n", b"A0\n", b"A1\n", b"."])
        text += step
        for token in (END,) if step == b"." else step:
            yield token, -rng.random()


def ask_for(kind: Kind = Kind.SAMPLE, seeds: Sequence[int] = (1, 2, 3), word: str = "p") -> Ask:
    return Ask(
        prompt_ids=tuple(b"Q\n"),
        prefix_ids=tuple(b"go\n"),
        kind=kind,
        seeds=tuple(seeds),
        settings=PolicySettings(max_step_tokens=8, max_rollout_tokens=40),
        rule=RULE,
        stick_to=word,
    )


def expected(ask: Ask) -> list[Draw]:
    """What a backend in process draws from the same model: cut where the step rule says."""
    return [expected_draw(ask, seed) for seed in ask.seeds]


def expected_draw(ask: Ask, seed: int) -> Draw:
    budget = Budget(step=8, total=40 - len(ask.prefix_ids))
    stepper = Stepper.after(ask.prefix_ids, TOKENS, ask.rule, budget)
    ids, logprob, steps = [], 0.0, [0.0]
    for token, each in says(ask.prompt_ids + ask.prefix_ids, seed):
        ids.append(token)
        logprob += each
        steps[-1] += each
        finish = stepper.feed(token)
        if finish is not None and not (finish is Finish.STEP and ask.kind is Kind.ROLLOUT):
            return Draw(tuple(ids), logprob, finish, tuple(steps) if len(steps) > 1 else ())
        if finish is not None:
            steps.append(0.0)
    raise AssertionError


class Time:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        wake = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, wake)


def policy_of(urls: Sequence[str], time: Time, **settings: float | int) -> HttpPolicy:
    service = HttpService(
        urls=tuple(urls),
        served=Served(name="m", root="/m", context=64),
        settings=HttpSettings(**{"timeout": 10.0, **settings}),  # type: ignore[arg-type] # by name
    )
    clock: Clock = time.clock
    sleep: Sleep = time.sleep
    return HttpPolicy(service, TOKENS, "f", jitter=random.Random(0), clock=clock, sleep=sleep)


def drawn(policy: HttpPolicy, *asks: Ask) -> list[list[Draw] | BaseException]:
    """What comes of some asks at once; fails if that takes 20 seconds."""

    async def run() -> list[list[Draw] | BaseException]:
        async with asyncio.timeout(20):
            results = await asyncio.gather(*map(policy.draw, asks), return_exceptions=True)
            await policy.close()
            return results

    return asyncio.run(run())


def script(*replies: Reply) -> Reply:
    """Gives each call the next reply; the last one goes on."""
    left = list(replies)

    async def reply(body: Event, wire: Wire) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(body, wire)

    return reply


def status(code: int, **headers: str) -> Reply:
    async def reply(_: Event, wire: Wire) -> None:
        await wire.plain(code, json.dumps({"error": {"message": "no\nmore"}}), **headers)

    return reply


async def hangs_up(_: Event, wire: Wire) -> None:
    await wire.break_off()

"""Tokens a second of the backends beside one padded `generate` call over the same requests.

    python benchmarks/generate_speed.py [--model smollm2-135m-instruct] [--vllm-python PYTHON]

A round is 8 requests for 8 continuations each, all 64 in flight at once, at 8 different prefixes of
200 tokens: problems with their solutions, and a problem at the end. Every round has prefixes of its
own, so nothing is found in a cache, and every side is asked the same rounds in turn. Two kinds:

solutions   to the end of the solution. What counts are tokens up to there; the other side stops
            each row by the same rule and computes it until the last row has ended.
fixed       a number of tokens, where nothing ends earlier.

The other side is transformers' `generate(num_return_sequences=8)` with the attention that it
chooses itself, in one call. It does not return log-probabilities, ours does. Then our engine in
normal and in deterministic mode (which takes float32), and with PYTHON, of an environment that has
it (`make test-vllm` makes one), vLLM in process. `--tokens` bounds a continuation.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
import transformers

from treeward.search.arithmetic import make_problems
from treeward.search.models import ModelFolder, cache_root, resolve_model
from treeward.search.policy import Ask, Mode, Policy, PolicySettings
from treeward.search.prompts import Template
from treeward.search.requests import Kind
from treeward.search.steps import Budget, Finish, Stepper, StepRule
from treeward.search.tokens import Tokens, load_tokens
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings
from treeward.search.vllm_policy import VllmPolicy, VllmSettings

REQUESTS, SAMPLES = 8, 8
PREFIX = 200
KINDS = ("solutions", "fixed")
UNENDING = StepRule(delimiter="no model says this", answer_mark="nor this")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one side made of one round."""

    side: str
    kind: str
    tokens: int
    """Up to the ends of the continuations."""
    computed: int
    """Rows times steps, for the other side; our engine computes no token beyond an end."""
    seconds: float
    """Of the clock."""
    cpu_seconds: float


Side = Callable[[Sequence[Ask]], tuple[int, int]]
"""Draws what a round asks for; returns the tokens up to the ends, and those computed."""


def make_round(index: int, kind: str, n: int, template: Template, tokens: Tokens) -> list[Ask]:
    """Returns the requests of a round; no two rounds share a prefix."""
    rule = template.rule if kind == "solutions" else UNENDING
    asks = []
    for place in range(REQUESTS):
        seed = 1000 * index + place
        text = ""
        for problem in make_problems(n=20, seed=seed):
            steps = template.solution_steps(problem.solution or (), problem.answer or "")
            text += template.question.replace("{prompt}", problem.prompt)
            text += "".join(steps) + template.gap
        (problem,) = make_problems(n=1, seed=seed + 500)
        text += template.question.replace("{prompt}", problem.prompt)
        asks.append(
            Ask(
                prompt_ids=tuple(tokens.encode(text)[-PREFIX:]),
                prefix_ids=(),
                kind=Kind.ROLLOUT,
                seeds=tuple(100 * seed + sample for sample in range(SAMPLES)),
                settings=PolicySettings(temperature=0.8, max_step_tokens=n, max_rollout_tokens=n),
                rule=rule,
                stick_to=problem.id,
            )
        )
    return asks


class StopsRows(transformers.StoppingCriteria):
    """Stops each row where the engine would, and counts its tokens up to there."""

    def __init__(self, asks: Sequence[Ask], tokens: Tokens) -> None:
        """Starts all rows at their first token."""
        self.lengths = [0] * (REQUESTS * SAMPLES)
        self.steps = 0
        self._steppers: list[Stepper | None] = []
        for ask in asks:
            n = ask.settings.max_rollout_tokens
            for _ in ask.seeds:
                budget = Budget(step=n, total=n)
                self._steppers.append(Stepper.after((), tokens, ask.rule, budget))

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Returns which rows have ended."""
        self.steps += 1
        for row, token in enumerate(input_ids[:, -1].tolist()):
            stepper = self._steppers[row]
            if stepper is not None:
                self.lengths[row] += 1
                if stepper.feed(token) in (Finish.END, Finish.LENGTH):
                    self._steppers[row] = None
        return torch.tensor([stepper is None for stepper in self._steppers])


def stock_side(folder: ModelFolder, dtype: str) -> Side:
    """Returns transformers' own way: one padded call."""
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_pretrained(folder.path, dtype=dtype).eval()
    tokens = load_tokens(folder.path)

    @torch.inference_mode()
    def draw(asks: Sequence[Ask]) -> tuple[int, int]:
        longest = max(len(ask.prompt_ids) for ask in asks)
        padding = [longest - len(ask.prompt_ids) for ask in asks]
        pad = min(tokens.eos_ids, default=0)
        ids = [[pad] * n + list(ask.prompt_ids) for n, ask in zip(padding, asks, strict=True)]
        mask = [[0] * n + [1] * (longest - n) for n in padding]
        stops = StopsRows(asks, tokens)
        settings = asks[0].settings
        torch.manual_seed(asks[0].seeds[0])
        model.generate(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            do_sample=True,
            num_return_sequences=SAMPLES,
            temperature=settings.temperature,
            top_p=1.0,
            top_k=0,
            max_new_tokens=settings.max_rollout_tokens,
            eos_token_id=sorted(tokens.eos_ids),
            pad_token_id=pad,
            stopping_criteria=transformers.StoppingCriteriaList([stops]),
        )
        return sum(stops.lengths), stops.steps * len(stops.lengths)

    return draw


def policy_side(policy: Policy) -> Side:
    """Returns a backend of ours, which gets all requests at once."""

    def draw(asks: Sequence[Ask]) -> tuple[int, int]:
        async def go() -> int:
            found = await asyncio.gather(*map(policy.draw, asks))
            return sum(len(draw.token_ids) for draws in found for draw in draws)

        n = asyncio.run(go())
        return n, n

    return draw


def make_sides(
    folder: ModelFolder, only: str, dtype: str, threads: int, closing: contextlib.ExitStack
) -> dict[str, Side]:
    """Returns the sides by name; what they hold is let go of in the end."""
    if only == "vllm":
        settings = VllmSettings(dtype=dtype, threads=threads, slots=64, cache_gib=1.0, context=512)
        policy = VllmPolicy(folder.path, folder.fingerprint, settings)
        closing.callback(lambda: asyncio.run(policy.close()))
        return {"vLLM in process": policy_side(policy)}
    torch.set_num_threads(threads)
    sides = {"generate": stock_side(folder, dtype)}
    for mode in Mode:
        exact = mode is Mode.DETERMINISTIC
        how = TransformersSettings(mode=mode, threads=threads, dtype="float32" if exact else dtype)
        policy_here = TransformersPolicy(folder.path, folder.fingerprint, how)
        closing.callback(lambda each: asyncio.run(each.close()), policy_here)
        sides[f"treeward, {mode}"] = policy_side(policy_here)
    return sides


def measure(
    folder: ModelFolder,
    sides: Mapping[str, Side],
    *,
    kinds: Sequence[str],
    rounds: int,
    n: int,
) -> list[Outcome]:
    """Returns what every side made of every round, after a short one that does not count."""
    template, tokens = folder.default_template, load_tokens(folder.path)
    for draw in sides.values():
        draw(make_round(99, "fixed", 2, template, tokens))
    outcomes = []
    for index in range(rounds):
        for kind in kinds:
            asks = make_round(2 * index + (kind == "fixed"), kind, n, template, tokens)
            for side, draw in sides.items():
                began, began_cpu = time.perf_counter(), time.process_time()
                useful, computed = draw(asks)
                seconds = time.perf_counter() - began
                cpu_seconds = time.process_time() - began_cpu
                outcomes.append(
                    Outcome(
                        side=side,
                        kind=kind,
                        tokens=useful,
                        computed=computed,
                        seconds=seconds,
                        cpu_seconds=cpu_seconds,
                    )
                )
                click.echo(outcomes[-1], err=True)
    return outcomes


def show(outcomes: Sequence[Outcome], kind: str) -> None:
    """Prints one kind: mean speeds, and ratios to the other side in each round."""
    rounds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.kind == kind:
            rounds.setdefault(outcome.side, []).append(outcome)
    base = [each.tokens / each.cpu_seconds for each in rounds["generate"]]
    print(f"\n{kind}: tokens a CPU second by round, and ratio to generate")
    for side, found in rounds.items():
        speeds = [each.tokens / each.cpu_seconds for each in found]
        ratios = [speed / other for speed, other in zip(speeds, base, strict=True)]
        wasted = 1 - sum(each.tokens for each in found) / sum(each.computed for each in found)
        print(
            f"  {side:26}{statistics.mean(speeds):9.1f}  ({', '.join(f'{s:.1f}' for s in speeds)})"
            f"{statistics.mean(ratios):8.2f}  ({', '.join(f'{r:.2f}' for r in ratios)})"
            f"  {sum(each.tokens for each in found):,} tokens, {wasted:.0%} computed beyond ends"
        )


@click.command()
@click.option("--model", default="smollm2-135m-instruct", show_default=True)
@click.option("--dtype", help="float32 or bfloat16.  [default: what the backend would take]")
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=3, show_default=True, help="Of each kind.")
@click.option("--tokens", default=64, show_default=True, help="At most, a continuation.")
@click.option("--kind", "kinds", multiple=True, default=KINDS, show_default=True)
@click.option("--vllm-python", help="An interpreter with vLLM.")
@click.option("--only", default="", hidden=True)
def main(
    model: str,
    dtype: str | None,
    threads: int,
    rounds: int,
    tokens: int,
    kinds: tuple[str, ...],
    vllm_python: str | None,
    only: str,
) -> None:
    """Prints tokens a second."""
    folder = resolve_model(model, cache_root(os.environ))
    used = dtype or TransformersSettings().dtype_used
    used = "bfloat16" if used == "auto" else used
    with contextlib.ExitStack() as closing:
        sides = make_sides(folder, only, used, threads, closing)
        outcomes = measure(folder, sides, kinds=kinds, rounds=rounds, n=tokens)
    if only:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
        return
    if vllm_python:
        command = [vllm_python, __file__, *sys.argv[1:], "--only", "vllm"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        outcomes += [Outcome(**each) for each in json.loads(done.stdout.splitlines()[-1])]
    print(
        f"{folder.name}, {used}, {threads} thread(s), torch {torch.__version__}, transformers "
        f"{transformers.__version__}; {REQUESTS} prefixes of {PREFIX} tokens x {SAMPLES}"
    )
    for kind in kinds:
        show(outcomes, kind)


if __name__ == "__main__":
    main()

"""Measures a model on `task:arithmetic` and writes its card.

    python examples/nano/measure.py runs/nano/model
    python examples/nano/measure.py runs/nano-fast/model --name nano-fast

The problems are fresh: none of them is among those that `make.py` trains on.
"""

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path

import numpy as np
from make import CHARACTERS, TRAIN_PROBLEMS, training_problems
from transformers import AutoModelForCausalLM

from treeward.search.arithmetic import judge_steps, make_problems
from treeward.search.policy import Ask, Mode, PolicySettings
from treeward.search.problem import Problem
from treeward.search.requests import Kind
from treeward.search.templates import load_template
from treeward.search.transformers_policy import TransformersPolicy, TransformersSettings

SEED = 77_000_001
TEMPLATE = load_template("nano")

CARD = """---
license: mit
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A Llama model of {parameters:,} parameters that solves chains of arithmetic one operation a step.
{purpose} It can do nothing else: it reads {characters!r} and a line break.

    {example}

Made by `examples/nano/{command}` from generated problems only: {problems:,} worked solutions of
1 to 6 steps with numbers up to 999, loss on the solution. Its mistakes are its own: its data had
none.

Measured by `examples/nano/measure.py` on {n} problems of 4 to 6 steps that it was not trained on,
{samples} solutions each at temperature 1:

| | |
|---|---|
| finished right | {right:.3f} (95 % interval over problems {low:.3f} to {high:.3f}) |
| no answer, or out of tokens | {unfinished:.3f} |
| both right and wrong among {samples} | {mixed:.3f} of the problems |
| tokens a solution | {tokens:.1f} |

| place of the first wrong step | 1 | 2 | 3 | 4 | 5 | 6 | answer |
|---|---|---|---|---|---|---|---|
| share of the wrong solutions | {places} |
"""


PURPOSES = {
    "nano": "It ships with Treeward so that searching, labelling and training can be tried for "
    "real, in\nseconds, where every step is known to be right or wrong.",
    "nano-fast": "It reads what `nano` reads and ships with Treeward for fast rollouts: cheaper "
    "ones, which steer\na search and are no evidence.",
}
COMMANDS = {"nano": "make.py", "nano-fast": "make.py --fast"}


async def draw_all(model: Path, problems: list[Problem], samples: int) -> list[list[str]]:
    """Returns the text of some solutions of each problem; nano writes one token a character."""
    policy = TransformersPolicy(model, "", TransformersSettings(mode=Mode.NORMAL, threads=1))
    sampling = PolicySettings(
        max_step_tokens=TEMPLATE.max_step_tokens, max_rollout_tokens=TEMPLATE.max_rollout_tokens
    )
    asks = [
        Ask(
            prompt_ids=TEMPLATE.render(problem, policy.tokens),
            prefix_ids=(),
            kind=Kind.ROLLOUT,
            seeds=tuple(range(at * samples, (at + 1) * samples)),
            settings=sampling,
            rule=TEMPLATE.rule,
            stick_to=problem.id,
        )
        for at, problem in enumerate(problems)
    ]
    drawn = await asyncio.gather(*(policy.draw(ask) for ask in asks))
    await policy.close()
    return [[policy.tokens.text_of(draw.token_ids) for draw in draws] for draws in drawn]


def first_error(problem: Problem, text: str) -> str | None:
    """Returns the place of the first wrong step, or None for a solution without one."""
    steps = text.splitlines()
    truths = judge_steps(problem, steps)
    assert truths is not None
    assert problem.solution is not None
    place = next((at for at, truth in enumerate(truths) if not truth.prefix), None)
    if place is None:
        return None
    return "answer" if place >= len(problem.solution) else str(place + 1)


def write_card(name: str, model: Path, n: int, samples: int) -> str:
    """Measures a model and writes README.md into its folder; returns the card."""
    trained = {problem.id for problem in training_problems()}
    problems = [p for p in make_problems(n=2 * n, seed=SEED) if p.id not in trained][:n]
    started = time.perf_counter()
    texts = asyncio.run(draw_all(model, problems, samples))
    seconds = time.perf_counter() - started
    answers = [[TEMPLATE.answer_in(text) for text in of_one] for of_one in texts]
    rates = np.array(
        [
            np.mean([a == p.answer for a in given])
            for p, given in zip(problems, answers, strict=True)
        ]
    )
    spread = 1.96 * rates.std(ddof=1) / np.sqrt(len(rates))
    errors = Counter(
        place
        for problem, of_one in zip(problems, texts, strict=True)
        for text in of_one
        if (place := first_error(problem, text)) is not None
    )
    total = errors.total()
    places = (errors[place] / total for place in ("1", "2", "3", "4", "5", "6", "answer"))
    tokens = sum(len(text) for of_one in texts for text in of_one)
    card = CARD.format(
        name=name,
        purpose=PURPOSES[name],
        command=COMMANDS[name],
        parameters=AutoModelForCausalLM.from_pretrained(str(model)).num_parameters(),
        characters=CHARACTERS.strip("\n"),
        example=(problems[0].prompt + "\n" + texts[0][0]).strip().replace("\n", "\n    "),
        problems=TRAIN_PROBLEMS,
        n=len(problems),
        samples=samples,
        right=rates.mean(),
        low=rates.mean() - spread,
        high=rates.mean() + spread,
        unfinished=np.mean([a is None for given in answers for a in given]),
        mixed=np.mean((rates > 0) & (rates < 1)),
        tokens=tokens / (len(problems) * samples),
        places=" | ".join(f"{share:.2f}" for share in places),
    )
    (model / "README.md").write_text(card)
    return card + f"\n{tokens / seconds:,.0f} tokens a second on one thread, loading included\n"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--name", choices=PURPOSES, default="nano")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=16)
    arguments = parser.parse_args()
    print(write_card(arguments.name, arguments.model, arguments.problems, arguments.samples))


if __name__ == "__main__":
    main()

"""Runs for the tests of pages: trees of any size by the scripted policy, and hostile texts."""

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from treeward.critics.verifier import AnswerVerifier
from treeward.export.columns import Origin, tree_tables
from treeward.export.parts import write_part
from treeward.export.run_folder import Identity, RunFolder, Sampler, writing
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.reader import Reader
from treeward.search.replies import Reply
from treeward.search.scripted import Script, ScriptedPolicy
from treeward.search.settings import SearchSettings
from treeward.search.templates import load_template
from treeward.search.tokens import byte_tokens
from treeward.search.tree import Tree

DAYS = 3

HOSTILE = (
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'><svg onload='window.pwned = 3'>",
    "<!-- <script> --!> ]]> ${window.pwned = 4} `${window.pwned = 4}` {{constructor}}",
    "\"'><iframe srcdoc='<script>parent.pwned = 5</script>'></iframe>",
    "<link rel=stylesheet href=http://127.0.0.1:9/x><img src=//127.0.0.1:9/y>",
    "line\u2028paragraph\u2029end",
    "left \u202eright to left\u202c \u2066isolate\u2069 \u200f \u061c \ufeff",
    "\x1b[31mred\x1b[0m \x1b]8;;http://127.0.0.1:9\x07link\x1b]8;;\x07 bell\x07 \x00 \x7f \x9b",
    "javascript:window.pwned=6 \\u003cscript\\u003e &lt;script&gt; &#60;b&#62;",
    "\U000e0041\U000e0042 tags, \u0644\u0627 Arabic, \u05e9\u05dc\u05d5\u05dd Hebrew, "
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
)


WAYS = (
    "Adding {n} to {t} gives {s}",
    "{t} and {n} make {s}",
    "Now {n} more: {s}",
    "{t} + {n} = {s}",
    "With {n} it is {s}",
    "Then {t} grow by {n} to {s}",
)
"""How a step can be put."""


class Forgetful:
    """A recorder that keeps nothing."""

    def known(self, tree_id: str, key: str) -> Reply | None:
        return None

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        pass


def sums(prompt: str, text: str, *, wide: bool = False) -> list[tuple[str, float]]:
    """Adds numbers up, one a step; slips are carried on. In a wide world all are as likely."""
    lines = text.splitlines()
    name = prompt.rpartition("Delivery ")[2].partition(".")[0]
    rng = random.Random(f"{name} {len(lines)}")
    total = int(lines[-1].rsplit(" ", 1)[1]) if lines else 0
    if len(lines) == DAYS:
        return [(f"Answer: {total}\n", 0.95), (f"Answer: {total + 10}\n", 0.05)]
    number = rng.randrange(11, 90)
    slips, ways = (range(12), WAYS) if wide else ((0, 1, 10, -10, 9, 100), WAYS[:2])
    choices = []
    for slip in slips:
        share = 1 / 12 if wide else 0.05 if slip else 0.75
        for way in ways:
            step = way.format(n=number, t=total, s=total + number + slip) + "\n"
            choices.append((step, share / len(ways)))
    return choices


def hostile(prompt: str, text: str) -> list[tuple[str, float]]:
    """Writes hostile steps, two of them, and then a hostile answer."""
    if text.count("\n") < 2:
        return [(f"{step}\n", 1 / len(HOSTILE)) for step in HOSTILE]
    return [("Answer: 7\n", 0.5), (f"Answer: {HOSTILE[0]}\n", 0.5)]


def answer_of(prompt: str) -> str:
    """The sum of a problem's numbers."""
    text = ""
    for _ in range(DAYS + 1):
        text += sums(prompt, text)[0][0]
    return text.split()[-1]


def pens(name: str) -> Problem:
    prompt = f"A shop counts its pens from Monday to Wednesday. Delivery {name}."
    return Problem(id=name, prompt=prompt, answer=answer_of(prompt), verifier="number")


def make_run(
    path: Path,
    script: Script,
    problems: list[Problem],
    *,
    simulations: int,
    rollouts: int = 4,
    width: int = 8,
    seed: int = 5,
    c: float = 1.0,
) -> RunFolder:
    """A run whose trees are named `tree-` and their problem."""
    reader = Reader(load_template("steps"), byte_tokens())
    sampling = PolicySettings(max_step_tokens=200, max_rollout_tokens=1000)
    search = SearchSettings(simulations=simulations, width=width, rollouts=rollouts, wave=16, c=c)
    trees: list[Tree] = []
    with AnswerVerifier(["number"]) as verifier:
        forest = Forest(
            search=partial(mcts, settings=search),
            samplers=[PolicySampler(policy=ScriptedPolicy(script), settings=sampling)],
            reader=reader,
            verifier=verifier,
            recorder=Forgetful(),
            seed=seed,
            tree_id=lambda problem: f"tree-{problem.id}",
        )
        growing = grow_forest(forest, Plan(iter(problems), concurrency=4), trees.append)
        # A browser's driver runs a loop in the thread of the tests.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, growing).result()
    origin = Origin(reader=reader, search="mcts", policy="scripted", seed=seed)
    sampler = Sampler(
        sampler_id=0,
        policy="scripted",
        temperature=1.0,
        top_p=1.0,
        max_step_tokens=200,
        max_rollout_tokens=1000,
        purpose="evidence",
    )
    settings = {"search.simulations": simulations, "search.rollouts": rollouts, "seed": seed}
    identity = Identity(settings=settings, samplers=(sampler,), versions={"treeward": "0"})
    with writing(path, identity, problems) as run:
        for tree in sorted(trees, key=lambda tree: tree.problem.id):
            tables = tree_tables(tree, f"tree-{tree.problem.id}", origin)
            write_part(run.path, "main", tables, {})
        return run

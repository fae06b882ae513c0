"""Counts the nodes a second that the search itself can make, with a policy that costs nothing.

    python benchmarks/engine_speed.py [--nodes 1000 --nodes 100000] [--treequest-python PYTHON]

A node is one sample of the policy that was added to the tree. Steps have 9 tokens, trees are at
most 50 steps deep. Width 4 expands a node once with 4 samples; width 1 asks for one at a time and
lets a node have up to 4. Nodes are judged by a critic, with random scores in [0, 1]; or, with width
4, where solutions end, so that nothing else is asked: one step in five, right or wrong. Three rows
each: the search by itself; with the key and the seeds of every request and a journal of every
reply; with the evidence of every node at the end. Then 256 trees in flight in a forest, with all
of that, judged where solutions end or by a rollout a node; the evidence of as many trees at once as
are written together.

Trees of all sizes are grown in turns, a round as many small ones as have the nodes of the largest;
medians over rounds with the least and the most, and how much of the speed remains at the largest.

What the policy replies is made before the clock starts. Python's collector runs as rarely as in a
forest. Speeds are per CPU second, which is steadier than the wall clock where others use the
machine, but not by much: on two cores that others keep busy everything took up to three times as
long as on idle ones, so only the two sides of one run compare. The other side is TreeQuest 0.3.3,
`step` by default (it copies the tree each time) and in place, and its ask and tell with batches of
1, without keys, seeds, journal or evidence; PYTHON is the one of an environment that has it. It has
no widths that adapt: with 1 sample its tree is a chain, and the copy ends in a RecursionError, so
it stands beside width 4 only.
"""

import asyncio
import itertools
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import forest_values, tree_values
from treeward.export.journal import Journal
from treeward.export.part_writer import PART_NODES
from treeward.search.critic import Scores
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.garbage import collected_rarely
from treeward.search.mcts import mcts
from treeward.search.mcts_settings import MctsSettings
from treeward.search.policy import Ask, Draw, LogprobAsk, PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Completion, Reply
from treeward.search.requests import Growth, Kind, Request, request_key, seeds_of
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish
from treeward.search.tokens import byte_tokens
from treeward.search.tree import Tree
from treeward.search.verdicts import Judgement, Reason

STEP = tuple(b"step  \n")
VERDICTS = (Judgement(Reason.MATCH), Judgement(Reason.MISMATCH))
LAST = tuple(b"Answer: 1\n")
DEPTH = 50
IN_FLIGHT = 256
TREEQUEST = Path(__file__).with_name("treequest_speed.py")
SECONDS = 10.0
"""CPU time that one measurement of the other side may take."""

Answer = Callable[[Request], Reply]


class Instant:
    """Replies with what was made before the clock starts: steps that differ, and random scores."""

    def __init__(self, nodes: int, width: int, *, scored: bool) -> None:
        """Makes the replies.

        Args:
            nodes: How many samples are asked for.
            width: How many of them in a request.
            scored: Whether a critic judges all nodes; else one step in five ends a solution.
        """
        rng = random.Random(0)
        families = [1, *itertools.repeat(width, nodes // width)] if scored else []
        self._scores = iter([_scores(n, rng) for n in families])
        steps = [_step(number, rng, ends=not scored) for number in range(nodes)]
        starts = range(0, nodes, width)
        self._samples = iter([Reply(tuple(steps[first : first + width])) for first in starts])

    def __call__(self, request: Request) -> Reply:
        """Returns the reply to a request."""
        return next(self._scores if request.kind is Kind.SCORE else self._samples)


def _scores(n: int, rng: random.Random) -> Reply:
    return Reply(scores=tuple([Scores(rng.random(), None, None) for _ in range(n)]))


def _step(number: int, rng: random.Random, *, ends: bool) -> Completion:
    over = ends and rng.random() < 0.2
    return Completion(
        token_ids=(1000 + number, *STEP),
        logprob=-rng.random(),
        finish=Finish.END if over else Finish.STEP,
        seed=rng.getrandbits(63),
        judgement=rng.choice(VERDICTS) if over else None,
    )


def recorded(answer: Answer, journal: Journal) -> Answer:
    """Returns what answers as well and does what the forest does about each request."""

    def reply_to(request: Request) -> Reply:
        key = request_key(request)
        journal.known("tree", key)
        if request.kind is not Kind.SCORE:
            seeds_of(0, "problem", request)
        reply = answer(request)
        journal.record("tree", key, reply)
        return reply

    return reply_to


def drive(growth: Growth, answer: Answer) -> None:
    """Grows a tree to the end."""
    requests = next(growth, None)
    while requests is not None:
        try:
            requests = growth.send([answer(request) for request in requests])
        except StopIteration:
            requests = None


def one_tree(
    width: int, nodes: int, *, c: float, scored: bool, journal: bool, evidence: bool
) -> tuple[float, Tree]:
    """Returns the CPU seconds of growing one tree, and the tree."""
    tree = Tree(Problem(id="problem", prompt="?"))
    search = SearchSettings(
        simulations=nodes // width, width=width, rollouts=0, max_depth=DEPTH, c=c
    )
    own = MctsSettings(width_max=4 if width == 1 else None)
    reader = Reader(Template(name="speed"), byte_tokens())
    answer: Answer = Instant(nodes // width * width, width, scored=scored)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as kept, collected_rarely():
        if journal:
            answer = recorded(answer, kept)
        began = time.process_time()
        drive(mcts(tree, search, own=own, scored=scored), answer)
        if evidence:
            tree_values(tree, strict_evidence(tree, reader.cut), as_is=True)
        spent = time.process_time() - began
    return spent, tree


def speed_of(width: int, nodes: int, most: int, c: float, **parts: bool) -> float:
    """Returns the nodes a CPU second of growing as many trees as have `most` nodes together."""
    grown = [one_tree(width, nodes, c=c, **parts) for _ in range(most // nodes)]
    return sum(len(tree) - 1 for _, tree in grown) / sum(spent for spent, _ in grown)


def show_trees(width: int, sizes: Sequence[int], c: float, repeats: int) -> None:
    """Prints our side, trees of all sizes in turns."""
    by_critic = (True,) if width == 1 else (True, False)
    for scored in by_critic:
        print("    judged by a critic" if scored else "    judged where solutions end")
        for what, journal, evidence in (
            ("search", False, False),
            ("with keys, seeds, journal", True, False),
            ("and evidence", True, True),
        ):
            parts = {"scored": scored, "journal": journal, "evidence": evidence}
            rounds = [
                [speed_of(width, nodes, max(sizes), c, **parts) for nodes in sizes]
                for _ in range(repeats)
            ]
            cells = "".join(
                f"{statistics.median(column):10,.0f} [{min(column):,.0f}, {max(column):,.0f}]"
                for column in zip(*rounds, strict=True)
            )
            flat = statistics.median(row[-1] / row[0] for row in rounds)
            print(f"      {what:27}{cells}   {flat:.2f} of the first's", flush=True)
    for nodes in sizes:
        for scored in by_critic:
            _, tree = one_tree(width, nodes, c=c, scored=scored, journal=False, evidence=False)
            depths, judge = tree.nodes.depth, "by a critic" if scored else "where solutions end"
            deep = f"{statistics.mean(depths):.1f} deep, {max(depths)} at most"
            print(f"    {nodes:,} nodes judged {judge}: {deep}")


class InstantPolicy:
    """Draws at once, from what was made before. Satisfies `Policy`."""

    def __init__(self, *, ends: bool) -> None:
        """Makes more different steps than a node has samples.

        Args:
            ends: Whether one step in five ends a solution.
        """
        numbers = range(1 << 14)
        steps = [Draw((n >> 7, n & 127, *STEP), -1.0, Finish.STEP) for n in numbers]
        self._steps = itertools.cycle(steps)
        self._end = Draw(LAST, -1.0, Finish.END)
        self._ends = ends
        self.tokens = byte_tokens()
        self.identity: dict[str, str | int] = {"backend": "instant"}

    async def draw(self, ask: Ask) -> list[Draw]:
        """Returns steps that differ, or solutions that end."""
        if ask.kind is Kind.ROLLOUT:
            return [self._end for _ in ask.seeds]
        return [
            self._end if self._ends and seed % 5 == 0 else next(self._steps) for seed in ask.seeds
        ]

    async def logprobs(self, ask: LogprobAsk) -> list[float]:
        """Nobody gives it solutions."""
        raise NotImplementedError

    async def close(self) -> None:
        """Holds nothing."""


class Coin:
    """Satisfies `Verifier`."""

    def __init__(self) -> None:
        """Takes no note of answers: all are 1."""
        self._rng = random.Random(0)
        self._verdicts = [Judgement(reason, "1") for reason in (Reason.MATCH, Reason.MISMATCH)]

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        """Returns either verdict."""
        return self._verdicts[self._rng.getrandbits(1)]


def forest(nodes: int, rollouts: int) -> float:
    """Returns the nodes a CPU second of a forest with a journal and the evidence of each tree."""
    policy = InstantPolicy(ends=not rollouts)
    reader = Reader(Template(name="speed"), policy.tokens)
    search = SearchSettings(simulations=nodes // 4, rollouts=rollouts, max_depth=DEPTH)
    waiting: list[Tree] = []
    made = judged = 0

    def finished(tree: Tree) -> None:
        nonlocal made
        made += len(tree) - 1
        waiting.append(tree)
        if made - judged >= PART_NODES:
            judge()

    def judge() -> None:
        nonlocal judged
        evidence = [strict_evidence(tree, reader.cut) for tree in waiting]
        forest_values(waiting, evidence, as_is=True)
        waiting.clear()
        judged = made

    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
        grower = Forest(
            search=partial(mcts, settings=search),
            samplers=[PolicySampler(policy=policy, settings=PolicySettings())],
            reader=reader,
            verifier=Coin(),
            recorder=journal,
            seed=0,
            tree_id=lambda problem: problem.id,
            quick=lambda _: True,
        )
        problems = (Problem(id=str(index), prompt="?") for index in range(IN_FLIGHT))
        began = time.process_time()
        plan = Plan(problems=problems, concurrency=IN_FLIGHT)
        asyncio.run(grow_forest(grower, plan, finished))
        judge()
        return made / (time.process_time() - began)


def show_treequest(python: str, width: int, nodes: int) -> None:
    """Prints the other side of some nodes."""
    command = [python, str(TREEQUEST), str(width), str(nodes), str(SECONDS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for mode, found in json.loads(done.stdout).items():
        reached = "" if found["nodes"] == nodes else f" (at {found['nodes']:,}, out of time)"
        print(f"    TreeQuest, {mode:24}{found['speed']:10,.0f}{reached}")


@click.command()
@click.option("--nodes", multiple=True, default=(1_000, 100_000), show_default=True, help="A tree.")
@click.option("--width", multiple=True, default=(1, 4), show_default=True, help="Samples asked.")
@click.option("--c", default=1.0, show_default=True, help="Exploration; the less, the deeper.")
@click.option("--forest-nodes", default=1_000, show_default=True, help="A tree of the forest.")
@click.option("--repeats", default=5, show_default=True, help="Rounds, in turns.")
@click.option("--treequest-python", help="An interpreter with treequest==0.3.3.")
def main(
    nodes: tuple[int, ...],
    width: tuple[int, ...],
    c: float,
    forest_nodes: int,
    repeats: int,
    treequest_python: str | None,
) -> None:
    """Prints nodes a CPU second."""
    for samples in width:
        print(f"\nwidth {samples}, trees of {', '.join(f'{size:,}' for size in nodes)} nodes")
        show_trees(samples, nodes, c, repeats)
        if treequest_python and samples > 1:
            for size in nodes:
                print(f"  {size:,} nodes")
                show_treequest(treequest_python, samples, size)
    print(f"\n{IN_FLIGHT} trees of {forest_nodes:,} samples in flight, journal and evidence")
    for rollouts, what in ((0, "judged where solutions end"), (1, "a rollout a node")):
        speeds = [forest(forest_nodes, rollouts) for _ in range(repeats)]
        middle = statistics.median(speeds)
        print(f"    {what:35}{middle:10,.0f} [{min(speeds):,.0f}, {max(speeds):,.0f}]")


if __name__ == "__main__":
    main()

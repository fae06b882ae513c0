"""Measures `treeward label` on solutions whose first wrong steps are known.

    python benchmarks/label_solutions.py [--set search.rollouts=1]

Draws `--solutions` solutions of `task:arithmetic` from the policy, has them labelled as the command
does, and compares first wrong steps with the truth, for several `given.confidence`. `place` takes
the likeliest place; `labels` takes what `export prm --rule posterior` says, where an undecided step
is no hit. F1 is ProcessBench's: the harmonic mean of the accuracies on solutions with a wrong step
and without; intervals are 90 % by problem. Tokens are the label's own: rollouts, no solutions.
"""

import argparse
import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from first_errors import Case, accuracy, harmonic_mean, number

from treeward.export.generate import generate
from treeward.export.label_plan import plan_label
from treeward.export.labels import Label, Nodes, load_rule
from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.run_folder import open_run_folder
from treeward.export.status import run_status
from treeward.export.truth import is_wrong, read_trees
from treeward.search.backends import open_policy
from treeward.search.policy import Ask
from treeward.search.requests import Kind

WIDTH = 4
CONFIDENCES = (0.6, 0.8, 0.95)
SEEDS_FROM = 1 << 41


async def draw_solutions(plan: Plan) -> list[dict[str, object]]:
    """Returns rows with `WIDTH` solutions of each problem."""
    policy = open_policy(plan.model, plan.backend)
    reader = plan.reader(policy.tokens)
    rows: list[dict[str, object]] = []
    for at, problem in enumerate(plan.problems):
        first = SEEDS_FROM + at * WIDTH
        ask = Ask(
            prompt_ids=reader.prompt_ids(problem),
            prefix_ids=(),
            kind=Kind.ROLLOUT,
            seeds=tuple(range(first, first + WIDTH)),
            settings=plan.sampling,
            rule=plan.template.rule,
            stick_to=problem.id,
        )
        rows += [
            {
                "id": problem.id,
                "prompt": problem.prompt,
                "answer": problem.answer,
                "verifier": problem.verifier,
                "source": problem.source,
                "metadata": problem.metadata,
                "completion": reader.text(draw.token_ids),
            }
            for draw in await policy.draw(ask)
        ]
    await policy.close()
    return rows


def score(trees: Sequence[Nodes], confidence: float) -> list[str]:
    """Returns what both readings get right, as lines."""
    rule = load_rule("posterior", confidence=confidence, trees=trees)
    found: dict[str, list[Case]] = defaultdict(list)
    undecided = 0
    for problem, nodes in enumerate(trees):
        labels, chances = rule.judge(nodes)
        assert chances is not None
        row_of = {node["node_id"]: row for row, node in enumerate(nodes)}
        for node in nodes:
            if not node["is_terminal"]:
                continue
            path = [row_of[at] for at in node["path"]]
            steps = path[1:]
            truth = first(is_wrong(nodes[row]) for row in steps)
            right = [chances[row] for row in path]
            place = int(np.argmax([*-np.diff(right), right[-1]]))
            said = [labels[row] for row in steps]
            undecided += None in said
            # Below an undecided step all are undecided.
            by_label = -1 if None in said else first(label is Label.WRONG for label in said)
            wrong = truth < len(steps)
            for reading, at in (("place", place), ("labels", by_label)):
                case = Case(
                    problem=problem, hit=at == truth, wrong=wrong, grave=wrong, tries=0, lucky=0
                )
                found[reading].append(case)
    lines = []
    for reading, cases in found.items():
        of_wrong = accuracy([case for case in cases if case.wrong])
        of_clean = accuracy([case for case in cases if not case.wrong])
        f1 = number(harmonic_mean(of_wrong.value, of_clean.value))
        lines.append(f"{reading:7} F1 {f1}  wrong ones {of_wrong}  right ones {of_clean}")
    count = sum(case.wrong for case in found["place"])
    total = len(found["place"])
    return [*lines, f"{total} distinct solutions, {count} wrong; {undecided} with undecided steps"]


def first(flags: Iterable[bool]) -> int:
    """Returns the place of the first that holds, or their number."""
    listed = list(flags)
    return listed.index(True) if True in listed else len(listed)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--solutions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--policy", default="nano")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the label")
    a = parser.parse_args()
    problems = f"task:arithmetic?n={a.solutions // WIDTH}&seed={a.seed}"
    rows = asyncio.run(draw_solutions(make_plan(Options(problems=problems, policy=a.policy))))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "solutions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        for confidence in CONFIDENCES:
            out = Path(folder) / f"run-{confidence}"
            settings = (f"given.confidence={confidence}", "prompt.template=nano", *a.set)
            plan = plan_label(
                Options(problems=str(file), policy=a.policy, assignments=settings, seed=a.seed)
            )
            generate(plan, out, concurrency=64)
            run = open_run_folder(out)
            status = run_status(run)
            print(
                f"given.confidence={confidence}: {status.policy_tokens / len(rows):.0f} tokens and "
                f"{status.n_rollouts / len(rows):.1f} rollouts a solution"
            )
            for line in score(read_trees(run), confidence=0.6):
                print(f"  {line}", flush=True)


if __name__ == "__main__":
    main()

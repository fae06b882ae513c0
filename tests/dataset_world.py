"""A small run with what datasets can meet: chats, and problems unsolved, open and not grown."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from treeward.critics.verifier import AnswerVerifier
from treeward.export.columns import Origin, tree_tables
from treeward.export.datasets import ExportSettings, Kind, export_dataset
from treeward.export.parts import write_part
from treeward.export.queries import run_query
from treeward.export.run_folder import Identity, RunFolder, Sampler, writing
from treeward.export.schema import TABLES
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Message, Problem
from treeward.search.reader import Reader
from treeward.search.replies import Reply
from treeward.search.scripted import ScriptedPolicy
from treeward.search.settings import SearchSettings
from treeward.search.templates import load_template
from treeward.search.tokens import byte_tokens
from treeward.search.tree import Tree

Row = dict[str, Any]


def problem(name: str, **fields: Any) -> Problem:
    return Problem(**{"id": name, "prompt": name, "answer": "7", "verifier": "number"} | fields)


PROBLEMS = (
    *(problem(f"easy {n}", source="made") for n in range(8)),
    problem("solved", solution=("good", "fine")),
    problem("said", solution=("good", "Answer: 7")),
    problem("chat", messages=(Message("system", "be brief"), Message("user", "chat"))),
    problem("hard", metadata='{"level": 9}'),
    problem("open", answer=None, solution=("good", "fine")),
    problem("not grown", solution=("good",)),
)
GROWN = PROBLEMS[:-1]


def put(problem_id: str) -> str:
    """Returns a problem as the template `steps` puts it."""
    return "be brief\n" * (problem_id == "chat") + f"Question: {problem_id}\n"


def script(prompt: str, text: str) -> list[tuple[str, float]]:
    """Two steps and an answer; after "bad", and for the hard problem, it is always wrong."""
    n = text.count("\n")
    if n == 0:
        return [("Step 1: good\n", 0.6), ("Step 1: bad\n", 0.4)]
    if n == 1:
        return [("Step 2: fine\n", 0.7), ("Step 2: also fine\n", 0.3)]
    if "bad" in text or "hard" in prompt:
        return [("Answer: 8\n", 1.0)]
    return [("Answer: 7\n", 0.8), ("Answer: 8\n", 0.2)]


class Forgetful:
    """A recorder that keeps nothing."""

    def known(self, tree_id: str, key: str) -> Reply | None:
        return None

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        pass


def grow() -> list[Tree]:
    reader = Reader(load_template("steps"), byte_tokens())
    sampling = PolicySettings(max_step_tokens=40, max_rollout_tokens=200)
    search = SearchSettings(simulations=8, width=4, rollouts=6)
    trees: list[Tree] = []
    with AnswerVerifier(["number"]) as verifier:
        forest = Forest(
            search=partial(mcts, settings=search),
            samplers=[PolicySampler(policy=ScriptedPolicy(script), settings=sampling)],
            reader=reader,
            verifier=verifier,
            recorder=Forgetful(),
            seed=5,
            tree_id=lambda problem: f"tree of {problem.id}",
        )
        asyncio.run(grow_forest(forest, Plan(iter(GROWN), concurrency=4), trees.append))
    return sorted(trees, key=lambda tree: tree.problem.id)


def make_run(path: Path, trees: list[Tree], *, size: int, template: str = "steps") -> RunFolder:
    """A run whose parts hold so many trees each, in the order given."""
    origin = Origin(
        reader=Reader(load_template("steps"), byte_tokens()), search="mcts", policy="toy", seed=5
    )
    sampler = Sampler(
        sampler_id=0,
        policy="toy",
        temperature=1.0,
        top_p=1.0,
        max_step_tokens=40,
        max_rollout_tokens=200,
        purpose="evidence",
    )
    identity = Identity(
        settings={"prompt.template": template, "seed": 5},
        samplers=(sampler,),
        versions={"treeward": "0"},
    )
    with writing(path, identity, PROBLEMS) as run:
        for first in range(0, len(trees), size):
            made = [
                tree_tables(tree, f"tree of {tree.problem.id}", origin)
                for tree in trees[first : first + size]
            ]
            tables = {name: pa.concat_tables(each[name] for each in made) for name in TABLES}
            write_part(run.path, "main", tables, {})
        return run


def export(run: RunFolder, kind: Kind, out: Path, **settings: Any) -> list[Row]:
    """Exports and returns the rows of all splits."""
    export_dataset(run, kind, out, ExportSettings(**settings))
    rows: list[Row] = []
    for path in sorted((out / "data").glob("*.parquet")):
        rows += pq.read_table(path).to_pylist()
    return rows


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def sql(run: RunFolder, query: str) -> list[Row]:
    found: list[Row] = run_query(run, query).to_pylist()
    return found

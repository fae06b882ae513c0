"""Adds a critic's scores to a run whose trees are there."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from treeward.export.labels import Nodes
from treeward.export.open_critic import critic_name
from treeward.export.parts import committed_trees
from treeward.export.run_folder import RunFolder, open_run_folder, writing
from treeward.export.schema import SCORES
from treeward.export.score_store import failed_nodes, scored_trees, write_scores
from treeward.export.tree_stream import stream
from treeward.search.critic import Critic, Prefix, Scores
from treeward.search.problem import Problem
from treeward.search.replies import Failure
from treeward.search.scoring import score_each

Watch = Callable[[int, int], None]
"""Called when scores are committed, with the trees that have some and those of the run."""

_COLUMNS = ("node_id", "path", "n_children", "step_text")
_PART_NODES = 16_384
_PART_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Says how a `score` call ended."""

    critic: str
    """The name of its folder below `scores/`, and in the view `scores`."""

    scored: int
    """Trees that this call gave scores."""

    before: int
    """Trees that had scores of this critic already."""

    failed: int
    """Nodes of this call that the critic has no scores for; column `error` of view `scores`."""

    failed_before: int
    """Those of the calls before."""

    def __str__(self) -> str:
        """Returns one line for a terminal."""
        parts = [f"{self.scored} trees scored by critic {self.critic}"] + [
            f"{count} {what}"
            for count, what in (
                (self.before, "were before"),
                (
                    self.failed_before,
                    f"nodes of these without scores (without scores/{self.critic} in the run, all "
                    "are asked about again)",
                ),
                (self.failed, "nodes without scores (see the column error of scores)"),
            )
            if count
        ]
        return ", ".join(parts)

    @property
    def exit_code(self) -> int:
        """Returns the documented exit code."""
        return 4 if self.failed or self.failed_before else 0


def score_run(path: Path, critic: Critic, watch: Watch | None = None) -> Scoring:
    """Adds a critic's scores of every node of a run; trees that have them already are passed over.

    Args:
        path: The run folder; its trees may be few or all.
        critic: What is asked. In deterministic runs it is given every prefix by itself.
        watch: Is told how far it is.

    Raises:
        BadInput: The path is no run folder.
        DamagedData: A file of the run is not what was written.
        TreewardError: Another process writes to the run, or the disk failed.
    """
    found = open_run_folder(path)
    alone = found.identity.is_deterministic
    with writing(path, found.identity, found.problems()) as run:
        writer = _Writer(run, critic, watch)
        before, failed_before = len(writer.done), failed_nodes(path, writer.name)
        try:
            if committed_trees(path).keys() - writer.done:
                for item in stream(run, _COLUMNS):
                    if item.tree is not None and item.tree.row.tree_id not in writer.done:
                        said = score_tree(critic, item.problem, item.tree.nodes, alone=alone)
                        writer.add(item.tree.row.tree_id, said)
        finally:
            # What was computed is worth keeping, whatever stopped the rest.
            writer.commit()
    return Scoring(
        critic=writer.name,
        scored=len(writer.done) - before,
        before=before,
        failed=writer.failed,
        failed_before=failed_before,
    )


def score_tree(
    critic: Critic, problem: Problem, nodes: Nodes, *, alone: bool
) -> dict[int, Scores | Failure]:
    """Returns what a critic says about every node of a tree, or why it says nothing.

    A pass reads the whole way to a leaf and scores all that is on it; a node on several ways takes
    what was said on the first. Where a way fails, the node at its end does, and the way to the node
    above is tried.

    Args:
        critic: What is asked.
        problem: The tree's problem.
        nodes: Its nodes, in pre-order.
        alone: Whether each way is handed over by itself.
    """
    text = {node["node_id"]: node["step_text"] for node in nodes}
    said: dict[int, Scores | Failure] = {}
    ways: list[Sequence[int]] = [node["path"] for node in nodes if not node["n_children"]]
    while ways:
        prefixes = [Prefix(problem, tuple(text[node] for node in way[1:])) for way in ways]
        shorter: dict[int, Sequence[int]] = {}
        for way, scored in zip(ways, score_each(critic, prefixes, alone=alone), strict=True):
            if not isinstance(scored, Failure):
                said |= {
                    node: scores
                    for node, scores in zip(way, scored, strict=True)
                    if node not in said
                }
                continue
            said[way[-1]] = scored
            if len(way) > 1:
                shorter.setdefault(way[-2], way[:-1])
        ways = [way for node, way in shorter.items() if node not in said]
    return said


class _Writer:
    """Collects scores and commits them a part at a time."""

    def __init__(self, run: RunFolder, critic: Critic, watch: Watch | None) -> None:
        """Looks up which trees have scores."""
        self.name = critic_name(critic)
        self.done = scored_trees(run.path, self.name)
        self.failed = 0
        self._run = run
        self._identity = critic.identity
        self._watch = watch
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()

    def add(self, tree_id: str, said: Mapping[int, Scores | Failure]) -> None:
        """Takes the scores of a tree; commits when there are many or it has been long."""
        key = {"critic": self.name, "tree_id": tree_id}
        self._rows += [key | {"node_id": node} | _columns(said[node]) for node in said]
        self.failed += sum(isinstance(of_node, Failure) for of_node in said.values())
        self.done.add(tree_id)
        if len(self._rows) >= _PART_NODES or time.monotonic() - self._since > _PART_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes what was collected as one part."""
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=SCORES)
            write_scores(self._run, self.name, self._identity, table)
            if self._watch is not None:
                self._watch(len(self.done), len(committed_trees(self._run.path)))
        self._rows, self._since = [], time.monotonic()


def _columns(of_node: Scores | Failure) -> dict[str, Any]:
    if isinstance(of_node, Failure):
        return {"error_kind": of_node.kind, "error": of_node.message}
    return {
        "value": of_node.value,
        "progress": of_node.progress,
        "outcome": of_node.outcome,
    }

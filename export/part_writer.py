"""Collects finished trees and commits them a part at a time, beside the event loop.

Rows are made and written on one other thread, so that trees go on growing meanwhile. Until a part
is committed, the replies of its trees stay in the journal: the death of the process loses nothing.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

from treeward.export.columns import Origin, part_tables
from treeward.export.journal import Journal
from treeward.export.parts import write_part
from treeward.export.run_folder import RunFolder
from treeward.search.problem import Problem
from treeward.search.tree import Tree

PART_NODES = 16_384
PART_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Part:
    """Holds trees that are being written, and when that is done the number with failed calls."""

    trees: Sequence[Tree]
    failed: Future[int]


@dataclass(slots=True)
class PartWriter:
    """Takes finished trees; what it does not say otherwise happens on the thread of its caller."""

    run: RunFolder
    journal: Journal
    tree_id: Callable[[Problem], str]
    origin: Origin
    aside: Executor
    """Where parts are written, one after the other."""
    worker: str = "main"
    grown: int = 0
    """Trees that are committed."""
    failed: int = 0
    """Of these, those in which calls failed."""
    waiting: list[Tree] = field(default_factory=list)
    """Trees that are finished and not handed on; their replies are still in the journal."""
    nodes: int = 0
    """Nodes of those."""
    since: float = field(default_factory=time.monotonic)
    _written: _Part | None = None

    def add(self, tree: Tree) -> None:
        """Takes a tree; begins to write a part when there are many nodes or it has been long.

        Raises:
            TreewardError: A part before this could not be written; its trees wait again.
        """
        self.waiting.append(tree)
        self.nodes += len(tree)
        if self.nodes >= PART_NODES or time.monotonic() - self.since > PART_SECONDS:
            self._begin()

    def add_block(self, trees: Sequence[Tree]) -> None:
        """Takes trees that are committed all at once, or not at all, and waits for it."""
        self.waiting += trees
        self.commit()

    def commit(self) -> None:
        """Commits all trees taken so far and drops their journals.

        Raises:
            TreewardError: They could not be written; they wait again.
        """
        self._begin()
        self._end()

    def _begin(self) -> None:
        """Hands on what waits, after what was handed on before."""
        self._end()
        trees, self.waiting, self.nodes = self.waiting, [], 0
        self.since = time.monotonic()
        if trees:
            self._written = _Part(trees, self.aside.submit(self._write, trees))

    def _write(self, trees: Sequence[Tree]) -> int:
        """Writes one part and returns the number of its trees with failed calls."""
        names = [self.tree_id(tree.problem) for tree in trees]
        tables = part_tables(trees, names, self.origin)
        write_part(self.run.path, self.worker, tables, self.run.identity.versions)
        return sum(status != "ok" for status in tables["trees"]["status"].to_pylist())

    def _end(self) -> None:
        """Waits for what was handed on; where that fails, its trees wait again."""
        if self._written is None:
            return
        part, self._written = self._written, None
        try:
            failed = part.failed.result()
        except BaseException:
            self.waiting = [*part.trees, *self.waiting]
            self.nodes = sum(map(len, self.waiting))
            raise
        self.failed += failed
        self.grown += len(part.trees)
        for tree in part.trees:
            self.journal.drop(self.tree_id(tree.problem))

"""What Python users call: `treeward.generate`, `treeward.open_run` and `treeward.score`."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import ExportReport, export_dataset
from treeward.export.generate import Outcome
from treeward.export.generate import generate as grow
from treeward.export.notebook import tree_html
from treeward.export.open_critic import open_critic
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import Session, run_query, session
from treeward.export.run_folder import RunFolder, open_run_folder
from treeward.export.scores import score_run
from treeward.export.view import Written, write_run_page, write_tree_page
from treeward.export.viewer import Node, draw_tree, read_nodes
from treeward.search.critic import Critic
from treeward.search.errors import BadInput
from treeward.search.forest import Progress
from treeward.search.specs import nearest


@dataclass(frozen=True, slots=True)
class TreeView:
    """Shows one tree of a run; printing it draws it."""

    tree_id: str
    nodes: list[Node]
    """The rows of view `nodes`, in pre-order."""

    def __str__(self) -> str:
        """Returns the tree as lines of text."""
        return draw_tree(self.nodes).plain

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: static HTML."""
        return tree_html(self.tree_id, self.nodes)


@dataclass(frozen=True, slots=True)
class Run:
    """Reads a run folder."""

    folder: RunFolder

    def sql(self, statement: str, *, timeout: float | None = None) -> pa.Table:
        """Returns the result of one read-only statement over the run's views.

        Args:
            statement: As for `treeward query`.
            timeout: Seconds after which it is stopped; None for no limit.

        Raises:
            BadInput: It is no such statement, or DuckDB refuses it.
            TreewardError: It was stopped.
        """
        return run_query(self.folder, statement, timeout=timeout)

    def session(self) -> AbstractContextManager[Session]:
        """Opens the run once for many statements: `with run.session() as s: s.sql(...)`.

        Raises:
            DamagedData: A committed file is missing.
        """
        return session(self.folder)

    def tree(self, tree_id: str) -> TreeView:
        """Returns one tree; raises BadInput where the run has none of this id."""
        return TreeView(tree_id, read_nodes(self.folder, str(tree_id)))

    def trees(self) -> Iterator[TreeView]:
        """Yields all trees by their ids, one in memory at a time."""
        for row in self.sql("SELECT tree_id FROM trees ORDER BY tree_id").to_pylist():
            yield self.tree(row["tree_id"])

    def view(
        self,
        out: Path | str,
        *tree_ids: str,
        against: "Run | Path | str | None" = None,
        **settings: Any,
    ) -> Written:
        """Writes a page of the run, or of one tree, or of two side by side.

        Args:
            out: The page.
            tree_ids: One or two of the run's trees; none for the whole run.
            against: Another run, whose tree of the same problem is set beside one tree.
            settings: Further ones of `write_tree_page`.
        """
        if tree_ids:
            other = open_run(against) if isinstance(against, Path | str) else against
            return write_tree_page(
                *(self.folder, tree_ids, Path(out)),
                against=None if other is None else other.folder,
                **settings,
            )
        if against is not None:
            raise BadInput("against: needs the id of a tree")
        return write_run_page(self.folder, Path(out), **settings)

    def export(self, kind: str, out: Path | str, **settings: Any) -> ExportReport:
        """Writes a dataset; settings are those of `ExportSettings`.

        Raises:
            BadInput: There is no such kind, or `export_dataset` refuses what is asked for.
        """
        if kind not in {*Kind}:
            raise BadInput(f"kind: no {kind!r}; {nearest(kind, [each.value for each in Kind])}")
        if "test_sets" in settings:
            settings["test_sets"] = tuple(map(Path, settings["test_sets"]))
        return export_dataset(self.folder, Kind(kind), Path(out), ExportSettings(**settings))


def open_run(path: Path | str) -> Run:
    """Returns a run folder for reading.

    Raises:
        BadInput: The path is no run folder.
    """
    return Run(open_run_folder(Path(path)))


def generate(
    problems: Path | str,
    out: Path | str,
    *,
    concurrency: int = 64,
    retry_failed: bool = False,
    **options: Any,
) -> Run:
    """Grows a tree for each problem, or goes on with a run that was begun; returns the run.

    Args:
        problems: A file, `task:arithmetic?n=200` or `gym:NAME?n=200`.
        out: The run folder.
        concurrency: Trees that grow at once.
        retry_failed: Whether trees in which calls failed are taken out and grown anew.
        options: Fields of `treeward.export.plan.Options`: policy, critics, limit, seed,
            config, ...

    Raises:
        BadInput: Something asked for breaks its rule.
        SettingsConflict: The folder holds a run with other settings.
        KeyboardInterrupt: Ctrl-C ended it; what is finished is committed, and the same call goes
            on.
        SystemExit: SIGTERM ended it, likewise; where an event loop runs, that ends the process.
    """
    if concurrency < 1:
        raise BadInput(f"concurrency must be at least 1, got {concurrency!r}")
    if options.get("config") is not None:
        options["config"] = Path(options["config"])
    plan = make_plan(Options(problems=str(problems), **options))
    growing = partial(grow, plan, Path(out), concurrency=concurrency, retry_failed=retry_failed)
    outcome = _apart(growing) if _in_a_loop() else growing()
    if outcome.interrupted == signal.SIGINT:
        raise KeyboardInterrupt
    if outcome.interrupted is not None:
        raise SystemExit(outcome.exit_code(None))
    return open_run(out)


def _in_a_loop() -> bool:
    """Returns whether an event loop runs on this thread, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _apart(growing: Callable[..., Outcome]) -> Outcome:
    """Grows a run on a thread of its own, beside the event loop of the caller.

    Ctrl-C reaches the main thread alone, which passes it on where it is the caller; an event loop
    may have been told to wait for its own tasks instead.
    """
    stopping = threading.Event()

    def watch(progress: Progress, total: int) -> None:
        if stopping.is_set():
            # Out of a task, this ends the loop; what is finished is committed on the way.
            raise KeyboardInterrupt

    with ThreadPoolExecutor(1, "generate") as thread:
        outcome = thread.submit(growing, watch=watch)
        with _heard_here():
            try:
                return outcome.result()
            except KeyboardInterrupt:
                stopping.set()
                raise


@contextmanager
def _heard_here() -> Iterator[None]:
    """Raises KeyboardInterrupt at Ctrl-C, on the main thread and unless it is to be ignored."""
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def score(run: Path | str, critics: Path | str | Critic, *, device: str = "cpu") -> Run:
    """Adds critics' scores to a run without rewriting its trees; returns the run.

    Args:
        run: The run folder.
        critics: A folder of trained critics, or critics of one's own.
        device: A torch device, for those in a folder.

    Raises:
        BadInput: The path is no run folder, or the folder holds no critics.
    """
    alone = open_run_folder(Path(run)).identity.is_deterministic
    score_run(Path(run), open_critic(critics, device=device, alone=alone))
    return open_run(run)

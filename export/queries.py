"""SQL over a run: views of its tables, macros for walking trees, and who may do what.

The views stand on the committed files by way of Arrow, not of DuckDB's own reader, for two reasons:
pages are checked against their checksums, which DuckDB does not do; and the database needs no
access to any file. With access, even to the run's files alone, one SELECT can write over them:
`WITH x AS (COPY ... TO 'file') SELECT ...`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from threading import Event, Timer

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from treeward.export.macros import MACROS, NAMES
from treeward.export.parts import committed_parts, parts_in, read_manifest, require_columns
from treeward.export.problems_file import first_line
from treeward.export.run_folder import RunFolder
from treeward.export.schema import SAMPLERS, SCHEMAS, TABLES
from treeward.export.score_store import TABLE, score_sets
from treeward.export.statement import check_statement
from treeward.export.tree_lookup import TreeFiles, checked_layout
from treeward.search.errors import BadInput, DamagedData, TreewardError

_SCORED_NODES = """
CREATE TEMP VIEW nodes AS
    SELECT grown.* REPLACE (
        said.value AS value_critic, said.progress AS progress_critic, said.outcome AS outcome_critic
    )
    FROM nodes_as_grown grown LEFT JOIN scores said
    ON said.tree_id = grown.tree_id AND said.node_id = grown.node_id
"""
"""For a run grown without critics and scored by one critic since."""

_FAILED_READS = ("reading the stream registered as", "exporting a stream from the object")


def run_query(
    run: RunFolder, sql: str, *, memory_limit: str = "4GB", timeout: float | None = None
) -> pa.Table:
    """Returns the rows of one statement that reads a run.

    Args:
        run: The run.
        sql: One SELECT (WITH, VALUES, FROM, SUMMARIZE), EXPLAIN, DESCRIBE or SHOW.
        memory_limit: What the database may take, such as `4GB`.
        timeout: Seconds after which the database is told to stop; None for no limit. It looks
            between pieces of its work, so that a single function of one row can take longer;
            `query_process` stops anything.

    Raises:
        BadInput: The statement is refused or fails.
        DamagedData: A file of the run is not what was written.
        TreewardError: The database met a limit.
    """
    with connected(run, memory_limit=memory_limit) as connection:
        return run_statement(run, connection, sql, timeout=timeout)


def run_statement(
    run: RunFolder,
    connection: duckdb.DuckDBPyConnection,
    sql: str,
    *,
    timeout: float | None = None,
) -> pa.Table:
    """Returns what `run_query` does, from a database that is open already."""
    with _sql_errors(run.path), _stopped_after(connection, timeout):
        check_statement(connection, sql, NAMES)
        return _with_integers(connection.sql(sql).to_arrow_table())


def _with_integers(found: pa.Table) -> pa.Table:
    """Returns a table with 64-bit integers for DuckDB's 128-bit ones, its sums, where all fit."""
    for place, field in enumerate(found.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            with suppress(pa.ArrowInvalid):
                column = found.column(place).cast(pa.int64())
                found = found.set_column(place, field.name, column)
    return found


@contextmanager
def _stopped_after(connection: duckdb.DuckDBPyConnection, seconds: float | None) -> Iterator[None]:
    """Interrupts what a database does after some time.

    Raises:
        TreewardError: It was interrupted.
    """
    if seconds is None:
        yield
        return
    late = Event()

    def stop() -> None:
        late.set()
        connection.interrupt()

    timer = Timer(seconds, stop)
    timer.start()
    try:
        yield
    except duckdb.InterruptException as e:
        if not late.is_set():
            raise
        raise TreewardError(
            f"query: stopped after {seconds:g} s; ask for less, or give more with timeout="
        ) from e
    finally:
        timer.cancel()
        timer.join()


@dataclass(frozen=True, slots=True)
class Session:
    """Answers any number of statements about what a run held when it was opened."""

    run: RunFolder
    connection: duckdb.DuckDBPyConnection

    def sql(self, statement: str, *, timeout: float | None = None) -> pa.Table:
        """Returns what `run_query` does; what was read of a tree is kept for the next question."""
        return run_statement(self.run, self.connection, statement, timeout=timeout)


@contextmanager
def session(run: RunFolder, *, memory_limit: str = "4GB") -> Iterator[Session]:
    """Opens a run for any number of statements.

    Raises:
        DamagedData: A committed file is missing.
    """
    with connected(run, memory_limit=memory_limit) as connection:
        yield Session(run, connection)


@contextmanager
def connected(run: RunFolder, *, memory_limit: str = "4GB") -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database in memory with a run's views and macros, which can reach no file.

    Raises:
        BadInput: An earlier version made the run, before tables had all their columns.
        DamagedData: A committed file is missing.
    """
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": memory_limit,
            "python_enable_replacements": False,
            "temp_directory": "",
        }
    )
    try:
        _register_tables(connection, run)
        connection.register("problems", dataset("problems", [run.problems_path]))
        samplers = [asdict(sampler) for sampler in run.identity.samplers]
        connection.register("samplers", pa.Table.from_pylist(samplers, schema=SAMPLERS))
        connection.execute(MACROS)
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


@contextmanager
def reading(run: RunFolder) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database on a run for statements of our own: what fails is the run's fault.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    try:
        with connected(run) as connection:
            yield connection
    except duckdb.Error as e:
        message = " ".join(str(e).split())
        hint = f"`treeward verify {run.path}` names the file"
        raise DamagedData(f"{run.path}: {message}; {hint}") from e


def _register_tables(connection: duckdb.DuckDBPyConnection, run: RunFolder) -> None:
    """Makes the views of what is in parts, and of scores that were added later."""
    sets = score_sets(run.path)
    overlaid = len(sets) == 1 and not run.identity.has_critics
    parts = committed_parts(run.path)
    held = _holders(parts)
    for name in TABLES:
        shown = "nodes_as_grown" if overlaid and name == "nodes" else name
        connection.register(shown, _lookup(name, name, parts, held))
    scored = [part for place in sets for part in parts_in(place)]
    connection.register("scores", _lookup("scores", TABLE, scored, _holders(scored)))
    if overlaid:
        connection.execute(_SCORED_NODES)


def _holders(parts: Sequence[Path]) -> Callable[[], dict[str, list[Path]]]:
    """Returns what says which parts hold each tree; reads their manifests when first asked."""

    @cache
    def holders() -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for part in parts:
            for tree in read_manifest(part).trees:
                found.setdefault(tree, []).append(part)
        return found

    return holders


def _lookup(
    name: str, file: str, parts: Sequence[Path], held: Callable[[], dict[str, list[Path]]]
) -> ds.Dataset:
    """Returns one table over some parts, in which a tree is found by the parts' manifests."""
    files = {part: part / f"{file}.parquet" for part in parts}
    if not files:
        return dataset(name, [])
    for path in files.values():
        if not path.is_file():
            raise DamagedData(f"{path}: missing from a committed part; restore it")

    require_columns(next(iter(files.values())), name)

    def find(tree: str) -> list[Path]:
        return [files[part] for part in held().get(tree, ())]

    return TreeFiles([*files.values()], name, find)


def dataset(name: str, files: list[Path]) -> ds.Dataset:
    """Returns one table over some files, whose pages are checked as they are read.

    Raises:
        DamagedData: A file is missing.
    """
    schema = SCHEMAS[name]
    if not files:
        return ds.dataset(schema.empty_table())
    try:
        return ds.dataset([str(path) for path in files], schema=schema, format=checked_layout())
    except FileNotFoundError as e:
        raise DamagedData(f"{e}: missing from a committed part; restore it") from e


@contextmanager
def _sql_errors(run: Path) -> Iterator[None]:
    """Turns the database's errors into one line, its hint included.

    Raises:
        BadInput: The statement is at fault.
        DamagedData: A file of the run is.
        TreewardError: The database met its memory limit.
    """
    try:
        yield
    except (duckdb.OutOfMemoryException, MemoryError) as e:
        raise TreewardError(
            "query: needs more memory; ask for less, or raise the limit with --memory"
        ) from e
    except (OSError, pa.ArrowException) as e:
        raise DamagedData(f"{run}: {first_line(e)}; `treeward verify {run}` names the file") from e
    except duckdb.Error as e:
        message = " ".join(str(e).partition("\nLINE ")[0].split())
        if any(words in message for words in _FAILED_READS):
            raise DamagedData(f"{run}: {message}; `treeward verify {run}` names the file") from e
        raise BadInput(f"query: {message}") from e

"""SQL over a run: views of its tables, macros for walking trees, and who may do what.

The views stand on the committed files by way of Arrow, not of DuckDB's own reader, for two reasons:
pages are checked against their checksums, which DuckDB does not do; and the database needs no
access to any file. With access, even to the run's files alone, one SELECT can write over them:
`WITH x AS (COPY ... TO 'file') SELECT ...`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from treeward.export.parts import committed_parts
from treeward.export.run_folder import RunFolder
from treeward.export.schema import SAMPLERS, SCHEMAS, TABLES
from treeward.export.score_store import score_files, score_sets
from treeward.export.statement import check_statement
from treeward.search.errors import BadInput, DamagedData, TreewardError

MIN_ROLLOUTS = 8
"""Rollouts without a success that make a prefix wrong under the default label rule."""

MACROS = f"""
CREATE MACRO path_to(tree, node) AS TABLE
    SELECT step.* FROM nodes step JOIN nodes goal
    ON step.tree_id = tree AND goal.tree_id = tree AND goal.node_id = node
    AND list_contains(goal.path, step.node_id)
    ORDER BY step.depth;

CREATE MACRO best_path(tree) AS TABLE
    SELECT step.* FROM trees, path_to(tree, best_node_id) step WHERE trees.tree_id = tree
    ORDER BY step.depth;

CREATE MACRO subtree(tree, node) AS TABLE
    SELECT below.* FROM nodes below JOIN nodes top
    ON below.tree_id = tree AND top.tree_id = tree AND top.node_id = node
    AND below.pre BETWEEN top.pre AND top.post_end
    ORDER BY below.pre;

CREATE MACRO siblings(tree, node) AS TABLE
    SELECT other.* FROM nodes other JOIN nodes self
    ON other.tree_id = tree AND self.tree_id = tree AND self.node_id = node
    AND other.parent_id = self.parent_id AND other.node_id <> node
    ORDER BY other.child_rank;

-- A step is right where a success lies at or below it; wrong where none does in enough rollouts, or
-- where a wrong solution ends; otherwise undecided, and then nobody knows which error is the first.
CREATE MACRO first_error(tree, node, min_rollouts := {MIN_ROLLOUTS}) AS TABLE
    WITH steps AS (
        SELECT * FROM path_to(tree, node) WHERE depth > 0
    ), failing AS (
        SELECT step.node_id, any_value(step.depth) AS depth,
            any_value(step.n_rollouts >= min_rollouts
                OR (step.is_terminal AND coalesce(step.verdict = 'wrong', false))) AS wrong
        FROM steps step JOIN nodes below
        ON below.tree_id = tree AND below.pre BETWEEN step.pre AND step.post_end
        GROUP BY step.node_id
        HAVING NOT bool_or(below.n_right > 0
            OR (below.is_terminal AND coalesce(below.verdict = 'right', false)))
    )
    SELECT steps.* FROM steps JOIN (SELECT * FROM failing ORDER BY depth LIMIT 1) first
    ON steps.node_id = first.node_id AND first.wrong;
"""

_SCORED_NODES = """
CREATE TEMP VIEW nodes AS
    SELECT grown.* REPLACE (
        said.value AS value_critic, said.progress AS progress_critic, said.outcome AS outcome_critic
    )
    FROM nodes_as_grown grown LEFT JOIN scores said
    ON said.tree_id = grown.tree_id AND said.node_id = grown.node_id
"""
"""For a run grown without critics and scored by one critic since."""

_MACRO_NAMES = frozenset(re.findall(r"CREATE MACRO (\w+)", MACROS))
_FAILED_READ = "reading the stream registered as"


def run_query(run: RunFolder, sql: str, *, memory_limit: str = "4GB") -> pa.Table:
    """Returns the rows of one statement that reads a run.

    Args:
        run: The run.
        sql: One SELECT (WITH, VALUES, FROM, SUMMARIZE), EXPLAIN, DESCRIBE or SHOW.
        memory_limit: What the database may take, such as `4GB`.

    Raises:
        BadInput: The statement is refused or fails.
        DamagedData: A file of the run is not what was written.
        TreewardError: The database met its memory limit.
    """
    with connected(run, memory_limit=memory_limit) as connection:
        return run_statement(run, connection, sql)


def run_statement(run: RunFolder, connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """Returns what `run_query` does, from a database that is open already."""
    with _sql_errors(run.path):
        check_statement(connection, sql, _MACRO_NAMES)
        return connection.sql(sql).to_arrow_table()


@contextmanager
def connected(run: RunFolder, *, memory_limit: str = "4GB") -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens a database in memory with a run's views and macros, which can reach no file.

    Raises:
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


def _register_tables(connection: duckdb.DuckDBPyConnection, run: RunFolder) -> None:
    """Makes the views of what is in parts, and of scores that were added later."""
    sets = score_sets(run.path)
    overlaid = len(sets) == 1 and not run.identity.has_critics
    parts = committed_parts(run.path)
    for name in TABLES:
        files = [part / f"{name}.parquet" for part in parts]
        shown = "nodes_as_grown" if overlaid and name == "nodes" else name
        connection.register(shown, dataset(name, files))
    files = [file for place in sets for file in score_files(place)]
    connection.register("scores", dataset("scores", files))
    if overlaid:
        connection.execute(_SCORED_NODES)


def dataset(name: str, files: list[Path]) -> ds.Dataset:
    """Returns one table over some files, whose pages are checked as they are read.

    Raises:
        DamagedData: A file is missing.
    """
    schema = SCHEMAS[name]
    if not files:
        return ds.dataset(schema.empty_table())
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    layout = ds.ParquetFileFormat(default_fragment_scan_options=checked)
    try:
        return ds.dataset([str(path) for path in files], schema=schema, format=layout)
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
    except duckdb.Error as e:
        message = " ".join(str(e).partition("\nLINE ")[0].split())
        if _FAILED_READ in message:
            raise DamagedData(f"{run}: {message}; `treeward verify {run}` names the file") from e
        raise BadInput(f"query: {message}") from e

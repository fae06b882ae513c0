"""Which SQL statements may be put to a run: one that reads, judged by its parsed form.

A statement is refused before it runs, by three rules on the tree that DuckDB's own parser makes of
it: every query in it selects (no COPY, INSERT, UPDATE or DELETE, not even inside a WITH); every
table function is on a list; no function changes a setting or waits. The database that runs it can
reach no file and its settings are locked, so that a statement that slips through finds nothing.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import duckdb

from treeward.search.errors import BadInput

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""The kinds of query that read."""

_TABLE_FUNCTIONS = frozenset(
    {
        *("range", "generate_series", "unnest", "repeat", "json_each", "json_tree"),
        *("histogram", "histogram_values", "summary"),
        *("duckdb_columns", "duckdb_functions", "duckdb_tables", "duckdb_types", "duckdb_views"),
    }
)
"""DuckDB's table functions that make rows of what they are given, or of the catalog."""

_REFUSED_FUNCTIONS = frozenset(
    {
        *("getenv", "current_setting", "setseed", "nextval", "currval", "setval"),
        *("write_log", "sleep_ms", "pg_sleep", "json_serialize_plan"),
    }
)
"""Scalar functions that reach outside, change the session or wait."""

_EXPLAIN = re.compile(r"[ \t\r\n]*explain(?:[ \t\r\n]+analyze)?(?:[ \t\r\n]*\([a-z_, ]*\))?", re.I)
_ALLOWED = "give one SELECT, EXPLAIN, DESCRIBE or SHOW"


def check_statement(
    connection: duckdb.DuckDBPyConnection, sql: str, macros: frozenset[str]
) -> None:
    """Refuses all but one statement that reads.

    Args:
        connection: Parses the statement; runs nothing of it.
        sql: The statement.
        macros: Table macros that it may call.

    Raises:
        BadInput: It is none, several, or one that does more than read.
        duckdb.Error: It cannot be parsed.
    """
    try:
        sql.encode()
    except UnicodeEncodeError as e:
        raise BadInput(f"query: the statement is no Unicode text: {e.reason}") from e
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise BadInput(f"query: got {len(statements)} statements; {_ALLOWED}")
    kind = _kind(statements[0])
    if kind == "EXPLAIN":
        explained = _EXPLAIN.match(sql)
        tree = _parse(connection, sql[explained.end() :]) if explained else None
        if tree is None:
            raise BadInput("query: EXPLAIN is refused but directly before one SELECT")
    else:
        tree = _parse(connection, sql) if kind == "SELECT" else None
    if tree is None and kind == "MULTI":
        raise BadInput("query: PIVOT needs its values: PIVOT ... ON column IN (value, ...)")
    if tree is None:
        raise BadInput(f"query: {kind} is refused; a run is only read: {_ALLOWED}")
    for node in _nodes(tree):
        _check_node(node, macros)


def _kind(statement: duckdb.Statement) -> str:
    """Returns the kind of a statement, such as `SELECT`."""
    try:
        return statement.type.name
    except ValueError:
        # The parser knows more kinds than the package has names for.
        return "such a statement"


def _parse(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any] | None:
    """Returns the parsed form of a statement, or None where it is no SELECT.

    DESCRIBE, SHOW, SUMMARIZE, VALUES and FROM are SELECTs to the parser.
    """
    [row] = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    try:
        tree: dict[str, Any] = json.loads(row[0])
    except RecursionError as e:
        raise BadInput("query: the statement is nested too deeply; write it flatter") from e
    return None if tree["error"] or len(tree["statements"]) != 1 else tree


def _nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields every object of a parsed statement."""
    pending: list[Any] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def _check_node(node: dict[str, Any], macros: frozenset[str]) -> None:
    """Refuses one part of a statement that does more than read."""
    kind = node.get("type")
    if isinstance(kind, str) and kind.endswith("_NODE") and kind not in _QUERIES:
        name = kind.removesuffix("_NODE").removesuffix("_QUERY")
        raise BadInput(f"query: {name} is refused; a run is only read: {_ALLOWED}")
    if kind == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "")).lower()
        if name not in _TABLE_FUNCTIONS and name not in macros:
            raise BadInput(
                f"query: the table function {name!r} is refused; a query reads the run's views"
            )
    called = node.get("function_name")
    if isinstance(called, str) and called.lower() in _REFUSED_FUNCTIONS:
        raise BadInput(f"query: the function {called.lower()!r} is refused; a run is only read")

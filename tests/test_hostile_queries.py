"""What a hostile statement may try is refused before it runs, or stopped, in one line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.fakes import SAMPLER

from treeward.export.parts import write_part
from treeward.export.queries import connected, run_statement
from treeward.export.query_process import _require_success, memory_bytes, query_in_process
from treeward.export.run_folder import Identity, RunFolder, open_run_folder, writing
from treeward.search.errors import BadInput, TreewardError
from treeward.search.problem import Problem

Maker = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(random_part: Maker, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    path = tmp_path_factory.mktemp("hostile") / "run"
    problems = [Problem(id=f"p-{tree}", prompt=tree) for tree in "abc"]
    with writing(path, Identity(settings={}, samplers=(SAMPLER,), versions={}), problems):
        write_part(path, "w0", random_part(1), {})
    return open_run_folder(path)


@pytest.fixture(scope="module")
def database(run: RunFolder) -> Iterator[duckdb.DuckDBPyConnection]:
    with connected(run) as connection:
        yield connection


@pytest.fixture(autouse=True)
def untouched(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing beside the run changes, and nothing in it."""

    def state() -> dict[Path, bytes | None]:
        below = run.path.parent.rglob("*")
        return {path: path.read_bytes() if path.is_file() else None for path in below}

    monkeypatch.chdir(run.path.parent)
    before = state()
    yield
    assert state() == before


READS_OUTSIDE = """
SELECT * FROM '/etc/passwd'
SELECT * FROM "/etc/passwd"
FROM '{inside}'
FROM '{inside}' AS nodes
SELECT * FROM 'https://example.org/x.parquet'
SELECT * FROM 's3://bucket/x.parquet'
SELECT * FROM '../secret.csv'
SELECT * FROM '*.parquet'
SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM read_csv_auto('/etc/passwd')
SELECT * FROM read_csv(['/etc/passwd'])
SELECT * FROM read_text('/etc/passwd')
SELECT * FROM read_text('{inside}')
SELECT * FROM read_blob('/etc/passwd')
SELECT * FROM read_json('/etc/passwd')
SELECT * FROM read_json_auto('{run}/run.json')
SELECT * FROM read_json_objects('/etc/passwd')
SELECT * FROM read_ndjson('/etc/passwd')
SELECT * FROM read_ndjson_objects('/etc/passwd')
SELECT * FROM read_parquet('{inside}')
SELECT * FROM parquet_scan('{inside}')
SELECT * FROM parquet_metadata('{inside}')
SELECT * FROM parquet_file_metadata('{inside}')
SELECT * FROM parquet_kv_metadata('{inside}')
SELECT * FROM parquet_schema('{inside}')
SELECT * FROM parquet_bloom_probe('{inside}', 'tree_id', 'a')
SELECT * FROM read_duckdb('x.duckdb')
SELECT * FROM sniff_csv('/etc/passwd')
SELECT * FROM glob('/etc/*')
SELECT * FROM system.main.read_text('/etc/passwd')
SELECT * FROM main.glob('*')
SELECT * FROM READ_TEXT('/etc/passwd')
SELECT * FROM "read_text"('/etc/passwd')
SELECT * FROM read_text/* */('/etc/passwd')
SELECT * FROM read_text(getenv('HOME') || '/.netrc')
SELECT (SELECT content FROM read_text('/etc/passwd'))
SELECT * FROM nodes WHERE step_text IN (SELECT content FROM read_text('/etc/passwd'))
SELECT * FROM nodes, LATERAL (SELECT * FROM read_text(step_text))
WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x
WITH RECURSIVE r AS (SELECT 1 UNION ALL SELECT 1 FROM read_text('/etc/passwd')) FROM r
SELECT 1 UNION SELECT content FROM read_text('/etc/passwd')
SELECT * FROM nodes ORDER BY (SELECT content FROM read_text('/etc/passwd'))
DESCRIBE SELECT * FROM read_csv('/etc/passwd')
SUMMARIZE SELECT * FROM read_csv('/etc/passwd')
EXPLAIN SELECT * FROM read_csv('/etc/passwd')
EXPLAIN ANALYZE SELECT * FROM read_csv('/etc/passwd')
SELECT * FROM (DESCRIBE SELECT * FROM read_csv('/etc/passwd'))
SELECT getenv('HOME')
SELECT system.main.getenv('HOME')
SELECT 'HOME'.getenv()
SELECT list_transform(['HOME'], lambda name: getenv(name))
SELECT current_setting('home_directory')
SELECT * FROM duckdb_settings()
SELECT * FROM duckdb_secrets()
SELECT * FROM which_secret('s3://a', 's3')
SELECT * FROM duckdb_logs()
SELECT * FROM run
SELECT * FROM SAMPLER
SELECT * FROM random_part
SELECT * FROM arrow_scan(1, 2, 3)
SELECT * FROM pandas_scan(12345)
SELECT * FROM python_map_function(1)
SELECT * FROM query('SELECT content FROM read_text(''/etc/passwd'')')
SELECT * FROM query('SELECT 1')
SELECT * FROM query_table('/etc/passwd')
SELECT * FROM query_table(['nodes'])
SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))
SELECT json_serialize_plan('SELECT * FROM read_text(''/etc/passwd'')')
SELECT * FROM seq_scan('nodes')
"""

CHANGES = """
COPY nodes TO '{outside}'
COPY (SELECT 1) TO '{inside}' (USE_TMP_FILE false)
COPY nodes FROM '/etc/passwd'
COPY FROM DATABASE memory TO other
WITH x AS (COPY (SELECT 1) TO '{outside}') FROM x
WITH x AS (COPY (SELECT 1) TO '{inside}' (USE_TMP_FILE false)) FROM x
WITH x AS MATERIALIZED (COPY nodes TO '{outside}' (FORMAT csv)) SELECT 1
SELECT (WITH x AS (COPY (SELECT 1) TO '{outside}') SELECT count(*) FROM x)
EXPLAIN ANALYZE COPY nodes TO '{inside}' (USE_TMP_FILE false)
EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{outside}'
EXPLAIN ANALYZE WITH x AS (COPY (SELECT 1) TO '{outside}') FROM x
EXPLAIN INSERT INTO nodes SELECT 1
EXPLAIN ANALYZE CREATE TABLE mine AS SELECT 1
EXPLAIN /* SELECT 1 */ COPY nodes TO '{outside}'
EXPLAIN -- a line\\r COPY nodes TO '{outside}' -- \\n SELECT 1
EXPORT DATABASE '{outside}'
IMPORT DATABASE '{outside}'
ATTACH '{outside}' AS other
ATTACH ':memory:' AS other
DETACH memory
USE memory
CREATE TABLE mine AS SELECT 1
CREATE TEMP TABLE mine (a INT)
CREATE VIEW trees AS SELECT 1
CREATE OR REPLACE TEMP VIEW nodes AS SELECT 1
CREATE MACRO path_to(tree, node) AS TABLE SELECT 1
CREATE FUNCTION f(x) AS getenv(x)
CREATE SECRET (TYPE s3)
CREATE SEQUENCE s
CREATE TYPE mood AS ENUM ('a')
CREATE SCHEMA s
INSERT INTO nodes SELECT * FROM nodes
WITH x AS (INSERT INTO nodes SELECT * FROM nodes RETURNING *) FROM x
UPDATE nodes SET value = 1
WITH x AS (UPDATE nodes SET value = 1 RETURNING *) FROM x
DELETE FROM nodes
WITH x AS (DELETE FROM nodes RETURNING *) FROM x
TRUNCATE nodes
MERGE INTO nodes USING nodes b ON true WHEN MATCHED THEN DELETE
ALTER TABLE nodes ADD COLUMN a INT
DROP VIEW nodes
COMMENT ON VIEW nodes IS 'mine'
VACUUM
ANALYZE
CHECKPOINT
FORCE CHECKPOINT
BEGIN
COMMIT
SELECT * FROM checkpoint()
SELECT * FROM force_checkpoint()
SELECT nextval('s')
SELECT write_log('x')
PRAGMA database_list
PRAGMA table_info('nodes')
PRAGMA enable_profiling
PRAGMA memory_limit='100GB'
SET threads = 1
SET memory_limit = '100GB'
SET enable_external_access = true
SET VARIABLE a = 1
RESET lock_configuration
SELECT setseed(0.5)
SELECT * FROM enable_logging()
SELECT * FROM enable_profiling()
SELECT * FROM truncate_duckdb_logs()
SELECT * FROM create_external_resource('a')
INSTALL httpfs
FORCE INSTALL httpfs FROM 'https://example.org'
LOAD httpfs
LOAD '{outside}.duckdb_extension'
UPDATE EXTENSIONS
CALL pragma_version()
CALL glob('*')
CALL enable_logging()
PREPARE p AS SELECT 1
EXECUTE p
DEALLOCATE p
"""

STACKED = """
SELECT 1; SELECT 2
SELECT 1; COPY nodes TO '{outside}'
SELECT 1;; SELECT 2
SELECT 1; -- \\n DROP VIEW nodes
SELECT 1 /* ; */; DELETE FROM nodes
PREPARE p AS SELECT 1; EXECUTE p
SET threads = 1; SELECT 1
-- SELECT 1
/* SELECT 1 */
/* /* SELECT 1 */
;
SELECT 1 \u037e SELECT 2
SELECT 1 \uff1b SELECT 2
SELECT '\u2019 ; COPY nodes TO \u2019x\u2019'; COPY nodes TO '{outside}'
\ufeffCOPY nodes TO '{outside}'
\u00a0COPY\u00a0nodes TO '{outside}'
SELECT $$ ; $$; COPY nodes TO '{outside}'
SELECT ?
SELECT $1
SELEC 1
SELECT valeu FROM nodes
SELECT 1 FROM nodes WHERE \x00
"""


def statements(block: str) -> list[str]:
    """One a line, where `\\n` stands for a line feed."""
    return [line.replace("\\n", "\n").replace("\\r", "\r") for line in block.splitlines() if line]


REFUSED = [*statements(READS_OUTSIDE), *statements(CHANGES), *statements(STACKED)]
REFUSED += ["", "SELECT '\ud800'"]


def test_there_are_many() -> None:
    assert len(REFUSED) + len(RUNAWAY) >= 150
    assert len({*REFUSED}) == len(REFUSED)


@pytest.mark.parametrize("sql", REFUSED)
def test_it_is_refused_in_one_line(
    run: RunFolder, database: duckdb.DuckDBPyConnection, sql: str
) -> None:
    inside = run.path / "parts" / "w0-000001" / "nodes.parquet"
    places = {"inside": inside, "outside": run.path.parent / "outside", "run": run.path}
    for name, place in places.items():
        sql = sql.replace(f"{{{name}}}", str(place))
    with pytest.raises(BadInput) as refused:
        run_statement(run, database, sql)
    message = str(refused.value)
    assert message.startswith("query: ")
    assert "\n" not in message
    assert "root:" not in message


def test_without_the_check_the_database_still_reaches_nothing(run: RunFolder) -> None:
    """The second line of defence holds alone: no file, no setting."""
    outside = run.path.parent / "outside"
    tries = ["SELECT * FROM read_text('/etc/passwd')", f"COPY nodes TO '{outside}'"]
    tries += [f"WITH x AS (COPY (SELECT 1) TO '{outside}') FROM x", "FROM glob('*')"]
    tries += ["SET enable_external_access = true", "SET memory_limit = '1TB'", "LOAD httpfs"]
    tries += [f"ATTACH '{outside}'", "SELECT * FROM SAMPLER", f"EXPORT DATABASE '{outside}'"]
    for sql in tries:
        with connected(run) as connection, pytest.raises(Exception, match="Error"):
            connection.execute(sql).fetchall()


RUNAWAY = [
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r, range(9)) SELECT * FROM r",
    "SELECT count(*) FROM nodes a, nodes b, nodes c, nodes d, nodes e, nodes f, nodes g, nodes h",
    "SELECT sum(i) FROM generate_series(1, 1000000000000) t(i)",
    "SELECT length(repeat('x', 4000000000))",
    "SELECT list_sum(range(1000000000))",
    "SELECT levenshtein(repeat('ab', 400000), repeat('ba', 400000))",
    "SELECT length(string_agg(repeat('x', 100000), '')) FROM range(1000000)",
    "SELECT list_reduce(range(100000000), lambda x, y: x + y)",
    "SELECT 1 IN (" + ", ".join(map(str, range(300_000))) + ")",
]


@pytest.mark.parametrize("sql", RUNAWAY, ids=lambda sql: sql[:40])
def test_what_runs_away_is_stopped_in_one_line(run: RunFolder, sql: str) -> None:
    out = BytesIO()
    with pytest.raises(TreewardError) as stopped:
        query_in_process(run.path, sql, "csv", out, timeout=1.0, memory="300MB")
    message = str(stopped.value)
    assert message.startswith("query: ")
    assert "--timeout" in message or "--memory" in message
    assert "\n" not in message
    assert (out.getvalue(), stopped.value.exit_code) == (b"", 1)


DEEP = [
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT 1" + " + 1" * 100_000,
    "SELECT * FROM " + "(SELECT * FROM " * 900 + "range(1)" + ")" * 900,
]


@pytest.mark.parametrize("sql", DEEP, ids=lambda sql: sql[:40])
def test_what_is_nested_deeply_ends_in_one_line(run: RunFolder, sql: str) -> None:
    with pytest.raises(TreewardError) as stopped:
        query_in_process(run.path, sql, "csv", BytesIO(), timeout=20.0, memory="1GB")
    assert str(stopped.value).startswith("query: ")
    assert "\n" not in str(stopped.value)


FINE = [
    "SELECT count(*) FROM nodes",
    "FROM trees",
    "SELECT * FROM first_error('a', 3)",
    "WITH deep AS (SELECT * FROM nodes WHERE depth > 1) SELECT count(*) FROM deep",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 9) FROM r",
    "SELECT tree_id, node_id, row_number() OVER (PARTITION BY tree_id ORDER BY pre) FROM nodes",
    "SELECT list_transform(path, lambda x: x + 1), path[1], len(path) FROM nodes",
    "SELECT verdict, count(*) FILTER (n_tokens > 0) FROM rollouts GROUP BY ALL ORDER BY ALL",
    "SELECT n.* EXCLUDE (token_ids) FROM nodes n JOIN trees t USING (tree_id) LIMIT 3",
    "SELECT unnest(path) FROM nodes LIMIT 3",
    "SELECT i FROM range(3) t(i)",
    "SELECT * FROM nodes USING SAMPLE 3 ROWS",
    "SELECT * FROM (PIVOT rollouts ON verdict IN ('right', 'wrong') USING count(*))",
    "SELECT 'DROP VIEW nodes; COPY x TO y' AS text",
    'SELECT step_text AS "COPY" FROM nodes -- ; DROP VIEW nodes',
    "SELECT '\u2028 \u202e \U0001f333'",
    "VALUES (1)",
    "TABLE trees",
    "DESCRIBE nodes",
    "DESCRIBE SELECT 1 AS one",
    "SHOW TABLES",
    "SUMMARIZE trees",
    "EXPLAIN SELECT * FROM nodes",
    "EXPLAIN ANALYZE SELECT * FROM nodes",
    "explain (format json) select 1",
    "SELECT column_name FROM duckdb_columns() WHERE table_name = 'nodes'",
    "SELECT table_name FROM information_schema.tables",
    "SELECT 1; -- one statement",
]


@pytest.mark.parametrize("sql", FINE)
def test_what_reads_is_answered(
    run: RunFolder, database: duckdb.DuckDBPyConnection, sql: str
) -> None:
    assert run_statement(run, database, sql).num_columns >= 1


def test_a_result_comes_through_the_process_whole(run: RunFolder) -> None:
    for form in ("csv", "arrow"):
        out = BytesIO()
        sql = "SELECT range AS n, repeat('x', 90) AS text FROM range(3000)"
        query_in_process(run.path, sql, form, out, timeout=60.0, memory="1GB")
        assert out.getvalue().count(b"x" * 90) == 3000


def test_an_error_comes_through_the_process_as_itself(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such run folder"):
        query_in_process(tmp_path / "no", "SELECT 1", "csv", BytesIO(), timeout=9, memory="1GB")
    with pytest.raises(BadInput, match='Did you mean "nodes"'):
        query_in_process(run.path, "FROM nods", "csv", BytesIO(), timeout=9, memory="1GB")


def test_a_module_in_the_folder_of_the_caller_is_not_run(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "duckdb.py").write_text("raise SystemExit('taken over')")
    os.chdir(tmp_path)
    out = BytesIO()
    query_in_process(run.path, "SELECT 7 AS n", "csv", out, timeout=30, memory="1GB")
    assert b"7" in out.getvalue()


@pytest.mark.parametrize("timeout", [float("inf"), float("nan"), 1e300, 0.0])
def test_a_time_that_no_clock_can_wait_for_is_refused(run: RunFolder, timeout: float) -> None:
    with pytest.raises(BadInput, match="timeout must be a number of seconds above 0") as refused:
        query_in_process(run.path, "SELECT 1", "csv", BytesIO(), timeout=timeout, memory="1GB")
    assert "\n" not in str(refused.value)


_LIMITED = """
import os, resource
from treeward.export.query_process import _limit
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
if os.getuid() == 0:
    os.setuid(65534)  # who owns nothing may lower a limit and raise none
_limit(10**9, 60.0)
print(*resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS)[0] > 10**9)
"""


def test_a_limit_that_the_system_sets_already_stays() -> None:
    command = [sys.executable, "-c", _LIMITED]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("100 100 True\n", "")


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("1.5 gb", 15 * 10**8), ("200MB", 2 * 10**8)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert memory_bytes(text) == size


def test_a_database_without_memory_says_what_to_do() -> None:
    said = "query: cannot allocate memory for thread-local data: ABORT\n"
    with pytest.raises(TreewardError, match=r"needs more than 200MB: .* with --memory"):
        _require_success(1, said, "200MB")


@pytest.mark.parametrize("text", ["", "4", "GB", "-1GB", "99MB", "nanGB", "1e9GB", "4 G B"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="200MB"):
        memory_bytes(text)

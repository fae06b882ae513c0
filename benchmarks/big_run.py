"""Times questions to a large run beside the same questions to JSON Lines, and an export of it.

    python benchmarks/big_run.py --nodes 1000000 --out runs/big
    python benchmarks/big_run.py --nodes 10000000 --out runs/big --no-json

The trees are grown by `mcts` on a scripted policy, 66 of them, and written again and again under
other ids, which are hashes, by the store itself in parts of the usual size; that makes the files
smaller than those of trees that differ. A run that is there already is asked as it is. Figures of
the other side are for the same rows as JSON Lines, with a part of the columns, read by DuckDB (two
threads) and by pandas in chunks.
"""

import asyncio
import hashlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import scripted_world as world

from treeward.critics.verifier import AnswerVerifier
from treeward.export.columns import Origin, tree_tables
from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.parts import write_part
from treeward.export.queries import session
from treeward.export.run_folder import Identity, RunFolder, open_run_folder, writing
from treeward.export.schema import TABLES
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.mcts import mcts
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.scripted import ScriptedPolicy
from treeward.search.settings import SearchSettings
from treeward.search.tree import Tree

Tables = dict[str, pa.Table]
DISTINCT = 66
TURNS = 4
"""So often an export and the other side are timed, in turns."""
COPIES = 5
"""So often the same trees are in a part, each time under other ids."""
TOTALS = (
    "SELECT count(*), sum(n_nodes), sum(n_rollouts), sum(n_right), sum(policy_tokens), "
    "avg(pass_rate), sum(solved::INT) FROM trees"
)
ERRORS = "SELECT tree_id, node_id, depth FROM first_errors()"
JSON_COLUMNS = (
    "tree_id, problem_id, node_id, parent_id, depth, pre, post_end, path, step_text, logprob, "
    "n_right, n_rollouts, value, value_low, value_high, is_terminal, answer, verdict"
)
JSON_ERRORS = """
WITH good AS (
    SELECT DISTINCT tree_id, unnest(path) AS node_id FROM read_json('{file}')
    WHERE n_right > 0 OR verdict = 'right'
)
SELECT n.tree_id, n.node_id, n.depth FROM read_json('{file}') n
LEFT JOIN good own ON own.tree_id = n.tree_id AND own.node_id = n.node_id
LEFT JOIN good above ON above.tree_id = n.tree_id AND above.node_id = n.parent_id
WHERE own.node_id IS NULL AND n.depth > 0 AND (above.node_id IS NOT NULL OR n.depth = 1)
AND (n.n_rollouts >= 8 OR n.verdict = 'wrong')
"""


def grown_tables() -> Tables:
    """Returns the rows of some trees of the scripted policy."""
    policy = ScriptedPolicy(world.script)
    reader = Reader(Template(name="scripted"), policy.tokens)
    settings = SearchSettings(simulations=28, rollouts=4)
    problems = [
        Problem(id=f"p{n}", prompt=f"problem {n}", answer="1", verifier="number")
        for n in range(DISTINCT)
    ]
    trees: list[Tree] = []
    with AnswerVerifier({"number"}) as verifier:
        growing = Forest(
            search=partial(mcts, settings=settings),
            samplers=[PolicySampler(policy=policy, settings=PolicySettings())],
            reader=reader,
            verifier=verifier,
            recorder=_Forgets(),
            seed=0,
            tree_id=lambda problem: problem.id,
        )
        asyncio.run(grow_forest(growing, Plan(iter(problems), 64), trees.append))
    origin = Origin(reader=reader, search="mcts", policy="scripted", seed=0)
    rows = [tree_tables(tree, tree.problem.id, origin) for tree in trees]
    return {name: pa.concat_tables([each[name] for each in rows]) for name in TABLES}


class _Forgets:
    """A recorder that keeps nothing."""

    def known(self, tree_id: str, key: str) -> None:
        """Knows nothing."""

    def record(self, tree_id: str, key: str, reply: object) -> None:
        """Keeps nothing."""


def make_run(path: Path, nodes: int) -> None:
    """Writes a run of about so many nodes."""
    tables = grown_tables()
    size = COPIES * tables["nodes"].num_rows
    parts = max(1, round(nodes / size))
    print(f"{parts} parts of {size} nodes in {COPIES * DISTINCT} trees", flush=True)
    problems = [
        Problem(id=_id(f"p{n}", copy, 16), prompt=f"problem {n}", answer="1", verifier="number")
        for copy in range(parts * COPIES)
        for n in range(DISTINCT)
    ]
    start = time.perf_counter()
    identity = Identity(settings={"run.seed": 0}, samplers=(), versions={})
    with writing(path, identity, problems) as run:
        for part in range(parts):
            same = [renamed(tables, part * COPIES + copy) for copy in range(COPIES)]
            whole = {name: pa.concat_tables([each[name] for each in same]) for name in TABLES}
            write_part(run.path, "main", whole, {})
    print(f"written in {time.perf_counter() - start:.0f} s, {_size(path) / 1e9:.2f} GB")


def renamed(tables: Tables, copy: int) -> Tables:
    """Returns the same trees under other ids."""
    found = {}
    for name, table in tables.items():
        for column, length in (("tree_id", 32), ("problem_id", 16)):
            if column in table.column_names:
                coded = table[column].combine_chunks().dictionary_encode()
                ids = pa.array([_id(old, copy, length) for old in coded.dictionary.to_pylist()])
                place = table.schema.get_field_index(column)
                texts = ids.take(coded.indices)
                table = table.set_column(place, table.schema.field(column), texts)
        found[name] = table
    return found


def _id(old: str, copy: int, length: int) -> str:
    return hashlib.sha256(f"{old}|{copy}|{length}".encode()).hexdigest()[:length]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


class Took(NamedTuple):
    """Holds what a call took, in seconds."""

    wall: float
    processor: float
    """Of all threads; says more than the wall clock where other work is going on."""


def timed(call: Callable[[], object]) -> Took:
    """Returns what a call takes."""
    start, busy = time.perf_counter(), time.process_time()
    call()
    return Took(time.perf_counter() - start, time.process_time() - busy)


def ask(run: RunFolder) -> list[str]:
    """Times the questions in an open database and prints them; returns some trees' ids."""
    with session(run) as opened:
        show("open and read the manifests", [timed(lambda: opened.sql(of_tree("none")))])
        show("run totals", [timed(lambda: opened.sql(TOTALS)) for _ in range(3)])
        show("all first errors", [timed(lambda: opened.sql(ERRORS)) for _ in range(3)])
        found = opened.sql("SELECT tree_id FROM trees ORDER BY hash(tree_id) LIMIT 100")
        trees: list[str] = found["tree_id"].to_pylist()
    with session(run) as opened:
        opened.sql(of_tree("none"))
        for number, (name, question) in enumerate(QUESTIONS):
            chosen = trees[number * 20 : number * 20 + 20]
            first = [timed(partial(opened.sql, question(tree))) for tree in chosen]
            again = [timed(partial(opened.sql, question(tree))) for tree in chosen]
            show(f"{name}: first time", first)
            show(f"{name}: again", again)
        other = [partial(opened.sql, QUESTIONS[0][1](tree)) for tree in trees[20:40]]
        show("a tree of which something else was asked", [timed(call) for call in other])
    return trees


def of_tree(tree: str) -> str:
    """Returns the question for a tree's nodes."""
    return f"FROM nodes WHERE tree_id = '{tree}' ORDER BY pre"


QUESTIONS: Sequence[tuple[str, Callable[[str], str]]] = (
    ("one tree", of_tree),
    ("a path", lambda tree: f"FROM path_to('{tree}', 20)"),
    ("a subtree", lambda tree: f"FROM subtree('{tree}', 1)"),
    ("first error of a path", lambda tree: f"FROM first_error('{tree}', 20)"),
)


def show(name: str, took: Sequence[Took]) -> None:
    """Prints the median and the most of some times."""
    wall = [each.wall * 1000 for each in took]
    busy = statistics.median(each.processor for each in took) * 1000
    print(
        f"{name:44} {statistics.median(wall):9,.1f} ms, most {max(wall):9,.1f} ms, "
        f"processor {busy:9,.1f} ms",
        flush=True,
    )


def ask_json(run: RunFolder, trees: Sequence[str], file: Path) -> None:
    """Writes the nodes as JSON Lines and asks DuckDB and pandas the same."""
    if not file.exists():
        parts = sorted(run.path.glob("parts/*/nodes.parquet"))
        listed = ", ".join(f"'{part}'" for part in parts)
        duckdb.sql(
            f"COPY (SELECT {JSON_COLUMNS} FROM read_parquet([{listed}])) TO '{file}' (FORMAT json)"
        )
    print(f"JSON Lines: {file.stat().st_size / 1e9:.2f} GB")
    with duckdb.connect(config={"threads": 2}) as connection:
        table = f"read_json('{file}')"
        asked = {
            "one tree": f"FROM {table} WHERE tree_id = '{trees[0]}' ORDER BY pre",
            "run totals": f"SELECT count(DISTINCT tree_id), count(*), sum(n_rollouts) FROM {table}",
            "all first errors": JSON_ERRORS.format(file=file),
        }
        for name, sql in asked.items():
            calls = [timed(partial(_table, connection, sql)) for _ in range(2)]
            show(f"JSON Lines, DuckDB: {name}", calls)
    show("JSON Lines, pandas: one tree", [timed(lambda: _pandas_tree(file, trees[0]))])


def _table(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.sql(sql).to_arrow_table()


def _pandas_tree(file: Path, tree: str) -> pd.DataFrame:
    chunks = pd.read_json(file, lines=True, chunksize=100_000)
    return pd.concat([chunk[chunk["tree_id"] == tree] for chunk in chunks])


def export(run: Path, out: Path, rule: str) -> None:
    """Exports `prm` and prints its time and the most memory that this process took."""
    settings = ExportSettings(template="steps", rule=rule)
    make = partial(export_dataset, open_run_folder(run), Kind.PRM, out, settings)
    took = [timed(make)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    table = ds.dataset([str(path) for path in sorted(out.rglob("*.parquet"))]).to_table()
    rows = table.num_rows
    write = partial(pq.write_table, table, out.parent / "plain.parquet", compression="zstd")
    plain = [timed(write)]
    for _ in range(TURNS - 1):
        took.append(timed(make))
        plain.append(timed(write))
    print(f"export prm --rule '{rule}': {rows:,} rows, peak {peak:,.0f} MB")
    for name, times in (("export", took), ("pyarrow writes the same columns", plain)):
        wall, busy = (min(each[at] for each in times) for at in (0, 1))
        print(
            f"{name:32} {wall:6.2f} s, {rows / wall:9,.0f} rows a second; "
            f"processor {busy:6.2f} s, {rows / busy:9,.0f} rows a second"
        )


@click.command()
@click.option("--nodes", default=10_000_000)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/big"))
@click.option("--json/--no-json", "with_json", default=True)
@click.option("--export/--no-export", "with_export", default=True)
@click.option("--ask/--no-ask", "with_questions", default=True)
@click.option("--rule", default="any_success", help="The label rule of the export.")
@click.option("--only-export", is_flag=True, help="Exports a run that is there, in this process.")
def main(
    nodes: int,
    out: Path,
    with_json: bool,
    with_export: bool,
    with_questions: bool,
    rule: str,
    only_export: bool,
) -> None:
    """Measures and prints."""
    if only_export:
        pa.set_memory_pool(pa.system_memory_pool())  # As the command does.
        export(out, out.with_name(f"{out.name}-prm"), rule)
        return
    if not (out / "run.json").exists():
        make_run(out, nodes)
    run = open_run_folder(out)
    if with_questions:
        trees = ask(run)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"peak of asking: {peak:,.0f} MB")
        if with_json:
            ask_json(run, trees, out.with_name(f"{out.name}.jsonl"))
    if with_export:
        command = [sys.executable, __file__, "--only-export", "--out", str(out)]
        command += ["--rule", rule]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

"""SQL over a run gives the rows that a plain reading gives, and can change or reach nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treeward.export.api import Run
from treeward.export.parts import write_part
from treeward.export.queries import run_query, session
from treeward.export.run_folder import (
    Identity,
    RunFolder,
    Sampler,
    open_run_folder,
    writing,
)
from treeward.export.schema import SAMPLERS, SCHEMAS
from treeward.export.status import run_status
from treeward.export.tree_lookup import trees_admitted
from treeward.export.truth import read_trees
from treeward.export.viewer import read_nodes
from treeward.search.errors import BadInput, DamagedData, TreewardError
from treeward.search.problem import Problem

Maker = Callable[..., dict[str, Any]]
Row = dict[str, Any]

SAMPLER = Sampler(
    sampler_id=0,
    policy="nano",
    temperature=0.7,
    top_p=0.9,
    max_step_tokens=24,
    max_rollout_tokens=96,
    purpose="evidence",
)
TREES = tuple("abcdefghij")


def make_run(path: Path, trees: tuple[str, ...] = TREES) -> RunFolder:
    problems = [Problem(id=f"p-{tree}", prompt=f"say {tree}", answer="1") for tree in trees]
    identity = Identity(settings={"run.seed": 1}, samplers=(SAMPLER,), versions={})
    with writing(path, identity, problems) as run:
        return run


@pytest.fixture(scope="module")
def run(random_part: Maker, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of ten random trees in two parts; only read."""
    made = make_run(tmp_path_factory.mktemp("run"))
    write_part(made.path, "w0", random_part(1, trees=TREES[:5]), {})
    write_part(made.path, "w1", random_part(2, trees=TREES[5:]), {})
    return made


@pytest.fixture
def own_run(run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run that a test may damage."""
    shutil.copytree(run.path, tmp_path / "run")
    return open_run_folder(tmp_path / "run")


def read_nodes_of_a(run: RunFolder) -> Any:
    return read_nodes(run, "a")


def rows(run: RunFolder, sql: str) -> list[Row]:
    found: list[Row] = run_query(run, sql).to_pylist()
    return found


def first_error(nodes: list[Row], node: int, min_rollouts: int = 8) -> int | None:
    """The default label rule, read slowly."""
    for at in nodes[node]["path"][1:]:
        below = [row for row in nodes if at in row["path"]]
        if any(row["n_right"] > 0 or row["verdict"] == "right" for row in below):
            continue
        wrong = nodes[at]["n_rollouts"] >= min_rollouts or nodes[at]["verdict"] == "wrong"
        return at if wrong else None
    return None


def walks(nodes: list[Row], node: int) -> dict[str, list[int]]:
    """What each macro returns for a node, by following parents."""
    above = [node]
    while (parent := nodes[above[0]]["parent_id"]) is not None:
        above.insert(0, parent)
    own = nodes[node]
    siblings = [row for row in nodes if row["parent_id"] == own["parent_id"] and row is not own]
    siblings.sort(key=lambda row: int(row["child_rank"]))
    subtree, pending = [], [node]
    while pending:
        subtree.append(pending.pop())
        children = [row for row in nodes if row["parent_id"] == subtree[-1]]
        children.sort(key=lambda row: -int(row["child_rank"]))
        pending += [row["node_id"] for row in children]
    errors = {"first_error": first_error(nodes, node, 8), "soon": first_error(nodes, node, 3)}
    return {
        "path_to": above,
        "subtree": subtree,
        "siblings": [row["node_id"] for row in siblings],
        **{name: [] if error is None else [error] for name, error in errors.items()},
    }


CALLS = {
    "path_to": "path_to({})",
    "subtree": "subtree({})",
    "siblings": "siblings({})",
    "first_error": "first_error({})",
    "soon": "first_error({}, min_rollouts := 3)",
}


def test_macros_agree_with_a_walk_by_parents(run: RunFolder) -> None:
    """For every node of the run at once, which is how macros are joined to a table."""
    forest: dict[str, list[Row]] = {}
    for row in rows(run, "FROM nodes ORDER BY tree_id, node_id"):
        forest.setdefault(row["tree_id"], []).append(row)
    expected = {(t, n): walks(forest[t], n) for t in forest for n in range(len(forest[t]))}
    for name, call in CALLS.items():
        order = {"subtree": "pre", "siblings": "child_rank"}.get(name, "depth")
        found = rows(
            run,
            "SELECT n.tree_id AS tree, n.node_id AS node, "
            f"list(e.node_id ORDER BY e.{order}) AS ids "
            f"FROM nodes n, {call.format('n.tree_id, n.node_id')} e GROUP BY ALL",
        )
        by_node = {(row["tree"], row["node"]): row["ids"] for row in found}
        assert by_node == {at: walk[name] for at, walk in expected.items() if walk[name]}
    # The random trees show every case: no error, one on the way, one at the node itself.
    cases = {
        (bool(walk["first_error"]), walk["first_error"] == [node])
        for (_, node), walk in expected.items()
    }
    assert cases == {(False, False), (True, False), (True, True)}


def test_macros_return_whole_rows_in_order(run: RunFolder) -> None:
    for tree in rows(run, "FROM trees LIMIT 1"):
        of = tree["tree_id"]
        nodes = rows(run, f"FROM nodes WHERE tree_id = '{of}' ORDER BY node_id")
        deepest = max(nodes, key=lambda row: int(row["depth"]))["node_id"]
        for node in (0, deepest):
            walk = walks(nodes, node)
            for name, call in CALLS.items():
                place = f"'{of}', {node}"
                found = rows(run, f"FROM {call.format(place)}")
                assert found == [nodes[at] for at in walk[name]]
        best = nodes[tree["best_node_id"]]["path"]
        assert rows(run, f"FROM best_path('{of}')") == [nodes[at] for at in best]


def test_best_paths_join_their_trees(run: RunFolder) -> None:
    joined = "SELECT t.tree_id, s.node_id FROM trees t, {} s ORDER BY ALL"
    steps = "SELECT tree_id, unnest(path) AS node_id FROM nodes JOIN trees USING (tree_id) "
    best = rows(run, steps + "WHERE node_id = best_node_id ORDER BY ALL")
    assert best
    assert rows(run, joined.format("best_path(t.tree_id)")) == best
    assert rows(run, joined.format("path_to(t.tree_id, t.best_node_id)")) == best


def test_macros_of_what_is_not_there_are_empty(run: RunFolder) -> None:
    for call in ("path_to('a', 999)", "subtree('none', 0)", "siblings('a', 0)", "best_path('z')"):
        assert rows(run, f"FROM {call}") == []
    assert rows(run, "SELECT (SELECT node_id FROM first_error('a', 0)) AS node") == [{"node": None}]


def test_views_have_the_contract_s_columns_and_all_rows(run: RunFolder, random_part: Maker) -> None:
    tables = [random_part(1, trees=TREES[:5]), random_part(2, trees=TREES[5:])]
    for name in ("trees", "nodes", "rollouts"):
        view = run_query(run, f"SELECT * FROM {name}")
        assert view.schema.names == SCHEMAS[name].names
        assert view.num_rows == sum(part[name].num_rows for part in tables)
    joined = rows(run, "SELECT t.tree_id, p.prompt FROM trees t JOIN problems p USING (problem_id)")
    assert {row["tree_id"]: row["prompt"] for row in joined} == {t: f"say {t}" for t in TREES}
    assert rows(run, "FROM samplers") == [{name: getattr(SAMPLER, name) for name in SAMPLERS.names}]


def test_a_run_without_parts_has_empty_views(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for name in ("trees", "nodes", "rollouts"):
        view = run_query(run, f"FROM {name}")
        assert (view.schema.names, view.num_rows) == (SCHEMAS[name].names, 0)
    assert rows(run, "FROM path_to('a', 0)") == []
    assert run_status(run).tokens_per_label is None


@pytest.mark.parametrize(
    "sql",
    [
        "WITH deep AS (SELECT * FROM nodes WHERE depth > 1) SELECT count(*) FROM deep",
        "VALUES (1)",
        "DESCRIBE nodes",
        "SHOW TABLES",
        "SUMMARIZE trees",
        "EXPLAIN SELECT * FROM nodes",
        "SELECT 1; -- one statement",
    ],
)
def test_what_reads_is_allowed(run: RunFolder, sql: str) -> None:
    assert run_query(run, sql).num_rows >= 1


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "INSERT INTO nodes SELECT * FROM nodes",
        "UPDATE nodes SET value = 1",
        "CREATE TABLE mine AS SELECT 1",
        "DROP VIEW nodes",
        "ATTACH '{outside}' AS other",
        "COPY nodes TO '{outside}'",
        "COPY nodes TO '{inside}' (USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY nodes TO '{inside}' (USE_TMP_FILE false)",
        "WITH x AS (COPY (SELECT 1) TO '{inside}' (USE_TMP_FILE false)) FROM x",
        "WITH x AS (COPY (SELECT 1) TO '{outside}') FROM x",
        "EXPORT DATABASE '{outside}'",
        "PRAGMA database_list",
        "SET threads = 1",
        "RESET lock_configuration",
        "INSTALL httpfs",
        "LOAD httpfs",
        "CALL pragma_version()",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_parquet('{inside}')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM query('WITH x AS (COPY (SELECT 1) TO ''{inside}'') FROM x')",
        "SELECT * FROM SAMPLER",
        "SELECT valeu FROM nodes",
        "SELEC 1",
    ],
)
def test_all_else_is_refused_in_one_line(run: RunFolder, sql: str) -> None:
    inside = run.path / "parts" / "w0-000001" / "nodes.parquet"
    outside = run.path / "outside"
    before = inside.read_bytes()
    with pytest.raises(BadInput) as refused:
        run_query(run, sql.format(inside=inside, outside=outside))
    assert str(refused.value).startswith("query: ")
    assert "\n" not in str(refused.value)
    assert inside.read_bytes() == before
    assert not outside.exists()


def test_a_misspelt_name_comes_with_a_hint(run: RunFolder) -> None:
    with pytest.raises(BadInput, match='Did you mean "nodes"'):
        run_query(run, "FROM nods")


def test_a_flipped_bit_is_an_error_and_never_another_number(own_run: RunFolder) -> None:
    path = own_run.path / "parts" / "w0-000001" / "nodes.parquet"
    sql = "SELECT sum(n_right) AS a, sum(len(path)) AS b, sum(hash(step_text)) AS c FROM nodes"
    whole, truth = path.read_bytes(), rows(own_run, sql)
    noticed = 0
    for place in range(0, len(whole), 911):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        try:
            assert rows(own_run, sql) == truth  # the bit lies in a column that is not read
        except DamagedData:
            noticed += 1
    assert noticed


@pytest.mark.parametrize("read", [run_status, read_trees, read_nodes_of_a])
@pytest.mark.parametrize("content", [b"", b"PAR1 no more PAR1"])
def test_readers_of_our_own_say_which_run_is_damaged(
    own_run: RunFolder, read: Callable[[RunFolder], Any], content: bytes
) -> None:
    (own_run.path / "parts" / "w0-000001" / "nodes.parquet").write_bytes(content)
    with pytest.raises(DamagedData) as refused:
        read(own_run)
    assert str(own_run.path) in str(refused.value)
    assert f"`treeward verify {own_run.path}` names the file" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_status_says_that_problems_are_damaged(own_run: RunFolder) -> None:
    own_run.problems_path.write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(DamagedData, match="names the file"):
        run_status(own_run)


def test_a_missing_file_is_named(own_run: RunFolder) -> None:
    (own_run.path / "parts" / "w1-000001" / "rollouts.parquet").unlink()
    with pytest.raises(DamagedData, match=r"w1-000001/rollouts\.parquet: missing"):
        run_query(own_run, "FROM trees")


def test_status_counts_what_the_tables_hold(run: RunFolder, random_part: Maker) -> None:
    tables = [random_part(1, trees=TREES[:5]), random_part(2, trees=TREES[5:])]
    nodes = [row for part in tables for row in part["nodes"].to_pylist()]
    rollouts = [row for part in tables for row in part["rollouts"].to_pylist()]
    status = run_status(run)
    labels = sum(row["n_rollouts"] > 0 or row["verdict"] in ("right", "wrong") for row in nodes)
    tokens = 2 * len(nodes) + len(rollouts)
    assert (status.n_problems, status.n_trees, status.done) == (10, 10, True)
    assert (status.n_nodes, status.n_rollouts) == (len(nodes), len(rollouts))
    assert (status.n_labels, status.policy_tokens) == (labels, tokens)
    assert status.tokens_per_label == tokens / labels
    assert labels < sum(row["n_rollouts"] > 0 or row["is_terminal"] for row in nodes)
    assert (status.budget_tokens, status.stopped) == (None, {})
    for verdict in ("right", "wrong", "unknown"):
        assert status.verdicts[verdict] == sum(row["verdict"] == verdict for row in rollouts)
    assert (status.n_unfinished, status.n_journal_entries) == (0, 0)


ONE_TREE = [
    "FROM nodes WHERE tree_id = 'c'",
    "FROM nodes WHERE tree_id = concat('', 'c') AND value > 0.3 AND verdict IS NULL",
    "FROM nodes WHERE tree_id IN ('c', 'h') AND depth = 1",
    "FROM nodes WHERE tree_id = 'c' OR tree_id = 'none'",
    "FROM path_to('c', 1)",
    "FROM subtree('c', 1)",
    "FROM siblings('c', 1)",
    "FROM best_path('c')",
    "FROM first_error('c', 1)",
    "FROM trees WHERE tree_id = 'c'",
    "FROM rollouts WHERE tree_id = 'c' AND node_id = 0",
    "SELECT count(*) FROM nodes WHERE tree_id = 'none'",
]


@pytest.mark.parametrize("sql", ONE_TREE)
def test_a_question_about_one_tree_opens_its_part_only(own_run: RunFolder, sql: str) -> None:
    truth = rows(own_run, sql)
    if "'h'" not in sql:
        for path in own_run.path.glob("parts/w1-000001/*.parquet"):
            path.write_bytes(b"not a table")
    with session(own_run) as opened:
        for _ in range(2):
            assert opened.sql(sql).to_pylist() == truth


FILTERS = [
    ("tree_id = 'a'", ["a"]),
    ("tree_id = 'a' AND node_id = 3", ["a"]),
    ("tree_id IN ('a', 'j', 'none')", ["a", "j", "none"]),
    ("tree_id = 'a' AND step_text = 'b/1'", ["a"]),
    ("tree_id = 'a' AND tree_id = 'b'", []),
    ("step_text = 'a'", None),
    ("tree_id >= 'c'", None),
    ("tree_id <> 'c'", None),
    ("NOT tree_id = 'c'", None),
    ("tree_id = 'c' OR node_id = 0", None),
    ("tree_id = 'c' OR tree_id IS NOT NULL", None),
    ("step_text IN ('a', 'c') OR tree_id = 'a'", None),
    ("tree_id = 'a' AND verdict IN ('right', 'wrong')", ["a"]),
    ("tree_id = 'a' AND verdict IS NULL", ["a"]),
    ("verdict = 'wrong'", None),
    ("verdict <> 'right'", None),
    ("verdict < 'v'", None),
    ("verdict IS NULL", None),
    ("verdict = 'wrong' OR tree_id = 'c'", None),
    ("verdict IN ('unknown', 'wrong') AND n_rollouts < 9", None),
    ("starts_with(verdict, 'w')", None),
    ("verdict_reason = 'mismatch' AND status = 'ok'", None),
]


@pytest.mark.parametrize(("condition", "trees"), FILTERS)
def test_a_scan_is_narrowed_only_where_that_is_proved(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, condition: str, trees: list[str] | None
) -> None:
    seen: list[list[str] | None] = []

    def spy(asked: Any, schema: Any) -> list[str] | None:
        found = trees_admitted(asked, schema)
        seen.append(found)
        return found

    monkeypatch.setattr("treeward.export.tree_lookup.trees_admitted", spy)
    every = rows(run, "FROM nodes")
    found = rows(run, f"FROM nodes WHERE {condition}")
    # A scan whose filter DuckDB keeps to itself has none; it is read whole.
    assert seen[-1] == trees or (trees == [] and not found)
    kept = f"SELECT * FROM (SELECT * FROM nodes OFFSET 0) WHERE {condition}"
    assert sorted(map(str, found)) == sorted(map(str, rows(run, kept)))
    assert len(found) < len(every) or "IS NOT NULL" in condition


@pytest.mark.parametrize("name", ["trees", "nodes", "rollouts"])
def test_texts_come_out_as_texts_however_they_are_read(run: RunFolder, name: str) -> None:
    texts = [field.name for field in SCHEMAS[name] if field.type == pa.string()]
    for question in (f"FROM {name}", f"FROM {name} WHERE tree_id = 'a'"):
        found = run_query(run, question).select(texts)
        assert {*found.schema.types} == {pa.string()}
        assert found.num_rows


def test_damage_in_a_tree_s_own_part_is_an_error(own_run: RunFolder) -> None:
    for path in own_run.path.glob("parts/w0-000001/nodes.parquet"):
        data = bytearray(path.read_bytes())
        data[40] ^= 4
        path.write_bytes(data)
    with pytest.raises(DamagedData):
        run_query(own_run, "FROM nodes WHERE tree_id = 'a'")
    assert run_query(own_run, "FROM nodes WHERE tree_id = 'j'").num_rows


def test_all_first_errors_are_those_of_all_paths(run: RunFolder) -> None:
    for least in (1, 3, 8):
        every = rows(run, f"FROM first_errors(min_rollouts := {least}) ORDER BY tree_id, node_id")
        forest: dict[str, list[Row]] = {}
        for row in rows(run, "FROM nodes ORDER BY tree_id, node_id"):
            forest.setdefault(row["tree_id"], []).append(row)
        expected = {
            (tree, error)
            for tree, nodes in forest.items()
            for node in range(len(nodes))
            if (error := first_error(nodes, node, least)) is not None
        }
        assert [(row["tree_id"], row["node_id"]) for row in every] == sorted(expected)
        assert expected


def test_contrastive_pairs_are_all_pairs_of_siblings(run: RunFolder) -> None:
    nodes = rows(run, "FROM nodes")
    expected = {
        (a["tree_id"], a["node_id"], b["node_id"]): a["value_low"] > b["value_high"]
        for a in nodes
        for b in nodes
        if (a["tree_id"], a["parent_id"]) == (b["tree_id"], b["parent_id"])
        and None not in (a["value"], b["value"], a["parent_id"])
        and a["value"] - b["value"] >= 0.3
    }
    found = rows(run, "FROM contrastive_pairs(margin := 0.3)")
    assert {
        (row["tree_id"], row["chosen_id"], row["rejected_id"]): row["separated"] for row in found
    } == expected
    assert len(found) == len(expected) > 0


def test_costs_and_uncertainty_are_what_a_plain_reading_gives(run: RunFolder) -> None:
    nodes, costs = rows(run, "FROM nodes"), rows(run, "FROM problem_costs")
    assert len(costs) == len(TREES)
    for row in costs:
        own = [node for node in nodes if node["tree_id"] == row["tree_id"]]
        known = sum(node["n_rollouts"] > 0 or node["verdict"] in ("right", "wrong") for node in own)
        assert row["n_labels"] == known
        assert row["tokens_per_label"] == (row["policy_tokens"] / known if known else None)
    assert sum(row["n_labels"] for row in costs) == run_status(run).n_labels
    widths = {
        (node["tree_id"], node["node_id"]): node["value_high"] - node["value_low"]
        for node in nodes
        if node["value"] is not None and not node["is_terminal"]
    }
    found = rows(run, "FROM uncertain_nodes")
    assert {(row["tree_id"], row["node_id"]): row["uncertainty"] for row in found} == widths


def test_agreement_of_a_critic_with_counts_is_by_rollouts(
    random_part: Maker, tmp_path: Path
) -> None:
    run, tables = make_run(tmp_path / "run"), random_part(1, trees=TREES[:5])
    nodes = tables["nodes"].to_pylist()
    for row in nodes:
        row["value_critic"] = (row["node_id"] % 11) / 10
    tables["nodes"] = pa.Table.from_pylist(nodes, schema=SCHEMAS["nodes"])
    write_part(run.path, "w0", tables, {})
    for row in rows(run, "FROM critic_agreement(bins := 5)"):
        own = [
            (node["value_critic"], ended)
            for node in nodes
            if min(int(node["value_critic"] * 5 + 1e-9), 4) == row["bin"]
            for ended in [1] * node["n_right"] + [0] * (node["n_rollouts"] - node["n_right"])
        ]
        assert row["n_rollouts"] == len(own)
        assert row["critic"] == pytest.approx(sum(said for said, _ in own) / len(own))
        assert row["counted"] == pytest.approx(sum(ended for _, ended in own) / len(own))
        brier = sum((said - ended) ** 2 for said, ended in own) / len(own)
        assert row["brier"] == pytest.approx(brier)


def test_a_statement_is_stopped_in_time_and_the_session_goes_on(run: RunFolder) -> None:
    endless = (
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    )
    with session(run) as opened:
        before = opened.sql("SELECT count(*) FROM trees")
        with pytest.raises(TreewardError, match=r"^query: stopped after 0\.2 s; .*timeout="):
            opened.sql(endless, timeout=0.2)
        assert opened.sql("SELECT count(*) FROM trees", timeout=60) == before
    with pytest.raises(TreewardError, match="stopped after"):
        Run(run).sql(endless, timeout=0.2)


def test_a_column_of_another_name_is_damage(own_run: RunFolder) -> None:
    [path, *_] = sorted(own_run.path.glob("parts/*/nodes.parquet"))
    pq.write_table(pq.read_table(path).rename_columns({"n_right": "n_righu"}), path)
    with pytest.raises(DamagedData, match=r"'n_righu' in the place of 'n_right'; restore"):
        run_query(own_run, "SELECT count(*) FROM trees")


def test_a_run_from_before_a_column_is_refused_by_name(own_run: RunFolder) -> None:
    [path, *_] = sorted(own_run.path.glob("parts/*/nodes.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(["fails_from"]), path)
    with pytest.raises(BadInput, match=r"nodes\.parquet: has no column 'fails_from': an earlier"):
        run_query(own_run, "SELECT count(*) FROM trees")

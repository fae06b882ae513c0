"""Every query of docs/cookbook.md runs, and what the page says of macros and views holds."""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.fakes import SAMPLER

from treeward.export.api import Run, open_run
from treeward.export.macros import NAMES
from treeward.export.parts import write_part
from treeward.export.queries import Session
from treeward.export.run_folder import Identity, writing
from treeward.export.schema import SCHEMAS
from treeward.export.score_store import write_scores
from treeward.search.problem import Problem

PAGE = (Path(__file__).parents[1] / "docs" / "cookbook.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)\n```", PAGE, flags=re.DOTALL)
TREES = tuple("abcdefgh")


@pytest.fixture(scope="module")
def run(
    random_part: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """A run in which every question has an answer: with critics, of which one came later."""
    path = tmp_path_factory.mktemp("cookbook") / "run"
    problems = [Problem(id=f"p-{tree}", prompt=tree) for tree in TREES]
    tables, rng = random_part(3, trees=TREES), random.Random(1)
    nodes = tables["nodes"].to_pylist()
    for row in nodes:
        row["value_critic"] = rng.random()
        if row["value"] is not None:
            # Rollouts by the hundred, so that some intervals lie apart.
            row["value_low"], row["value_high"] = row["value"] * 0.95, row["value"] * 0.95 + 0.05
    tables["nodes"] = pa.Table.from_pylist(nodes, schema=SCHEMAS["nodes"])
    trees = tables["trees"].to_pylist()
    for row in trees:
        row["pass_rate"] = rng.choice([0.0, 0.25, 0.5, 1.0])
    tables["trees"] = pa.Table.from_pylist(trees, schema=SCHEMAS["trees"])
    identity = Identity(settings={"critic.fingerprint": "a"}, samplers=(SAMPLER,), versions={})
    with writing(path, identity, problems) as folder:
        write_part(path, "main", tables, {})
        scores = [
            {"critic": "late", "tree_id": row["tree_id"], "node_id": row["node_id"]}
            | {"value": 0.5, "progress": None, "outcome": None, "error_kind": None, "error": None}
            for row in nodes
        ]
        table = pa.Table.from_pylist(scores, schema=SCHEMAS["scores"])
        write_scores(folder, "late", {"name": "late"}, table)
    return open_run(path)


@pytest.fixture(scope="module")
def session(run: Run) -> Iterator[Session]:
    with run.session() as opened:
        yield opened


def test_the_page_has_twenty_queries() -> None:
    assert len(QUERIES) >= 20
    assert len(re.findall(r"^\d+\. ", PAGE, flags=re.MULTILINE)) == len(QUERIES)


@pytest.mark.parametrize("sql", QUERIES)
def test_a_query_of_the_page_has_an_answer(session: Session, sql: str) -> None:
    assert any(session.sql(sql.replace("TREE", tree)).num_rows for tree in TREES)


def test_the_page_names_every_macro_and_view_with_its_columns(run: Run) -> None:
    shown = set(run.sql("SHOW TABLES")["name"].to_pylist())
    assert shown >= {"trees", "nodes", "rollouts", "problems", "samplers", "scores"}
    for name in NAMES | {"uncertain_nodes", "problem_costs"}:
        assert f"`{name}" in PAGE
    for name in ("contrastive_pairs", "critic_agreement"):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}("))
        columns = run.sql(f"DESCRIBE FROM {name}()")["column_name"].to_pylist()
        plain = {"chosen_value", "rejected_value", "chosen_rollouts", "rejected_rollouts"}
        assert [column for column in columns if column not in row and column not in plain] == []


def test_one_session_answers_many_statements(run: Run) -> None:
    with run.session() as session:
        for _ in range(2):
            assert session.sql("FROM nodes WHERE tree_id = 'a'").num_rows > 0
        with pytest.raises(ValueError, match="refused"):
            session.sql("DROP VIEW nodes")
        assert session.sql("SELECT count(*) AS n FROM trees")["n"].to_pylist() == [len(TREES)]

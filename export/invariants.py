"""What holds in every part: each law as the query that finds the rows which break it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from treeward.search.verdicts import VERDICT_OF


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """Says what holds in one table, and how to find what breaks it."""

    table: str
    says: str
    broken: str
    """SQL that returns tree_id and a node or rollout id of each row that breaks it."""


def _outside(name: str) -> str:
    """Returns the condition that a value or its interval is out of order or of [0, 1]."""
    tolerance = 1e-9
    return (
        f"({name} IS NULL) <> ({name}_low IS NULL) OR ({name} IS NULL) <> ({name}_high IS NULL) "
        f"OR {name}_low < 0 OR {name}_high > 1 "
        f"OR {name} < {name}_low - {tolerance} OR {name} > {name}_high + {tolerance}"
    )


def _row(table: str, key: str, says: str, condition: str) -> Law:
    """Returns a law about single rows, broken where the condition is true."""
    sql = f"SELECT tree_id, {key} FROM {table} WHERE {condition}"
    return Law(table=table, says=says, broken=sql)


def _node(says: str, condition: str) -> Law:
    return _row("nodes", "node_id", says, condition)


def _child(says: str, condition: str) -> Law:
    """Returns a law about a node `c` and its parent `p`."""
    sql = (
        "SELECT c.tree_id, c.node_id FROM nodes c LEFT JOIN nodes p "
        "ON p.tree_id = c.tree_id AND p.node_id = c.parent_id "
        f"WHERE c.parent_id IS NOT NULL AND ({condition})"
    )
    return Law(table="nodes", says=says, broken=sql)


def _family(says: str, condition: str) -> Law:
    """Returns a law about a node `p` and its children `c`, grouped."""
    sql = (
        "SELECT p.tree_id, p.node_id FROM nodes p LEFT JOIN nodes c "
        "ON p.tree_id = c.tree_id AND p.node_id = c.parent_id "
        "GROUP BY p.tree_id, p.node_id, p.n_children, p.pre, p.post_end "
        f"HAVING {condition}"
    )
    return Law(table="nodes", says=says, broken=sql)


def _tree(says: str, rows: str, condition: str) -> Law:
    """Returns a law about a tree `t` and its rows `r` in another table, grouped."""
    sql = (
        f"SELECT t.tree_id, 0 FROM trees t LEFT JOIN {rows} r ON r.tree_id = t.tree_id "
        f"GROUP BY t.tree_id, t.n_nodes, t.n_rollouts HAVING {condition}"
    )
    return Law(table=rows, says=says, broken=sql)


def _orphans(table: str, key: str) -> Law:
    sql = f"SELECT tree_id, {key} FROM {table} ANTI JOIN trees USING (tree_id)"
    return Law(table=table, says="its tree is in trees", broken=sql)


def _succeeds(name: str) -> str:
    """Returns the condition that a success is at a node itself."""
    return f"({name}.n_right > 0 OR coalesce({name}.verdict = 'right', false))"


_REASONS = " OR ".join(
    f"(verdict_reason = '{reason}' AND verdict = '{verdict}')"
    for reason, verdict in VERDICT_OF.items()
)

LAWS = (
    _row("trees", "0", "counts are not negative and fit together",
         "n_nodes < 1 OR n_right < 0 OR n_unknown < 0 OR n_right + n_unknown > n_rollouts "
         "OR policy_tokens < 0 OR fast_tokens < 0 OR prompt_tokens < 0"),
    _row("trees", "0", "best_node_id is one of its nodes",
         "best_node_id NOT BETWEEN 0 AND n_nodes - 1"),
    Law(
        table="trees",
        says="n_right and n_unknown count its rollouts by verdict",
        broken="SELECT t.tree_id, 0 FROM trees t LEFT JOIN rollouts r ON r.tree_id = t.tree_id "
        "GROUP BY t.tree_id, t.n_right, t.n_unknown "
        "HAVING count(*) FILTER (r.verdict = 'right') <> t.n_right "
        "OR count(*) FILTER (r.verdict = 'unknown') <> t.n_unknown",
    ),
    Law(
        table="trees",
        says="pass_rate is the share of right rollouts that count for its root",
        broken="SELECT t.tree_id, 0 FROM trees t JOIN nodes n "
        "ON n.tree_id = t.tree_id AND n.node_id = 0 WHERE t.pass_rate IS DISTINCT FROM "
        "CASE WHEN n.n_rollouts > 0 THEN n.n_right / n.n_rollouts END",
    ),
    Law(
        table="nodes",
        says="it has its tree's problem",
        broken="SELECT n.tree_id, n.node_id FROM nodes n JOIN trees t "
        "ON t.tree_id = n.tree_id WHERE n.problem_id <> t.problem_id",
    ),
    _orphans("nodes", "node_id"),
    _orphans("rollouts", "rollout_id"),
    _tree("n_nodes counts its nodes, numbered from 0 and in pre-order from 0", "nodes",
          "count(r.node_id) <> t.n_nodes OR count(DISTINCT r.node_id) <> t.n_nodes "
          "OR min(r.node_id) <> 0 OR max(r.node_id) <> t.n_nodes - 1 "
          "OR count(DISTINCT r.pre) <> t.n_nodes OR min(r.pre) <> 0 "
          "OR max(r.pre) <> t.n_nodes - 1"),
    _tree("n_rollouts counts its rollouts, numbered from 0", "rollouts",
          "count(r.rollout_id) <> t.n_rollouts OR count(DISTINCT r.rollout_id) <> t.n_rollouts "
          "OR max(r.rollout_id) <> t.n_rollouts - 1"),
    _node("node 0, and no other, has no parent", "(parent_id IS NULL) <> (node_id = 0)"),
    _node("the root has depth 0 and the path [0]",
          "node_id = 0 AND (depth <> 0 OR pre <> 0 OR path <> [0])"),
    _node("the root, and no other, is created as one", "(creation = 'root') <> (node_id = 0)"),
    _child("its parent exists and comes before it", "p.node_id IS NULL OR p.node_id >= c.node_id"),
    _child("its path and depth continue its parent's",
           "c.path <> list_append(p.path, c.node_id) OR c.depth <> p.depth + 1"),
    _child("its interval lies within its parent's",
           "c.pre <= p.pre OR c.post_end > p.post_end OR c.post_end < c.pre"),
    _family("n_children counts its children, ranked from 0",
            "count(c.node_id) <> p.n_children OR count(DISTINCT c.child_rank) <> p.n_children "
            "OR min(c.child_rank) <> 0 OR max(c.child_rank) <> p.n_children - 1"),
    _family("its interval is its own place and its children's intervals",
            "p.post_end - p.pre <> coalesce(sum(c.post_end - c.pre + 1), 0)"),
    _family("its children's priors sum to 1",
            "count(c.prior) > 0 AND abs(sum(c.prior) - 1) > 1e-6"),
    Law(
        table="nodes",
        says="fails_from is null at the root and where a success is at or below it, nowhere else",
        broken="SELECT p.tree_id, p.node_id FROM nodes p LEFT JOIN nodes c "
        "ON p.tree_id = c.tree_id AND p.node_id = c.parent_id "
        "GROUP BY p.tree_id, p.node_id, p.fails_from HAVING (p.fails_from IS NULL) <> "
        f"(p.node_id = 0 OR bool_or({_succeeds('p')}) "
        "OR coalesce(bool_or(c.fails_from IS NULL AND c.node_id IS NOT NULL), false))",
    ),
    _child("fails_from goes on with its parent's, or begins here",
           "c.fails_from <> coalesce(p.fails_from, c.node_id)"),
    _node("counts are not negative and fit together",
          "n_right < 0 OR n_unknown < 0 OR n_no_answer < 0 OR n_length < 0 OR visits < 0 "
          "OR n_samples < 0 OR n_right + n_no_answer + n_length > n_rollouts "
          "OR n_taken < n_samples"),
    _node("each step beyond it goes on from it or from an earlier one that ends nothing",
          "len(list_filter(beyond, lambda step, place: step.n_taken < 1 OR step.parent < -1 "
          "OR step.parent >= place - 1 "
          "OR step.parent >= 0 AND beyond[step.parent + 1].right IS NOT NULL)) > 0"),
    _node("n_tokens counts token_ids", "n_tokens <> len(token_ids)"),
    _node("value lies in its interval within [0, 1]", _outside("value")),
    _node("value_tree lies in its interval within [0, 1]", _outside("value_tree")),
    _node("progress_low is at most progress_high, within [-1, 1]",
          "progress_low > progress_high OR progress_low < -1 OR progress_high > 1 "
          "OR abs(progress) > 1"),
    _node("without rollouts there is no value",
          "n_rollouts = 0 AND NOT is_terminal AND value IS NOT NULL"),
    _node("a value where a solution ends is what its verdict says",
          "is_terminal AND value IS NOT NULL "
          "AND (verdict = 'unknown' OR value <> (verdict = 'right')::INT)"),
    _node("q lies in [0, 1]", "q NOT BETWEEN 0 AND 1"),
    _node("critics' scores lie in their ranges, and the root has no step to be scored",
          "value_critic NOT BETWEEN 0 AND 1 OR progress_critic NOT BETWEEN -1 AND 1 "
          "OR outcome_critic NOT BETWEEN 0 AND 1 OR (parent_id IS NULL "
          "AND (progress_critic IS NOT NULL OR outcome_critic IS NOT NULL))"),
    _node("it has a verdict where a solution ends, and nowhere else",
          "is_terminal <> (verdict IS NOT NULL)"),
    _node("its verdict is what its reason says",
          f"verdict IS NOT NULL AND ({_REASONS}) IS NOT TRUE"),
    _row("rollouts", "rollout_id", "its verdict is what its reason says",
         f"({_REASONS}) IS NOT TRUE"),
    _row("rollouts", "rollout_id", "n_tokens counts token_ids", "n_tokens <> len(token_ids)"),
    *(
        Law(
            table="rollouts",
            says=f"{column} is a node of its tree",
            broken="SELECT r.tree_id, r.rollout_id FROM rollouts r ANTI JOIN nodes n "
            f"ON n.tree_id = r.tree_id AND n.node_id = r.{column} WHERE r.{column} IS NOT NULL",
        )
        for column in ("node_id", "evidence_from")
    ),
)  # fmt: skip


COMPLETE = Law(
    table="scores",
    says="every node of its tree is there once, numbered from 0",
    broken="SELECT s.tree_id, max(s.node_id) FROM scores s LEFT JOIN sizes t USING (tree_id) "
    "GROUP BY s.tree_id, t.n_nodes HAVING count(*) <> t.n_nodes OR t.n_nodes IS NULL "
    "OR count(DISTINCT s.node_id) <> t.n_nodes OR min(s.node_id) <> 0 "
    "OR max(s.node_id) <> t.n_nodes - 1",
)
"""About scores beside a table `sizes` of the run's trees."""

SCORE_LAWS = (
    _row("scores", "node_id", "scores lie in their ranges",
         "value NOT BETWEEN 0 AND 1 OR progress NOT BETWEEN -1 AND 1 "
         "OR outcome NOT BETWEEN 0 AND 1"),
    _row("scores", "node_id", "node 0 has no step to be scored",
         "node_id = 0 AND (progress IS NOT NULL OR outcome IS NOT NULL)"),
    _row("scores", "node_id", "it has scores, or an error that says why not",
         "(error_kind IS NULL) <> (error IS NULL) OR (error IS NOT NULL "
         "AND (value IS NOT NULL OR progress IS NOT NULL OR outcome IS NOT NULL))"),
    COMPLETE,
)  # fmt: skip
"""What holds in every part of scores."""


def broken_laws(
    tables: Mapping[str, pa.Table], laws: Iterable[Law] = LAWS
) -> Iterator[tuple[str, str]]:
    """Yields the table and one line for each law that the rows of a part break.

    Args:
        tables: `trees`, `nodes` and `rollouts` of one part, or what other laws are about.
        laws: Which laws to check.
    """
    # Parts are small: one thread is faster than handing work to several.
    with duckdb.connect(config={"python_enable_replacements": False, "threads": 1}) as connection:
        for name, table in tables.items():
            connection.register(name, table)
        for law in laws:
            rows = connection.execute(
                f"SELECT *, count(*) OVER () FROM ({law.broken}) broken (tree, row) "
                "ORDER BY tree, row LIMIT 1"
            ).fetchall()
            for tree, row, count in rows:
                what = "rollout" if law.table == "rollouts" else "node"
                yield law.table, f"{count} broke a law, first tree {tree} {what} {row}: {law.says}"

"""How far a run is, in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass

import duckdb

from treeward.export.journal import read_entries
from treeward.export.macros import LABELLED
from treeward.export.queries import reading
from treeward.export.run_folder import RunFolder

_TOTALS = """
SELECT (SELECT count(*) FROM problems),
    count(*), coalesce(sum(n_nodes), 0), coalesce(sum(n_rollouts), 0),
    coalesce(sum(policy_tokens), 0), coalesce(sum(fast_tokens), 0),
    coalesce(sum(prompt_tokens), 0),
    count(*) FILTER (solved)
FROM trees
"""
_SCORES = "SELECT critic, count(*) FROM scores GROUP BY critic ORDER BY critic"
_LABELS = f"SELECT count(*) FROM nodes WHERE {LABELLED}"
_VERDICTS = "SELECT verdict, count(*) FROM rollouts GROUP BY verdict ORDER BY verdict"
_STOPPED = "SELECT stopped, count(*) FROM trees WHERE stopped IS NOT NULL GROUP BY ALL ORDER BY ALL"
_TREES = "SELECT status, count(*) FROM trees GROUP BY status ORDER BY status"
_ERRORS = """
SELECT error_kind, count(*) FROM trees WHERE error_kind IS NOT NULL
GROUP BY error_kind ORDER BY error_kind
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """Counts what a run holds; only committed trees count, except in the last two fields."""

    n_problems: int
    n_trees: int
    n_solved: int
    """Trees in which a right solution was found."""
    n_nodes: int
    n_rollouts: int
    n_labels: int
    """Nodes whose value is known: with rollouts, or where a solution ends right or wrong."""
    policy_tokens: int
    """What the policy generated."""
    fast_tokens: int
    """What the fast sampler generated, which is no part of that."""
    prompt_tokens: int
    tokens_per_label: float | None
    """Tokens of the policy for each label, however its tree ended; None without labels."""
    verdicts: Mapping[str, int]
    """Rollouts by verdict."""
    tree_status: Mapping[str, int]
    """Trees by status."""
    budget_tokens: int | None
    """What samplers may generate in all, the fast one too; None without a budget."""
    stopped: Mapping[str, int]
    """Trees that the budget ended, by how they stood."""
    errors: Mapping[str, int]
    """Trees in which something failed, by the kind of the first error."""
    scores: Mapping[str, int]
    """Nodes that critics have scored since, by critic."""
    n_unfinished: int
    """Trees with replies in the journal."""
    n_journal_entries: int
    """Replies there, which a resumed run does not ask for again."""

    @property
    def done(self) -> bool:
        """Returns whether every problem has its tree."""
        return self.n_trees == self.n_problems


def run_status(run: RunFolder) -> RunStatus:
    """Counts what a run holds; changes nothing, also while the run is being written.

    Raises:
        DamagedData: A file of the run is not what was written.
    """
    with reading(run) as connection:
        row = connection.execute(_TOTALS).fetchall()[0]
        problems, trees, nodes, rollouts, tokens, fast_tokens, prompt_tokens, solved = map(int, row)
        labels = int(connection.execute(_LABELS).fetchall()[0][0])
        verdicts = _counts(connection, _VERDICTS)
        tree_status = _counts(connection, _TREES)
        stopped = _counts(connection, _STOPPED)
        errors = _counts(connection, _ERRORS)
        scores = _counts(connection, _SCORES)
    budget = run.identity.settings.get("budget.tokens")
    entries = [len(read_entries(path)[0]) for path in sorted(run.journal.glob("*.jsonl"))]
    return RunStatus(
        n_problems=problems,
        n_trees=trees,
        n_solved=solved,
        n_nodes=nodes,
        n_rollouts=rollouts,
        n_labels=labels,
        policy_tokens=tokens,
        fast_tokens=fast_tokens,
        prompt_tokens=prompt_tokens,
        tokens_per_label=tokens / labels if labels else None,
        verdicts=verdicts,
        tree_status=tree_status,
        budget_tokens=None if budget is None else int(budget),
        stopped=stopped,
        errors=errors,
        scores=scores,
        n_unfinished=len(entries),
        n_journal_entries=sum(entries),
    )


def _counts(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, int]:
    return {str(kind): int(count) for kind, count in connection.execute(sql).fetchall()}


def describe(status: RunStatus) -> str:
    """Returns a status as lines for a terminal."""
    lines = [
        f"problems   {status.n_problems}, of them {status.n_trees} with a tree, "
        f"{status.n_solved} solved",
        f"trees      {_listed(status.tree_status)}",
        f"nodes      {status.n_nodes:,}, of them {status.n_labels:,} with evidence",
        f"rollouts   {status.n_rollouts:,}: {_listed(status.verdicts)}",
        f"tokens     {status.policy_tokens:,} generated, {status.prompt_tokens:,} of prompts",
    ]
    if status.fast_tokens:
        lines.append(f"           {status.fast_tokens:,} by the fast sampler")
    if status.tokens_per_label is not None:
        lines.append(f"a label    {status.tokens_per_label:.1f} generated tokens")
    if status.budget_tokens is not None:
        left = status.budget_tokens - status.policy_tokens - status.fast_tokens
        lines.append(
            f"budget     {status.budget_tokens:,} tokens, of them {left:,} left; trees that it "
            f"ended: {_listed(status.stopped)}"
        )
    if status.errors:
        lines.append(f"errors     {_listed(status.errors)}")
    if status.scores:
        lines.append(f"scores     {_listed(status.scores)} (nodes by critic)")
    if status.n_unfinished:
        lines.append(
            f"unfinished {status.n_unfinished} trees with {status.n_journal_entries:,} replies in "
            "the journal; the same generate command goes on"
        )
    return "\n".join(lines)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"

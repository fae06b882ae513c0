"""The tables of a run, column by column, in the order in which their views show them.

`pre` counts nodes in pre-order (siblings by `child_rank`); the subtree of a node is the rows of its
tree with `pre` between the node's `pre` and `post_end`, both included. `path` goes from the root to
the node, both included. `fails_from` is the first step on the path without a success at or below
it; null at the root and where a success (a right rollout that counts, a right end) is at or below.
`n_taken` counts `n_samples` and the policy's rollouts of known outcome that take the step and were
not cut into nodes. `beyond` has the steps that these take from the node on and that are no nodes:
each with the place in the list of the step before it, -1 for the node, and with how the solution
ended that it ends.
"""

from collections.abc import Iterable

import pyarrow as pa

SCHEMA_VERSION = 1
"""Rises when a column changes its meaning; a new column leaves it as it is, and a run that was made
before the column was there is refused by name."""

TABLES = ("trees", "nodes", "rollouts")
"""The tables that every part holds."""

SORT_KEYS = {
    "trees": ("tree_id",),
    "nodes": ("tree_id", "pre"),
    "rollouts": ("tree_id", "rollout_id"),
    "scores": ("tree_id", "node_id"),
}
"""What the rows of each table are sorted by, ascending."""

_TEXT = pa.string()
_COUNT = pa.int32()
_LONG = pa.int64()
_REAL = pa.float64()
_FLAG = pa.bool_()
_IDS = pa.list_(pa.field("element", pa.int32(), nullable=False))
_TEXTS = pa.list_(pa.field("element", pa.string(), nullable=False))
_MESSAGES = pa.list_(
    pa.field(
        "element",
        pa.struct(
            [
                pa.field("role", pa.string(), nullable=False),
                pa.field("content", pa.string(), nullable=False),
            ]
        ),
        nullable=False,
    )
)

_STEPS = pa.list_(
    pa.field(
        "element",
        pa.struct(
            [
                pa.field("parent", pa.int32(), nullable=False),
                pa.field("logprob", pa.float32()),
                pa.field("n_taken", pa.int32(), nullable=False),
                pa.field("right", pa.bool_()),
            ]
        ),
        nullable=False,
    )
)


def _known(name: str, kind: pa.DataType) -> pa.Field:
    """Returns a column that is never null."""
    return pa.field(name, kind, nullable=False)


TREES = pa.schema(
    [
        _known("tree_id", _TEXT),
        _known("problem_id", _TEXT),
        _known("prompt", _TEXT),
        pa.field("answer", _TEXT),
        _known("source", _TEXT),
        _known("search", _TEXT),
        _known("policy", _TEXT),
        _known("seed", _LONG),
        _known("n_nodes", _COUNT),
        _known("n_rollouts", _COUNT),
        _known("n_right", _COUNT),
        _known("n_unknown", _COUNT),
        _known("policy_tokens", _LONG),
        _known("fast_tokens", _LONG),
        _known("prompt_tokens", _LONG),
        pa.field("pass_rate", _REAL),
        pa.field("solved", _FLAG),
        pa.field("best_node_id", _COUNT),
        _known("status", _TEXT),
        pa.field("stopped", _TEXT),
        pa.field("error_kind", _TEXT),
        pa.field("error", _TEXT),
    ]
)

NODES = pa.schema(
    [
        _known("tree_id", _TEXT),
        _known("problem_id", _TEXT),
        _known("node_id", _COUNT),
        pa.field("parent_id", _COUNT),
        _known("depth", _COUNT),
        _known("pre", _COUNT),
        _known("post_end", _COUNT),
        _known("path", _IDS),
        _known("child_rank", _COUNT),
        _known("n_children", _COUNT),
        _known("step_text", _TEXT),
        _known("n_tokens", _COUNT),
        _known("token_ids", _IDS),
        pa.field("logprob", _REAL),
        _known("n_samples", _COUNT),
        _known("creation", _TEXT),
        pa.field("prior", _REAL),
        _known("visits", _COUNT),
        pa.field("q", _REAL),
        _known("n_right", _COUNT),
        _known("n_rollouts", _COUNT),
        _known("n_unknown", _COUNT),
        _known("n_no_answer", _COUNT),
        _known("n_length", _COUNT),
        _known("n_taken", _COUNT),
        _known("beyond", _STEPS),
        pa.field("fails_from", _COUNT),
        pa.field("stop_rule", _TEXT),
        pa.field("value", _REAL),
        pa.field("value_low", _REAL),
        pa.field("value_high", _REAL),
        pa.field("value_tree", _REAL),
        pa.field("value_tree_low", _REAL),
        pa.field("value_tree_high", _REAL),
        pa.field("n_effective", _REAL),
        pa.field("progress", _REAL),
        pa.field("progress_low", _REAL),
        pa.field("progress_high", _REAL),
        pa.field("prover_k", _COUNT),
        pa.field("value_critic", _REAL),
        pa.field("progress_critic", _REAL),
        pa.field("outcome_critic", _REAL),
        _known("is_terminal", _FLAG),
        pa.field("answer", _TEXT),
        pa.field("verdict", _TEXT),
        pa.field("verdict_reason", _TEXT),
        pa.field("finish_reason", _TEXT),
        _known("status", _TEXT),
        pa.field("error_kind", _TEXT),
        pa.field("oracle_step_correct", _FLAG),
        pa.field("oracle_prefix_correct", _FLAG),
    ]
)

ROLLOUTS = pa.schema(
    [
        _known("tree_id", _TEXT),
        _known("node_id", _COUNT),
        _known("rollout_id", _COUNT),
        _known("sampler_id", _COUNT),
        pa.field("evidence_from", _COUNT),
        pa.field("text", _TEXT),
        pa.field("n_tokens", _COUNT),
        pa.field("token_ids", _IDS),
        pa.field("logprob", _REAL),
        pa.field("answer", _TEXT),
        _known("verdict", _TEXT),
        _known("verdict_reason", _TEXT),
        pa.field("finish_reason", _TEXT),
        pa.field("seed", _LONG),
    ]
)

PROBLEMS = pa.schema(
    [
        _known("problem_id", _TEXT),
        _known("prompt", _TEXT),
        pa.field("messages", _MESSAGES),
        pa.field("answer", _TEXT),
        _known("verifier", _TEXT),
        _known("source", _TEXT),
        pa.field("solution", _TEXTS),
        _known("metadata", _TEXT),
    ]
)

SAMPLERS = pa.schema(
    [
        _known("sampler_id", _COUNT),
        _known("policy", _TEXT),
        _known("temperature", _REAL),
        _known("top_p", _REAL),
        _known("max_step_tokens", _COUNT),
        _known("max_rollout_tokens", _COUNT),
        _known("purpose", _TEXT),
    ]
)

SCORES = pa.schema(
    [
        _known("critic", _TEXT),
        _known("tree_id", _TEXT),
        _known("node_id", _COUNT),
        pa.field("value", _REAL),
        pa.field("progress", _REAL),
        pa.field("outcome", _REAL),
        pa.field("error_kind", _TEXT),
        pa.field("error", _TEXT),
    ]
)

SCHEMAS = {
    "trees": TREES,
    "nodes": NODES,
    "rollouts": ROLLOUTS,
    "problems": PROBLEMS,
    "scores": SCORES,
}
"""The schema of each table by its name."""

REPEATED = {
    "nodes": ("tree_id", "problem_id", "stop_rule", "verdict", "verdict_reason", "finish_reason"),
    "rollouts": ("tree_id", "verdict", "verdict_reason", "finish_reason"),
    "scores": ("critic", "tree_id"),
}
"""Columns of text whose values come again and again, so that codes for them are less to read."""


def coded(schema: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """Returns a schema in which some columns of text hold codes of a dictionary."""
    kind = pa.dictionary(pa.int32(), pa.string())
    return pa.schema([field.with_type(kind) if field.name in names else field for field in schema])

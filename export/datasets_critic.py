"""The dataset `critic`: every path of every tree with what was counted at its steps."""

from collections.abc import Iterator

from treeward.critics.progress import Count, unbiased_progress
from treeward.export.dataset_spec import (
    CHAT,
    COUNT,
    FLAG,
    ID,
    PROBLEM_ID,
    REAL,
    TEXT,
    Column,
    Dataset,
    ExportSettings,
    Kind,
    Row,
    Tally,
    list_of,
    messages_of,
    row_id,
    template_of,
)
from treeward.export.labels import Nodes
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Item
from treeward.search.steps import clean_step
from treeward.search.verdicts import VALUE_OF

COLUMNS = (
    ID,
    PROBLEM_ID,
    Column("tree_id", TEXT, "The tree in the run."),
    Column("problem", TEXT, "The question."),
    CHAT,
    Column("problem_n_right", COUNT, "Right rollouts from the bare question."),
    Column("problem_n_rollouts", COUNT, "Right and wrong ones together."),
    Column("steps", list_of(TEXT), "The steps' texts, as sampled but without delimiters."),
    Column("n_right", list_of(COUNT), "Right rollouts that count for the prefix."),
    Column("n_rollouts", list_of(COUNT), "Right and wrong ones together; 0 where none counts."),
    Column(
        "progress",
        list_of(REAL, gaps=True),
        "How much each step raised the chance of the prover, without bias: best of K, or of half "
        "of the fewer rollouts where these are fewer; null where not known.",
    ),
    Column(
        "verdict",
        list_of(TEXT, gaps=True),
        "`right`, `wrong` or `unknown` where a solution ends; null elsewhere.",
    ),
    Column(
        "is_new",
        list_of(FLAG),
        "Whether the step is in no row before: rows of a tree share steps, and these flags are "
        "true exactly once for each.",
    ),
    Column("node_ids", list_of(COUNT), "The nodes in the tree, in the order of the steps."),
)

_FROM_NODES = ("n_right", "n_rollouts", "verdict")
_NODE_COLUMNS = (
    *(*_FROM_NODES, "node_id", "parent_id", "prover_k"),
    *("path", "n_children", "step_text", "token_ids"),
)


def critic(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each leaf of a tree."""
    delimiter = template_of(run, settings).rule.delimiter

    def rows(item: Item) -> Iterator[Row]:
        if item.tree is None:
            tally.left_out["problems without a finished tree"] += 1
            return
        nodes = item.tree.nodes
        row_of = {node["node_id"]: row for row, node in enumerate(nodes)}
        progress = progress_of(nodes)
        leaves = [row for row in range(1, len(nodes)) if not nodes[row]["n_children"]]
        if not leaves:
            tally.left_out["trees without a step"] += 1
        last = 0
        for leaf in leaves:
            rows_of_steps = [row_of[node] for node in nodes[leaf]["path"][1:]]
            steps = [nodes[row] for row in rows_of_steps]
            tally.kept["steps"] += leaf - last
            yield {
                "id": row_id(Kind.CRITIC, item.problem.id, [step["token_ids"] for step in steps]),
                "problem_id": item.problem.id,
                "tree_id": item.tree.row.tree_id,
                "problem": item.problem.prompt,
                "messages": messages_of(item) if item.problem.messages else None,
                "problem_n_right": nodes[0]["n_right"],
                "problem_n_rollouts": nodes[0]["n_rollouts"],
                "steps": [clean_step(step["step_text"], delimiter) for step in steps],
                **{name: [step[name] for step in steps] for name in _FROM_NODES},
                "progress": [progress[row] for row in rows_of_steps],
                # In pre-order, whatever comes after the leaf before has not been on any path yet.
                "is_new": [row > last for row in rows_of_steps],
                "node_ids": [step["node_id"] for step in steps],
            }
            last = leaf

    return Dataset(
        columns=COLUMNS,
        node_columns=_NODE_COLUMNS,
        rows=rows,
        says=(
            "One row a leaf, with every step from the question to it and what was counted there. "
            "There are no labels: a critic learns from the counts themselves, each step weighing "
            "what its rollouts weigh.",
            "All counts are strict evidence: rollouts of the run's own policy whose outcome had no "
            "say in making the step or in asking for them.",
        ),
    )


def progress_of(nodes: Nodes) -> list[float | None]:
    """Returns what may be learned of the progress of each node of a tree; the root has none."""
    counts = {
        node["node_id"]: Count(node["n_right"], node["n_rollouts"], VALUE_OF.get(node["verdict"]))
        for node in nodes
    }
    found: list[float | None] = [None] * len(nodes)
    for row, node in enumerate(nodes):
        child, parent = counts[node["node_id"]], counts.get(node["parent_id"])
        if parent and parent.is_known and child.is_known and node["prover_k"]:
            found[row] = unbiased_progress(child, parent, node["prover_k"])
    return found

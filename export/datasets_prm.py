"""The dataset `prm`: steps of solutions with right or wrong, and the evidence for it."""

from collections.abc import Iterator, Sequence

from treeward.export.dataset_spec import (
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
    row_id,
    template_of,
)
from treeward.export.labels import (
    READS,
    Label,
    LabelRule,
    Labels,
    Nodes,
    kept_rows,
    load_rule,
    parent_rows,
)
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Grown, Item, stream
from treeward.search.steps import clean_step
from treeward.search.verdicts import Verdict

COLUMNS = (
    ID,
    PROBLEM_ID,
    Column("tree_id", TEXT, "The tree in the run."),
    Column("prompt", TEXT, "The question."),
    Column("completions", list_of(TEXT), "The steps' texts, as sampled but without delimiters."),
    Column("labels", list_of(FLAG), "Whether each step is right, by the label rule; never null."),
    Column(
        "soft_labels",
        list_of(REAL, gaps=True),
        "The value after each step: the chance that the policy finishes right from there. The mean "
        "of the posterior of `n_right` in `n_rollouts`; exactly 0 or 1 where a solution ends; null "
        "where no rollout counts, and then the label comes from steps below.",
    ),
    Column(
        "label_mask",
        list_of(FLAG),
        "Whether to learn from each step. True throughout: this rule keeps no step undecided.",
    ),
    Column("n_right", list_of(COUNT), "Right rollouts that count for the prefix."),
    Column("n_rollouts", list_of(COUNT), "Right and wrong ones together; unknown ones in neither."),
    Column("value_low", list_of(REAL, gaps=True), "Lower end of the value's 90 % interval."),
    Column("value_high", list_of(REAL, gaps=True), "Upper end of it."),
    Column(
        "progress",
        list_of(REAL, gaps=True),
        "How much each step raised the chance of the prover (best of K); null where not known.",
    ),
    Column(
        "right_chances",
        list_of(REAL, gaps=True),
        "The probability that each prefix is right, where the label rule has one; else null.",
    ),
    Column("label_rule", TEXT, "The rule with its version and settings."),
    Column("first_error", COUNT, "Index of the wrong step, from 0; -1 where there is none."),
    Column(
        "final_answer_correct",
        FLAG,
        "Whether the answer is right where the row is a whole solution; else null.",
        optional=True,
    ),
    Column("node_ids", list_of(COUNT), "The nodes in the tree, in the order of the steps."),
)

_FROM_NODES = ("n_right", "n_rollouts", "value_low", "value_high", "progress")
_NODE_COLUMNS = (
    *READS,
    *("path", "step_text", "token_ids", "value", "value_low", "value_high", "progress"),
)


def prm(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each longest run of decided steps in a tree."""
    rule = load_rule(
        settings.rule,
        min_rollouts=settings.min_rollouts,
        confidence=settings.confidence,
        trees=(item.tree.nodes for item in stream(run, READS) if item.tree),
    )
    delimiter = template_of(run, settings).rule.delimiter

    def rows(item: Item) -> Iterator[Row]:
        if item.tree is None:
            tally.left_out["problems without a finished tree"] += 1
            return
        nodes = item.tree.nodes
        labels, said = rule.judge(nodes)
        chances: Sequence[float | None] = said or [None] * len(nodes)
        kept = kept_rows(nodes, labels)
        _count(labels, kept, tally)
        parents = {parent for parent, keep in zip(parent_rows(nodes), kept, strict=True) if keep}
        ends = [row for row, keep in enumerate(kept) if keep and row not in parents]
        if not ends:
            tally.left_out["trees without a decided step"] += 1
        elif labels[0] is None:
            tally.kept["rows of trees without any success"] += len(ends)
        for end in ends:
            row = _row(item, item.tree, end, labels, rule, delimiter)
            yield row | {"right_chances": [chances[at] for at in _rows_to(nodes, end)]}

    return Dataset(
        columns=COLUMNS,
        node_columns=_NODE_COLUMNS,
        rows=rows,
        label_rule=rule.name,
        says=(
            rule.says,
            "A row is a path from the question through decided steps. It ends with the first wrong "
            "step (what follows an error says little about the policy's own steps), before the "
            "first undecided one, or where the solution ends. Paths that end at the same step are "
            "one row, and a path that another one continues is none. Rows of one tree share steps.",
            "Wrong means that this policy, within its budget, hardly ever finishes right from "
            "there; a sound step that the policy cannot use is wrong too, and a lucky recovery "
            "makes an unsound one right. In a tree without any success every decided first step is "
            "wrong: the problem may just be too hard. `pass_rate` in `trees` tells.",
        ),
    )


def _count(labels: Labels, kept: list[bool], tally: Tally) -> None:
    """Counts every step of a tree once."""
    for label, keep in zip(labels[1:], kept[1:], strict=True):
        if keep:
            tally.kept[f"steps {label}"] += 1
        elif label is None:
            tally.left_out["steps undecided, or below an undecided one"] += 1
        else:
            tally.left_out["steps below a wrong one"] += 1


def _row(item: Item, tree: Grown, end: int, labels: Labels, rule: LabelRule, delimiter: str) -> Row:
    rows = _rows_to(tree.nodes, end)
    steps = [tree.nodes[row] for row in rows]
    verdict = steps[-1]["verdict"]
    return {
        "id": row_id(Kind.PRM, item.problem.id, [step["token_ids"] for step in steps], rule.name),
        "problem_id": item.problem.id,
        "tree_id": tree.row.tree_id,
        "prompt": item.problem.prompt,
        "completions": [clean_step(step["step_text"], delimiter) for step in steps],
        "labels": [labels[row] is Label.RIGHT for row in rows],
        "soft_labels": [step["value"] for step in steps],
        "label_mask": [labels[row] is not None for row in rows],
        **{name: [step[name] for step in steps] for name in _FROM_NODES},
        "label_rule": rule.name,
        "first_error": -1 if labels[end] is Label.RIGHT else len(rows) - 1,
        "final_answer_correct": None if verdict is None else verdict == Verdict.RIGHT,
        "node_ids": [step["node_id"] for step in steps],
    }


def _rows_to(nodes: Nodes, end: int) -> list[int]:
    """Returns the rows of the steps from the root to a node."""
    row_of = {node["node_id"]: row for row, node in enumerate(nodes)}
    return [row_of[node] for node in nodes[end]["path"][1:]]

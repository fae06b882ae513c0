"""The dataset `prm`: steps of solutions with right or wrong, and the evidence for it."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from treeward.export.added_scores import require_scores
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
    Tally,
    list_of,
    schema_of,
    template_of,
)
from treeward.export.label_cut import Kept, count_steps, cut
from treeward.export.label_rules import RIGHT, WRONG, successes
from treeward.export.label_spec import END, KEEP, MASK, RuleSpec, Value
from treeward.export.labels import LEARNING_READS, JudgedTrees, LabelRule, load_rule
from treeward.export.list_columns import PathLists, clean_steps, small_spans
from treeward.export.row_ids import row_ids
from treeward.export.run_folder import RunFolder
from treeward.export.table_splits import MOST_BYTES
from treeward.export.tree_batch import Flags, Ints, TreeBatch, plain
from treeward.export.tree_windows import Window, windows
from treeward.search.verdicts import Verdict

COLUMNS = (
    ID,
    PROBLEM_ID,
    Column("tree_id", TEXT, "The tree in the run."),
    Column("prompt", TEXT, "The question."),
    CHAT,
    Column("completions", list_of(TEXT), "The steps' texts, as sampled but without delimiters."),
    Column("labels", list_of(FLAG), "Whether each step is right, by the label rule; never null."),
    Column(
        "soft_labels",
        list_of(REAL, gaps=True),
        "The value after each step: the chance that the policy finishes right from there. The mean "
        "of the posterior of `n_right` in `n_rollouts`; exactly 0 or 1 where a solution ends; null "
        "where no rollout counts, and then the label comes from steps below. By a rule with "
        "`soft(of=...)` the measure that it names.",
    ),
    Column(
        "label_mask",
        list_of(FLAG),
        "Whether to learn from each step; false where the label rule masks it, and then the label "
        "is no more than a placeholder where the step is undecided.",
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

_COUNTS, _REALS = ("n_right", "n_rollouts"), ("value_low", "value_high", "progress")
_NODE_COLUMNS = ("node_id", "verdict", "step_text", "value", *_COUNTS, *_REALS)


def prm(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each longest path through steps that are kept."""
    rule = rule_of(run, settings)
    delimiter = template_of(run, settings).rule.delimiter

    def tables(window: Window) -> pa.Table:
        batch = window.batch
        said = rule.judge_all(batch)
        kept = cut(batch, said.sign_N, rule.spec.cut.values)
        _count(window, said, kept, rule, tally)
        return _rows(window, said, kept, rule.name, delimiter)

    return Dataset(
        columns=COLUMNS,
        node_columns=tuple(dict.fromkeys((*_NODE_COLUMNS, *rule.reads))),
        tables=tables,
        label_rule=rule.name,
        says=(
            rule.says,
            _says_of_rows(rule.spec.cut.values),
            _says_of_labels(rule.spec),
        ),
    )


def rule_of(run: RunFolder, settings: ExportSettings) -> LabelRule:
    """Returns the label rule that settings name, as learned from the run where it learns."""
    rule = load_rule(
        settings.rule,
        min_rollouts=settings.min_rollouts,
        confidence=settings.confidence,
        trees=(window.in_order() for window in windows(run, LEARNING_READS)),
    )
    require_scores(run, rule.spec.measures)
    return rule


def _says_of_labels(spec: RuleSpec) -> str:
    """Returns what not to take the labels for, for the card."""
    names = {part.name for part in spec.parts}
    if names == {"posterior"}:
        return (
            "Right and wrong are what is likely given how this policy's samples end and how sure "
            "it was of their steps: a sound step that it doubts and cannot finish from may be "
            "called wrong, and an error of which it is sure, and which it survives, right."
        )
    if names != {"any_success"}:
        return (
            "Right and wrong are said of this policy's chances within its budget, by the rule, and "
            "not of a step by itself: a sound step that the policy cannot use may be wrong, and an "
            "unsound one right from which it recovers."
        )
    return (
        "Wrong means that this policy, within its budget, hardly ever finishes right from there; a "
        "sound step that the policy cannot use is wrong too, and a lucky recovery makes an unsound "
        "one right. In a tree without any success every decided first step is wrong: the problem "
        "may just be too hard. `pass_rate` in `trees` tells."
    )


def _says_of_rows(values: Mapping[str, Value]) -> str:
    """Returns what a row is, for the card."""
    ends = {
        END: "It ends with the first wrong step (what follows an error says little about the "
        "policy's own steps)",
        MASK: "It goes on below a wrong step, masked (`label_mask`)",
        KEEP: "It goes on below a wrong step, with the labels that the steps have",
    }[str(values["wrong"])]
    undecided = {
        END: "before the first undecided one, or where the solution ends",
        MASK: "and an undecided step is in it, masked, with the label false",
    }[str(values["undecided"])]
    return (
        f"A row is a path from the question through decided steps. {ends}, {undecided}. Paths that "
        "end at the same step are one row, and a path that another one continues is none. Rows of "
        "one tree share steps."
    )


def _count(window: Window, said: JudgedTrees, kept: Kept, rule: LabelRule, tally: Tally) -> None:
    """Counts every step of some trees once, and the trees that say nothing."""
    batch = window.batch
    values = rule.spec.cut.values
    inside, outside = count_steps(batch, said.sign_N, kept, values, said.causes)
    tally.kept.update(inside)
    tally.left_out.update(outside)
    n_trees = len(batch.start_T)
    rows_T = np.bincount(batch.tree_N[kept.end_R], minlength=n_trees)
    solved_T = successes(batch)[batch.start_T]
    for counts, what, count in (
        (tally.left_out, "problems without a finished tree", window.problems.num_rows - n_trees),
        (tally.left_out, "trees without a decided step", np.count_nonzero(rows_T == 0)),
        (tally.kept, "rows of trees without any success", rows_T[~solved_T].sum()),
    ):
        if count:
            counts[what] += int(count)


def _rows(
    window: Window, said: JudgedTrees, kept: Kept, label_rule: str, delimiter: str
) -> pa.Table:
    """Returns the rows of some trees, in the order of their problems and then of their ends."""
    batch, nodes = window.batch, window.batch.table
    order = np.argsort(window.problem_T[batch.tree_N[kept.end_R]], kind="stable")
    of_nodes = {
        "completions": clean_steps(nodes["step_text"].combine_chunks(), delimiter),
        "labels": pa.array(kept.learn_N & (said.sign_N == RIGHT)),
        "soft_labels": nodes["value"]
        if said.soft_N is None
        else pa.array(said.soft_N, from_pandas=True),
        "label_mask": pa.array(kept.learn_N),
        **{name: nodes[name] for name in (*_COUNTS, *_REALS)},
        "right_chances": pa.nulls(batch.size, REAL)
        if said.chance_N is None
        else pa.array(said.chance_N),
        "node_ids": nodes["node_id"],
    }
    wrong_N = kept.learn_N & (said.sign_N == WRONG)
    ends = kept.end_R[order]
    problem_R = window.problem_T[batch.tree_N[ends]]
    prompt_P = plain(pc.binary_length(window.problems["prompt"])).astype(np.int64)
    texts = of_nodes["completions"]
    spans = small_spans(batch, ends, texts, own_R=prompt_P[problem_R], most=MOST_BYTES)
    parts = [_part(window, ends[start:end], of_nodes, wrong_N, label_rule) for start, end in spans]
    return pa.concat_tables([schema_of(COLUMNS).empty_table(), *parts])


def _part(
    window: Window,
    ends: Ints,
    of_nodes: Mapping[str, pa.Array | pa.ChunkedArray],
    wrong_N: Flags,
    label_rule: str,
) -> pa.Table:
    """Returns the rows of the paths to some nodes, made of columns of all nodes."""
    batch, trees = window.batch, window.trees
    lists = PathLists(batch, ends)
    tree_R, node_R = batch.tree_N[ends], batch.counts("node_id")[ends]
    problems = window.problems.take(window.problem_T[tree_R])
    kinds = {column.name: column.kind for column in COLUMNS}
    columns = {
        "id": row_ids((Kind.PRM, label_rule), trees["tree_id"].to_pylist(), tree_R, node_R),
        "problem_id": problems["problem_id"],
        "tree_id": trees["tree_id"].take(tree_R),
        "prompt": problems["prompt"],
        "messages": problems["messages"],
        **{name: lists.of(column, kinds[name]) for name, column in of_nodes.items()},
        "label_rule": pa.repeat(pa.scalar(label_rule, TEXT), len(ends)),
        "first_error": lists.first(wrong_N),
        "final_answer_correct": _answers(batch, ends),
    }
    return pa.table([columns[column.name] for column in COLUMNS], schema=schema_of(COLUMNS))


def _answers(batch: TreeBatch, ends: Ints) -> pa.Array:
    """Returns whether answers are right; null where there is none, or it is not known."""
    right_R, wrong_R = (
        batch.equals("verdict", verdict)[ends] for verdict in (Verdict.RIGHT, Verdict.WRONG)
    )
    return pa.array(right_R, FLAG, mask=~(right_R | wrong_R))

"""The kind `prm` as ProcessBench has it: whole solutions with the index of the first wrong step.

A row of ours ends with the first wrong step; here the steps after it are wanted too. So rows are
made of the trees' ends, and the label rule says where each goes wrong.
"""

from collections.abc import Iterator

from treeward.export.dataset_spec import (
    COUNT,
    FLAG,
    ID,
    PROBLEM_ID,
    TEXT,
    Column,
    Dataset,
    ExportSettings,
    Row,
    Tally,
    list_of,
    row_id,
    template_of,
)
from treeward.export.datasets_prm import rule_of
from treeward.export.formats.spec import Shape, fixed
from treeward.export.formats.stepwise import has_history
from treeward.export.labels import Label, Labels
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Item
from treeward.search.steps import clean_step
from treeward.search.verdicts import Verdict

_COLUMNS = (
    ID,
    PROBLEM_ID,
    Column(
        "generator",
        TEXT,
        "The policy that wrote the solution; null where solutions were given.",
        optional=True,
    ),
    Column("problem", TEXT, "The question."),
    Column("steps", list_of(TEXT), "All steps of the solution, without delimiters."),
    Column("final_answer_correct", FLAG, "Whether the final answer is right."),
    Column("label", COUNT, "Index of the first wrong step, from 0; -1 where all are right."),
)
_FORMAT_COLUMNS = tuple(column for column in _COLUMNS if column is not PROBLEM_ID)
_NODE_COLUMNS = ("node_id", "verdict", "path", "step_text", "token_ids", "pre", "post_end")


def whole_solutions(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each end of a tree that the rule decides."""
    rule = rule_of(run, settings)
    delimiter = template_of(run, settings).rule.delimiter
    given = run.identity.solutions_are_given
    generator = None if given else run.identity.samplers[0].policy

    def rows(item: Item) -> Iterator[Row]:
        if item.tree is None:
            tally.left_out["problems without a finished tree"] += 1
            return
        roles = [turn.role for turn in item.problem.messages or ()]
        if has_history(roles, tally, "problems"):
            return
        nodes = item.tree.nodes
        labels = rule.judge(nodes).labels
        row_of = {node["node_id"]: row for row, node in enumerate(nodes)}
        for node in nodes:
            if node["verdict"] is None:
                if node["pre"] == node["post_end"]:
                    tally.left_out["paths without a final answer"] += 1
                continue
            path = [row_of[at] for at in node["path"][1:]]
            label = first_error([labels[row] for row in path])
            if node["verdict"] == Verdict.UNKNOWN:
                tally.left_out["solutions with an unknown verdict"] += 1
            elif label is None:
                tally.left_out["solutions whose first error is undecided"] += 1
            else:
                tally.kept[f"solutions {'with' if label >= 0 else 'without'} an error"] += 1
                steps = [nodes[row] for row in path]
                ids = [step["token_ids"] for step in steps]
                yield {
                    "id": row_id("processbench", item.problem.id, ids, rule.name),
                    "problem_id": item.problem.id,
                    "generator": generator,
                    "problem": item.problem.prompt,
                    "steps": [clean_step(step["step_text"], delimiter) for step in steps],
                    "final_answer_correct": node["verdict"] == Verdict.RIGHT,
                    "label": label,
                }

    return Dataset(
        columns=_COLUMNS,
        node_columns=tuple(dict.fromkeys((*_NODE_COLUMNS, *rule.reads))),
        rows=rows,
        label_rule=rule.name,
        says=(
            rule.says,
            "A row is a whole solution that ends in the tree, with all of its steps. `label` is "
            "the first step that the rule calls wrong; solutions of which it decides too little "
            "are left out. A right answer can come after a wrong step.",
        ),
    )


def first_error(labels: Labels) -> int | None:
    """Returns the index of the first wrong step, -1 without one; None where it is undecided.

    It is known only if every step before it is decided.
    """
    for index, label in enumerate(labels):
        if label is not Label.RIGHT:
            return None if label is None else index
    return -1


def _convert(row: Row, _: Tally) -> Row:
    return {column.name: row[column.name] for column in _FORMAT_COLUMNS}


PROCESSBENCH = Shape(
    columns=fixed(*_FORMAT_COLUMNS),
    convert=_convert,
    reads=frozenset(column.name for column in _FORMAT_COLUMNS),
    says="The rows of ProcessBench (arXiv 2412.06559), which its `run_eval.py` and its copies "
    "read; the labels are this run's, not people's. The evidence is in an export without a format, "
    "whose rows end with the first wrong step.",
    make=whole_solutions,
)

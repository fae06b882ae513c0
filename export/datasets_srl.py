"""The dataset `srl`: an expert's next step from the steps before it (Deng et al. 2025, sec. 3.2).

A solution of N steps makes N - 1 rows; the last step, which gives the answer, is a target only
where that is asked for. A policy that never sees it rewarded can forget how to end: a small one
trained on all steps but the last went on calculating after the last operation (docs/log.md).
"""

from collections.abc import Iterator

from treeward.export.dataset_spec import (
    COUNT,
    ID,
    MESSAGES,
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
from treeward.export.experts import EXPERT_READS, EXPERT_SAYS, solutions
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Item
from treeward.search.steps import clean_step

COLUMNS = (
    ID,
    PROBLEM_ID,
    Column("prompt", MESSAGES, "The problem as chat messages; the last is the question."),
    Column("prefix_steps", list_of(TEXT), "The k - 1 steps before the target, no delimiters."),
    Column("target_step", TEXT, "The step to predict."),
    Column("k", COUNT, "Which step of the solution the target is, from 1."),
    Column("n_steps", COUNT, "Steps of the solution; the last gives the answer."),
    Column("ground_truth", TEXT, "The reference answer; null where there is none.", optional=True),
    Column("weight", REAL, "1.0: rows weigh the same, as in the paper, so long solutions more."),
    Column("expert_source", TEXT, "`reference` or `tree`."),
)


def srl(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each step of an expert solution that is a target."""
    template = template_of(run, settings)

    def rows(item: Item) -> Iterator[Row]:
        for solution in solutions(item, template, settings.expert, tally):
            steps = [clean_step(step, template.rule.delimiter) for step in solution.steps]
            targets = len(steps) if settings.answer_step else len(steps) - 1
            if not targets:
                tally.left_out["solutions of a single step"] += 1
            for k in range(1, targets + 1):
                yield {
                    "id": row_id(Kind.SRL, item.problem.id, solution.source, steps[:k]),
                    "problem_id": item.problem.id,
                    "prompt": messages_of(item),
                    "prefix_steps": steps[: k - 1],
                    "target_step": steps[k - 1],
                    "k": k,
                    "n_steps": len(steps),
                    "ground_truth": item.problem.answer,
                    "weight": 1.0,
                    "expert_source": solution.source,
                }

    return Dataset(
        columns=COLUMNS,
        node_columns=EXPERT_READS,
        rows=rows,
        says=(
            "Supervised reinforcement learning (arXiv 2510.25992): given the question and the "
            "expert's steps so far, write the next one; the reward is its similarity to "
            "`target_step`. The instruction to write a single step is the trainer's.",
            "The step that gives the answer is a target too: N rows for N steps."
            if settings.answer_step
            else "The step that gives the answer is no target: N - 1 rows for N steps.",
            EXPERT_SAYS,
        ),
    )

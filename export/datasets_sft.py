"""The dataset `sft`: expert solutions to imitate, written the way the policy writes."""

from collections.abc import Iterator

from treeward.export.dataset_spec import (
    ID,
    MESSAGES,
    PROBLEM_ID,
    TEXT,
    Column,
    Dataset,
    ExportSettings,
    Kind,
    Row,
    Tally,
    asked_of,
    row_id,
    template_of,
)
from treeward.export.experts import EXPERT_READS, EXPERT_SAYS, solutions
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Item

_COLUMNS = (
    ID,
    PROBLEM_ID,
    Column("messages", MESSAGES, "The chat: the problem, then the solution as the last message."),
    Column("expert_source", TEXT, "`reference` or `tree`."),
)
_TEXT_COLUMNS = (
    Column("prompt", TEXT, "What the policy reads, worked examples included."),
    Column("completion", TEXT, "The solution, delimiters included, without an end token."),
)


def sft(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each expert solution."""
    template = template_of(run, settings)

    def rows(item: Item) -> Iterator[Row]:
        for solution in solutions(item, template, settings.expert, tally):
            text = "".join(solution.steps)
            row: Row = {
                "id": row_id(Kind.SFT, item.problem.id, solution.source, text),
                "problem_id": item.problem.id,
                "messages": [*asked_of(item, template), {"role": "assistant", "content": text}],
                "expert_source": solution.source,
            }
            if not template.chat:
                row |= {"prompt": template.plain_text(item.problem), "completion": text}
            yield row

    return Dataset(
        columns=_COLUMNS if template.chat else (*_COLUMNS, *_TEXT_COLUMNS),
        node_columns=EXPERT_READS,
        rows=rows,
        says=(
            EXPERT_SAYS,
            "The template is for chat models, whose own chat template makes the text: there are "
            "messages only."
            if template.chat
            else "`prompt` and `completion` are exact: put together they are what the policy reads "
            "and writes. `messages` holds the bare problem and the same solution.",
        ),
    )

"""Reads a problem and some steps the way a critic's model does: token ids, and where steps end.

Training and scoring both read through here, so a critic is asked what it was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from treeward.search.errors import BadInput
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.steps import clean_step
from treeward.search.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Reading:
    """Holds a prefix as tokens."""

    ids: tuple[int, ...]
    """The prompt's token ids and those of every step."""

    ends: tuple[int, ...]
    """Where the last token of the prompt stands in `ids`, and that of each step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixReader:
    """Turns prefixes into tokens for one model."""

    template: Template
    """How problems are put."""

    tokens: Tokens

    vocabulary: int
    """Ids that the model knows: those below it."""

    context: int
    """Tokens that the model can read."""

    def read(self, problem: Problem, steps: Sequence[str]) -> Reading:
        """Returns a prefix as tokens; every step ends with the delimiter, given or not.

        Raises:
            BadInput: The model cannot read the text, or not so much of it.
        """
        rule = self.template.rule
        ids = list(self.template.render(problem, self.tokens))
        ends = [len(ids) - 1]
        for step in steps:
            ids += self.tokens.encode(clean_step(step, rule.delimiter) + rule.delimiter)
            ends.append(len(ids) - 1)
        self._check(problem, ids, ends)
        return Reading(tuple(ids), tuple(ends))

    def _check(self, problem: Problem, ids: list[int], ends: list[int]) -> None:
        where = f"problem {problem.id}: its prompt and {len(ends) - 1} steps"
        if len(ids) > self.context:
            raise BadInput(
                f"{where} need {len(ids)} tokens and the critics' model reads {self.context}; "
                "score shorter prefixes, or train critics on a model with a longer context"
            )
        if (before := self.tokens.before_unread(ids)) is not None:
            raise BadInput(
                f"{where} hold what the critics' tokenizer cannot read, after {before!r}; train "
                "critics on another model"
            )
        if max(ids) >= self.vocabulary:
            raise BadInput(
                f"{where} hold token {max(ids)} and config.json of the critics' model has "
                f"vocab_size {self.vocabulary}; the tokenizer of another model?"
            )

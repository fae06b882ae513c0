"""Reads what a policy writes: a template and the policy's tokens, put together once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from treeward.search.policy import Draw
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.replies import Completion
from treeward.search.steps import Finish, cut
from treeward.search.tokens import Tokens
from treeward.search.verdicts import Judgement, Reason, Verdict, Verifier


@dataclass(frozen=True, slots=True)
class Reader:
    """Renders prompts, cuts solutions into steps, and reads their answers."""

    template: Template
    tokens: Tokens

    def prompt_ids(self, problem: Problem) -> tuple[int, ...]:
        """Returns the ids of a problem's prompt; raises BadInput where it cannot be read."""
        return self.template.render(problem, self.tokens)

    def cut(self, ids: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Splits the ids of a solution into steps."""
        return cut(ids, self.tokens, self.template.rule)

    def text(self, ids: tuple[int, ...]) -> str:
        """Returns the text of some ids."""
        return self.tokens.text_of(ids)

    def judge(
        self,
        verifier: Verifier,
        problem: Problem,
        prefix_ids: tuple[int, ...],
        draws: Sequence[Draw],
        seeds: Iterable[int],
    ) -> tuple[Completion, ...]:
        """Returns draws as completions, those that end a solution with what is known about it."""
        completions = [
            Completion(
                draw.token_ids,
                draw.logprob,
                draw.finish,
                seed,
                None
                if draw.finish is Finish.STEP
                else self._judgement(verifier, problem, prefix_ids + draw.token_ids, draw),
                draw.step_logprobs,
            )
            for draw, seed in zip(draws, seeds, strict=True)
        ]
        return tuple(completions)

    def _judgement(
        self, verifier: Verifier, problem: Problem, ids: tuple[int, ...], draw: Draw
    ) -> Judgement:
        cut_off = draw.finish is Finish.LENGTH
        answer = None if cut_off else self.template.answer_in(self.text(ids))
        judgement = verifier.judge(problem, answer)
        if answer is None and judgement.verdict is not Verdict.UNKNOWN:
            return Judgement(Reason.LENGTH if cut_off else Reason.NO_ANSWER)
        return judgement

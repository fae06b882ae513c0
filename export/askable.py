"""Which problems a policy can be asked, and what judges answers to them."""

from collections.abc import Iterable

from treeward.critics.verifier import AnswerVerifier
from treeward.search import gym
from treeward.search.errors import BadInput, UnreadablePrompt
from treeward.search.models import ModelFolder
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.readers import ProblemSet
from treeward.search.tokens import load_tokens


def readable(
    found: ProblemSet, template: Template, model: ModelFolder, *, skip_bad: bool
) -> tuple[ProblemSet, int]:
    """Returns the problems that a policy can be asked, and the tokens of the shortest prompt.

    Args:
        found: The problems, at least one.
        template: Writes their prompts.
        model: Has the policy's tokens.
        skip_bad: Whether the others are left out; else the first is an error.

    Raises:
        BadInput: The policy cannot be asked some, or with `skip_bad` any.
    """
    reader = Reader(template, load_tokens(model.path))
    kept, skipped, lengths = [], [*found.skipped], []
    for problem in found.problems:
        try:
            lengths.append(len(reader.prompt_ids(problem)))
        except UnreadablePrompt as e:
            if not skip_bad:
                raise BadInput(f"{e} (--skip-bad leaves such problems out)") from e
            skipped.append(str(e))
        else:
            kept.append(problem)
    if not kept:
        raise BadInput(f"this policy can be asked none of the problems; {skipped[-1]}")
    return ProblemSet(problems=tuple(kept), skipped=tuple(skipped)), min(lengths)


def can_be_judged(problem: Problem) -> bool:
    """Returns whether a verdict on an answer to a problem is possible."""
    return problem.answer is not None or problem.verifier.startswith(gym.PREFIX)


def make_verifier(problems: Iterable[Problem]) -> AnswerVerifier:
    """Returns a verifier for every kind of problem given."""
    names = {problem.verifier for problem in problems}
    scorers = {name: gym.gym_scorer for name in names if name.startswith(gym.PREFIX)}
    return AnswerVerifier(names, scorers)

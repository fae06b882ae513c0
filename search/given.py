"""Evidence on solutions that people already have; no search of its own.

The solutions of a problem become paths of one tree, where they share steps. Rollouts from the bare
problem tell how hard it is, and the first wrong step of every solution is sought (`localise.py`).
Given steps are no samples of the policy, so they stand for none; how likely they are the policy is
asked in one pass. Rollouts from them are evidence like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from treeward.search.localise import LocaliserSettings, find_first_error
from treeward.search.replies import Reply
from treeward.search.requests import Growth, ask_logprobs
from treeward.search.settings import SearchSettings
from treeward.search.steps import Cut, Finish
from treeward.search.survey import Survey
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement

Steps = tuple[tuple[int, ...], ...]
"""Token ids of a solution's steps, delimiters included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Holds one solution."""

    steps: Steps
    """At least one."""

    judgement: Judgement | None
    """Of its answer; None where it gives none, and then it is a prefix that can go on."""


def label_given(
    tree: Tree,
    settings: SearchSettings,
    own: LocaliserSettings,
    cut: Cut,
    solutions: Sequence[Given],
) -> Growth:
    """Grows a tree of given solutions and asks for rollouts along them.

    Args:
        tree: Holds its root only; modified in place.
        settings: `rollouts` from the bare problem, and at a middle (binary), `wave` at a time.
        own: How wrong steps are found.
        cut: Splits rollouts into steps.
        solutions: Those of the tree's problem, each once.
    """
    survey = Survey(tree, cut)
    open_ended = _with_open_beginnings(solutions)
    heard = yield [ask_logprobs(solution.steps) for solution in open_ended]
    paths = [add_given(tree, *each) for each in zip(open_ended, heard, strict=True)]
    survey.note_nodes()
    yield from survey.roll([ROOT], settings.rollouts)
    for path in paths:
        yield from find_first_error(survey, path, settings, own)


def _with_open_beginnings(solutions: Sequence[Given]) -> list[Given]:
    """Returns solutions of which none ends where another goes on; there it is a prefix."""
    longer = {given.steps[:n] for given in solutions for n in range(1, len(given.steps))}
    return [
        replace(given, judgement=None) if given.steps in longer else given for given in solutions
    ]


def add_given(tree: Tree, solution: Given, heard: Reply) -> list[int]:
    """Adds a solution below the root; returns its nodes, the root first.

    Args:
        tree: Modified in place.
        solution: What is added.
        heard: How likely its steps are, to the policy; a failed call leaves that open.
    """
    path = [ROOT]
    logprobs: Sequence[float | None] = [None] * len(solution.steps)
    if heard.completions:
        logprobs = heard.completions[0].logprobs_of(solution.steps)
    else:
        tree.nodes.failure[ROOT] = heard.failure
    steps = zip(solution.steps, logprobs, strict=True)
    for place, (step_ids, logprob) in enumerate(steps, start=1):
        ends = place == len(solution.steps) and solution.judgement is not None
        path.append(
            tree.add_step(
                path[-1],
                step_ids,
                creation=Creation.GIVEN,
                finish=Finish.END if ends else Finish.STEP,
                judgement=solution.judgement if ends else None,
                samples=0,
                logprob=logprob,
            )
        )
    return path

"""Evidence on solutions that people already have; no search of its own.

The solutions of a problem become paths of one tree, where they share steps. A rollout from the bare
problem tells whether the policy can solve it, and the first wrong step of every solution is sought
(`localise.py`).
Given steps are no samples of the policy, so they stand for none; how likely they are the policy is
asked in one pass. Rollouts from them are evidence like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from treeward.search.errors import BadInput
from treeward.search.localise import Localiser, LocaliserSettings, find_first_error
from treeward.search.replies import Reply
from treeward.search.requests import Growth, ask_logprobs
from treeward.search.settings import SearchSettings, refuse_unread
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenSettings(LocaliserSettings):
    """How given solutions are labelled; section `given.`."""

    rollouts: int = 1
    """Rollouts from the bare problem, which tell how hard it is; at least 0."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        LocaliserSettings.__post_init__(self)
        if not self.rollouts >= 0:
            raise BadInput(f"given.rollouts must be at least 0, got {self.rollouts!r}")

    def check_beside(self, settings: SearchSettings) -> None:
        """Checks that these fit the settings that every search knows.

        Raises:
            BadInput: Nothing reads `search.rollouts` and they are given, or something does and
                they are 0.
        """
        binary = "given.localiser=binary (those from the bare problem are given.rollouts)"
        if self.localiser is Localiser.BAYES:
            refuse_unread("search", settings, binary, ("rollouts",))
        elif settings.rollouts == 0:
            raise BadInput("search.rollouts must be at least 1 for given.localiser=binary, got 0")


def label_given(
    tree: Tree,
    settings: SearchSettings,
    own: GivenSettings,
    cut: Cut,
    solutions: Sequence[Given],
) -> Growth:
    """Grows a tree of given solutions and asks for rollouts along them.

    Args:
        tree: Holds its root only; modified in place.
        settings: `rollouts` at a middle, `wave` of them at a time (binary).
        own: `rollouts` from the bare problem, and how wrong steps are found.
        cut: Splits rollouts into steps.
        solutions: Those of the tree's problem, each once.
    """
    survey = Survey(tree, cut)
    longer = {given.steps[:n] for given in solutions for n in range(1, len(given.steps))}
    whole = [given for given in solutions if given.steps not in longer]
    heard = yield [ask_logprobs(given.steps) for given in whole]
    for given, reply in zip(whole, heard, strict=True):
        add_given(tree, given, reply)
    # Where one ends and another goes on it is a prefix, whose nodes are there.
    paths = [_path(tree, given.steps) for given in solutions]
    survey.note()
    yield from survey.roll([ROOT], own.rollouts)
    for path in paths:
        yield from find_first_error(survey, path, settings, own)


def add_given(tree: Tree, solution: Given, heard: Reply) -> None:
    """Adds a solution below the root.

    Args:
        tree: Modified in place.
        solution: What is added.
        heard: How likely its steps are, to the policy; a failed call leaves that open.
    """
    node, nodes = ROOT, tree.nodes
    logprobs: Sequence[float | None] = [None] * len(solution.steps)
    if heard.completions:
        logprobs = heard.completions[0].logprobs_of(solution.steps)
    steps = zip(solution.steps, logprobs, strict=True)
    for place, (step_ids, logprob) in enumerate(steps, start=1):
        ends = place == len(solution.steps) and solution.judgement is not None
        node = tree.add_step(
            node,
            step_ids,
            creation=Creation.GIVEN,
            finish=Finish.END if ends else Finish.STEP,
            judgement=solution.judgement if ends else None,
            samples=0,
            logprob=logprob,
        )
    nodes.failure[node] = heard.failure


def _path(tree: Tree, steps: Steps) -> list[int]:
    """Returns the nodes of steps that are there, the root first."""
    path = [ROOT]
    for step_ids in steps:
        child = tree.child_with(path[-1], step_ids)
        assert child is not None, "it was added"
        path.append(child)
    return path

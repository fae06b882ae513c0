"""Expert solutions: those that came with the problems, and the best right ones of the trees."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from treeward.critics.verifier import AnswerVerifier
from treeward.export.dataset_spec import Expert, Tally
from treeward.export.tree_stream import Grown, Item
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.verdicts import Reason

EXPERT_READS = ("node_id", "path", "step_text")
"""The columns of nodes from which a tree's solution is read."""

EXPERT_SAYS = (
    "A reference solution is written the way the policy writes (the run's prompt template), with "
    "the answer as its last step unless it says the answer already; one that says another is left "
    "out. A tree's solution is the path "
    "to `best_node_id`, the right end that the policy finds most likely, as it was sampled; right "
    "rollouts are no paths, so a problem that they alone solve has none. Right means that the "
    "final answer is; steps on the way may still be wrong."
)


_PLAIN = AnswerVerifier(("choice", "number"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Holds one expert solution."""

    source: Expert
    """`reference` or `tree`."""

    steps: tuple[str, ...]
    """As the policy writes them, delimiters included."""


def solutions(
    item: Item, template: Template, wanted: Expert | None, tally: Tally
) -> Iterator[Solution]:
    """Yields the wanted solutions of a problem; counts those that are missing."""
    reference = None if wanted == Expert.TREE else reference_steps(item.problem, template)
    if reference is not None and contradicts(item.problem, template):
        tally.left_out["reference solutions that say another answer"] += 1
        reference = None
    if reference is not None:
        yield _counted(Solution(source=Expert.REFERENCE, steps=reference), tally)
    elif wanted == Expert.REFERENCE:
        tally.left_out["problems without a reference solution"] += 1
    if wanted == Expert.REFERENCE or (wanted is None and reference is not None):
        return
    found = None if item.tree is None else best_steps(item.tree)
    if found is not None:
        yield _counted(Solution(source=Expert.TREE, steps=found), tally)
    elif reference is None:
        what = "right path in the tree"
        if wanted is None:
            what = f"reference solution or {what}"
        tally.left_out[f"problems without a {what}"] += 1


def _counted(solution: Solution, tally: Tally) -> Solution:
    tally.kept[f"solutions from the {solution.source}"] += 1
    return solution


def reference_steps(problem: Problem, template: Template) -> tuple[str, ...] | None:
    """Returns the solution that came with a problem, as the policy would write it."""
    if not problem.solution:
        return None
    steps = template.solution_steps(problem.solution, problem.answer or "")
    if problem.answer is None or template.answer_in(problem.solution[-1]) is not None:
        steps.pop()
    if not template.rule.answer_ends:
        # Only an end token ends such a solution: after a delimiter another step would follow.
        steps[-1] = steps[-1].removesuffix(template.rule.delimiter)
    return tuple(steps)


def contradicts(problem: Problem, template: Template) -> bool:
    """Returns whether a reference solution ends with an answer that is not the problem's.

    Answers are compared as choices where they are such, otherwise as text and as plain numbers:
    what only a checker of expressions could tell apart counts as another.
    """
    said = template.answer_in(problem.solution[-1]) if problem.solution else None
    if said is None or problem.answer is None:
        return False
    plain = replace(problem, verifier="choice" if problem.verifier == "choice" else "number")
    return _PLAIN.judge(plain, said).reason is not Reason.MATCH


def best_steps(tree: Grown) -> tuple[str, ...] | None:
    """Returns the tree's best right solution, or None where it has none."""
    by_id = {node["node_id"]: node for node in tree.nodes}
    best = by_id.get(tree.row.best_node_id)
    return tuple(by_id[node]["step_text"] for node in best["path"][1:]) if best else None

"""What a `label` command means: given solutions, read, spelt in the policy's tokens, checked."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.solutions import (
    Solution,
    SolutionSet,
    encode,
    is_recut,
    joined_steps,
    read_solutions,
    stops_short,
    with_references,
)
from treeward.search.backends import context_of
from treeward.search.errors import BadInput
from treeward.search.given import Steps
from treeward.search.reader import Reader
from treeward.search.readers import check_limit, nothing_good
from treeward.search.settings import Algorithm
from treeward.search.tokens import load_tokens


def plan_label(options: Options) -> Plan:
    """Returns the plan for labelling given solutions; `options.problems` names their file.

    Raises:
        BadInput: Something breaks its rule.
        MissingExtra: Something asked for needs an extra.
    """
    check_limit(options.limit)
    path = Path(options.problems)
    found = read_solutions(path, skip_bad=options.skip_bad)
    plan = make_plan(replace(options, algorithm=Algorithm.GIVEN), found=found.found)
    if not found.complete:
        plan, found = _with_references(plan, path, found, skip_bad=options.skip_bad)
    reader = plan.reader(load_tokens(plan.model.path))
    problems = {problem.id: problem for problem in plan.problems}
    context = context_of(plan.model, plan.backend)
    solutions: dict[str, tuple[Steps, ...]] = {}
    skipped, read = list(plan.skipped), []
    for problem_id, given in found.solutions.items():
        if len(solutions) == options.limit:
            break
        if problem_id not in problems:  # the policy cannot be asked it
            continue
        places = None if context is None else context - len(reader.prompt_ids(problems[problem_id]))
        spell = partial(encode, reader=reader, sampling=plan.sampling, places=places)
        spelt = _spelt(given, spell, skipped, skip_bad=options.skip_bad)
        read += spelt
        if spelt:
            solutions[problem_id] = tuple(sorted({steps for _, steps in spelt}))
    if not solutions:
        raise nothing_good(path, skipped, "solution")
    return replace(
        plan,
        problems=tuple(problem for problem in plan.problems if problem.id in solutions),
        skipped=tuple(skipped),
        solutions=solutions,
        of_solutions=tuple(_remarks(read, reader)),
    )


def _remarks(read: Sequence[tuple[Solution, Steps]], reader: Reader) -> Iterator[str]:
    """Yields what to know of how solutions were read."""
    delimiter = reader.template.rule.delimiter
    if joined := sum(joined_steps(each, delimiter) for each, _ in read):
        keep = ", or set prompt.steps=paragraph" if delimiter == "\n" else ""
        yield (
            f"{joined} given steps have {delimiter!r} inside, which ends a step here, so a space "
            f"stands there now; give each part as a step of its own{keep}"
        )
    if short := sum(stops_short(each, reader) for each, _ in read):
        yield (
            f"{short} given solutions stop in mid-step (no answer, and no {delimiter!r} at the "
            "end): the step is left out, for it is neither right nor wrong yet; where it is "
            "finished, end it"
        )
    if recut := sum(is_recut(each, steps) for each, steps in read):
        yield (
            f"{recut} given lists of steps are cut elsewhere by the rule for steps, so that places "
            "of steps are not the lists'; leave prompt.steps to the template"
        )


def _with_references(
    plan: Plan, path: Path, found: SolutionSet, *, skip_bad: bool
) -> tuple[Plan, SolutionSet]:
    """Returns both with the answers that solutions tell, found as the plan's template marks them.

    Problems have other ids with an answer than without; which can be asked does not depend on it.
    """
    asked = {problem.asked for problem in plan.problems}
    unreadable = plan.skipped[len(found.found.skipped) :]
    found = with_references(path, found, plan.template.answer_in, skip_bad=skip_bad)
    problems = tuple(each for each in found.found.problems if each.asked in asked)
    skipped = found.found.skipped + unreadable
    if not problems:
        raise nothing_good(path, skipped, "solution")
    return replace(plan, problems=problems, skipped=skipped), found


def _spelt(
    given: Sequence[Solution],
    spell: Callable[[Solution], Steps],
    skipped: list[str],
    *,
    skip_bad: bool,
) -> list[tuple[Solution, Steps]]:
    """Returns the solutions that can be spelt in the policy's tokens, with those of their steps.

    Args:
        given: The solutions.
        spell: Returns the steps of one, or raises BadInput.
        skipped: Gets the reasons for the others.
        skip_bad: Whether the others are left out; else the first is an error.

    Raises:
        BadInput: One cannot be spelt, and `skip_bad` is off.
    """
    spelt = []
    for each in given:
        try:
            spelt.append((each, spell(each)))
        except BadInput as e:
            if not skip_bad:
                raise BadInput(f"{e} (--skip-bad leaves such rows out)") from e
            skipped.append(str(e))
    return spelt

"""What a `label` command means: given solutions, read, spelt in the policy's tokens, checked."""

from dataclasses import replace
from pathlib import Path

from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.solutions import encode, read_solutions
from treeward.search.backends import context_of
from treeward.search.errors import BadInput
from treeward.search.given import Steps
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
    found = read_solutions(Path(options.problems), skip_bad=options.skip_bad)
    plan = make_plan(replace(options, algorithm=Algorithm.GIVEN), found=found.found)
    reader = plan.reader(load_tokens(plan.model.path))
    problems = {problem.id: problem for problem in plan.problems}
    context = context_of(plan.model, plan.backend)
    solutions: dict[str, tuple[Steps, ...]] = {}
    skipped = list(plan.skipped)
    for problem_id, given in found.solutions.items():
        if len(solutions) == options.limit:
            break
        if problem_id not in problems:  # the policy cannot be asked it
            continue
        places = None if context is None else context - len(reader.prompt_ids(problems[problem_id]))
        steps = set()
        for each in given:
            try:
                steps.add(encode(each, reader, plan.sampling, places=places))
            except BadInput as e:
                if not options.skip_bad:
                    raise BadInput(f"{e} (--skip-bad leaves such rows out)") from e
                skipped.append(str(e))
        if steps:
            solutions[problem_id] = tuple(sorted(steps))
    if not solutions:
        raise nothing_good(Path(options.problems), skipped, "solution")
    kept = tuple(problem for problem in plan.problems if problem.id in solutions)
    return replace(plan, problems=kept, skipped=tuple(skipped), solutions=solutions)

"""What a `label` command means: given solutions, read, spelt in the policy's tokens, checked."""

from dataclasses import replace
from pathlib import Path

from treeward.export.options import Options
from treeward.export.plan import Plan, make_plan
from treeward.export.solutions import encode, read_solutions
from treeward.search.settings import Algorithm
from treeward.search.tokens import load_tokens


def plan_label(options: Options) -> Plan:
    """Returns the plan for labelling given solutions; `options.problems` names their file.

    Raises:
        BadInput: Something breaks its rule.
        MissingExtra: Something asked for needs an extra.
    """
    found = read_solutions(Path(options.problems), limit=options.limit, skip_bad=options.skip_bad)
    plan = make_plan(replace(options, algorithm=Algorithm.GIVEN), found=found.found)
    reader = plan.reader(load_tokens(plan.model.path))
    solutions = {
        problem_id: tuple(sorted({encode(each, reader, plan.sampling) for each in given}))
        for problem_id, given in found.solutions.items()
    }
    return replace(plan, solutions=solutions)

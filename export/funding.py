"""What is left of a run's budget, and who says where it is needed."""

from treeward.critics.standing import standing_of
from treeward.export.parts import committed_trees
from treeward.export.plan import Plan
from treeward.export.queries import reading
from treeward.export.run_folder import RunFolder
from treeward.search.errors import DamagedData
from treeward.search.spending import Funds
from treeward.search.tokens import load_tokens

_DRAWN = "SELECT coalesce(sum(policy_tokens + fast_tokens), 0) FROM trees"


def open_funds(plan: Plan, run: RunFolder) -> Funds | None:
    """Returns what the trees that are still to grow may spend; None where there is no budget.

    Raises:
        DamagedData: The trees that are there are not those of whole blocks from the first on, so
            that nobody can say what was left for the others.
    """
    settings = plan.budget
    if settings.tokens is None:
        return None
    committed = committed_trees(run.path)
    there = [run.identity.tree_id(problem.id) in committed for problem in plan.problems]
    count = sum(there)
    if not all(there[:count]) or (count % settings.block and count < len(there)):
        raise DamagedData(
            f"{run.path}: trees of a run with a budget come in blocks of {settings.block} "
            f"(budget.block), and of these some are missing; restore the missing parts"
        )
    reader = plan.reader(load_tokens(plan.model.path))
    with reading(run) as connection:
        drawn = int(connection.execute(_DRAWN).fetchall()[0][0])
    return Funds(
        tokens=settings.tokens - drawn,
        block=settings.block,
        appraise=lambda tree: standing_of(tree, cut=reader.cut, settings=settings),
    )

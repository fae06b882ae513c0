"""What more tokens would do for a tree, by its counts: the side of a budget that judges."""

import numpy as np

from treeward.critics.evidence import strict_evidence
from treeward.critics.value import interval
from treeward.search.spending import BudgetSettings, Need, Standing
from treeward.search.steps import Cut
from treeward.search.tree import Tree


def standing_of(tree: Tree, *, cut: Cut, settings: BudgetSettings) -> Need:
    """Returns whether a tree's labels are uncertain, settled or hopeless, and how many are not yet.

    Its labels are the values of its nodes; ends of solutions are known. A node without rollouts has
    an interval of width 1. A tree with nothing but its root has no label yet.

    Args:
        tree: Not modified.
        cut: Splits the ids of a rollout into steps, as the search did.
        settings: Say which intervals are narrow, and when to give up.
    """
    evidence = strict_evidence(tree, cut)
    inner = np.array([not tree.is_terminal(node) for node in range(len(tree))])
    k, n = evidence.n_right[inner].astype(float), evidence.n_rollouts[inner].astype(float)
    low, high = interval(k, n)
    wide = int(np.count_nonzero(high - low > settings.settled))
    solved = k.any() or any(tree.terminal_value(node) == 1.0 for node in range(len(tree)))
    if len(tree) > 1 and not solved and n.min() >= settings.hopeless:
        return Need(Standing.HOPELESS, max(wide, 1))
    if len(tree) > 1 and not wide:
        return Need(Standing.SETTLED, 1)
    return Need(Standing.UNCERTAIN, max(wide, 1))

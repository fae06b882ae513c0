"""What the next steps that were seen say of the step before them, and that of each of them.

The model is that of `first_error.py`. Arrays with a C have one entry a next step, those of one step
side by side, and those with a P one for each step before them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from treeward.search.error_grid import StepLogs, grid
from treeward.search.intervals import Reals


class NextSteps(NamedTuple):
    """Holds what all that was seen makes likely, at every grid point."""

    alive_PG: Reals
    """Log likelihood of all that was seen at and below the next steps, if the step is alive."""
    dead_PG: Reals
    """The same if it is dead."""
    none_PG: Reals
    """That none of those seen is right, if the step is alive; for where no more than one can be."""
    stays_CG: Reals
    """That a next step is right, if the step is right."""
    spared_CG: Reals
    """That a next step is alive, if the step is alive and the next one wrong."""
    mends_CG: Reals
    """That a next step is alive, if the step is dead."""


def next_steps(
    logs: StepLogs, alive_CG: Reals, dead_CG: Reals, first_P: NDArray[np.int64]
) -> NextSteps:
    """Returns what next steps say, from what was seen at and below them.

    Args:
        logs: What the next steps do.
        alive_CG: Log likelihood of what was seen at and below each of them, if it is alive.
        dead_CG: The same if it is dead.
        first_P: Where the next steps of each step begin.
    """
    sole_G, e_G = grid().sole_G, grid().harmless_G
    of_C = np.repeat(np.arange(len(first_P)), np.diff(first_P, append=len(alive_CG)))

    def total(each_CG: Reals) -> Reals:
        return np.asarray(np.add.reduceat(each_CG, first_P))

    right_CG = np.exp(logs.right_G)
    # Together they are right no more often than any step is.
    above_PG = np.maximum(total(right_CG) / (1 - grid().hazard_G), 1.0)
    right_CG = np.where(sole_G, right_CG / above_PG[of_C], right_CG)
    wrong_CG = np.logaddexp(np.log(e_G) + alive_CG, np.log1p(-e_G) + dead_CG)
    gain_CG = np.exp(alive_CG - wrong_CG)
    odds_CG = right_CG * gain_CG
    # Each by itself is right or not; or one of them is, or none.
    none_PG = 1 - total(right_CG)
    each_CG = np.where(sole_G, (none_PG + total(odds_CG))[of_C], 1 - right_CG + odds_CG)
    log_CG = np.log(each_CG)
    if_dead_CG = np.logaddexp(logs.mends_G + alive_CG, logs.stays_dead_G + dead_CG)
    return NextSteps(
        alive_PG=total(wrong_CG) + np.where(sole_G, log_CG[first_P], total(log_CG)),
        dead_PG=total(if_dead_CG),
        none_PG=none_PG / each_CG[first_P],
        stays_CG=odds_CG / each_CG,
        spared_CG=e_G * gain_CG,
        mends_CG=np.exp(logs.mends_G + alive_CG - if_dead_CG),
    )

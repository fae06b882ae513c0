"""The counted progress critic: how much a step raised the chance of a prover.

The prover mu is best-of-K of the policy itself: Q_mu = 1 - (1 - Q)^K. Progress of a step is
E[Q_mu(child)] - E[Q_mu(parent)] under the posteriors of Q (Setlur et al. 2024, PAV, section 3 and
remark 3.1), with

    E[(1 - Q)^K] = prod_{i < K} (b + i) / (a + b + i)      for Q ~ Beta(a, b).

The posteriors of parent and child are taken as independent; rollouts that count for both make the
interval a little too wide.
"""

import numpy as np
from scipy.special import betaincinv

from treeward.critics.value import LEVEL
from treeward.search.intervals import PRIOR, Reals

MIN_K, MAX_K = 2, 16

_GRID = (np.arange(64) + 0.5) / 64
"""Midpoints of 64 equally likely parts of a posterior; a joint draw is every pair of them."""


def prover_k(root_value: float | None) -> int | None:
    """Returns K = clip(round(1 / V_root), 2, 16), or None where the root's value is unknown.

    A fixed K saturates on easy problems: best of 16 leaves no progress to be made.
    """
    if root_value is None:
        return None
    return int(np.clip(round(1 / max(root_value, 1e-9)), MIN_K, MAX_K))


def prover_value(k: Reals, n: Reals, prover: int | Reals) -> Reals:
    """Returns E[1 - (1 - Q)^K] under the posterior of k right of n; K may differ by row."""
    a, b = k + PRIOR, n - k + PRIOR
    fails: Reals = np.ones_like(a)
    for i in range(_most(prover)):
        fails *= np.where(i < np.asarray(prover), (b + i) / (a + b + i), 1.0)
    return 1 - fails


def prover_draws(k: Reals, n: Reals, prover: int | Reals) -> Reals:
    """Returns 64 equally likely values [..., 64] of 1 - (1 - Q)^K under the posterior."""
    draws: Reals = betaincinv((k + PRIOR)[..., None], (n - k + PRIOR)[..., None], _GRID)
    fails = np.ones_like(draws)
    # Multiplied step by step: a power's last bits may depend on the rows beside it.
    for i in range(_most(prover)):
        fails *= np.where((i < np.asarray(prover))[..., None], 1 - draws, 1.0)
    return 1 - fails


def _most(prover: int | Reals) -> int:
    return int(np.max(prover, initial=0))


def progress_interval(child_draws: Reals, parent_draws: Reals) -> tuple[Reals, Reals]:
    """Returns the ends of the interval of child - parent over all pairs of draws [..., 64]."""
    differences = child_draws[..., :, None] - parent_draws[..., None, :]
    # Without rows a shape of -1 could be anything.
    *rows, pairs, each = differences.shape
    flat = differences.reshape(*rows, pairs * each)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(flat, [tail, 1 - tail], axis=-1)
    return low, high

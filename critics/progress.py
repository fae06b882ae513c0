"""The counted progress critic: how much a step raised the chance of a prover.

The prover mu is best-of-K of the policy itself: Q_mu = 1 - (1 - Q)^K. Progress of a step is
E[Q_mu(child)] - E[Q_mu(parent)] under the posteriors of Q (Setlur et al. 2024, PAV, section 3 and
remark 3.1), with

    E[(1 - Q)^K] = prod_{i < K} (b + i) / (a + b + i)      for Q ~ Beta(a, b).

The posteriors of parent and child are taken as independent; rollouts that count for both make the
interval a little too wide.

A posterior is drawn to 1/2, the more the fewer rollouts there are: of a step that nobody has solved
and its parent, the one with fewer looks better. Who learns progress takes `unbiased_progress`.
"""

from typing import NamedTuple

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


class Count(NamedTuple):
    """What is known of a node by rollouts, or by the end of a solution."""

    right: int
    rollouts: int
    exact: float | None = None
    """1 or 0 where a solution ends, by its verdict."""

    @property
    def is_known(self) -> bool:
        """Returns whether anything is."""
        return self.exact is not None or self.rollouts > 0

    def best_of(self, k: int) -> float:
        """Returns the unbiased estimate of Q_mu for K = k, at most `rollouts`."""
        return pass_at_k(self.rollouts, self.right, k) if self.exact is None else self.exact


def unbiased_progress(child: Count, parent: Count, prover: int) -> float:
    """Returns an estimate of a step's progress that is unbiased for its K; both ends are known.

    K is the largest up to the prover's that is at most half of the rollouts of either end: of K
    rollouts a single success would say that best of K never fails. A prover's K that follows from
    the counts of the parent itself, as at a root, makes a bias of some hundredths.
    """
    counted = [node.rollouts for node in (child, parent) if node.exact is None]
    k = min(prover, max(min(counted, default=prover) // 2, 1))
    return child.best_of(k) - parent.best_of(k)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Returns the unbiased estimate of the chance that one of k samples is right.

    1 - C(n - c, k) / C(n, k), as a product (Chen et al. 2021, section 2.1).

    Args:
        n: Samples.
        c: Right ones among them.
        k: How many may be tried; at most n.
    """
    if n - c < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(n - c + 1, n + 1)))

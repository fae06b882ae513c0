"""The model of `search/first_error.py` asked about many whole trees at once.

All sums are taken in the order in which that module takes them, so the numbers are the same to the
last bit. Arrays have one row a node or a tree and one column a point of the grid, G in all.
"""

from collections.abc import Iterable

import numpy as np
from scipy.special import logsumexp

from treeward.export.tree_batch import Flags, Ints, Reals, TreeBatch
from treeward.search.error_grid import grid, learn_prior, likelihoods, prior, step_chances
from treeward.search.verdicts import Verdict

READS = ("logprob", "n_right_last", "n_wrong_first", "verdict")

PIECE_NODES = 2048
"""Nodes whose arrays are held at once; some 6 MB each."""
MOST_TREES = 16_384
"""Trees that a prior is learned from, at most; they take some 3 kB each."""


def learned_prior(batches: Iterable[TreeBatch]) -> tuple[Reals, int]:
    """Returns the log weights of the grid that the trees of a run make likely.

    Of a run of more than `MOST_TREES` every second tree is taken, or fourth, and so on.

    Returns:
        The weights, and how many trees they are learned from.
    """
    found: list[Reals] = []
    stride, seen = 1, 0
    for piece in (piece for batch in batches for piece in batch.pieces(PIECE_NODES)):
        evidence_TG = _upward(piece)[0][piece.start_T]
        found += [each_G.copy() for each_G in evidence_TG[-seen % stride :: stride]]
        seen += len(evidence_TG)
        while len(found) > MOST_TREES:
            found, stride = found[::2], stride * 2
    return (learn_prior(np.array(found)) if found else prior()), len(found)


def right_chances(batch: TreeBatch, prior_G: Reals) -> Reals:
    """Returns the probability that each node is right; 1 for the roots."""
    pieces = [_chances(piece, prior_G) for piece in batch.pieces(PIECE_NODES)]
    return np.concatenate([np.empty(0), *pieces])


def seen(batch: TreeBatch) -> Flags:
    """Returns which nodes have a known outcome at or below them."""
    own_N = batch.counts("n_right_last") + batch.counts("n_wrong_first") > 0
    for verdict in (Verdict.RIGHT, Verdict.WRONG):
        own_N |= batch.equals("verdict", verdict)
    return batch.some_below(own_N)


def _chances(batch: TreeBatch, prior_G: Reals) -> Reals:
    """Goes from the roots down: P(right) = P(parent right) P(stays right)."""
    right_NG, mixed_NG = _upward(batch)
    weights_TG = prior_G + right_NG[batch.start_T]
    log_right_NG = _step_chances(batch)[0] + right_NG - mixed_NG
    log_right_NG[batch.start_T] = weights_TG - logsumexp(weights_TG, axis=1, keepdims=True)
    for rows in batch.level_D[1:]:
        log_right_NG[rows] = log_right_NG[batch.parent_N[rows]] + log_right_NG[rows]
    return np.asarray(np.exp(log_right_NG).sum(axis=1))


def _upward(batch: TreeBatch) -> tuple[Reals, Reals]:
    """Goes from the leaves up.

    Returns:
        The log likelihood of all that was seen at and below each node if it is right, and the same
        if its parent is (roots have none: theirs is not filled in).
    """
    right_NG, wrong_NG = _own(batch)
    mixed_NG = np.zeros_like(right_NG)
    stays_NG, errs_NG = _step_chances(batch)
    rank_N = _ranks(batch)
    for rows in reversed(batch.level_D[1:]):
        mixed_NG[rows] = np.logaddexp(
            stays_NG[rows] + right_NG[rows], errs_NG[rows] + wrong_NG[rows]
        )
        ranks = rank_N[rows]
        # Siblings are added one after another, in their order.
        for rank in range(int(ranks.max()) + 1):
            some = rows[ranks == rank]
            right_NG[batch.parent_N[some]] += mixed_NG[some]
            wrong_NG[batch.parent_N[some]] += wrong_NG[some]
    return right_NG, mixed_NG


def _step_chances(batch: TreeBatch) -> tuple[Reals, Reals]:
    """Returns the log probabilities that the step to each node is right and that it is wrong."""
    # Where p is not known it says nothing, as where it is 1.
    return step_chances(np.nan_to_num(batch.numbers("logprob"), nan=0.0)[:, None])


def _own(batch: TreeBatch) -> tuple[Reals, Reals]:
    """Returns the log likelihoods of what was seen at each node itself, if right and if wrong."""
    k_N = batch.counts("n_right_last")
    n_N = k_N + batch.counts("n_wrong_first")
    base = n_N.max(initial=0) + 1
    codes, pair_N = np.unique(k_N * base + n_N, return_inverse=True)
    both = [likelihoods(int(code // base), int(code % base)) for code in codes]
    right_NG, wrong_NG = (np.array(each)[pair_N] for each in zip(*both, strict=True))
    leak_G = grid().leak_G
    ends_right, ends_wrong = (
        batch.equals("verdict", verdict) for verdict in (Verdict.RIGHT, Verdict.WRONG)
    )
    right_NG[ends_right], wrong_NG[ends_right] = 0.0, np.log(leak_G)
    right_NG[ends_wrong], wrong_NG[ends_wrong] = -np.inf, np.log1p(-leak_G)
    return right_NG, wrong_NG


def _ranks(batch: TreeBatch) -> Ints:
    """Returns the place of each node among its siblings, from 0."""
    rank_N = np.zeros(batch.size, dtype=np.int64)
    for rows in batch.level_D[1:]:
        parents = batch.parent_N[rows]
        first = np.concatenate([[True], parents[1:] != parents[:-1]])
        starts = np.flatnonzero(first)
        rank_N[rows] = np.arange(len(rows)) - starts[np.cumsum(first) - 1]
    return rank_N

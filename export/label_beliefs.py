"""The model of `search/first_error.py` asked about many whole trees at once.

Names end in S for one entry a step: the nodes first, in the order of their rows, then the steps
beyond them. Arrays with a G at the end have one column a point of the grid.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import logsumexp

from treeward.export.tree_batch import Flags, Ints, Reals, TreeBatch, levels, plain
from treeward.search.error_grid import learn_prior, prior, step_logs, without
from treeward.search.errors import DamagedData
from treeward.search.next_steps import next_steps
from treeward.search.samples import log_share
from treeward.search.verdicts import Verdict

READS = ("logprob", "n_taken", "beyond", "verdict")

PIECE_STEPS = 4096
"""Steps whose arrays are held at once, some 4 MB each; a tree that has more is held whole."""
MOST_TREES = 16_384
"""Trees that a prior is learned from, at most; they take 1 kB each."""


def learned_prior(batches: Iterable[TreeBatch]) -> tuple[Reals, int]:
    """Returns the log weights of the grid that the trees of a run make likely.

    Of a run of more than `MOST_TREES` every second tree is taken, or fourth, and so on.

    Returns:
        The weights, and how many trees they are learned from.
    """
    found: list[Reals] = []
    stride, seen = 1, 0
    for piece in (piece for batch in batches for piece in _pieces(batch)):
        evidence_TG = _upward(piece, _Steps.of(piece))[0][piece.start_T]
        found += [each_G.copy() for each_G in evidence_TG[-seen % stride :: stride]]
        seen += len(evidence_TG)
        while len(found) > MOST_TREES:
            found, stride = found[::2], stride * 2
    return (learn_prior(np.array(found)) if found else prior()), len(found)


def right_chances(batch: TreeBatch, prior_G: Reals, learned_from: int) -> Reals:
    """Returns the probability that each node is right; 1 for the roots.

    Args:
        batch: Whole trees.
        prior_G: Log weights of the grid.
        learned_from: Of how many trees, these among them; 0 for weights that no tree has told.
    """
    pieces = [_chances(piece, prior_G, learned_from) for piece in _pieces(batch)]
    return np.concatenate([np.empty(0), *pieces])


def seen(batch: TreeBatch) -> Flags:
    """Returns which nodes have a known outcome at or below them."""
    own_N = _n_beyond(batch) > 0
    for verdict in (Verdict.RIGHT, Verdict.WRONG):
        own_N |= batch.equals("verdict", verdict)
    return batch.some_below(own_N)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Holds the steps of whole trees."""

    parent_S: Ints
    logprob_S: Reals
    """As `Samples.log_chance`."""
    right_S: Flags
    wrong_S: Flags
    """Which end a right or a wrong solution."""
    level_D: tuple[Ints, ...]
    """The steps of each depth, from 0."""

    @classmethod
    def of(cls, batch: TreeBatch) -> "_Steps":
        """Returns all steps of some trees.

        Raises:
            DamagedData: They cannot be.
        """
        lists = batch.table["beyond"].combine_chunks()
        names = [field.name for field in lists.type.value_type]
        fields = dict(zip(names, lists.flatten().flatten(), strict=True))
        n_N = _n_beyond(batch)
        node_B = np.repeat(np.arange(batch.size), n_N)
        first_B = batch.size + np.repeat(np.cumsum(n_N) - n_N, n_N)
        own_B = fields["parent"].to_numpy()
        parent_S = np.concatenate(
            [batch.parent_N, np.where(own_B == -1, node_B, first_B + own_B)], dtype=np.int64
        )
        taken_S = np.concatenate(
            [batch.counts("n_taken"), fields["n_taken"].to_numpy()], dtype=np.int64
        )
        right_S, wrong_S = (
            np.concatenate([batch.equals("verdict", verdict), _equals(fields["right"], right)])
            for verdict, right in ((Verdict.RIGHT, True), (Verdict.WRONG, False))
        )
        if (
            (own_B < -1).any()
            or (parent_S >= np.arange(len(parent_S))).any()
            or (taken_S < 0).any()
            or (right_S | wrong_S)[batch.start_T].any()
        ):
            raise DamagedData(
                "nodes: verdict, n_taken and beyond are not those of solutions; `treeward verify` "
                "names the file"
            )
        logprob_S = np.concatenate([batch.numbers("logprob"), _numbers(fields["logprob"])])
        among_S = np.zeros(len(parent_S), np.int64)
        np.add.at(among_S, parent_S[parent_S >= 0], taken_S[parent_S >= 0])
        share_S = log_share(taken_S, among_S[parent_S])
        return cls(
            parent_S,
            np.where(np.isnan(logprob_S), share_S, np.minimum(logprob_S, 0.0)),
            right_S,
            wrong_S,
            levels(_depths(batch.depth_N, parent_S)),
        )


def _depths(depth_N: Ints, parent_S: Ints) -> Ints:
    """Returns how deep each step is, from how deep nodes are."""
    depths = depth_N.tolist()
    for parent in parent_S[len(depths) :].tolist():
        depths.append(depths[parent] + 1)
    return np.array(depths, np.int64)


def _n_beyond(batch: TreeBatch) -> Ints:
    """Returns how many steps each node has beyond it."""
    return plain(pc.list_value_length(batch.table["beyond"])).astype(np.int64)


def _equals(column: pa.Array, value: bool) -> Flags:
    """Returns where a column of flags has a value."""
    return np.asarray(pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False))


def _numbers(column: pa.Array) -> Reals:
    """Returns numbers, NaN where they are null."""
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(zero_copy_only=False), np.float64)


def _pieces(batch: TreeBatch) -> Iterable[TreeBatch]:
    return batch.pieces(PIECE_STEPS, 1 + _n_beyond(batch))


def _chances(batch: TreeBatch, prior_G: Reals, learned_from: int) -> Reals:
    """Goes from the roots down: P(right) = P(parent right) P(stays right)."""
    steps = _Steps.of(batch)
    alive_SG, right_SG = _upward(batch, steps)
    right_NG = right_SG[: batch.size]
    evidence_TG = alive_SG[batch.start_T]
    before_TG = without(prior_G, evidence_TG, learned_from) if learned_from else prior_G
    weights_TG = before_TG + evidence_TG
    right_NG[batch.start_T] = np.exp(weights_TG - logsumexp(weights_TG, axis=1, keepdims=True))
    for rows in batch.level_D[1:]:
        right_NG[rows] *= right_NG[batch.parent_N[rows]]
    # A sum of weights may be a bit more than 1.
    return np.asarray(np.minimum(right_NG.sum(axis=1), 1.0))


def _upward(batch: TreeBatch, steps: _Steps) -> tuple[Reals, Reals]:
    """Goes from the leaves up.

    Returns:
        The log likelihood of all that was seen at and below each step if it is alive, and the
        probability that it is right if the one before it is (of roots not filled in).
    """
    alive_SG = np.zeros((len(steps.parent_S), len(prior())))
    dead_SG, stays_SG = np.zeros_like(alive_SG), np.zeros_like(alive_SG)
    for rows in reversed(steps.level_D[1:]):
        # How a solution ends is all that there is to say of a step that ends it.
        right, wrong = rows[steps.right_S[rows]], rows[steps.wrong_S[rows]]
        alive_SG[right], dead_SG[right] = 0.0, -np.inf
        alive_SG[wrong], dead_SG[wrong] = -np.inf, 0.0
        rows = rows[np.argsort(steps.parent_S[rows], kind="stable")]
        logs = step_logs(steps.logprob_S[rows, None])
        parents, first = np.unique(steps.parent_S[rows], return_index=True)
        found = next_steps(logs, alive_SG[rows], dead_SG[rows], first)
        stays_SG[rows] = found.stays_CG
        alive_SG[parents], dead_SG[parents] = found.alive_PG, found.dead_PG
    return alive_SG, stays_SG

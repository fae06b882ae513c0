"""What one more rollout would tell of where a path first goes wrong, by the step it starts from.

That is the mutual information, in nats, of how the rollout ends and of the place of the first error
(Lindley 1956), given all that `first_error.py` believes.

A rollout takes steps that are known with their probability, and where they come to an end it ends
as they do: where it is likely to do what others did it tells little. Else it does what nobody did
so far, in as many steps to its end as the path has: the first of them is as likely to be right as
the probability that is left says, or, where no more than one next step is, as it is likely that
none of those known is; those after it are so as the steps of the tree are on average.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from treeward.search.error_grid import grid, step_logs
from treeward.search.first_error import Beliefs
from treeward.search.intervals import Reals
from treeward.search.samples import Samples

UNSEEN = 1.0
"""What counts for steps that nobody took, beside the samples that go on from a step, where the
policy does not say how likely they are (Blackwell and MacQueen 1973)."""


def information(beliefs: Beliefs, path: Sequence[int]) -> Reals:
    """Returns how much one more rollout from each step of a path is expected to tell.

    Args:
        beliefs: Of the tree.
        path: Steps from the bare problem down; those that end a solution start no rollouts.
    """
    success_PE, mass_E = _success(beliefs, path)
    ends_P2 = np.stack([success_PE.sum(axis=1), 1 - success_PE.sum(axis=1)], axis=1)
    both_P = _entropy(success_PE) + _entropy(mass_E - success_PE)
    return _entropy(mass_E) + _entropy(ends_P2) - both_P


def _success(beliefs: Beliefs, path: Sequence[int]) -> tuple[Reals, Reals]:
    """Returns what rollouts from the steps of a path come to, and where it first goes wrong.

    Returns:
        The joint probability of a right rollout from each step and of each place of the first
        error, [len(path), E] with E places as in `Beliefs.first_error`; and that of each place.
    """
    size, moves = len(path), _Moves.of(beliefs)
    onward = _onward(beliefs.samples, moves, path)
    mass_EG = np.zeros((size, grid().size))
    alive_EG, dead_EG = np.zeros_like(mass_EG), np.zeros_like(mass_EG)
    right_G = np.exp(beliefs.weights())
    # How likely a rollout leaves the path at each step, and ends right; if_right where the next
    # step of the path is right.
    leaves_PE, if_right_PG = np.zeros((size, size)), np.empty_like(mass_EG)
    for place, step in enumerate(path):
        if place:
            stays_G, mends_G = moves.stays_SG[step], moves.mends_SG[step]
            spared_G = (1 - stays_G) * moves.spared_SG[step]
            alive_EG, dead_EG = (
                (stays_G + spared_G) * alive_EG + mends_G * dead_EG,
                (1 - stays_G - spared_G) * alive_EG + (1 - mends_G) * dead_EG,
            )
            # Where the first error is this very step.
            alive_EG[place - 1] = spared_G * right_G
            dead_EG[place - 1] = (1 - stays_G - spared_G) * right_G
            mass_EG[place - 1] = (1 - stays_G) * right_G
            right_G = right_G * stays_G
        if_alive_G, if_dead_G = onward.alive_SG[step], onward.dead_SG[step]
        if_right_PG[place] = if_alive_G
        if place < size - 1:
            following = path[place + 1]
            follows = moves.before(np.array([following]), onward)
            if_alive_G = if_alive_G - follows.alive_SG[0]
            if_dead_G = if_dead_G - follows.dead_SG[0]
            if_right_PG[place] = np.where(
                grid().sole_G, onward.wrong_SG[step] - follows.wrong_SG[0], if_alive_G
            )
            # Where the next step is the first error.
            stays_G = moves.stays_SG[following]
            leaves_PE[place, place] = right_G @ (if_alive_G - stays_G * if_right_PG[place])
        leaves_PE[place] += alive_EG @ if_alive_G + dead_EG @ if_dead_G
    mass_EG[-1] = right_G
    # Before the first error all is right, and alive.
    leaves_PE += np.triu(if_right_PG @ mass_EG.T, 1)
    leaves_PE[-1, -1] += if_right_PG[-1] @ mass_EG[-1]
    success_PE, follows_E = np.empty_like(leaves_PE), np.zeros(size)
    for place in reversed(range(size)):
        success_PE[place] = leaves_PE[place] + follows_E
        follows_E = moves.chance_S[path[place]] * success_PE[place]
    return success_PE, mass_EG.sum(axis=1)


class _Ends(NamedTuple):
    """How likely rollouts end right, at each grid point."""

    alive_SG: Reals
    """From live steps."""
    wrong_SG: Reals
    """From live steps that no right one follows."""
    dead_SG: Reals


@dataclass(frozen=True, slots=True)
class _Moves:
    """Holds how a rollout goes on, given all that was seen; one entry a step of the tree."""

    chance_S: Reals
    """That a rollout from the step before takes this one."""
    stays_SG: Reals
    """That a step is right if the one before is."""
    spared_SG: Reals
    """That a step is alive if it is wrong, and the one before alive."""
    mends_SG: Reals
    """That a step is alive if the one before is dead."""
    rest_S: Reals
    """That a rollout from this step takes none that is known."""
    new_SG: Reals
    """That the first step of such a one is right, if this one is."""
    new_mends_SG: Reals
    """That the first step of such a one is alive, if this one is dead."""
    usual_G: Reals
    """That a step is right, on average."""

    @classmethod
    def of(cls, beliefs: Beliefs) -> "_Moves":
        """Returns what a tree says."""
        samples, points = beliefs.samples, grid()
        chance_S, rest_S = _chances(samples)
        logprob_S1 = np.array([[samples.log_chance(step)] for step in range(len(samples))])
        right_SG = np.exp(step_logs(logprob_S1).right_G[1:])
        with np.errstate(divide="ignore"):
            new = step_logs(np.log(rest_S[:, None]))
        none_SG = (1 - points.hazard_G) * np.array(beliefs.none_G)
        return cls(
            chance_S=chance_S,
            stays_SG=np.array(beliefs.stays_G),
            spared_SG=np.array(beliefs.spared_G),
            mends_SG=np.array(beliefs.mends_G),
            rest_S=rest_S,
            new_SG=np.where(points.sole_G, none_SG, np.exp(new.right_G)),
            new_mends_SG=np.exp(new.mends_G),
            usual_G=right_SG.mean(axis=0) if len(right_SG) else np.zeros(points.size),
        )

    def before(self, steps: NDArray[np.int64], ends: _Ends) -> _Ends:
        """Returns how likely rollouts from the steps before take each of these and end right."""
        chance_S1 = self.chance_S[steps, None]
        return _before(
            chance_S1 * ends.alive_SG[steps],
            chance_S1 * ends.dead_SG[steps],
            self.stays_SG[steps],
            self.spared_SG[steps],
            self.mends_SG[steps],
        )


def _before(
    alive_SG: Reals, dead_SG: Reals, stays_SG: Reals, spared_SG: Reals, mends_SG: Reals
) -> _Ends:
    """Returns how likely rollouts from the steps before some end right by way of these.

    Args:
        alive_SG: How likely they take these and end right, if these are alive.
        dead_SG: The same if they are dead.
        stays_SG: That these are right if those before are.
        spared_SG: That these are alive if they are wrong, and those before alive.
        mends_SG: That these are alive if those before are dead.
    """
    more_SG = alive_SG - dead_SG
    return _Ends(
        dead_SG + (stays_SG + (1 - stays_SG) * spared_SG) * more_SG,
        dead_SG + spared_SG * more_SG,
        dead_SG + mends_SG * more_SG,
    )


def _onward(samples: Samples, moves: _Moves, path: Sequence[int]) -> _Ends:
    """Returns how likely rollouts end right, from each step; from ends, how they ended."""
    length = len(path) - (samples.end[path[-1]] is not None)
    depth_S, parent_S = np.array(samples.depth), np.array(samples.parent)
    ends = _own_way(moves, np.maximum(length - 1 - depth_S, 0))
    ended_S = [end is not None for end in samples.end]
    ends.alive_SG[ended_S], ends.wrong_SG[ended_S], ends.dead_SG[ended_S] = 1.0, 1.0, 0.0
    for depth in range(max(samples.depth), 0, -1):
        rows = np.flatnonzero(depth_S == depth)
        for onto_SG, through_SG in zip(ends, moves.before(rows, ends), strict=True):
            np.add.at(onto_SG, parent_S[rows], through_SG)
    return ends


def _own_way(moves: _Moves, left_S: NDArray[np.int64]) -> _Ends:
    """Returns how likely rollouts take no known step next, so many usual ones, and end right."""
    points, usual_G = grid(), moves.usual_G
    lives_G = usual_G + (1 - usual_G) * points.harmless_G
    mends_G = (1 - usual_G) * points.mending_G
    alive_LG, dead_LG = [np.ones(points.size)], [np.zeros(points.size)]
    for _ in range(left_S.max()):
        alive_G, dead_G = alive_LG[-1], dead_LG[-1]
        alive_LG.append(dead_G + lives_G * (alive_G - dead_G))
        dead_LG.append(dead_G + mends_G * (alive_G - dead_G))
    rest_S1 = moves.rest_S[:, None]
    return _before(
        rest_S1 * np.array(alive_LG)[left_S],
        rest_S1 * np.array(dead_LG)[left_S],
        moves.new_SG,
        points.harmless_G,
        moves.new_mends_SG,
    )


def _chances(samples: Samples) -> tuple[Reals, Reals]:
    """Returns how likely each step is to be taken, and steps below it that nobody took so far."""
    parent_S, taken_S = np.array(samples.parent), np.array(samples.taken)
    among_S = np.array(samples.taken_below)[parent_S] + UNSEEN
    logprob_S = np.array(samples.logprob, np.float64)
    chance_S = np.where(np.isnan(logprob_S), taken_S / among_S, np.exp(np.minimum(logprob_S, 0.0)))
    known_S = np.bincount(parent_S[1:], chance_S[1:], minlength=len(samples))
    chance_S[1:] /= np.maximum(known_S[parent_S[1:]], 1.0)
    return chance_S, np.maximum(1 - known_S, 0.0)


def _entropy(masses: Reals) -> Reals:
    """Returns -sum p log p over the last axis, of masses that need not sum to 1."""
    kept = np.maximum(masses, 0.0)
    return np.asarray(-xlogy(kept, kept).sum(axis=-1))

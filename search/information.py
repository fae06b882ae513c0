"""What one more rollout would tell of where a path first goes wrong, by the step it starts from.

That is the mutual information, in nats, of how the rollout ends and of the place of the first error
(Lindley 1956), given all that `first_error.py` believes.

A rollout takes steps that are known with their probability, and where they come to an end it ends
as they do: where it is likely to do what others did it tells little. Else it does what nobody did
so far, in as many steps to its end as the path has: the first of them is as likely to be right as
the probability that is left says, those after it as the steps of the tree are on average.
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
    # How likely a rollout leaves the path at each step, and ends right.
    leaves_PE, if_alive_PG = np.zeros((size, size)), onward.alive_SG[list(path)]
    for place, step in enumerate(path):
        if place:
            stays_G = np.exp(beliefs.stays_right(step))
            lives_G, mends_G = moves.lives_SG[step], moves.mends_SG[step]
            alive_EG, dead_EG = (
                lives_G * alive_EG + mends_G * dead_EG,
                (1 - lives_G) * alive_EG + (1 - mends_G) * dead_EG,
            )
            # Where the first error is this very step.
            alive_EG[place - 1] = np.maximum(lives_G - stays_G, 0.0) * right_G
            dead_EG[place - 1] = (1 - lives_G) * right_G
            mass_EG[place - 1] = alive_EG[place - 1] + dead_EG[place - 1]
            right_G = right_G * stays_G
        if_dead_G = onward.dead_SG[step]
        if place < size - 1:
            follows = moves.before(path[place + 1 : place + 2], onward)
            if_alive_PG[place] -= follows.alive_SG[0]
            if_dead_G = if_dead_G - follows.dead_SG[0]
        leaves_PE[place] = alive_EG @ if_alive_PG[place] + dead_EG @ if_dead_G
    mass_EG[-1] = right_G
    # Before the first error all is right, and alive.
    leaves_PE += np.triu(if_alive_PG @ mass_EG.T)
    success_PE, follows_E = np.empty_like(leaves_PE), np.zeros(size)
    for place in reversed(range(size)):
        success_PE[place] = leaves_PE[place] + follows_E
        follows_E = moves.chance_S[path[place]] * success_PE[place]
    return success_PE, mass_EG.sum(axis=1)


class _Ends(NamedTuple):
    """How likely rollouts end right, at each grid point."""

    alive_SG: Reals
    """From live steps."""
    dead_SG: Reals


@dataclass(frozen=True, slots=True)
class _Moves:
    """Holds how a rollout goes on, given all that was seen; one entry a step of the tree."""

    chance_S: Reals
    """That a rollout from the step before takes this one."""
    lives_SG: Reals
    """That a step is alive if the one before is."""
    mends_SG: Reals
    """That a step is alive if the one before is dead."""
    rest_S: Reals
    """That a rollout from this step takes none that is known."""
    usual_G: Reals
    """That a step is right, on average."""

    @classmethod
    def of(cls, beliefs: Beliefs) -> "_Moves":
        """Returns what a tree says."""
        samples, own_SG = beliefs.samples, np.array(beliefs.alive_G)
        chance_S, rest_S = _chances(samples)
        logs = step_logs(np.array([[samples.log_chance(step)] for step in range(len(samples))]))
        right_SG = np.exp(logs.right_G[1:])
        return cls(
            chance_S=chance_S,
            lives_SG=np.exp(logs.lives_G + own_SG - np.array(beliefs.if_alive_G)),
            mends_SG=np.exp(logs.mends_G + own_SG - np.array(beliefs.if_dead_G)),
            rest_S=rest_S,
            usual_G=right_SG.mean(axis=0) if len(right_SG) else np.zeros(grid().size),
        )

    def before(self, steps: Sequence[int] | NDArray[np.int64], ends: _Ends) -> _Ends:
        """Returns how likely rollouts from the steps before take each of these and end right."""
        dead_SG, chance_S1 = ends.dead_SG[steps], self.chance_S[steps, None]
        more_SG = ends.alive_SG[steps] - dead_SG
        return _Ends(
            chance_S1 * (dead_SG + self.lives_SG[steps] * more_SG),
            chance_S1 * (dead_SG + self.mends_SG[steps] * more_SG),
        )


def _onward(samples: Samples, moves: _Moves, path: Sequence[int]) -> _Ends:
    """Returns how likely rollouts end right, from each step; from ends, how they ended."""
    length = len(path) - (samples.end[path[-1]] is not None)
    depth_S, parent_S = np.array(samples.depth), np.array(samples.parent)
    ends = _own_way(moves, np.maximum(length - 1 - depth_S, 0))
    ended_S = [end is not None for end in samples.end]
    ends.alive_SG[ended_S], ends.dead_SG[ended_S] = 1.0, 0.0
    for depth in range(max(samples.depth), 0, -1):
        rows = np.flatnonzero(depth_S == depth)
        through = moves.before(rows, ends)
        np.add.at(ends.alive_SG, parent_S[rows], through.alive_SG)
        np.add.at(ends.dead_SG, parent_S[rows], through.dead_SG)
    return ends


def _own_way(moves: _Moves, left_S: NDArray[np.int64]) -> _Ends:
    """Returns how likely rollouts take no known step next, so many usual ones, and end right."""
    lives_G = moves.usual_G + (1 - moves.usual_G) * grid().harmless_G
    mends_G = (1 - moves.usual_G) * grid().mending_G
    alive_LG, dead_LG = [np.ones(grid().size)], [np.zeros(grid().size)]
    for _ in range(left_S.max()):
        alive_G, dead_G = alive_LG[-1], dead_LG[-1]
        alive_LG.append(dead_G + lives_G * (alive_G - dead_G))
        dead_LG.append(dead_G + mends_G * (alive_G - dead_G))
    rest_S1, dead_SG = moves.rest_S[:, None], np.array(dead_LG)[left_S]
    more_SG = np.array(alive_LG)[left_S] - dead_SG
    with np.errstate(divide="ignore"):
        first = step_logs(np.log(rest_S1))
    return _Ends(
        rest_S1 * (dead_SG + np.exp(first.lives_G) * more_SG),
        rest_S1 * (dead_SG + np.exp(first.mends_G) * more_SG),
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

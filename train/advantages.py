"""From rewards of a group to advantages.

A group is what was drawn for one prompt. A completion is as good as its reward is above the group's
mean (GRPO, Shao et al. 2024, section 4.1.1). What nobody knows the reward of has no advantage and
no say in the mean.

G  completions of a group
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

from treeward.train.spans import Span

EPSILON = 1e-4
"""Added to standard deviations before dividing by them, as in TRL."""


class ScaleRewards(StrEnum):
    """What differences to the group's mean are divided by (TRL: scale_rewards)."""

    GROUP = "group"
    """The group's standard deviation (GRPO): a lone success of 8 counts 2.5."""
    BATCH = "batch"
    """The standard deviation of all rewards that a step learns from; TRL's counts groups without
    spread too."""
    NONE = "none"
    """Nothing (Dr. GRPO, Liu et al. 2025, section 3.2): hard and easy prompts weigh alike."""


def spread(rewards_G: Sequence[float | None]) -> float:
    """Returns the population standard deviation of the known rewards; 0 for fewer than two."""
    known = [reward for reward in rewards_G if reward is not None]
    # The mean of equal numbers need not be that number, so rounding alone would be a spread.
    return float(np.std(known)) if len({*known}) > 1 else 0.0


def outcome_advantages(
    groups: Sequence[Sequence[float | None]], scale: ScaleRewards
) -> list[list[float | None]]:
    """Returns (r - mean) / (std + epsilon) for every completion of every group.

    The standard deviation is the sample's (divided by G - 1), as in TRL. A group with one known
    reward says nothing: its advantage is 0.

    Args:
        groups: [groups][G] rewards; None where unknown.
        scale: What the differences are divided by.
    """
    everyone = [reward for group in groups for reward in group if reward is not None]
    over_all = float(np.std(everyone, ddof=1)) if len(everyone) > 1 else 0.0
    result: list[list[float | None]] = []
    for group in groups:
        known = [reward for reward in group if reward is not None]
        mean = float(np.mean(known)) if known else 0.0
        own = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
        divisor = {
            ScaleRewards.GROUP: own + EPSILON,
            ScaleRewards.BATCH: over_all + EPSILON,
            ScaleRewards.NONE: 1.0,
        }[scale]
        result.append([None if r is None else (r - mean) / divisor for r in group])
    return result


def step_advantages(
    groups: Sequence[Sequence[Sequence[Span]]], weights: Sequence[float], scale: ScaleRewards
) -> list[list[list[Span]]]:
    """Returns the step advantages of groups on the scale of their outcome terms, times weights.

    Step advantages are value differences, V(child) - V(parent), so they are already relative to
    what was expected: they are never shifted, and divided by their root mean square over all groups
    of the step, or by nothing where outcomes are. Outcome and steps are thus normalised apart
    before they are added (GDPO, arXiv 2601.05242). A size of each group's own would make as much of
    a group whose differences are but the noise of its counts as of one whose steps decide.
    Differences of a lone completion are left out, as its outcome is.

    Args:
        groups: [groups][G][steps] value differences of those steps whose values are known, of the
            completions whose reward is known.
        weights: What each group's count beside the outcome.
        scale: What outcomes are divided by.
    """
    taught = [group if len(group) > 1 else [()] * len(group) for group in groups]
    values = [span.value for group in taught for spans in group for span in spans]
    size = float(np.sqrt(np.mean(np.square(values)))) if values else 0.0
    if size == 0.0:
        return [[[] for _ in group] for group in groups]
    divisor = 1.0 if scale is ScaleRewards.NONE else size + EPSILON
    return [
        [[span._replace(value=span.value * weight / divisor) for span in spans] for spans in group]
        for group, weight in zip(taught, weights, strict=True)
    ]

"""What a node is worth to a search: rollouts counted there, fast ones, and what critics say.

The three critics are put on one scale of [0, 1] and weighted, as in the leaf score of AlphaLLM
(Tian et al. 2024: `b_value v + b_PRM PRM + b_ORM ORM`, every weight 1):

    C = (w_v V + w_p (1 + A) / 2 + w_o O) / (w_v + w_p + w_o)

A critic that says nothing drops out of both sums. It is a mean and no sum, so that it stays a
probability; and it joins k right of n rollouts as a prior that weighs m rollouts, so that counting
wins where there is much to count:

    (k + m C) / (n + m)

A fast rollout, drawn by a cheaper sampler, counts in k and n as `w` of the policy's rollouts: all
that is known of a node is one share of right solutions, in [0, 1], with a weight of n + m.
"""

from treeward.search.critic import Scores
from treeward.search.settings import SearchSettings


def critic_opinion(scores: Scores, settings: SearchSettings) -> float | None:
    """Returns C, in [0, 1]; None where no critic with a weight says anything."""
    progress = None if scores.progress is None else (1 + scores.progress) / 2
    said = total = 0.0
    for weight, score in (
        (settings.critic_value, scores.value),
        (settings.critic_progress, progress),
        (settings.critic_outcome, scores.outcome),
    ):
        if weight > 0 and score is not None:
            said += weight * score
            total += weight
    return said / total if total else None


def leaf_value(right: float, known: float, opinion: float | None, weight: float) -> float | None:
    """Returns what a node is worth; None where there is neither a rollout nor an opinion.

    Args:
        right: Right rollouts, k; fast ones by their weight.
        known: Those with a known verdict, n.
        opinion: C; None leaves the share of right ones.
        weight: How many rollouts the opinion weighs, m; greater than 0.
    """
    if opinion is None:
        return right / known if known else None
    return (right + weight * opinion) / (known + weight)

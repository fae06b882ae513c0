"""The policy-gradient objective: a clipped, weighted sum over tokens.

    loss = - sum_n w_n min(rho_n A_n, clip(rho_n, 1 - epsilon, 1 + epsilon_high) A_n)

with rho = pi / pi_old (PPO, Schulman et al. 2017, equation 7; clip-higher: DAPO, Yu et al. 2025,
section 3.1). How a loss is normalised is in the weights alone, which are made of counts over the
whole step. The sum over any split of the tokens is therefore the same loss.

N  tokens of completions
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch


class LossType(StrEnum):
    """How tokens are weighed (TRL: loss_type)."""

    DAPO = "dapo"
    """Every token of the step alike: 1 / tokens of the step."""
    GRPO = "grpo"
    """Every completion alike: 1 / (completions x its length), which favours short right ones."""
    DR_GRPO = "dr_grpo"
    """By a constant: 1 / (completions x max_completion_length)."""


class TokenLoss(NamedTuple):
    """Holds the loss of some tokens and what happened to them."""

    loss: torch.Tensor
    """The weighted sum; a scalar with a gradient."""

    clipped_low: int
    """Tokens whose ratio fell below the range while their advantage was negative."""

    clipped_high: int
    """Tokens whose ratio rose above the range while their advantage was positive."""

    kl: float
    """Weighted sum of the estimated divergence from the reference; 0 without one."""


def token_weights(
    lengths: Sequence[int], loss_type: LossType, max_completion_length: int
) -> list[float]:
    """Returns what each token of a completion weighs, for every completion of the step.

    Args:
        lengths: Tokens of each completion that takes part.
        loss_type: How they are weighed.
        max_completion_length: Tokens that a completion may have.
    """
    completions = len(lengths)
    if loss_type is LossType.DAPO:
        return [1 / sum(lengths)] * completions
    if loss_type is LossType.GRPO:
        return [1 / (completions * length) for length in lengths]
    return [1 / (completions * max_completion_length)] * completions


def token_loss(
    logprobs_N: torch.Tensor,
    old_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    weights_N: torch.Tensor,
    *,
    epsilon: float,
    epsilon_high: float,
    beta: float = 0.0,
    reference_N: torch.Tensor | None = None,
) -> TokenLoss:
    """Returns the loss of some tokens.

    Args:
        logprobs_N: Log-probabilities under the weights that are trained, in nats.
        old_logprobs_N: The same under the weights that sampled.
        advantages_N: How much better than expected each token was.
        weights_N: What each token weighs.
        epsilon: How far a ratio may fall below 1 with a gain.
        epsilon_high: How far it may rise above 1 with a gain.
        beta: What the divergence from the reference costs; exp(d) - d - 1 with
            d = log(reference / pi) is its estimate at a token (Schulman 2020, `k3`).
        reference_N: Log-probabilities under the reference; needed where beta is above 0.
    """
    ratio_N = torch.exp(logprobs_N - old_logprobs_N)
    bounded_N = ratio_N.clamp(1 - epsilon, 1 + epsilon_high)
    gain_N = torch.minimum(ratio_N * advantages_N, bounded_N * advantages_N)
    loss = -(weights_N * gain_N).sum()
    kl = 0.0
    if beta and reference_N is not None:
        log_ratio_N = reference_N - logprobs_N
        divergence = (weights_N * (torch.exp(log_ratio_N) - log_ratio_N - 1)).sum()
        loss, kl = loss + beta * divergence, float(divergence.detach())
    low_N = (ratio_N < 1 - epsilon) & (advantages_N < 0)
    high_N = (ratio_N > 1 + epsilon_high) & (advantages_N > 0)
    return TokenLoss(loss, int(low_N.sum()), int(high_N.sum()), kl)

"""Draws tokens with noise that depends on a continuation's seed and position, and on nothing else.

B  rows of a batch        V  vocabulary
"""

import numpy as np
import torch
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def uniforms(seeds_B: NDArray[np.uint64], positions_B: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Returns one number in [0, 1) for each seed and position.

    SplitMix64 read as a counter-based generator: the seed is mixed once, the position counts in
    steps of the golden ratio, and the sum is mixed again (Steele, Lea and Flood 2014, section 4).
    """
    with np.errstate(over="ignore"):
        mixed_B = _mix(_mix(seeds_B + _GOLDEN) + (positions_B + np.uint64(1)) * _GOLDEN)
    return (mixed_B >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(values_B: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the finaliser of SplitMix64: every input bit reaches every output bit."""
    values_B = (values_B ^ (values_B >> np.uint64(30))) * _MIX_1
    values_B = (values_B ^ (values_B >> np.uint64(27))) * _MIX_2
    return values_B ^ (values_B >> np.uint64(31))


def draw_tokens(
    logits_BV: torch.Tensor, noise_B: NDArray[np.float64], *, temperature: float, top_p: float
) -> tuple[list[int], list[float]]:
    """Draws one token a row by inverting the cumulative distribution at the row's noise.

    Args:
        logits_BV: [B, V] logits of the next token, float32.
        noise_B: [B] numbers in [0, 1).
        temperature: Divides the logits; greater than 0.
        top_p: Keeps the smallest set of most probable tokens with at least this probability.

    Returns:
        [B] token ids, and [B] their log-probabilities at temperature 1 without top-p, in nats.
    """
    # Against the largest, so that no temperature makes an infinite number of it.
    shifted_BV = logits_BV - logits_BV.amax(dim=-1, keepdim=True)
    probs_BV = torch.softmax(shifted_BV / temperature, dim=-1)
    if top_p < 1:
        probs_BV = _keep_top(probs_BV, top_p)
    cumulative_BV = probs_BV.cumsum(dim=-1, dtype=torch.float64)
    target_B1 = torch.from_numpy(noise_B).to(cumulative_BV.device)[:, None] * cumulative_BV[:, -1:]
    # side="right": a token of probability 0 is never drawn, not even by noise 0.
    tokens_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True)
    tokens_B1 = tokens_B1.clamp_(max=logits_BV.shape[-1] - 1)
    chosen_B1 = logits_BV.gather(-1, tokens_B1) - logits_BV.logsumexp(dim=-1, keepdim=True)
    return tokens_B1[:, 0].tolist(), chosen_B1[:, 0].tolist()


def _keep_top(probs_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Returns the probabilities with all but the nucleus set to 0 (Holtzman et al. 2020)."""
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    kept_BV = sorted_BV.masked_fill(before_BV >= top_p, 0.0)
    return torch.zeros_like(probs_BV).scatter_(-1, order_BV, kept_BV)

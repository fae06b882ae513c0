"""Draws tokens with noise that depends on a continuation's seed and position, and on nothing else.

B  rows of logits      N  draws      V  vocabulary      C  blocks of it      K  tokens of a block
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

_BLOCK = 128
"""Divides most vocabularies, so that none has to be copied."""

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
    logits_BV: torch.Tensor,
    noise_N: NDArray[np.float64],
    *,
    temperature: float,
    top_p: float,
    source_N: Sequence[int] | None = None,
) -> tuple[list[int], list[float]]:
    """Draws tokens by inverting cumulative distributions, each at its own noise.

    Args:
        logits_BV: [B, V] logits of the next token, float32.
        noise_N: [N] numbers in [0, 1).
        temperature: Divides the logits; greater than 0.
        top_p: Keeps the smallest set of most probable tokens with at least this probability.
        source_N: [N] rows of the logits to draw from; None draws once from each.

    Returns:
        [N] token ids, and [N] their log-probabilities at temperature 1 without top-p, in nats.
    """
    source_N = range(len(logits_BV)) if source_N is None else source_N
    rows_N = torch.tensor(list(source_N), device=logits_BV.device)
    # Against the largest, so that no temperature makes an infinite number of it. Of numbers as many
    # as these few are made: fresh memory takes longer than the exponentials do.
    largest_B1 = logits_BV.amax(dim=-1, keepdim=True)
    weights_BV = (logits_BV - largest_B1).exp_()
    total_B = weights_BV.sum(dim=-1)
    if temperature != 1:
        weights_BV = (logits_BV - largest_B1).div_(temperature).exp_()
    if top_p < 1:
        weights_BV = _keep_top(weights_BV / weights_BV.sum(dim=-1, keepdim=True), top_p)
    tokens_N = _invert(weights_BV, rows_N, torch.from_numpy(noise_N).to(logits_BV.device))
    logprobs_N = logits_BV[rows_N, tokens_N] - largest_B1[rows_N, 0] - total_B.log()[rows_N]
    return tokens_N.tolist(), logprobs_N.tolist()


def _invert(weights_BV: torch.Tensor, rows_N: torch.Tensor, noise_N: torch.Tensor) -> torch.Tensor:
    """Returns [N] the tokens at which cumulative weights pass the noise's share of their sum.

    In two stages, blocks of tokens and then a token of the block, so that only sums of blocks and
    one block a draw are accumulated. A token of weight 0 is never drawn.
    """
    size = weights_BV.shape[-1]
    if size % _BLOCK:
        weights_BV = functional.pad(weights_BV, (0, -size % _BLOCK))
    blocks_BCK = weights_BV.reshape(len(weights_BV), -1, _BLOCK)
    sums_NC = blocks_BCK.sum(dim=-1)[rows_N].cumsum(dim=-1, dtype=torch.float64)
    target_N1 = noise_N[:, None] * sums_NC[:, -1:]
    block_N1 = _first_above(sums_NC, target_N1)
    before_N1 = functional.pad(sums_NC, (1, 0)).gather(-1, block_N1)
    block_NK = blocks_BCK[rows_N, block_N1[:, 0]].cumsum(dim=-1, dtype=torch.float64)
    token_N1 = _first_above(block_NK, target_N1 - before_N1)
    return (block_N1 * _BLOCK + token_N1).clamp_(max=size - 1)[:, 0]


def _first_above(sums_NC: torch.Tensor, target_N1: torch.Tensor) -> torch.Tensor:
    """Returns [N, 1] the first places whose cumulative sum is above a target; one is.

    Rounding can lift a target to the last sum, so it is held just below.
    """
    last_N1 = sums_NC[:, -1:]
    below_N1 = torch.minimum(target_N1, last_N1.nextafter(torch.zeros_like(last_N1)))
    # What is no number is found nowhere; the caller sees it in the log-probability.
    return torch.searchsorted(sums_NC, below_N1, right=True).clamp_(max=sums_NC.shape[-1] - 1)


def _keep_top(probs_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Returns the probabilities with all but the nucleus set to 0 (Holtzman et al. 2020)."""
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    kept_BV = sorted_BV.masked_fill(before_BV >= top_p, 0.0)
    return torch.zeros_like(probs_BV).scatter_(-1, order_BV, kept_BV)

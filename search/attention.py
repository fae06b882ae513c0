"""Attention for few queries on many keys, faster on a CPU than the stock kernels.

B  rows      Q  query positions      K  key positions      D  width of a head
H  query heads      J  key and value heads      G = H / J  query heads a key head
X  groups of rows that start alike      N  most rows of a group      S  positions that they share
M = N * G  queries of a group for a key head
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface

from treeward.search.errors import BadInput

NAME = "treeward_grouped"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Shared:
    """Says which rows of a decoding pass have the same keys and values at their first positions."""

    length: int
    """How many positions, S; no row's query is among them."""

    leaders: torch.Tensor
    """[X] a row of each group, whose keys and values are read for all of it."""

    members: torch.Tensor
    """[X * N] the rows of each group in turn, filled up with any."""

    places: torch.Tensor
    """[B] where each row stands among the members."""


def grouped_attention(
    module: torch.nn.Module,
    query_BHQD: torch.Tensor,
    key_BJKD: torch.Tensor,
    value_BJKD: torch.Tensor,
    mask_B1QK: torch.Tensor,
    *,
    scaling: float,
    dropout: float = 0.0,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    shared: Shared | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Returns attention outputs of shape [B, Q, H, D]; keys are never repeated for their group.

    The mask is added to the scores, with the lowest number of its type where a key is hidden.
    Signature and layout are those of transformers' `AttentionInterface`.

    Raises:
        BadInput: The model caps its scores or has attention sinks.
    """
    assert dropout == 0.0, "this attention is for inference"
    if softcap is not None or s_aux is not None:
        raise BadInput("the transformers backend has no capped scores and no attention sinks")
    rows, heads, queries, width = query_BHQD.shape
    key_heads = key_BJKD.shape[1]
    query = query_BHQD.reshape(rows, key_heads, heads // key_heads * queries, width)
    if shared is None:
        output = _attend(query, key_BJKD, value_BJKD, mask_B1QK, scaling)
    else:
        output = _attend_shared(query, key_BJKD, value_BJKD, mask_B1QK, scaling, shared)
    return output.view(rows, heads, queries, width).transpose(1, 2), None


def _attend(
    query: torch.Tensor,
    key_BJKD: torch.Tensor,
    value_BJKD: torch.Tensor,
    mask_B1QK: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Returns what queries of shape [B, J, G * Q, D] make of all keys."""
    scores = _scores(query, key_BJKD).mul_(scaling)
    _hide(scores, mask_B1QK)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value_BJKD)


def _scores(query: torch.Tensor, key_BJKD: torch.Tensor) -> torch.Tensor:
    """Returns the products of queries of shape [B, J, M, D] and all keys, [B, J, M, K].

    In bfloat16 keys that are part of a longer run would be copied to be transposed, which takes
    longer than the product.
    """
    if query.dtype == torch.bfloat16 and not key_BJKD.is_contiguous():
        return torch.matmul(key_BJKD, query.mT).mT.contiguous()
    return torch.matmul(query, key_BJKD.mT)


def _attend_shared(
    query_BJGD: torch.Tensor,
    key_BJKD: torch.Tensor,
    value_BJKD: torch.Tensor,
    mask_B11K: torch.Tensor,
    scaling: float,
    shared: Shared,
) -> torch.Tensor:
    """Returns the same for one query position, reading the first positions once a group.

    The softmax is taken over either part, and the parts are weighed by their sums of exponentials
    (Juravsky et al. 2024, Hydragen, section 3.1).
    """
    start = shared.length
    scores_BJGK = _scores(query_BJGD, key_BJKD[:, :, start:]).float().mul_(scaling)
    _hide(scores_BJGK, mask_B11K[..., start:])
    sums_BJG1, weights_BJGK = _normalise(scores_BJGK)
    own_BJGD = torch.matmul(weights_BJGK.to(query_BJGD.dtype), value_BJKD[:, :, start:])
    first_sums_BJG1, first_BJGD = _attend_groups(query_BJGD, key_BJKD, value_BJKD, scaling, shared)
    share_BJG1 = torch.sigmoid(first_sums_BJG1 - sums_BJG1).to(query_BJGD.dtype)
    return own_BJGD.lerp_(first_BJGD, share_BJG1)


def _attend_groups(
    query_BJGD: torch.Tensor,
    key_BJKD: torch.Tensor,
    value_BJKD: torch.Tensor,
    scaling: float,
    shared: Shared,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what each row makes of the shared positions: [B, J, G, 1] sums, and the outputs."""
    groups, (_, key_heads, group, width) = len(shared.leaders), query_BJGD.shape
    query_XNJGD = query_BJGD.index_select(0, shared.members).view(
        groups, -1, key_heads, group, width
    )
    query_XJMD = query_XNJGD.transpose(1, 2).reshape(groups, key_heads, -1, width)
    key_XJSD, value_XJSD = (
        of_row[:, :, : shared.length].index_select(0, shared.leaders)
        for of_row in (key_BJKD, value_BJKD)
    )
    scores_XJMS = _scores(query_XJMD, key_XJSD).float().mul_(scaling)
    sums_XJM1, weights_XJMS = _normalise(scores_XJMS)
    first_XJMD = torch.matmul(weights_XJMS.to(query_BJGD.dtype), value_XJSD)

    def by_row(found_XJM: torch.Tensor) -> torch.Tensor:
        found_XJNG = found_XJM.view(groups, key_heads, -1, group, found_XJM.shape[-1])
        return found_XJNG.transpose(1, 2).flatten(0, 1).index_select(0, shared.places)

    return by_row(sums_XJM1), by_row(first_XJMD)


def _hide(scores_BJ: torch.Tensor, mask_B1QK: torch.Tensor) -> None:
    """Adds a mask to scores of shape [B, J, G * Q, K] in place."""
    rows, key_heads, _, keys = scores_BJ.shape
    queries = mask_B1QK.shape[2]
    scores_BJ.view(rows, key_heads, -1, queries, keys).add_(mask_B1QK[:, :, None])


def _normalise(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the logarithms of sums of exponentials, and the softmax in the memory of scores."""
    highest = scores.amax(dim=-1, keepdim=True)
    totals = scores.sub_(highest).exp_().sum(dim=-1, keepdim=True)
    return totals.log().add_(highest), scores.div_(totals)


def register() -> str:
    """Makes the attention known to transformers and returns its name."""
    AttentionInterface.register(NAME, grouped_attention)
    return NAME

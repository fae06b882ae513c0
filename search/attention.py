"""Attention for few queries on many keys, faster on a CPU than the stock kernels.

B  rows      Q  query positions      K  key positions      D  width of a head
H  query heads      J  key and value heads      G = H / J  query heads a key head
"""

from typing import Any

import torch
from transformers import AttentionInterface

from treeward.search.errors import BadInput

NAME = "treeward_grouped"


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
    key_heads, keys = key_BJKD.shape[1:3]
    group = heads // key_heads
    query = query_BHQD.reshape(rows, key_heads, group * queries, width)
    scores = torch.matmul(query, key_BJKD.transpose(2, 3)).mul_(scaling)
    scores = scores.view(rows, key_heads, group, queries, keys).add_(mask_B1QK[:, :, None])
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = weights.view(rows, key_heads, group * queries, keys)
    output = torch.matmul(weights, value_BJKD).view(rows, heads, queries, width)
    return output.transpose(1, 2), None


def register() -> str:
    """Makes the attention known to transformers and returns its name."""
    AttentionInterface.register(NAME, grouped_attention)
    return NAME

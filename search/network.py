"""Runs passes of a causal language model over given positions and caches.

B  rows      T  positions of a pass      K  key positions      V  vocabulary
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from treeward.search.attention import Shared

_PIECE = 512
"""Tokens of the vocabulary whose logits are computed at once."""


class Network:
    """A model's decoder and head, and the shapes of its keys and values."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Takes a causal language model whose attention is `grouped_attention`."""
        config = model.config
        self._decoder: Callable[..., Any] = model.get_decoder()  # type: ignore[no-untyped-call]
        self._head: Callable[..., Any] = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        self.layers: int = config.num_hidden_layers
        self.heads: int = config.num_key_value_heads
        self.width: int = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        # Within its window, an attention that slides is full.
        window = getattr(config, "sliding_window", None)
        self.max_positions = min(config.max_position_embeddings, window or math.inf)
        weight = next(model.parameters())
        self.dtype, self.device = weight.dtype, weight.device.type
        self._in_pieces = self.device == "cpu" and self.dtype == torch.float32

    def forward(
        self,
        ids_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        hidden_BTK: torch.Tensor,
        cache: Cache,
        last_B: torch.Tensor,
        shared: Shared | None = None,
    ) -> torch.Tensor:
        """Returns the float32 logits [B, V] after each row's last token.

        Args:
            ids_BT: Token ids.
            positions_BT: Their positions.
            hidden_BTK: Whether a key is hidden from a position.
            cache: Keys and values before the pass; takes those of the pass.
            last_B: Where each row's last token stands among its T.
            shared: Which rows start alike; a model that does not hand it on to its attention reads
                every row by itself.
        """
        mask_BTK = torch.zeros(hidden_BTK.shape, dtype=self.dtype)
        mask_BTK.masked_fill_(hidden_BTK, torch.finfo(self.dtype).min)
        output = self._decoder(
            input_ids=ids_BT.to(self.device),
            attention_mask=mask_BTK[:, None].to(self.device),
            position_ids=positions_BT.to(self.device),
            past_key_values=cache,
            use_cache=True,
            **({"shared": shared} if shared else {}),
        )
        rows = torch.arange(len(last_B), device=self.device)
        last_BE = output.last_hidden_state[rows, last_B.to(self.device)]
        return self._logits(last_BE)

    def _logits(self, last_BE: torch.Tensor) -> torch.Tensor:
        """Returns what the head says, [B, V].

        On a CPU in float32 it is computed in pieces of the vocabulary: one wide product of few rows
        takes up to twice as long.
        """
        head = self._head
        if type(head) is not torch.nn.Linear or head.bias is not None or not self._in_pieces:
            logits_BV: torch.Tensor = head(last_BE)
            return logits_BV.float()
        weight_VE = head.weight
        logits_BV = last_BE.new_empty((len(last_BE), len(weight_VE)))
        pieces = zip(weight_VE.split(_PIECE), logits_BV.split(_PIECE, dim=-1), strict=True)
        for piece_PE, part_BP in pieces:
            torch.mm(last_BE, piece_PE.t(), out=part_BP)
        return logits_BV

"""Runs passes of a causal language model over given positions and caches.

B  rows      T  positions of a pass      K  key positions      N  places asked about
E  width of a state      V  vocabulary
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from treeward.search.attention import Shared
from treeward.search.kv_cache import PrefillCache

_PIECE = 512
"""Tokens of the vocabulary whose logits are computed at once."""

_AT_ONCE = 64
"""Places whose logits are held at once."""


def positions_of(config: Mapping[str, Any]) -> int | None:
    """Returns how many positions a model reads here; None where its configuration does not say.

    Within its window, an attention that slides is full.
    """
    names = ["max_position_embeddings"]
    names += ["sliding_window"] if config.get("use_sliding_window", True) else []
    return min((room for name in names if isinstance(room := config.get(name), int)), default=None)


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
        self.max_positions = positions_of(config.to_dict()) or sys.maxsize
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
        state_BTE = self._read(ids_BT, positions_BT, hidden_BTK, cache, shared)
        rows = torch.arange(len(last_B), device=self.device)
        return self._logits(state_BTE[rows, last_B.to(self.device)])

    def logprobs(self, ids: Sequence[int], start: int) -> list[float]:
        """Returns the log-probability of each id from a place on, given all before it, in nats.

        Args:
            ids: All of them; read in one pass.
            start: The place of the first that is asked about; at least 1.
        """
        length = len(ids) - 1
        shape = (self.layers, 2, 1, self.heads, length, self.width)
        empty = torch.empty(shape, dtype=self.dtype, device=self.device)
        state_BTE = self._read(
            torch.tensor([ids[:-1]]),
            torch.arange(length)[None],
            torch.ones((1, length, length), dtype=torch.bool).triu(1),
            PrefillCache(empty, 0),
        )
        found = []
        for first in range(start, len(ids), _AT_ONCE):
            targets_N = torch.tensor(ids[first : first + _AT_ONCE], device=self.device)
            logits_NV = self._logits(state_BTE[0, first - 1 : first - 1 + len(targets_N)])
            chosen_N = logits_NV.gather(1, targets_N[:, None])[:, 0]
            found += (chosen_N - logits_NV.logsumexp(1)).tolist()
        return found

    def _read(
        self,
        ids_BT: torch.Tensor,
        positions_BT: torch.Tensor,
        hidden_BTK: torch.Tensor,
        cache: Cache,
        shared: Shared | None = None,
    ) -> torch.Tensor:
        """Returns the decoder's last states, [B, T, E]; see `forward`."""
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
        states: torch.Tensor = output.last_hidden_state
        return states

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

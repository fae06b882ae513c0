"""Three heads on a language model's hidden states: value, progress and outcome of a prefix.

Shape suffixes: B sequences, T places, N places that are read, E width of the hidden states.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from treeward.critics.reading import Reading

_LARGEST = 7.0
"""The logarithm of the concentration stays within this of 0."""


class Head(StrEnum):
    """What a critic can be asked."""

    VALUE = "value"
    """Whether the policy finishes right from here."""
    PROGRESS = "progress"
    """How much the last step raised the prover's chance."""
    OUTCOME = "outcome"
    """Whether the solution is right if it ends here."""


class Readout(NamedTuple):
    """Holds what the heads say at some places, in float32."""

    value_logit_N: torch.Tensor
    """Logit of the value's mean."""
    log_concentration_N: torch.Tensor
    """Logarithm of the value's a + b, of Beta(a, b): how sure the value head is."""
    progress_N: torch.Tensor
    """In [-1, 1]."""
    outcome_logit_N: torch.Tensor
    """Logit of the probability that the solution is right."""


class Heads(nn.Module):
    """Linear maps from a hidden state to what the critics say.

    They start at 0, so that untrained ones say value 1/2, progress 0 and outcome 1/2.
    """

    def __init__(self, width: int) -> None:
        """Takes the width of the hidden states."""
        super().__init__()
        self.value = _zeros(width, 2)
        self.progress = _zeros(width, 1)
        self.outcome = _zeros(width, 1)

    def forward(self, hidden_NE: torch.Tensor) -> Readout:
        """Returns what the heads say about each hidden state."""
        hidden_NE = hidden_NE.float()
        value_N2 = self.value(hidden_NE)
        return Readout(
            value_logit_N=value_N2[:, 0],
            log_concentration_N=_LARGEST * torch.tanh(value_N2[:, 1] / _LARGEST),
            progress_N=torch.tanh(self.progress(hidden_NE)[:, 0]),
            outcome_logit_N=self.outcome(hidden_NE)[:, 0],
        )


def _zeros(width: int, out: int) -> nn.Linear:
    """Returns a linear map of zeros, without a draw from torch's random state."""
    blank: Any = nn.utils.skip_init
    linear = blank(nn.Linear, width, out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    assert isinstance(linear, nn.Linear)
    return linear


class CriticModel(nn.Module):
    """A language model as trunk, and the heads on it."""

    def __init__(self, trunk: PreTrainedModel) -> None:
        """Takes the trunk as it is and puts new heads on its device."""
        super().__init__()
        self.trunk = trunk
        self.heads = Heads(trunk.config.hidden_size).to(trunk.device)

    @property
    def device(self) -> torch.device:
        """Returns where it computes."""
        return self.trunk.device

    def forward(self, readings: Sequence[Reading]) -> Readout:
        """Returns what the heads say at every end of every reading, one after the other.

        Attention looks back only and padding comes last, so a row does not see it.
        """
        ids_BT, rows_N, ends_N = pad(readings)
        decoder: Any = self.trunk.get_decoder()  # type: ignore[no-untyped-call]
        hidden_BTE = decoder(input_ids=ids_BT.to(self.device), use_cache=False).last_hidden_state
        heads: Any = self.heads
        readout: Readout = heads(hidden_BTE[rows_N.to(self.device), ends_N.to(self.device)])
        return readout


def pad(readings: Sequence[Reading]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns ids [B, T], padded with zeros at the right, and rows and places [N] of all ends."""
    ids = [torch.tensor(reading.ids) for reading in readings]
    rows = [row for row, reading in enumerate(readings) for _ in reading.ends]
    ends = [end for reading in readings for end in reading.ends]
    return (
        nn.utils.rnn.pad_sequence(ids, batch_first=True),
        torch.tensor(rows),
        torch.tensor(ends),
    )


def probabilities(readout: Readout) -> torch.Tensor:
    """Returns value, progress and outcome [N, 3] as they are reported."""
    columns = (
        torch.sigmoid(readout.value_logit_N),
        readout.progress_N,
        torch.sigmoid(readout.outcome_logit_N),
    )
    return torch.stack(columns, dim=1)

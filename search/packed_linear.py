"""Linear layers whose weights lie as a CPU's bfloat16 matrix instructions want them.

Else every product begins by laying them out anew, a good part of the time of a pass of few rows.
torch has no name for this that is meant for others; these are the operators that its own compiler
makes of a frozen model (`torch/_inductor/fx_passes/mkldnn_fusion.py`).
"""

import torch

_ROWS = 64
"""Rows of a pass that the layout is chosen for; any number can be computed."""


class PackedLinear(torch.nn.Module):
    """A linear layer for inference, as its weights were when it was made."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        """Lays out the weights of a layer in bfloat16 on a CPU that has instructions for it."""
        super().__init__()
        self._bias = layer.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Returns what the layer makes of states of shape [..., in], [..., out]."""
        found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self._packed, self._bias, "none", [], ""
        )
        return found


def pack_linear(model: torch.nn.Module) -> None:
    """Packs all linear layers of a model that are in bfloat16, where the CPU computes in it.

    Their own weights are let go of; those that something else holds, such as an embedding, stay.
    """
    able = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not able or not torch.cpu._is_avx512_bf16_supported():
        return
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.bfloat16:
                setattr(parent, name, PackedLinear(layer))

"""Weights as a plain model has them, whether all are trained or LoRA's adapters beside them.

LoRA (Hu et al. 2021): a frozen matrix W of a linear layer counts as W + (alpha / r) B A. The sum is
computed anew wherever it is needed: adding it to W and taking it off again would change W's bits.
"""

import copy
import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from treeward.search.errors import MissingExtra

_BASE = ".base_layer"


def add_lora(model: PreTrainedModel, *, rank: int, alpha: float) -> None:
    """Puts adapters beside every linear layer but the head; they alone are trainable then.

    They are drawn from torch's random state and change nothing yet.

    Raises:
        MissingExtra: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise MissingExtra("train.lora_r", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    factory: Any = LoraConfig  # It says int, and takes any number.
    settings = factory(r=rank, lora_alpha=alpha, target_modules="all-linear")
    inject_adapter_in_model(settings, model)


@torch.no_grad()
def merged_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns every parameter under the name that it has without adapters."""
    from_adapters: dict[str, Any] = {
        name: module for name, module in model.named_modules() if hasattr(module, "lora_A")
    }
    weights: dict[str, torch.Tensor] = {
        name.replace(_BASE, ""): value
        for name, value in model.named_parameters()
        if ".lora_" not in name
    }
    for name, module in from_adapters.items():
        delta = module.get_delta_weight("default")
        weights[f"{name}.weight"] = weights[f"{name}.weight"] + delta
    return weights


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copies weights into the parameters of the same names; there are no others."""
    parameters = dict(model.named_parameters())
    assert parameters.keys() == weights.keys()
    for name, parameter in parameters.items():
        parameter.copy_(weights[name])


@torch.no_grad()
def share_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Lets the parameters of the same names be these tensors, which may change under them."""
    parameters = dict(model.named_parameters())
    assert parameters.keys() == weights.keys()
    for name, parameter in parameters.items():
        parameter.data = weights[name].detach()


def blank_like(model: PreTrainedModel, **changes: Any) -> PreTrainedModel:
    """Returns a model of the same architecture without adapters, its weights still to be loaded.

    Args:
        model: What it is like.
        changes: Keywords of transformers' `from_config`, such as `attn_implementation`.
    """
    factory: Any = AutoModelForCausalLM
    config = copy.deepcopy(model.config)
    with torch.random.fork_rng(devices=[]):
        blank = factory.from_config(config, dtype=model.dtype, trust_remote_code=False, **changes)
    assert isinstance(blank, PreTrainedModel)
    module: nn.Module = blank
    module.to(model.device)
    return blank

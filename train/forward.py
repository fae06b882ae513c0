"""Loads a language model for training and computes what a trainer needs of it.

Shape suffixes: B sequences, T places, N places that a loss is on, V vocabulary.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from treeward.search.errors import BadInput
from treeward.search.models import check_model_folder
from treeward.search.weights import NO_MODEL, load_whole, said
from treeward.train.settings import TrainSettings
from treeward.train.weights import add_lora

_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}


def load_trainable(folder: Path, settings: TrainSettings) -> PreTrainedModel:
    """Returns a causal language model with float32 weights, and LoRA's adapters where asked.

    Args:
        folder: A Hugging Face model folder. Where it holds a configuration and no weights, they
            are drawn.
        settings: The seed of weights that are drawn, the device, and LoRA's rank.

    Raises:
        BadInput: The folder holds no such model, or weights that can run code when read.
        MissingExtra: LoRA is asked for and peft is not installed.
    """
    torch.manual_seed(settings.seed)
    if any(path.suffix in _WEIGHTS for path in folder.glob("*")):
        check_model_folder(folder)
        model = load_whole(folder, dtype=torch.float32)
    elif not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: no config.json; --model needs a Hugging Face model folder")
    else:
        factory: Any = AutoModelForCausalLM
        try:
            config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
            model = factory.from_config(config, dtype=torch.float32, trust_remote_code=False)
        except NO_MODEL as e:
            raise BadInput(f"{folder / 'config.json'}: {said(e)}") from e
        assert isinstance(model, PreTrainedModel)
    if settings.lora_r:
        add_lora(model, rank=settings.lora_r, alpha=settings.lora_alpha)
    module: Any = model
    if settings.gradient_checkpointing:
        # Earlier releases of transformers 5 have it under the old name alone.
        old = "gradient_checkpointing_enable"
        enable = getattr(module, "activation_checkpointing_enable", None) or getattr(module, old)
        enable({"use_reentrant": False})
    module.to(settings.device)
    return model


def target_logits(
    model: PreTrainedModel,
    input_ids_BT: torch.Tensor,
    position_ids_BT: torch.Tensor,
    keep_BT: torch.Tensor,
) -> torch.Tensor:
    """Returns the logits (N, V) at the places to keep, and computes no others.

    The rows of a sequence do not see each other: positions that restart make the model's mask
    block-diagonal, as long as it gets neither a mask nor a cache (`check_packing`).
    """
    module: Any = model
    head = module.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][keep_BT],))
    try:
        output = module(input_ids=input_ids_BT, position_ids=position_ids_BT, use_cache=False)
    finally:
        hook.remove()
    logits: torch.Tensor = output.logits
    return logits


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Tries out that rows packed to one sequence do not see each other.

    Raises:
        BadInput: They do, so this architecture cannot be trained on packed rows.
    """
    training = model.training
    model.train(False)
    ids = torch.arange(6, device=model.device)[None] % model.config.vocab_size
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]], device=model.device)
    every = torch.ones_like(ids, dtype=torch.bool)
    packed = target_logits(model, ids, positions, every)
    alone = torch.cat(
        [target_logits(model, ids[:, k], positions[:, k], every[:, k]) for k in _HALVES]
    )
    model.train(training)
    if float((packed - alone).abs().max()) > 1e-4 * float(alone.abs().max()):
        raise BadInput(
            f"model type {model.config.model_type!r} mixes rows that are packed to one sequence; "
            "train an attention model with position_ids"
        )


_HALVES = (slice(0, 3), slice(3, 6))

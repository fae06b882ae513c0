"""Saves and loads everything that a bit-exact resume needs: tensors and JSON, never pickles.

A checkpoint is a folder `checkpoints/step-000004/` with `model.safetensors`,
`optimizer.safetensors` and `state.json`. It is written under another name and renamed when it is
whole, so a folder of that name is complete. Only what is trained is written: with adapters, that is
a small part of the model. Random states are no part of it: trainers seed each step from the run's
seed and the step's number.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from treeward.export.disk import sync
from treeward.export.durable import file_sha256, seal, unseal
from treeward.search.errors import DamagedData

State = dict[str, Any]
"""What a loop keeps beside its tensors: JSON values, `step` (steps done) among them."""

SCHEMA_VERSION = 1
"""Of `state.json`."""

_TENSORS = ("model.safetensors", "optimizer.safetensors")


def save_checkpoint(
    out: Path, model: nn.Module, optimizer: torch.optim.Optimizer, state: State, *, keep: int
) -> Path:
    """Writes the checkpoint of `state["step"]` and deletes the oldest beyond `keep`.

    Args:
        out: The training output folder.
        model: Its trainable parameters are written as they are.
        optimizer: Its state for each parameter of the model is written.
        state: JSON values; floats survive exactly.
        keep: How many checkpoints stay; at least 1.

    Returns:
        The checkpoint's folder; it survives the death of the process.
    """
    root = out / "checkpoints"
    final, staging = root / f"step-{state['step']:06d}", root / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    save_file(trained_tensors(model), staging / "model.safetensors")
    save_file(_optimizer_tensors(model, optimizer), staging / "optimizer.safetensors")
    sums = {name: file_sha256(staging / name) for name in _TENSORS}
    body = {"schema_version": SCHEMA_VERSION, "state": state, "files": sums}
    (staging / "state.json").write_bytes(seal(body))
    for path in (*staging.iterdir(), staging):
        sync(path)
    staging.replace(final)
    sync(root)
    for old in _checkpoints(out)[:-keep]:
        shutil.rmtree(old)
    return final


def latest_checkpoint(out: Path) -> Path | None:
    """Returns the checkpoint with the highest step, or None where there is none."""
    found = _checkpoints(out)
    return found[-1] if found else None


def load_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Puts a checkpoint into a model and its optimizer, and returns the loop's state.

    Raises:
        DamagedData: A file does not hold what was written to it.
    """
    for name in ("state.json", *_TENSORS):
        if not (folder / name).is_file():
            raise DamagedData(f"{folder / name}: missing; delete {folder} to resume before it")
    body = unseal(folder / "state.json", SCHEMA_VERSION)
    for name in _TENSORS:
        if file_sha256(folder / name) != body["files"][name]:
            raise DamagedData(f"{folder / name}: damaged; delete {folder} to resume before it")
    names = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(folder / "model.safetensors").items():
            names[name].copy_(tensor)
    tensors = load_file(folder / "optimizer.safetensors")
    for key, tensor in tensors.items():
        name, slot = key.rsplit("/", 1)
        parameter = names[name]
        optimizer.state[parameter][slot] = tensor.to(parameter.device)
    state: State = body["state"]
    return state


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the trainable parameters by name, shared ones once."""
    named = model.named_parameters()
    return {name: value.detach() for name, value in named if value.requires_grad}


def _optimizer_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Returns the optimizer's state under `parameter/slot`, such as `norm.weight/exp_avg`."""
    return {
        f"{name}/{slot}": tensor
        for name, parameter in model.named_parameters()
        for slot, tensor in optimizer.state.get(parameter, {}).items()
    }


def _checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))

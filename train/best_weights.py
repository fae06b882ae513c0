"""Keeps the weights of the lowest validation loss beside the checkpoints.

A resume from any checkpoint that stays finds the weights that were best at that time: they are in
`best/step-000040.safetensors`, named by the step that made them.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from treeward.export.disk import sync
from treeward.export.durable import file_sha256
from treeward.search.errors import DamagedData
from treeward.train.checkpoint import trained_tensors


def save_best(out: Path, model: nn.Module, step: int) -> str:
    """Writes the trainable parameters as the best so far; deletes those that nobody needs.

    Args:
        out: The training output folder.
        model: What is trained.
        step: Steps done.

    Returns:
        The SHA-256 of the file.
    """
    folder = out / "best"
    folder.mkdir(exist_ok=True)
    staging = folder / ".staging"
    save_file(trained_tensors(model), staging)
    sync(staging)
    staging.replace(_file(out, step))
    sync(folder)
    checkpoints = {_step(path) for path in (out / "checkpoints").glob("step-*")}
    found = {_step(path) for path in folder.glob("step-*")}
    for old in found - needed({at for at in found if at <= step}, checkpoints):
        _file(out, old).unlink()
    return file_sha256(_file(out, step))


def needed(best: set[int], checkpoints: set[int]) -> set[int]:
    """Returns the steps whose weights are the best now, or were at a checkpoint.

    Args:
        best: Steps that were the best when they were done; not empty.
        checkpoints: Steps that a run can be resumed from.
    """
    before = [[at for at in best if at <= checkpoint] for checkpoint in checkpoints]
    return {max(best), *(max(steps) for steps in before if steps)}


def load_best(out: Path, model: nn.Module, step: int, sha256: str) -> None:
    """Puts the best weights into the model.

    Raises:
        DamagedData: The file does not hold what was written to it.
    """
    path = _file(out, step)
    if not path.is_file() or file_sha256(path) != sha256:
        raise DamagedData(f"{path}: missing or damaged; train again with a new --out")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in load_file(path).items():
            parameters[name].copy_(tensor)


def _file(out: Path, step: int) -> Path:
    return out / "best" / f"step-{step:06d}.safetensors"


def _step(path: Path) -> int:
    return int(path.stem[len("step-") :])

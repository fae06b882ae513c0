import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from treeward.search.errors import DamagedData
from treeward.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from treeward.train.optim import Schedule, adamw, learning_rate


class Tied(nn.Module):
    """A table that is read on the way in and on the way out, as language models have it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.table = nn.Embedding(7, 4)
        self.gain = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.table(ids) * self.gain)
        return logits


def setup(seed: int) -> tuple[Tied, torch.optim.AdamW]:
    model = Tied(seed)
    return model, adamw(model, weight_decay=0.1, beta2=0.99)


def train(model: Tied, optimizer: torch.optim.AdamW, steps: range) -> None:
    for step in steps:
        ids = torch.arange(5) + step % 3
        nn.functional.cross_entropy(model(ids), (ids + 1) % 7).backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + step)
        optimizer.step()
        optimizer.zero_grad()


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    straight, optimizer = setup(1)
    train(straight, optimizer, range(9))
    first, optimizer = setup(1)
    train(first, optimizer, range(4))
    state = {"step": 4, "loss": 0.1 + 0.2, "window": {"hits": 3}}
    folder = save_checkpoint(tmp_path, first, optimizer, state, keep=1)
    second, optimizer = setup(2)
    assert load_checkpoint(folder, second, optimizer) == state
    train(second, optimizer, range(4, 9))
    assert second.head.weight is second.table.weight
    for ours, theirs in zip(second.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_checkpoint_is_seen_once_it_is_whole_and_the_newest_stay(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    model, optimizer = setup(0)
    for step in (8, 999_999, 1_000_000):
        train(model, optimizer, range(1))
        folder = save_checkpoint(tmp_path, model, optimizer, {"step": step}, keep=2)
        assert latest_checkpoint(tmp_path) == folder
        shutil.copytree(folder, tmp_path / "checkpoints" / ".staging")
        assert latest_checkpoint(tmp_path) == folder
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert names == ["step-1000000", "step-999999"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named(name: str, tmp_path: Path) -> None:
    model, optimizer = setup(0)
    train(model, optimizer, range(2))
    folder = save_checkpoint(tmp_path, model, optimizer, {"step": 2}, keep=1)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(DamagedData, match=name):
        load_checkpoint(folder, model, optimizer)
    (folder / name).unlink()
    with pytest.raises(DamagedData, match="delete"):
        load_checkpoint(folder, model, optimizer)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    def rates(schedule: Schedule) -> list[float]:
        return [
            learning_rate(step, peak=8.0, steps=7, warmup_steps=3, schedule=schedule)
            for step in range(8)
        ]

    warm = [2.0, 4.0, 6.0, 8.0]  # quarters of the peak, which is reached at step 3
    assert rates(Schedule.LINEAR) == [*warm, 6.0, 4.0, 2.0, 0.0]
    assert rates(Schedule.CONSTANT) == [*warm, 8.0, 8.0, 8.0, 8.0]
    # 4 (1 + cos(pi d)) at d = 1/4, 1/2, 3/4, 1
    cosine = [*warm, 4 + 8**0.5, 4.0, 4 - 8**0.5, 0.0]
    assert rates(Schedule.COSINE) == pytest.approx(cosine)


def test_only_matrices_decay() -> None:
    model, optimizer = setup(0)
    before = model.table.weight.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    # AdamW without a gradient: w (1 - lr * decay) = 0.95 w
    torch.testing.assert_close(model.table.weight.detach(), 0.95 * before)
    assert torch.equal(model.gain, torch.ones(4))

"""What training critics does at each step: learn a batch, look at the held-out rows, keep the best.

Shape suffix: N places.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treeward.critics.heads import CriticModel, Head
from treeward.critics.learned import passes
from treeward.train.best_weights import save_best
from treeward.train.checkpoint import State
from treeward.train.critic_data import CriticData, CriticRow
from treeward.train.critic_loss import known, losses
from treeward.train.critic_settings import CriticSettings
from treeward.train.loop import Update
from treeward.train.output import Json
from treeward.train.settings import Dtype

_ROOM = 8192
"""Tokens of a pass over held-out rows, padding included."""

Sums = dict[Head, float]


class CriticJob:
    """Learns rows in an order drawn from the seed, until the held-out loss stops falling."""

    def __init__(
        self, model: CriticModel, data: CriticData, out: Path, settings: CriticSettings
    ) -> None:
        """Takes the model that is trained in place."""
        self._model = model
        self._data = data
        self._out = out
        self._settings = settings
        self._weights: dict[Head, float] = {
            head: getattr(settings, f"{head}_weight") for head in Head
        }

    def start(self) -> State:
        """Returns no counts yet."""
        best = {"best_step": 0, "best_loss": None, "best_sha256": "", "looks_since_best": 0}
        return {"sums": _zeros(), "places": _zeros(), "looked": {}, **best}

    def step(self, state: State, update: Update) -> None:
        """Learns one batch; at every `eval_every` steps looks at the held-out rows."""
        rows = batch_of(self._data.train, state["step"], self._settings)
        sums, places = self._backward(rows)
        update()
        for head in Head:
            state["sums"][head] += sums[head]
            state["places"][head] += places[head]
        done = state["step"] + 1
        if done % self._settings.eval_every == 0 or done == self._settings.steps:
            self._look(state, done)

    def record(self, state: State) -> Json:
        """Returns means since the last line, and what the last look since then saw."""
        means = _means(state["sums"], state["places"])
        rows = state["step"] * self._settings.batch_size
        line = {
            "loss": self._total(means),
            **{f"{head}_loss": mean for head, mean in means.items()},
            "epoch": rows / len(self._data.train),
            **state["looked"],
        }
        state.update(sums=_zeros(), places=_zeros(), looked={})
        return line

    def _backward(self, rows: Sequence[CriticRow]) -> tuple[Sums, dict[Head, int]]:
        """Adds the gradient of the batch's loss to the parameters; returns sums and places."""
        settings = self._settings
        places = known(rows, settings.targets, settings.device).counts()
        sums: Sums = dict.fromkeys(Head, 0.0)
        size = settings.micro_batch_size or len(rows)
        for start in range(0, len(rows), size):
            found = self._losses(rows[start : start + size])
            parts = [self._weights[head] * found[head] / max(1, places[head]) for head in Head]
            torch.autograd.backward(torch.stack(parts).sum())
            for head in Head:
                sums[head] += float(found[head].detach())
        return sums, places

    def _losses(self, rows: Sequence[CriticRow]) -> dict[Head, torch.Tensor]:
        """Returns by head the sum of its loss over some rows."""
        settings = self._settings
        half = settings.dtype == Dtype.BFLOAT16
        forward: Any = self._model
        with torch.autocast(settings.device, torch.bfloat16, enabled=half):
            readout = forward([row.reading for row in rows])
        return losses(readout, known(rows, settings.targets, settings.device))

    @torch.no_grad()
    def _look(self, state: State, done: int) -> None:
        """Measures the loss on the held-out rows; keeps the weights where it is the lowest."""
        means = self._held_out()
        loss = self._total(means)
        assert loss is not None, "a held-out split without targets is refused"
        state["looked"] = {
            "eval_loss": loss,
            **{f"eval_{head}_loss": mean for head, mean in means.items()},
        }
        if state["best_loss"] is None or loss < state["best_loss"]:
            digest = save_best(self._out, self._model, done)
            state.update(best_step=done, best_loss=loss, best_sha256=digest, looks_since_best=0)
        else:
            state["looks_since_best"] += 1
            patience = self._settings.patience
            state["done"] = bool(patience) and state["looks_since_best"] >= patience

    def _held_out(self) -> dict[Head, float | None]:
        """Returns the mean losses on the held-out rows, without dropout."""
        self._model.train(False)
        rows = self._data.validation
        sums, places = dict.fromkeys(Head, 0.0), dict.fromkeys(Head, 0)
        for batch in passes([len(row.reading.ids) for row in rows], room=_ROOM):
            chosen = [rows[place] for place in batch]
            counts = known(chosen, self._settings.targets, self._settings.device).counts()
            for head, loss in self._losses(chosen).items():
                sums[head] += float(loss)
                places[head] += counts[head]
        self._model.train()
        return _means(sums, places)

    def _total(self, means: Mapping[Head, float | None]) -> float | None:
        """Returns the weighted loss of all heads that have something to learn; None without any."""
        known = [(self._weights[head], mean) for head, mean in means.items() if mean is not None]
        return sum(weight * mean for weight, mean in known) if any(w for w, _ in known) else None


def batch_of(rows: Sequence[CriticRow], step: int, settings: CriticSettings) -> list[CriticRow]:
    """Returns the rows of a step: epoch after epoch, each in an order drawn from the seed."""
    first = step * settings.batch_size
    places = range(first, first + settings.batch_size)
    orders = {
        epoch: np.random.default_rng([settings.seed, epoch]).permutation(len(rows))
        for epoch in {place // len(rows) for place in places}
    }
    return [rows[orders[place // len(rows)][place % len(rows)]] for place in places]


def _zeros() -> dict[str, float]:
    return {head.value: 0.0 for head in Head}


def _means(sums: Mapping[Any, float], places: Mapping[Any, float]) -> dict[Head, float | None]:
    """Returns by head the mean loss; None where it had nothing to learn."""
    return {head: sums[head] / places[head] if places[head] else None for head in Head}

"""Fine-tunes a language model on solutions; the loss is on what the model is to write itself.

The loss of a step is the mean over all learned tokens of its batch, however the batch is packed or
split into forward passes.
"""

import itertools
from pathlib import Path

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from treeward.search.errors import BadInput
from treeward.search.transformers_policy import check_head
from treeward.train.checkpoint import State
from treeward.train.forward import check_packing, load_trainable, target_logits
from treeward.train.loop import Progress, Update, identity, run_loop, session
from treeward.train.output import Json, output, write_model
from treeward.train.packing import IGNORED, Batch, batches, collate
from treeward.train.settings import Dtype
from treeward.train.sft_data import SftRows, read_sft
from treeward.train.sft_settings import SftSettings


def train_sft(
    data: Path,
    model: Path,
    out: Path,
    settings: SftSettings,
    *,
    resume: bool,
    progress: Progress,
) -> Path:
    """Fine-tunes a model and returns the folder with the finished one.

    Args:
        data: A Parquet file or folder with `prompt` and `completion`, or `messages`.
        model: A Hugging Face folder. Without weights they are drawn from the seed.
        out: A new folder; with `resume` one that holds the same run, whole or in part.
        settings: How it is trained.
        resume: Goes on from the latest checkpoint.
        progress: Is called at every logged step.

    Raises:
        BadInput: The data, the model or the output folder cannot be used.
        SettingsConflict: The output folder holds another run.
        DamagedData: The checkpoint does not hold what was written to it.
        TreewardError: The disk is full, or the gradient stopped being a number.
    """
    room, skip_long = settings.sequence_length, settings.skip_long
    with session(out, settings):
        trained = load_trainable(model, settings)
        rows = read_sft(data, model, room=room, skip_long=skip_long)
        _check_fit(rows, trained, model)
        check_packing(trained)
        check_head(trained, model)
        about = {
            "sha256": rows.fingerprint(),
            "rows": len(rows.rows),
            "rows_too_long": rows.n_too_long,
        }
        with output(out, identity("sft", settings, model, about), resume=resume):
            run_loop(trained.train(), out, settings, SftJob(trained, rows, settings), progress)
            write_model(out, trained, model, settings.save_dtype)
    return out


def _check_fit(rows: SftRows, trained: PreTrainedModel, model: Path) -> None:
    highest = max(int(row.ids.max()) for row in rows.rows)
    size = trained.config.vocab_size
    if highest >= size:
        raise BadInput(
            f"{model}: its tokenizer has a token {highest} and config.json vocab_size {size}; "
            "the tokenizer of another model?"
        )
    longest = max(row.places for row in rows.rows)
    context = getattr(trained.config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise BadInput(
            f"a row needs {longest} tokens and {model} has {context} positions; set "
            f"train.sequence_length={context} and leave longer rows out with train.skip_long=true"
        )


class SftJob:
    """Learns packed rows, in an order drawn from the seed; a `Job`."""

    def __init__(self, model: PreTrainedModel, rows: SftRows, settings: SftSettings) -> None:
        """Takes the model that is trained in place."""
        self._model = model
        self._rows = rows.rows
        self._settings = settings
        self._stream = batches(
            [row.places for row in rows.rows],
            room=settings.sequence_length,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        self._drawn = 0

    def start(self) -> State:
        """Returns no counts yet."""
        return {"rows": 0, "tokens": 0, "loss": 0.0, "hits": 0, "targets": 0}

    def step(self, state: State, update: Update) -> None:
        """Learns one batch."""
        skipped = state["step"] - self._drawn
        packs = next(itertools.islice(self._stream, skipped, None))
        self._drawn += skipped + 1
        batch = collate(self._rows, packs)
        loss, hits = backward(self._model, batch, self._settings)
        update()
        state["rows"] += sum(map(len, packs))
        state["tokens"] += batch.n_tokens
        state["loss"] += loss
        state["hits"] += hits
        state["targets"] += batch.n_targets

    def record(self, state: State) -> Json:
        """Returns means since the last line."""
        line = {
            "loss": state["loss"] / state["targets"],
            "num_tokens": state["tokens"],
            "epoch": state["rows"] / len(self._rows),
            "mean_token_accuracy": state["hits"] / state["targets"],
        }
        state.update(loss=0.0, hits=0, targets=0)
        return line


def backward(model: PreTrainedModel, batch: Batch, settings: SftSettings) -> tuple[float, int]:
    """Adds the gradient of the mean loss over the batch's learned tokens to the parameters.

    Returns:
        The sum of the loss over learned tokens, in nats, and how many of them were the likeliest.
    """
    device, half = settings.device, settings.dtype == Dtype.BFLOAT16
    loss_sum, hits = 0.0, 0
    for inputs, positions, labels in batch.split(settings.micro_batch_size):
        keep = labels != IGNORED
        targets = labels[keep].to(device)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = target_logits(model, inputs.to(device), positions.to(device), keep.to(device))
        loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
        torch.autograd.backward(loss / batch.n_targets)
        loss_sum += float(loss.detach())
        hits += int((logits.detach().argmax(-1) == targets).sum())
    return loss_sum, hits

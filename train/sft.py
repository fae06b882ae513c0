"""Fine-tunes a language model on solutions; the loss is on what the model is to write itself.

The loss of a step is the mean over all learned tokens of its batch, however the batch is packed or
split into forward passes. What a step does depends on the weights, the settings and its number
alone, so a run that is killed and resumed ends with the same bits.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn import functional
from transformers import PreTrainedModel

from treeward.export.durable import disk_errors, file_sha256
from treeward.search.errors import BadInput, TreewardError
from treeward.search.quiet import no_bars
from treeward.train.checkpoint import State, latest_checkpoint, load_checkpoint, save_checkpoint
from treeward.train.forward import (
    check_packing,
    load_trainable,
    saved_dtype,
    target_logits,
)
from treeward.train.optim import adamw, learning_rate
from treeward.train.output import Json, Metrics, open_output, write_model
from treeward.train.packing import IGNORED, Batch, Row, batches, collate
from treeward.train.sft_data import SftRows, read_sft
from treeward.train.sft_settings import Dtype, SftSettings

Progress = Callable[[Json], None]
"""Receives each line of `metrics.jsonl` as it is written."""


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
    with _process_state(settings.threads), no_bars(), _disk_errors(out):
        trained = load_trainable(model, seed=settings.seed, device=settings.device)
        rows = read_sft(data, model, room=room, skip_long=skip_long)
        _check_vocabulary(rows, trained, model)
        check_packing(trained)
        open_output(out, _identity(rows, model, settings), resume=resume)
        _loop(trained.train(), rows.rows, out, settings, progress)
        chosen = settings.save_dtype
        dtype = getattr(torch, chosen) if chosen else saved_dtype(model)
        write_model(out, trained, model, dtype)
    return out


@contextmanager
def _process_state(threads: int | None) -> Iterator[None]:
    """Sets the thread count; afterwards it and the random state are as they were."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _disk_errors(out: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line; safetensors has an error of its own for it."""
    doing = "cannot write the training output"
    try:
        with disk_errors(out, doing):
            yield
    except SafetensorError as e:
        raise TreewardError(f"{out}: {doing}: {e}; free some space, then --resume") from e


def _check_vocabulary(rows: SftRows, trained: PreTrainedModel, model: Path) -> None:
    highest = max(int(row.ids.max()) for row in rows.rows)
    size = trained.config.vocab_size
    if highest >= size:
        raise BadInput(
            f"{model}: its tokenizer has a token {highest} and config.json vocab_size {size}; "
            "the tokenizer of another model?"
        )


def _identity(rows: SftRows, model: Path, settings: SftSettings) -> Json:
    """Returns whatever decides the finished weights."""
    files = [model / "config.json", *sorted(model.glob("*.safetensors"))]
    return {
        "schema_version": 1,
        "kind": "sft",
        "train": asdict(settings),
        "data": {
            "sha256": rows.fingerprint(),
            "rows": len(rows.rows),
            "rows_too_long": rows.n_too_long,
        },
        "model": {path.name: file_sha256(path) for path in files},
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "treeward")},
    }


def _loop(
    model: PreTrainedModel, rows: list[Row], out: Path, settings: SftSettings, progress: Progress
) -> None:
    """Trains in place from the latest checkpoint, or from the start, to the last step."""
    optimizer = adamw(model, weight_decay=settings.weight_decay, beta2=settings.adam_beta2)
    state: State = {"step": 0, "rows": 0, "tokens": 0, "metrics_bytes": 0, "window": _EMPTY}
    if checkpoint := latest_checkpoint(out):
        state = load_checkpoint(checkpoint, model, optimizer)
    stream = batches(
        [row.places for row in rows],
        room=settings.sequence_length,
        batch_size=settings.batch_size,
        seed=settings.seed,
    )
    with closing(Metrics(out, state["metrics_bytes"])) as metrics:
        started = time.perf_counter()
        for packs in itertools.islice(stream, state["step"], settings.steps):
            batch = collate(rows, packs)
            facts = train_step(model, optimizer, batch, state["step"], settings)
            state["step"] += 1
            state["rows"] += sum(map(len, packs))
            state["tokens"] += batch.n_tokens
            state["window"] = {key: state["window"][key] + facts[key] for key in _EMPTY}
            last = state["step"] == settings.steps
            if last or state["step"] % settings.log_every == 0:
                now = time.perf_counter()
                record = _record(state, facts, len(rows), now - started)
                metrics.append(record)
                progress(record)
                state["window"], started = _EMPTY, now
            if last or state["step"] % settings.save_every == 0:
                state["metrics_bytes"] = metrics.sync()
                save_checkpoint(out, model, optimizer, state, keep=settings.save_total_limit)


_EMPTY: dict[str, float] = {"loss": 0.0, "hits": 0, "targets": 0, "steps": 0}
"""Sums since the last logged step."""


def _record(state: State, facts: dict[str, float], n_rows: int, seconds: float) -> Json:
    """Returns a line of metrics: means since the last line, the last step's norm and rate."""
    window = state["window"]
    return {
        "step": state["step"],
        "loss": window["loss"] / window["targets"],
        "grad_norm": facts["grad_norm"],
        "learning_rate": facts["learning_rate"],
        "num_tokens": state["tokens"],
        "epoch": state["rows"] / n_rows,
        "mean_token_accuracy": window["hits"] / window["targets"],
        "step_time": seconds / window["steps"],
    }


def train_step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    settings: SftSettings,
) -> dict[str, float]:
    """Takes one optimizer step and returns its sums, gradient norm and learning rate.

    Dropout is drawn from the seed and the step.

    Raises:
        TreewardError: The gradient is no number.
    """
    torch.manual_seed(int(np.random.SeedSequence([settings.seed, step]).generate_state(1)[0]))
    loss, hits = backward(model, batch, settings)
    bound = settings.max_grad_norm or float("inf")
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), bound))
    if not norm < float("inf"):
        raise TreewardError(
            f"step {step + 1}: gradient norm {norm}, loss {loss}: training diverged; "
            f"start again with a lower train.learning_rate than {settings.learning_rate}"
        )
    rate = learning_rate(
        step,
        peak=settings.learning_rate,
        steps=settings.steps,
        warmup_steps=settings.warmup_steps,
        schedule=settings.schedule,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    sums = {"loss": loss, "hits": hits, "targets": batch.n_targets, "steps": 1}
    return {**sums, "grad_norm": norm, "learning_rate": rate}


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

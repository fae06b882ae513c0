"""The loop that all trainers share: take a step, log, save; a resume goes on with the same bits.

What a step does depends on the weights, the settings and its number alone, so a run that is killed
and resumed ends as one that was not.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from treeward.export.durable import disk_errors, file_sha256
from treeward.search.errors import TreewardError
from treeward.search.quiet import no_bars
from treeward.train.checkpoint import State, latest_checkpoint, load_checkpoint, save_checkpoint
from treeward.train.optim import adamw, learning_rate
from treeward.train.output import COPIED, Json, Metrics, check_board
from treeward.train.settings import TrainSettings
from treeward.train.stopping import Stopped, first_signal

Progress = Callable[[Json], None]
"""Receives each line of `metrics.jsonl` as it is written."""

Update = Callable[[], None]
"""Takes one optimizer step with the gradients that are there."""


class Job(Protocol):
    """What one trainer does in the loop."""

    def start(self) -> State:
        """Returns its counts before the first step: JSON values."""
        ...

    def step(self, state: State, update: Update) -> None:
        """Takes step `state["step"]`: makes gradients, calls `update`, counts in the state.

        It may set `state["done"]`: then this was the last step or, where it did not update, no
        step at all. It is logged nevertheless.
        """
        ...

    def record(self, state: State) -> Json:
        """Returns a line of metrics and starts counting anew."""
        ...


@contextmanager
def session(out: Path, settings: TrainSettings) -> Iterator[None]:
    """Sets the thread count; afterwards it and the random state are as they were.

    Raises:
        MissingExtra: What is told the metrics is not installed.
        TreewardError: The disk refuses the training output; safetensors has an error of its own.
    """
    check_board(settings.report_to)
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads or before)
    doing = "cannot write the training output"
    try:
        with torch.random.fork_rng(devices=[]), no_bars(), disk_errors(out, doing):
            yield
    except SafetensorError as e:
        raise TreewardError(f"{out}: {doing}: {e}; free some space, then --resume") from e
    finally:
        torch.set_num_threads(before)


def identity(kind: str, settings: TrainSettings, model: Path, data: Json) -> Json:
    """Returns whatever decides the finished weights; what `run.json` holds.

    Args:
        kind: Which trainer.
        settings: How it trains.
        model: The folder trained from.
        data: What is known of the data, a digest among it.
    """
    beside = (model / name for name in ("config.json", *COPIED))
    files = [path for path in beside if path.is_file()] + sorted(model.glob("*.safetensors"))
    return {
        "schema_version": 1,
        "kind": kind,
        "train": asdict(settings),
        "data": data,
        "model": {path.name: file_sha256(path) for path in files},
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "treeward")},
    }


def run_loop(
    model: nn.Module, out: Path, settings: TrainSettings, job: Job, progress: Progress
) -> State:
    """Trains in place from the latest checkpoint, or from the start, to the last step.

    Returns:
        What the job counted.

    Raises:
        DamagedData: The checkpoint does not hold what was written to it.
        Stopped: A signal ended it; there is a checkpoint of the last whole step.
        TreewardError: The gradient stopped being a number.
    """
    optimizer = adamw(model, weight_decay=settings.weight_decay, beta2=settings.adam_beta2)
    state: State = {"step": 0, "done": False, "metrics_bytes": 0, "updated": {}, **job.start()}
    if checkpoint := latest_checkpoint(out):
        state = load_checkpoint(checkpoint, model, optimizer)
    facts: Json = {}

    def update() -> None:
        facts.update(_update(model, optimizer, state, settings))

    with (
        closing(Metrics(out, state["metrics_bytes"], settings.report_to, state["step"])) as metrics,
        first_signal() as stopping,
    ):
        started, since_started = time.perf_counter(), 0
        while state["step"] < settings.steps and not state["done"]:
            # Dropout is drawn from the seed and the step.
            torch.manual_seed(seed_of_step(settings.seed, state["step"]))
            facts.clear()
            job.step(state, update)
            # One that finds nothing more and updates nothing is none.
            taken = bool(facts) or not state["done"]
            state["updated"] |= facts
            tried = state["step"] + 1
            state["step"] += taken
            since_started += 1
            last = state["done"] or state["step"] == settings.steps
            if last or tried % settings.log_every == 0:
                now = time.perf_counter()
                seconds = (now - started) / since_started
                # With what the last update said; a step may have had none.
                line = {"step": tried, **job.record(state), **state["updated"]}
                line["step_time"] = seconds
                state["updated"] = {}
                metrics.append(line)
                progress(line)
                started, since_started = now, 0
            due = state["step"] % settings.save_every == 0 or bool(stopping)
            if (last or due) and (taken or not due):
                state["metrics_bytes"] = metrics.sync()
                save_checkpoint(out, model, optimizer, state, keep=settings.save_total_limit)
            if stopping and not last:
                done = f"{out}: stopped after step {state['step']}; --resume goes on"
                raise Stopped(stopping[0], done)
    return state


def seed_of_step(seed: int, step: int) -> int:
    """Returns what torch is seeded with at a step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1)[0])


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: State, settings: TrainSettings
) -> Json:
    """Clips the gradients and takes one optimizer step at the step's learning rate.

    Raises:
        TreewardError: The gradient is no number.
    """
    bound = settings.max_grad_norm or float("inf")
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), bound))
    if not norm < float("inf"):
        raise TreewardError(
            f"step {state['step'] + 1}: gradient norm {norm}: training diverged; "
            f"start again with a lower train.learning_rate than {settings.learning_rate}"
        )
    rate = learning_rate(
        state["step"],
        peak=settings.learning_rate,
        steps=settings.steps,
        warmup_steps=settings.warmup_steps,
        schedule=settings.schedule,
    )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()
    return {"grad_norm": norm, "learning_rate": rate}

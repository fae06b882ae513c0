"""AdamW without decay on vectors, and a learning rate that is a function of the step alone."""

import math
from enum import StrEnum

import torch
from torch import nn


class Schedule(StrEnum):
    """How the learning rate falls after warm-up."""

    LINEAR = "linear"
    """In a straight line to 0 at the last step."""
    COSINE = "cosine"
    """Along half a cosine to 0 at the last step."""
    CONSTANT = "constant"
    """Not at all."""


def learning_rate(
    step: int, *, peak: float, steps: int, warmup_steps: int, schedule: Schedule
) -> float:
    """Returns the learning rate of a step.

    It rises in a straight line over the warm-up, is `peak` at step `warmup_steps` and would be 0
    at `steps`, the step after the last.

    Args:
        step: Counts from 0.
        peak: The highest rate.
        steps: Steps of the whole run.
        warmup_steps: Steps before the peak; 0 starts at the peak.
        schedule: What comes after the peak.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / max(1, steps - warmup_steps)
    match schedule:
        case Schedule.LINEAR:
            return peak * (1 - done)
        case Schedule.COSINE:
            return peak * (1 + math.cos(math.pi * done)) / 2
        case Schedule.CONSTANT:
            return peak


def adamw(model: nn.Module, *, weight_decay: float, beta2: float) -> torch.optim.AdamW:
    """Returns AdamW over the trainable parameters; gains and biases do not decay.

    Its learning rate is 0 until a loop sets it. eps is 1e-8, beta1 0.9.
    """
    parameters = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, beta2), eps=1e-8, fused=True)

"""Trains critics of value, progress and outcome: three heads on a language model that learns too.

The loss of a step is, for each head, the mean over the places of its batch where something is
known, weighed by the settings; however the batch is split into forward passes.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from treeward.critics.calibration import Calibration, Fit, calibrate, fit
from treeward.critics.heads import CriticModel, Head
from treeward.critics.learned import ABOUT, HEADS, SCHEMA_VERSION, load_critics, reader_for
from treeward.export.durable import write_file
from treeward.search.models import cache_root, resolve_model
from treeward.search.prompts import Template, load_template
from treeward.train.best_weights import load_best
from treeward.train.critic_data import CriticData, CriticRow, read_critic_data
from treeward.train.critic_job import CriticJob
from treeward.train.critic_settings import CriticSettings
from treeward.train.forward import load_trainable
from treeward.train.loop import Progress, identity, run_loop, session
from treeward.train.output import Json, open_output, write_model
"""Placeholder."""

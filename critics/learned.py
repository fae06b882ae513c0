"""Learned critics: a language model that has read a whole prefix scores every step of it at once.

A folder of critics is a model folder with `heads.safetensors` and `critics.json` beside the trunk.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from treeward.critics.heads import CriticModel, Head, probabilities
from treeward.critics.reading import PrefixReader, Reading
from treeward.search.critic import Prefix, Scores
from treeward.search.devices import check_device
from treeward.search.errors import BadInput, DamagedData
from treeward.search.models import resolve_model
from treeward.search.prompts import Template
from treeward.search.templates import template_from
from treeward.search.tokens import load_tokens
from treeward.search.weights import load_whole

SCHEMA_VERSION = 1
"""Of `critics.json`."""

ABOUT, HEADS = "critics.json", "heads.safetensors"
"""The files that make a model folder one of critics."""

_ROOM = 16_384
"""Tokens of a pass, padding included, unless one prefix needs more."""

Predictions = NDArray[np.float64]
"""[1 + S, 3]: value, progress and outcome of the bare problem and after each of S steps."""


def load_critics(
    folder: Path | str, *, device: str = "cpu", threads: int | None = None, alone: bool = False
) -> "LearnedCritic":
    """Returns the critics that `treeward train critics` wrote.

    Args:
        folder: The training output.
        device: A torch device.
        threads: CPU threads of a pass; None takes one where `alone`, else leaves the process as
            it is.
        alone: Whether every prefix has a pass of its own, so that the bits of its scores depend
            on nothing else. Slower.

    Raises:
        BadInput: The folder holds no critics that can be used.
        DamagedData: A file does not hold what was written to it.
    """
    check_device("device", device)
    folder = Path(folder).absolute()
    template, trained, heads_sha256 = _about(folder)
    if not trained:
        raise BadInput(f"{folder}: these critics learned nothing; train them on more problems")
    found = resolve_model(str(folder), folder)
    model = CriticModel(_load_trunk(folder, device))
    _load_heads(model, folder / HEADS, heads_sha256)
    digest = hashlib.sha256(found.fingerprint.encode() + heads_sha256.encode())
    digest.update((folder / ABOUT).read_bytes())
    return LearnedCritic(
        model.train(False),
        reader_for(model.trunk, folder, template),
        trained,
        fingerprint=digest.hexdigest()[:16],
        threads=threads,
        alone=alone,
    )


def reader_for(trunk: PreTrainedModel, folder: Path, template: Template) -> PrefixReader:
    """Returns what turns prefixes into the tokens of a trunk.

    Args:
        trunk: The language model.
        folder: Where its tokenizer is.
        template: How problems are put.
    """
    config = trunk.config
    return PrefixReader(
        template=template,
        tokens=load_tokens(folder),
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
    )


def _about(folder: Path) -> tuple[Template, frozenset[Head], str]:
    """Reads `critics.json`: the template, the trained heads, and the digest of their weights."""
    path = folder / ABOUT
    if not path.is_file():
        raise BadInput(f"{folder}: no {ABOUT}; `treeward train critics` makes a folder of critics")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        newer = data["schema_version"] > SCHEMA_VERSION
        trained = frozenset(map(Head, data["trained"]))
        about = template_from("critics", data["template"]), trained, str(data["heads_sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise DamagedData(f"{path}: not what was written; train the critics again") from e
    if newer:
        raise BadInput(
            f"{path}: has schema_version {data['schema_version']} and this treeward reads up to "
            f"{SCHEMA_VERSION}; update treeward"
        )
    return about


def _load_trunk(folder: Path, device: str) -> PreTrainedModel:
    """Returns the language model, in float32."""
    trunk = load_whole(folder, dtype=torch.float32)
    module: torch.nn.Module = trunk
    module.to(device)
    return trunk


def _load_heads(model: CriticModel, path: Path, sha256: str) -> None:
    """Puts the weights of the heads where they belong."""
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise DamagedData(f"{path}: not what was written; train the critics again")
        model.heads.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as e:
        first = str(e).strip().splitlines()[0]
        raise DamagedData(f"{path}: no weights of heads: {first}; train the critics again") from e


class LearnedCritic:
    """Scores prefixes with a trained model; satisfies `Critic`."""

    def __init__(
        self,
        model: CriticModel,
        reader: PrefixReader,
        trained: frozenset[Head],
        *,
        fingerprint: str,
        threads: int | None,
        alone: bool,
    ) -> None:
        """Takes a model that is ready to be used.

        Args:
            model: Trunk and heads.
            reader: Turns prefixes into its tokens.
            trained: The heads that had something to learn; the others say nothing.
            fingerprint: What the folder's content hashes to; part of the identity.
            threads: See `load_critics`.
            alone: See `load_critics`.
        """
        if threads is not None and threads < 1:
            raise BadInput(f"threads must be at least 1, got {threads!r}")
        self.alone = alone
        self.trained = trained
        self._model = model
        self._reader = reader
        self._fingerprint = fingerprint
        self._threads = threads

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns what its scores depend on; with `alone` to the last bit on the same machine."""
        identity: dict[str, str | int] = {
            "critic": "learned",
            "fingerprint": self._fingerprint,
            "mode": "alone" if self.alone else "batched",
            "device": str(self._model.device),
        }
        if self.alone:
            identity |= {
                "threads": self._threads or 1,
                "torch": version("torch"),
                "transformers": version("transformers"),
            }
        return identity

    def standing_alone(self, threads: int | None) -> "LearnedCritic":
        """Returns the same critics, each prefix with a pass of its own; see `load_critics`."""
        return LearnedCritic(
            self._model,
            self._reader,
            self.trained,
            fingerprint=self._fingerprint,
            threads=threads or self._threads,
            alone=True,
        )

    def read(self, prefix: Prefix) -> Reading:
        """Returns a prefix as the model's tokens.

        Raises:
            BadInput: The model cannot read it.
        """
        return self._reader.read(prefix.problem, prefix.steps)

    def predict(self, readings: Sequence[Reading]) -> list[Predictions]:
        """Returns for each reading what the heads say at its ends, trained or not."""
        with _threads((self._threads or 1) if self.alone else self._threads):
            return predict(self._model, readings, alone=self.alone)

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        """Returns for each prefix the scores of the bare problem and after each of its steps.

        Raises:
            BadInput: A prefix is longer than the model's context, or holds what it cannot read.
        """
        predictions = self.predict([self.read(prefix) for prefix in prefixes])
        return [self._scores(prediction) for prediction in predictions]

    def _scores(self, prediction: Predictions) -> list[Scores]:
        value, progress, outcome = (head in self.trained for head in Head)
        return [
            Scores(
                value=float(row[0]) if value else None,
                progress=float(row[1]) if progress and place else None,
                outcome=float(row[2]) if outcome and place else None,
            )
            for place, row in enumerate(prediction)
        ]


@torch.inference_mode()
def predict(
    model: CriticModel, readings: Sequence[Reading], *, alone: bool = False
) -> list[Predictions]:
    """Returns for each reading what the heads say at its ends, one pass for many readings.

    Args:
        model: Trunk and heads; must not be in training mode.
        readings: In any order and number.
        alone: Whether each has a pass of its own.
    """
    results: dict[int, Predictions] = {}
    forward: Any = model
    for batch in passes([len(reading.ids) for reading in readings], room=0 if alone else _ROOM):
        chosen = [readings[place] for place in batch]
        said_N3 = probabilities(forward(chosen)).double().cpu().numpy()
        cuts = np.cumsum([len(reading.ends) for reading in chosen])[:-1]
        results.update(zip(batch, np.split(said_N3, cuts), strict=True))
    return [results[place] for place in range(len(readings))]


def passes(lengths: Sequence[int], *, room: int) -> Iterator[list[int]]:
    """Yields the places of lengths so that like ones are together and few tokens are padding.

    Args:
        lengths: Tokens of each sequence.
        room: Padded tokens of a pass; a sequence that alone needs more is a pass.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[place] * (len(batch) + 1) > room:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Sets torch's CPU threads for a while; None changes nothing."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

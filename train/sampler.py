"""Draws completions from the weights as they are now."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from treeward.search.engine import Engine, EngineSettings
from treeward.search.jobs import Job
from treeward.search.policy import Ask, Draw, Mode
from treeward.search.tokens import Tokens
from treeward.search.transformers_policy import TransformersSettings, load_model
from treeward.train.weights import merged_weights, share_weights

_SLOTS = 64
"""Completions decoded at once, at most."""


class Sampler:
    """Holds the weights of the model that is trained, in a model made for sampling."""

    def __init__(
        self, folder: Path, tokens: Tokens, *, device: str, threads: int, rows: int
    ) -> None:
        """Loads a model folder.

        Args:
            folder: Where the model is.
            tokens: Its tokens.
            device: A torch device.
            threads: Threads of a pass.
            rows: Completions that are asked for together; keys and values of no more are kept.

        Raises:
            BadInput: The folder holds no model that the transformers backend runs.
        """
        settings = TransformersSettings(device=device, dtype="float32", threads=threads)
        self._model = load_model(folder, settings)
        shapes = EngineSettings(mode=Mode.NORMAL, slots=min(rows, _SLOTS))
        self._engine = Engine(self._model, tokens, shapes)

    def follow(self, model: PreTrainedModel) -> None:
        """Takes over the weights of the model that is trained, without a copy of its own.

        Whatever was computed with others is forgotten, so what is drawn next depends on nothing
        that was drawn before.
        """
        share_weights(self._model, merged_weights(model))
        self._engine.forget()

    def rest(self) -> None:
        """Lets go of all keys and values, which leaves their memory to learning."""
        self._engine.forget()

    def draw(self, asks: Sequence[Ask]) -> list[list[Draw]]:
        """Returns the completions of each ask.

        Raises:
            CallFailed: An ask does not fit in the model's context.
        """
        results: dict[int, list[Draw]] = {}
        failures: list[BaseException] = []

        def settle(place: int, result: list[Draw] | BaseException) -> None:
            if isinstance(result, BaseException):
                failures.append(result)
            else:
                results[place] = result

        for place, ask in enumerate(asks):
            self._engine.add(Job(ask=ask, done=partial(settle, place)))
        while self._engine.busy:
            self._engine.tick()
        if failures:
            raise failures[0]
        return [results[place] for place in range(len(asks))]


def draw_seed(seed: int, prompt_id: str, round_: int, index: int) -> int:
    """Returns the seed of one completion: 63 bits of which one it is, never of when it is drawn.

    Args:
        seed: The run's.
        prompt_id: What is asked.
        round_: How often it was asked before.
        index: Which one of the group.
    """
    return seed_of_name(f"train:{seed}:{round_}:{index}", prompt_id)


def seed_of_name(purpose: str, name: str) -> int:
    """Returns 63 bits of what is drawn for which purpose."""
    text = f"{purpose}:".encode() + name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1

"""A policy and a critic that follow scripts, for tests and for worlds whose values are known."""

from collections.abc import Callable, Sequence

import numpy as np

from treeward.search.continuation import Continuation
from treeward.search.critic import Prefix, Scores
from treeward.search.errors import CallFailed
from treeward.search.policy import Ask, Draw, LogprobAsk
from treeward.search.sampling import uniforms
from treeward.search.tokens import Tokens, byte_tokens

Script = Callable[[str, str], Sequence[tuple[str, float]]]
"""Given a prompt and the text of the steps so far, the next steps and their probabilities.

A step ends with the delimiter. The probabilities sum to 1.
"""


class ScriptedPolicy:
    """Draws whole steps from a script; tokens are bytes. Satisfies `Policy`."""

    def __init__(self, script: Script, name: str = "scripted") -> None:
        """Takes a script and a name that stands for it in a run's identity."""
        self._script = script
        self._name = name
        self._tokens = byte_tokens()

    @property
    def tokens(self) -> Tokens:
        """Returns byte tokens."""
        return self._tokens

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns the script's name."""
        return {"backend": "scripted", "fingerprint": self._name, "mode": "deterministic"}

    async def draw(self, ask: Ask) -> list[Draw]:
        """Returns one continuation for each seed."""
        return [self._draw_one(ask, seed) for seed in ask.seeds]

    async def logprobs(self, ask: LogprobAsk) -> list[float]:
        """Returns those of a script's steps, all of each at its first token; others fail."""
        prompt, text, said = self._tokens.text_of(ask.prompt_ids), self._tokens.text_of(ask.ids), ""
        found: list[float] = []
        while len(found) < len(ask.ids):
            rest = text.removeprefix(said)
            choices = ((each, p) for each, p in self._script(prompt, said) if p)
            step, p = next((each for each in choices if rest.startswith(each[0])), ("", 0.0))
            if not p:
                raise CallFailed("unscripted", f"the script never says {rest[:80]!r}")
            said += step
            found += [float(np.log(p)), *[0.0] * (len(self._tokens.encode(step)) - 1)]
        return found

    async def close(self) -> None:
        """Holds nothing."""

    def _draw_one(self, ask: Ask, seed: int) -> Draw:
        prompt = self._tokens.text_of(ask.prompt_ids)
        text = self._tokens.text_of(ask.prefix_ids)
        drawn = Continuation.of(ask, self._tokens)
        for place in range(ask.room):
            step, probability = self._choose(prompt, text, seed, place)
            text += step
            logprob = float(np.log(probability))
            for token in self._tokens.encode(step):
                draw = drawn.add(token, logprob)
                if draw is not None:
                    return draw
                logprob = 0.0
        raise AssertionError("a script's steps are not empty")

    def _choose(self, prompt: str, text: str, seed: int, place: int) -> tuple[str, float]:
        """Returns a step and its probability; the noise depends on the seed and the place."""
        choices = self._script(prompt, text)
        noise = uniforms(np.array([seed], dtype=np.uint64), np.array([place], dtype=np.uint64))
        cumulative = np.cumsum([probability for _, probability in choices])
        chosen = int(np.searchsorted(cumulative, noise[0] * cumulative[-1], side="right"))
        return choices[min(chosen, len(choices) - 1)]


Opinion = Callable[[str, Sequence[str]], Scores]
"""Given a prompt and the texts of the steps so far, what critics say about the last one."""


class ScriptedCritic:
    """Says what a script says. Satisfies `Critic`."""

    def __init__(self, opinion: Opinion, name: str = "scripted") -> None:
        """Takes a script and a name that stands for it in a run's identity."""
        self._opinion = opinion
        self._name = name

    @property
    def identity(self) -> dict[str, str | int]:
        """Returns the script's name."""
        return {"fingerprint": self._name}

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        """Returns for each prefix the scores of the bare problem and after each of its steps."""
        return [
            [
                self._opinion(prefix.problem.prompt, prefix.steps[:depth])
                for depth in range(len(prefix.steps) + 1)
            ]
            for prefix in prefixes
        ]

"""What comes back: completions with their verdicts, scores, and why any of them are missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from treeward.search.critic import Scores
from treeward.search.steps import Finish
from treeward.search.verdicts import Judgement


class Completion(NamedTuple):
    """Holds one continuation as drawn; a tuple, for there is one for every node and rollout."""

    token_ids: tuple[int, ...]
    """The sampled ids, end token included."""

    logprob: float
    """Sum of the log-probabilities of the ids at temperature 1, in nats."""

    finish: Finish
    """Why it stopped."""

    seed: int
    """What it was drawn with."""

    judgement: Judgement | None = None
    """What is known about the solution; None where it goes on."""

    step_logprobs: tuple[float, ...] = ()
    """The log-probability of each step; empty where there is one, and where it is not known."""

    def logprobs_of(self, steps: Sequence[tuple[int, ...]]) -> Sequence[float | None]:
        """Returns the log-probability of each of the steps that its ids were cut into.

        None where they came without, or end elsewhere when cut by themselves.
        """
        logprobs = self.step_logprobs or (self.logprob,)
        return logprobs if len(logprobs) == len(steps) else [None] * len(steps)


@dataclass(frozen=True, slots=True)
class Failure:
    """Says why a call gave no reply."""

    kind: str
    """A short word that runs are counted by, such as `timeout`."""

    message: str
    """One line for people."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answers one request: with completions, or with scores."""

    completions: tuple[Completion, ...] = ()
    """Those that came, in the order of their seeds."""

    failure: Failure | None = None
    """Why the other completions did not; of several causes the first. None where all came."""

    scores: tuple[Scores | Failure, ...] = ()
    """Of each sibling, or why there are none of it."""

    @property
    def n_came(self) -> int:
        """Returns how many of the completions or scores asked for are here."""
        n_scores = sum([isinstance(said, Scores) for said in self.scores]) if self.scores else 0
        return len(self.completions) + n_scores

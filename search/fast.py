"""Fast rollouts: drawn by a second, cheaper sampler to steer a search (AlphaLLM, Tian et al. 2024).

They say how well another sampler finishes from a node. That helps to choose between nodes, and it
is no evidence for the policy's value: no label reads it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from treeward.search.errors import BadInput
from treeward.search.policy import require_temperature
from treeward.search.requests import Kind, Request, ask
from treeward.search.settings import refuse_unread
from treeward.search.tree import Tree

FAST_SAMPLER = 1
"""The id of the sampler that draws them; 0 is the policy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FastSettings:
    """Rollouts by a cheaper sampler that steer and are no evidence; section `fast.`."""

    rollouts: int = 0
    """Fast rollouts a node; 0 asks for none."""

    policy: str | None = None
    """A model with the policy's tokenizer, such as `nano-fast` for `nano`; None takes the policy
    itself, which is to differ by one of the next two."""

    temperature: float | None = None
    """Divides the logits; None takes `policy.temperature`."""

    max_rollout_tokens: int | None = None
    """Tokens that a whole solution may have, the steps above a node included: from a node that has
    as many nothing is drawn. None takes `policy.max_rollout_tokens`."""

    weight: float = 0.125
    """How many rollouts of the policy's one fast rollout weighs in what a node is worth to the
    search; greater than 0. The less the two models agree, the less (docs/searches.md)."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule, or is set and nothing would read it.
        """
        if self.rollouts < 0:
            raise BadInput(f"fast.rollouts must be at least 0, got {self.rollouts!r}")
        if not 0 < self.weight < math.inf:
            raise BadInput(f"fast.weight must be greater than 0, got {self.weight!r}")
        if self.temperature is not None:
            require_temperature("fast.temperature", self.temperature)
        if self.max_rollout_tokens is not None and self.max_rollout_tokens < 1:
            least = f"at least 1, got {self.max_rollout_tokens!r}"
            raise BadInput(f"fast.max_rollout_tokens must be {least}")
        if self.rollouts == 0:
            refuse_unread("fast", self, "fast.rollouts=4")


@dataclass(frozen=True, slots=True, kw_only=True)
class FastRollouts:
    """Says which fast rollouts a search asks for, and what they count for."""

    n: int
    """How many a node."""

    weight: float
    """How many rollouts of the policy's one of them weighs."""

    max_tokens: int
    """Tokens that a solution may have, the steps above the node included."""


def ask_fast(tree: Tree, nodes: Sequence[int], fast: FastRollouts | None) -> list[Request]:
    """Returns requests for fast rollouts from each node that leaves room for one."""
    if fast is None:
        return []
    return [
        ask(tree, node, Kind.ROLLOUT, fast.n, sampler_id=FAST_SAMPLER)
        for node in nodes
        if len(tree.prefix_ids(node)) < fast.max_tokens
    ]

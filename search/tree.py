"""A tree of prefixes as columns with parent indices; node 0 is the bare problem.

Nodes and rollouts are only ever appended, parents before children, so an index is an order of
making: "existed when that was asked" is a comparison of integers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

from treeward.search.critic import Scores
from treeward.search.problem import Problem
from treeward.search.replies import Completion, Failure
from treeward.search.steps import Finish
from treeward.search.verdicts import Judgement, Verdict

ROOT = 0
NO_PARENT = -1
KEPT_PREFIXES = 32
"""How many prefixes a tree keeps at hand; a search asks about few nodes at a time."""


class Creation(StrEnum):
    """How a node came to be, which decides whose rollouts may count for it."""

    ROOT = "root"
    """The bare problem."""
    SAMPLED = "sampled"
    """The policy was asked for steps at its parent, perhaps because of what was seen there."""
    BLIND = "blind"
    """Cut from a rollout without regard to how any rollout ended."""
    CHOSEN = "chosen"
    """Cut from a rollout because of how it ended."""
    GIVEN = "given"
    """A step of a solution that the policy did not sample here."""


@dataclass(slots=True)
class Nodes:
    """The nodes' columns, one entry a node."""

    parent: list[int] = field(default_factory=list)
    depth: list[int] = field(default_factory=list)
    """Steps from the root."""
    step_ids: list[tuple[int, ...]] = field(default_factory=list)
    logprob: list[float | None] = field(default_factory=list)
    """Of the step given its prefix, in nats; None where only that of a whole rollout is known."""
    creation: list[Creation] = field(default_factory=list)
    n_samples: list[int] = field(default_factory=list)
    """Policy samples that this node stands for; identical ones share a node."""
    n_samples_below: list[int] = field(default_factory=list)
    """Policy samples that made its children or fell on them."""
    finish: list[Finish | None] = field(default_factory=list)
    """How the step ended; None at the root."""
    judgement: list[Judgement | None] = field(default_factory=list)
    """Of the solution that ends here; None inside the tree."""
    visits: list[int] = field(default_factory=list)
    value_sum: list[float] = field(default_factory=list)
    """Sum over visits of what the search backed up; it steers and no label reads it."""
    failure: list[Failure | None] = field(default_factory=list)
    """Why growing the tree here failed; None where it did not."""
    stop_rule: list[str | None] = field(default_factory=list)
    """Why no more rollouts were asked for here (a `StopRule`); None where nobody meant to."""
    scores: list[Scores | None] = field(default_factory=list)
    """What critics say; None where they were not asked or failed."""
    score_failure: list[Failure | None] = field(default_factory=list)
    """Why critics that were asked gave no scores; None where they did."""
    children: list[list[int]] = field(default_factory=list)
    drawn: list[dict[str, int]] = field(default_factory=list)
    """How many continuations were asked for, by kind and sampler."""


@dataclass(slots=True)
class Rollouts:
    """The rollouts' columns, one entry a rollout."""

    node: list[int] = field(default_factory=list)
    """Where it started."""
    sampler_id: list[int] = field(default_factory=list)
    nodes_before: list[int] = field(default_factory=list)
    """How many nodes there were when it was asked for: those could not depend on its outcome."""
    completion: list[Completion | None] = field(default_factory=list)
    """None where the call failed."""
    failure: list[Failure | None] = field(default_factory=list)


@dataclass(slots=True)
class Tree:
    """One problem's prefixes, rollouts and what was spent on them. A search grows it in place."""

    problem: Problem
    nodes: Nodes = field(default_factory=Nodes)
    rollouts: Rollouts = field(default_factory=Rollouts)
    policy_tokens: int = 0
    """All tokens that the policy generated for this tree."""
    fast_tokens: int = 0
    """All tokens that the fast sampler generated; in no other count."""
    prompt_tokens: int = 0
    """Tokens of prompts and prefixes sent to the policy, each request counted once."""
    stopped: str | None = None
    """How the tree stood when a budget ended it (a `Standing`); None where its search ended."""
    _places: dict[tuple[int, tuple[int, ...]], int] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Each node by its parent and its step."""
    _prefixes: dict[int, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    """The token ids down to nodes whose children were asked about lately."""

    def __post_init__(self) -> None:
        """Makes the root."""
        self._append(NO_PARENT, (), creation=Creation.ROOT)

    def __len__(self) -> int:
        """Returns the number of nodes."""
        return len(self.nodes.parent)

    def _append(self, parent: int, step_ids: tuple[int, ...], *, creation: Creation) -> int:
        columns = self.nodes
        columns.parent.append(parent)
        columns.depth.append(0 if parent == NO_PARENT else columns.depth[parent] + 1)
        columns.step_ids.append(step_ids)
        columns.logprob.append(None)
        columns.creation.append(creation)
        columns.n_samples.append(0)
        columns.n_samples_below.append(0)
        columns.finish.append(None)
        columns.judgement.append(None)
        columns.visits.append(0)
        columns.value_sum.append(0.0)
        columns.failure.append(None)
        columns.stop_rule.append(None)
        columns.scores.append(None)
        columns.score_failure.append(None)
        columns.children.append([])
        columns.drawn.append({})
        node = len(columns.parent) - 1
        if parent != NO_PARENT:
            columns.children[parent].append(node)
            self._places[parent, step_ids] = node
        return node

    def add_step(
        self,
        parent: int,
        step_ids: tuple[int, ...],
        *,
        creation: Creation,
        finish: Finish,
        logprob: float | None = None,
        judgement: Judgement | None = None,
        samples: int = 1,
    ) -> int:
        """Adds one policy sample below a node and returns the node that stands for it.

        Samples with identical ids share a node: the first makes it, the others count on it. A
        step that the policy did not sample counts as 0.
        """
        node = self.child_with(parent, step_ids)
        if node is None:
            node = self._append(parent, step_ids, creation=creation)
            self.nodes.logprob[node] = logprob
            self.nodes.finish[node] = finish
            self.nodes.judgement[node] = judgement
        self.nodes.n_samples[node] += samples
        self.nodes.n_samples_below[parent] += samples
        return node

    def add_rollout(
        self,
        node: int,
        *,
        nodes_before: int,
        sampler_id: int = 0,
        completion: Completion | None = None,
        failure: Failure | None = None,
    ) -> int:
        """Adds one rollout from a node and returns its index; exactly one of the last two."""
        assert (completion is None) != (failure is None)
        columns = self.rollouts
        columns.node.append(node)
        columns.sampler_id.append(sampler_id)
        columns.nodes_before.append(nodes_before)
        columns.completion.append(completion)
        columns.failure.append(failure)
        return len(columns.node) - 1

    def child_with(self, parent: int, step_ids: tuple[int, ...]) -> int | None:
        """Returns the child whose step has these ids, or None."""
        return self._places.get((parent, step_ids))

    def path(self, node: int) -> list[int]:
        """Returns the nodes from the root to a node, both included."""
        path = []
        while node != NO_PARENT:
            path.append(node)
            node = self.nodes.parent[node]
        return path[::-1]

    def ancestors(self, node: int) -> Iterator[int]:
        """Yields a node, its parent and so on up to the root."""
        while node != NO_PARENT:
            yield node
            node = self.nodes.parent[node]

    def prefix_ids(self, node: int) -> tuple[int, ...]:
        """Returns the token ids of all steps from the root to a node."""
        parent = self.nodes.parent[node]
        if parent == NO_PARENT:
            return ()
        above = self._prefixes.get(parent)
        return (self._keep_prefix(parent) if above is None else above) + self.nodes.step_ids[node]

    def _keep_prefix(self, node: int) -> tuple[int, ...]:
        """Returns the prefix of a node that has children; its siblings' share most of it."""
        steps = []
        at = node
        while at != NO_PARENT and at not in self._prefixes:
            steps.append(self.nodes.step_ids[at])
            at = self.nodes.parent[at]
        prefix = self._prefixes.get(at, ()) + tuple(chain.from_iterable(reversed(steps)))
        if len(self._prefixes) >= KEPT_PREFIXES:
            self._prefixes.clear()
        self._prefixes[node] = prefix
        return prefix

    def is_terminal(self, node: int) -> bool:
        """Returns whether a solution ends at this node."""
        return self.nodes.judgement[node] is not None

    def terminal_value(self, node: int) -> float | None:
        """Returns 1.0 or 0.0 where a solution with a known verdict ends, else None."""
        judgement = self.nodes.judgement[node]
        if judgement is None or judgement.verdict is Verdict.UNKNOWN:
            return None
        return float(judgement.verdict is Verdict.RIGHT)

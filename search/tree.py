"""A tree of prefixes as columns with parent indices; node 0 is the bare problem.

Nodes and rollouts are only ever appended, parents before children, so an index is an order of
making: "existed when that was asked" is a comparison of integers.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

from treeward.search.critic import Scores
from treeward.search.problem import Problem
from treeward.search.replies import Completion, Failure
from treeward.search.steps import Finish
from treeward.search.verdicts import VALUE_OF, Judgement

ROOT = 0
NO_PARENT = -1
POLICY_SAMPLER = 0
"""The sampler whose value is measured; what others draw steers and is no evidence."""
FAMILY = 8
"""More children than that are looked up by their steps in a dictionary; fewer, one by one."""
KEPT_IDS = 16_384
"""How many token ids the prefixes come to that a tree keeps at hand, if they are about as long."""


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
    """Of the step given its prefix, in nats; None where the policy was not heard to say."""
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
    children: list[tuple[int, ...]] = field(default_factory=list)
    """In the order of their making."""


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
    is_cut: list[bool] = field(default_factory=list)
    """Whether it was cut into nodes, so that its end is in the tree."""


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
    drawn: dict[tuple[int, str, int], int] = field(default_factory=dict)
    """How many continuations were asked for, by node, kind and sampler."""
    _families: dict[int, dict[tuple[int, ...], int]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """The children of each node that has many, by their steps."""
    _prefixes: dict[int, tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)
    """The token ids down to nodes whose children were asked about lately."""

    def __post_init__(self) -> None:
        """Makes the root."""
        self._append(NO_PARENT, [()], Creation.ROOT, [None], [None], [None])

    def __len__(self) -> int:
        """Returns the number of nodes."""
        return len(self.nodes.parent)

    def _append(
        self,
        parent: int,
        steps: Sequence[tuple[int, ...]],
        creation: Creation,
        finish: Sequence[Finish | None],
        logprob: Sequence[float | None],
        judgement: Sequence[Judgement | None],
    ) -> None:
        """Makes children of a node, one for each step; the sequences have an entry for each."""
        columns, first, n = self.nodes, len(self.nodes.parent), len(steps)
        columns.parent += [parent] * n
        columns.depth += [0 if parent == NO_PARENT else columns.depth[parent] + 1] * n
        columns.step_ids += steps
        columns.logprob += logprob
        columns.creation += [creation] * n
        zeros, nothing = [0] * n, [None] * n
        columns.n_samples += zeros
        columns.n_samples_below += zeros
        columns.finish += finish
        columns.judgement += judgement
        columns.visits += zeros
        columns.value_sum += [0.0] * n
        columns.failure += nothing
        columns.stop_rule += nothing
        columns.scores += nothing
        columns.score_failure += nothing
        columns.children += [()] * n
        if parent != NO_PARENT:
            columns.children[parent] = (*columns.children[parent], *range(first, first + n))

    def add_samples(self, parent: int, completions: Sequence[Completion]) -> range:
        """Adds the policy's samples of a step below a node; returns the nodes that are new.

        Samples with identical ids share a node: the first makes it, the others count on it.
        """
        first = len(self)
        nodes = self._place(parent, [drawn.token_ids for drawn in completions])
        new: list[Completion] = []
        for drawn, node in zip(completions, nodes, strict=True):
            if node == first + len(new):
                new.append(drawn)
        if new:
            step_ids, logprob, finish, _, judgement, _ = zip(*new, strict=True)
            self._append(parent, step_ids, Creation.SAMPLED, finish, logprob, judgement)
        n_samples = self.nodes.n_samples
        for node in nodes:
            n_samples[node] += 1
        self.nodes.n_samples_below[parent] += len(nodes)
        return range(first, len(self))

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
        """Adds a step below a node and returns the node that stands for it.

        It counts as one policy sample on its node, new or not; a step that the policy did not
        sample counts as 0.
        """
        fresh = len(self)
        (node,) = self._place(parent, [step_ids])
        if node == fresh:
            self._append(parent, [step_ids], creation, [finish], [logprob], [judgement])
        elif self.nodes.logprob[node] is None:
            self.nodes.logprob[node] = logprob
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
        columns.is_cut.append(False)
        return len(columns.node) - 1

    def child_with(self, parent: int, step_ids: tuple[int, ...]) -> int | None:
        """Returns the child whose step has these ids, or None."""
        family = self._families.get(parent)
        if family is not None:
            return family.get(step_ids)
        steps = self.nodes.step_ids
        for child in self.nodes.children[parent]:
            if steps[child] == step_ids:
                return child
        return None

    def _place(self, parent: int, steps: Iterable[tuple[int, ...]]) -> list[int]:
        """Returns the child for each step; those to be made are numbered from the next node on."""
        known, fresh = self.nodes.step_ids, len(self)
        family = self._families.get(parent)
        if family is None:
            family = {known[child]: child for child in self.nodes.children[parent]}
        children = []
        for step_ids in steps:
            child = family.setdefault(step_ids, fresh)
            fresh += child == fresh
            children.append(child)
        if len(family) > FAMILY:
            self._families[parent] = family
        return children

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
        if len(self._prefixes) * len(prefix) >= KEPT_IDS:
            self._prefixes.clear()
        self._prefixes[node] = prefix
        return prefix

    def is_terminal(self, node: int) -> bool:
        """Returns whether a solution ends at this node."""
        return self.nodes.judgement[node] is not None

    def terminal_value(self, node: int) -> float | None:
        """Returns 1.0 or 0.0 where a solution with a known verdict ends, else None."""
        return _value(self.nodes.judgement[node])

    def rollout_value(self, index: int) -> float | None:
        """Returns 1.0 or 0.0 for a rollout with a known verdict, else None (failed calls too)."""
        completion = self.rollouts.completion[index]
        return _value(completion.judgement) if completion else None


def _value(judgement: Judgement | None) -> float | None:
    return VALUE_OF.get(judgement.verdict) if judgement else None

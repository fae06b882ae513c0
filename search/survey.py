"""What a search has learned by rollouts in one tree.

How those ended that started at each node, and what all of them together say of where solutions go
wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from treeward.search.first_error import Beliefs
from treeward.search.growing import absorb_rollouts, ask_rollouts, count_outcomes, cut_rollout
from treeward.search.replies import Reply
from treeward.search.requests import Growth, Request
from treeward.search.steps import Cut
from treeward.search.tree import ROOT, Creation, Tree


@dataclass(slots=True)
class Survey:
    """Keeps count beside a tree; everything in it follows from the tree."""

    tree: Tree
    cut: Cut
    beliefs: Beliefs = field(default_factory=Beliefs)
    asked: Counter[int] = field(default_factory=Counter)
    """Rollouts that were asked for at a node, those of failed calls included."""
    known: Counter[int] = field(default_factory=Counter)
    """Of these, those with a known verdict."""
    right: Counter[int] = field(default_factory=Counter)
    """Of these, those that ended right."""
    paths: dict[int, list[int]] = field(default_factory=dict)
    """The nodes that rollouts were cut into, by rollout."""

    def __post_init__(self) -> None:
        """Takes the nodes that are there."""
        self.note_nodes()

    def note_nodes(self) -> None:
        """Takes the nodes that were added to the tree since."""
        nodes = self.tree.nodes
        for node in range(len(self.beliefs.parent), len(self.tree)):
            value = self.tree.terminal_value(node)
            end = None if value is None else value == 1.0
            self.beliefs.add(nodes.parent[node], logprob=nodes.logprob[node], end=end)

    def sample_solutions(self, width: int) -> Growth:
        """Asks for solutions of the bare problem and cuts all of them, whatever their outcomes."""
        requests = ask_rollouts(self.tree, [ROOT], width)
        replies = yield requests
        self.tree.nodes.failure[ROOT] = replies[0].failure
        absorb_rollouts(self.tree, requests, replies)
        for index in range(len(self.tree.rollouts.node)):
            self.cut_off(index, creation=Creation.BLIND)
        self._note_outcomes(requests, replies)

    def cut_off(self, index: int, *, creation: Creation) -> list[int]:
        """Cuts a rollout into nodes below its start and returns these; none of a failed call.

        A rollout that was cut before is one sample still. From now on its end speaks for it; one
        that is chosen to be cut was wrong.
        """
        rollouts = self.tree.rollouts
        if rollouts.completion[index] is None:
            return []
        if index not in self.paths:
            self.paths[index] = cut_rollout(self.tree, index, self.cut, creation=creation)
            self.note_nodes()
            if creation is Creation.CHOSEN:
                self.beliefs.count(rollouts.node[index], right=0, known=-1)
        return self.paths[index]

    def roll(self, nodes: Sequence[int], n: int) -> Growth:
        """Asks for rollouts from each node and takes their replies."""
        requests = ask_rollouts(self.tree, nodes, n)
        replies = yield requests
        absorb_rollouts(self.tree, requests, replies)
        self._note_outcomes(requests, replies)
        for request, reply in zip(requests, replies, strict=True):
            right, known = count_outcomes(reply.completions)
            self.beliefs.count(request.node, right=0, known=known - right)
            for completion in reply.completions:
                if count_outcomes([completion])[0]:
                    last = self._last_passed(request.node, completion.token_ids)
                    self.beliefs.count(last, right=1, known=1)

    def _note_outcomes(self, requests: Sequence[Request], replies: Sequence[Reply]) -> None:
        """Counts how the rollouts of some replies ended, where they started."""
        for request, reply in zip(requests, replies, strict=True):
            right, known = count_outcomes(reply.completions)
            self.asked[request.node] += request.n
            self.known[request.node] += known
            self.right[request.node] += right

    def _last_passed(self, node: int, token_ids: tuple[int, ...]) -> int:
        """Returns the last node inside the tree that a rollout from a node passes."""
        for step_ids in self.cut(token_ids) if self.tree.nodes.children[node] else ():
            child = self.tree.child_with(node, step_ids)
            if child is None or self.tree.is_terminal(child):
                break
            node = child
        return node

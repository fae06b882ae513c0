"""What a search has learned by rollouts in one tree.

How those ended that started at each node, and what all of them together say of where solutions go
wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from treeward.search.first_error import Beliefs
from treeward.search.growing import ask_rollouts, cut_rollout, roll
from treeward.search.passing import passage
from treeward.search.requests import Growth
from treeward.search.rollouts import solve
from treeward.search.steps import Cut
from treeward.search.tree import Creation, Tree
from treeward.search.verdicts import VALUE_OF


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
    noted: int = 0
    """Rollouts of the tree that were taken so far."""
    ends: dict[int, int] = field(default_factory=dict)
    """The last nodes of rollouts that were cut, by rollout."""

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
        ends = yield from solve(self.tree, width, self.cut)
        self.ends.update(ends)
        self.note_nodes()
        self._note_rollouts()

    def choose(self, index: int) -> int:
        """Cuts a rollout into nodes because of how it ended; returns the last of them.

        One that was cut before is one sample still. From now on its end speaks for it.

        Args:
            index: The rollout's; its call did not fail.
        """
        if index not in self.ends:
            value, place = self._value(index), self._place(index)
            path = cut_rollout(self.tree, index, self.cut, creation=Creation.CHOSEN)
            self.ends[index] = path[-1]
            self.note_nodes()
            if value is not None:
                self.beliefs.count(place, right=-int(value), known=-1)
        return self.ends[index]

    def roll(self, nodes: Sequence[int], n: int) -> Growth:
        """Asks for rollouts from each node and takes their replies."""
        yield from roll(self.tree, ask_rollouts(self.tree, nodes, n))
        self._note_rollouts()

    def _note_rollouts(self) -> None:
        """Takes the rollouts that were added to the tree since."""
        starts = self.tree.rollouts.node
        right: Counter[int] = Counter()
        known: Counter[int] = Counter()
        for index in range(self.noted, len(starts)):
            start, value = starts[index], self._value(index)
            self.asked[start] += 1
            if value is None:
                continue
            self.known[start] += 1
            self.right[start] += value == 1.0
            if not self.tree.rollouts.is_cut[index]:
                place = self._place(index)
                known[place] += 1
                right[place] += value == 1.0
        self.noted = len(starts)
        for place, n in known.items():
            self.beliefs.count(place, right=right[place], known=n)

    def _value(self, index: int) -> float | None:
        """Returns 1.0 or 0.0 for a rollout with a known verdict, else None."""
        completion = self.tree.rollouts.completion[index]
        judgement = completion.judgement if completion else None
        return VALUE_OF.get(judgement.verdict) if judgement else None

    def _place(self, index: int) -> int:
        """Returns where a rollout counts: a right one at the last node inside that it passes."""
        start = self.tree.rollouts.node[index]
        if self._value(index) != 1.0:
            return start
        return [start, *passage(self.tree, index, self.cut).nodes][-1]

"""What a search has learned by rollouts in one tree.

How those ended that started at each node, and what all of them together say of where solutions go
wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from treeward.search.first_error import Beliefs
from treeward.search.growing import ask_rollouts, cut_rollout, roll
from treeward.search.requests import Growth
from treeward.search.rollouts import solve
from treeward.search.samples import TreeSamples
from treeward.search.steps import Cut
from treeward.search.tree import Creation, Tree


@dataclass(slots=True)
class Survey:
    """Keeps count beside a tree; everything in it follows from the tree."""

    tree: Tree
    cut: Cut
    drawn: TreeSamples = field(init=False)
    beliefs: Beliefs = field(init=False)
    asked: Counter[int] = field(default_factory=Counter)
    """Rollouts that were asked for at a node, those of failed calls included."""
    known: Counter[int] = field(default_factory=Counter)
    """Of these, those with a known verdict."""
    right: Counter[int] = field(default_factory=Counter)
    """Of these, those that ended right."""
    noted: int = 0
    """Rollouts of the tree that were counted so far."""
    ends: dict[int, int] = field(default_factory=dict)
    """The last nodes of rollouts that were cut, by rollout."""

    def __post_init__(self) -> None:
        """Takes what is there."""
        self.drawn = TreeSamples(self.tree, self.cut)
        self.beliefs = Beliefs(samples=self.drawn.samples)
        self.note()

    def note(self) -> None:
        """Takes what was added to the tree since."""
        self.beliefs.refresh(self.drawn.take())
        rollouts = self.tree.rollouts
        for index in range(self.noted, len(rollouts.node)):
            start, value = rollouts.node[index], self.tree.rollout_value(index)
            self.asked[start] += 1
            self.known[start] += value is not None
            self.right[start] += value == 1.0
        self.noted = len(rollouts.node)

    def steps(self, path: Sequence[int]) -> list[int]:
        """Returns what nodes are called in `beliefs`."""
        return [self.drawn.step_of[node] for node in path]

    def sample_solutions(self, width: int) -> Growth:
        """Asks for solutions of the bare problem and cuts all of them, whatever their outcomes."""
        ends = yield from solve(self.tree, width, self.cut)
        self.ends.update(ends)
        self.note()

    def choose(self, index: int) -> int:
        """Cuts a rollout into nodes because of how it ended; returns the last of them.

        One that was cut before is one sample still.

        Args:
            index: The rollout's; its call did not fail.
        """
        if index not in self.ends:
            path = cut_rollout(self.tree, index, self.cut, creation=Creation.CHOSEN)
            self.ends[index] = path[-1]
            self.note()
        return self.ends[index]

    def roll(self, nodes: Sequence[int], n: int) -> Growth:
        """Asks for rollouts from each node and takes their replies."""
        yield from roll(self.tree, ask_rollouts(self.tree, nodes, n))
        self.note()

"""OmegaPRM: a pool of rollouts, the most telling of which is searched for its first wrong step.

Luo et al. 2024, arXiv 2406.06592, section 3.3. A state s whose rollouts end partly right is worth
looking at; of its wrong rollouts r that is taken, and never again, which has the highest

    Q(s, r) + U(s),    Q = alpha^(1 - MC(s)) beta^(tokens(r) / L),
                       U = c sqrt(sum of all N) / (1 + N(s))

with MC(s) the share of right rollouts from s and N(s) how often one of s was taken. Its first wrong
step is found (`localise.py`), and the rollouts asked on the way join the pool.

What differs from the paper: pieces are steps; a solution of the bare problem is cut into nodes
whatever its outcome, so that it is evidence for all prefixes it passes through; and the place is
found by a posterior unless `omega.localiser` says otherwise. Taking a rollout counts as a visit and
removes it for good: an open implementation does neither and takes the same few again and again.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from treeward.search.errors import BadInput
from treeward.search.localise import LocaliserSettings, find_first_error
from treeward.search.requests import Growth
from treeward.search.settings import SearchSettings
from treeward.search.steps import Cut
from treeward.search.survey import Survey
from treeward.search.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class OmegaSettings(LocaliserSettings):
    """What OmegaPRM is told beside; section `omega.`. Numbers are the paper's."""

    section: ClassVar[str] = "omega"

    alpha: float = 0.5
    """Base of the preference for states that mostly end right; in (0, 1]."""

    beta: float = 0.9
    """Base of the preference for short rollouts; in (0, 1]."""

    length: float = 500.0
    """Tokens of a rollout at which beta counts once; greater than 0."""

    c: float = 0.125
    """Weight of exploration; at least 0."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        LocaliserSettings.__post_init__(self)
        for name in ("alpha", "beta"):
            if not 0 < getattr(self, name) <= 1:
                raise BadInput(f"omega.{name} must be in (0, 1], got {getattr(self, name)!r}")
        if not 0 < self.length < math.inf:
            raise BadInput(f"omega.length must be finite and greater than 0, got {self.length!r}")
        if not 0 <= self.c < math.inf:
            raise BadInput(f"omega.c must be finite and at least 0, got {self.c!r}")


@dataclass(slots=True)
class Pool:
    """The wrong rollouts that nobody has looked into yet."""

    settings: OmegaSettings
    waiting: dict[int, list[int]] = field(default_factory=dict)
    """Of each state, the indices of its rollouts."""
    seen: int = 0
    """Rollouts of the tree that were looked at for the pool."""

    def refill(self, tree: Tree) -> None:
        """Takes the wrong ones among the rollouts that were added to the tree since."""
        for index in range(self.seen, len(tree.rollouts.node)):
            if tree.rollout_value(index) == 0.0:
                self.waiting.setdefault(tree.rollouts.node[index], []).append(index)
        self.seen = len(tree.rollouts.node)

    def take(self, survey: Survey) -> int | None:
        """Removes and returns the rollout to look into, counting the visit; None without any."""
        tree = survey.tree
        states = [at for at, left in self.waiting.items() if left and survey.right[at]]
        taken = sum(tree.nodes.visits)
        found = [
            (self._score(survey, at, index, taken), -index)
            for at in states
            for index in self.waiting[at]
        ]
        if not found:
            return None
        index = -max(found)[1]
        state = tree.rollouts.node[index]
        self.waiting[state].remove(index)
        tree.nodes.visits[state] += 1
        tree.nodes.value_sum[state] += survey.right[state] / survey.known[state]
        return index

    def _score(self, survey: Survey, state: int, index: int, taken: int) -> float:
        """Returns Q + U of one rollout of a state, when so many have been taken in all."""
        settings, tree = self.settings, survey.tree
        completion = tree.rollouts.completion[index]
        assert completion is not None, "a failed call is no rollout to look into"
        share = survey.right[state] / survey.known[state]
        quality = settings.alpha ** (1 - share) * settings.beta ** (
            len(completion.token_ids) / settings.length
        )
        return float(quality + settings.c * taken**0.5 / (1 + tree.nodes.visits[state]))


def omega(tree: Tree, settings: SearchSettings, own: OmegaSettings, cut: Cut) -> Growth:
    """Grows a tree from `settings.width` solutions by looking into `settings.simulations` rollouts.

    Args:
        tree: Holds its root only; modified in place.
        settings: `rollouts` at a middle (binary), `wave` of them at a time.
        own: The pool's numbers, and how a wrong step is found.
        cut: Splits solutions into steps.
    """
    survey, pool = Survey(tree, cut), Pool(own)
    yield from survey.sample_solutions(settings.width)
    looked: set[int] = set()
    while len(looked) < settings.simulations:
        pool.refill(tree)
        index = pool.take(survey)
        if index is None:
            break
        start = tree.rollouts.node[index]
        end = survey.choose(index)
        if end in looked:  # the same solution once more
            continue
        looked.add(end)
        right = tree.nodes.depth[start]
        yield from find_first_error(survey, tree.path(end), settings, own, right=right)

"""Monte Carlo tree search over steps: select, expand, evaluate, back up.

Without settings of its own it goes down from the root by PUCT and expands every node once, with
`search.width` samples. `tree_policy.py` has the scores, and the wave of leaves that are chosen
before any reply is seen; `width.py`, `groups.py` and `frontier.py` have what can be added: widths
that adapt, near-duplicates that share their budget, and DeepSearch's frontier and backup.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from treeward.search.frontier import Signed, back_up_signed, select_frontier
from treeward.search.groups import Groups, Same, within_distance
from treeward.search.growing import (
    absorb_rollouts,
    absorb_samples,
    absorb_scores,
    ask_rollouts,
    count_outcomes,
)
from treeward.search.leaf_value import critic_opinion, leaf_value
from treeward.search.mcts_settings import Backup, MctsSettings, Selection
from treeward.search.open_nodes import OpenNodes
from treeward.search.requests import Growth, Kind, ask, ask_scores
from treeward.search.settings import SearchSettings
from treeward.search.tree import NO_PARENT, ROOT, Tree
from treeward.search.tree_policy import SCORES, select
from treeward.search.width import Opinions, allowed, importance


@dataclass(slots=True, kw_only=True)
class Notes:
    """Holds what a search knows beside its tree."""

    settings: SearchSettings
    own: MctsSettings
    scored: bool
    """Whether there are critics to ask about every node."""
    groups: Groups | None
    """None makes every child an arm of its own."""
    open_nodes: OpenNodes = field(default_factory=OpenNodes)
    opinions: Opinions = field(default_factory=Opinions)
    """Kept where widths adapt."""
    signed: Signed = field(default_factory=dict)
    """Kept where the backup has a sign."""
    full: set[int] = field(default_factory=set)
    """Nodes whose last samples brought nothing new: they get no more."""


def mcts(
    tree: Tree,
    settings: SearchSettings,
    *,
    own: MctsSettings | None = None,
    scored: bool = False,
    same: Same | None = None,
) -> Growth:
    """Grows a tree by `settings.simulations` expansions, or until nothing is left to expand.

    Args:
        tree: Holds its root only; modified in place.
        settings: How far and where to look.
        own: What else there is to say about that; None for the defaults.
        scored: Whether there are critics to ask about every node.
        same: Tells which siblings are one to the search; None goes by `own.group_distance`.
    """
    own = own or MctsSettings()
    if same is None and own.group_distance is not None:
        same = within_distance(own.group_distance)
    groups = Groups(same) if same else None
    notes = Notes(settings=settings, own=own, scored=scored, groups=groups)
    yield from evaluate(tree, notes, [ROOT])
    notes.open_nodes.offer(tree, [] if tree.is_terminal(ROOT) else [ROOT])
    left = settings.simulations
    while left > 0:
        chosen = choose(tree, notes, width=min(settings.wave, left))
        if not chosen:
            break
        left -= len(chosen)
        requests = [ask(tree, at, Kind.SAMPLE, samples_for(tree, notes, at)) for at in chosen]
        made = absorb_samples(tree, requests, (yield requests))
        yield from evaluate(tree, notes, [child for of_node in made for child in of_node])
        for at, new in zip(chosen, made, strict=True):
            settle(tree, notes, at, new)


def choose(tree: Tree, notes: Notes, *, width: int) -> list[int]:
    """Returns up to `width` distinct nodes to ask about, best first; they are no longer ready."""
    own, settings = notes.own, notes.settings
    if own.selection is Selection.FRONTIER:
        return select_frontier(
            tree,
            notes.open_nodes,
            width=width,
            own=own,
            max_depth=settings.max_depth,
            signed=notes.signed,
            groups=notes.groups,
        )
    return select(
        tree,
        notes.open_nodes,
        width=width,
        score=SCORES[own.tree_policy],
        c=settings.c,
        groups=notes.groups,
    )


def samples_for(tree: Tree, notes: Notes, node: int) -> int:
    """Returns how many samples a chosen node is asked for; more than once only where it widens."""
    width = notes.settings.width
    if tree.nodes.children[node]:
        return min(missing(tree, notes, node), width)
    return notes.own.width_root or width if node == ROOT else width


def missing(tree: Tree, notes: Notes, node: int) -> int:
    """Returns how many different children an expanded node may still get."""
    own = notes.own
    if own.width_max is None or node in notes.full:
        return 0
    worth_asking = importance(tree, notes.opinions, node, own.width_sd)
    most = allowed(worth_asking, own, node=node, least=notes.settings.width)
    return max(0, most - count_different(tree, notes, node))


def count_different(tree: Tree, notes: Notes, node: int) -> int:
    """Returns how many children a node has, those of a group as one."""
    if notes.groups is None:
        return len(tree.nodes.children[node])
    return len(notes.groups.of.get(node, ()))


def settle(tree: Tree, notes: Notes, node: int, new: Sequence[int]) -> None:
    """Offers what may be asked about after an expansion: new children, and the node once more."""
    different = notes.groups.add(tree, node, new) if notes.groups else len(new)
    if not different:
        notes.full.add(node)
    max_depth = notes.settings.max_depth
    ready = [
        child
        for child in new
        if not tree.is_terminal(child) and tree.nodes.depth[child] < max_depth
    ]
    if missing(tree, notes, node):
        ready.append(node)
    notes.open_nodes.offer(tree, ready)


def evaluate(tree: Tree, notes: Notes, nodes: Sequence[int]) -> Growth:
    """Finds out what nodes are worth, and backs it up.

    Where a solution ends that is its verdict; elsewhere what rollouts and critics say together.
    """
    inner = [node for node in nodes if not tree.is_terminal(node)]
    rolled = ask_rollouts(tree, inner, notes.settings.rollouts)
    asked = ask_scores(tree, nodes) if notes.scored else []
    replies = (yield [*rolled, *asked]) if rolled or asked else []
    absorb_rollouts(tree, rolled, replies[: len(rolled)])
    absorb_scores(tree, asked, replies[len(rolled) :])
    counts = {
        request.node: count_outcomes(reply.completions)
        for request, reply in zip(rolled, replies, strict=False)
    }
    for _, family in groupby(nodes, key=tree.nodes.parent.__getitem__):
        known = {}
        for node in family:
            value = worth(tree, node, notes.settings, counts.get(node, (0, 0)))
            if value is not None:
                known[node] = value
                keep(tree, notes, node, value, known=counts.get(node, (0, 0))[1])
        back_up(tree, known)


def keep(tree: Tree, notes: Notes, node: int, value: float, *, known: int) -> None:
    """Keeps what a node was worth, for what reads it.

    Args:
        tree: Not modified.
        notes: Modified in place.
        node: What was evaluated.
        value: What it is worth.
        known: Its rollouts with a known verdict.
    """
    if notes.own.width_max is not None:
        notes.opinions.value[node] = value
        if not tree.is_terminal(node):
            scores, settings = tree.nodes.scores[node], notes.settings
            said = scores is not None and critic_opinion(scores, settings) is not None
            notes.opinions.weight[node] = known + said * settings.critic_rollouts
    if notes.own.backup is Backup.SIGNED:
        back_up_signed(tree, notes.signed, node, value)


def worth(tree: Tree, node: int, settings: SearchSettings, counts: tuple[int, int]) -> float | None:
    """Returns what a node is worth to the search, in [0, 1]; None where nobody knows.

    Args:
        tree: Not modified.
        node: A node whose scores are there, if there are critics.
        settings: Holds the critics' weights.
        counts: Its right rollouts, and those with a known verdict.
    """
    scores = tree.nodes.scores[node]
    if tree.is_terminal(node):
        exact = tree.terminal_value(node)
        return scores.outcome if exact is None and scores else exact
    opinion = critic_opinion(scores, settings) if scores else None
    return leaf_value(*counts, opinion, settings.critic_rollouts)


def back_up(tree: Tree, values: Mapping[int, float]) -> None:
    """Counts a visit of siblings and of all above them for each, as if they came one by one.

    Args:
        tree: Modified in place.
        values: What siblings are worth; without those nobody knows, which are no visits.
    """
    parents, visits, value_sum = tree.nodes.parent, tree.nodes.visits, tree.nodes.value_sum
    at = NO_PARENT
    for node, value in values.items():
        visits[node] += 1
        value_sum[node] += value
        at = parents[node]
    while at != NO_PARENT:
        visits[at] += len(values)
        total = value_sum[at]
        for value in values.values():
            total += value
        value_sum[at] = total
        at = parents[at]

"""Monte Carlo tree search over steps: select, expand, evaluate, back up.

Without settings of its own it goes down from the root by PUCT and expands every node once, with
`search.width` samples. `tree_policy.py` has the scores, and the wave of leaves that are chosen
before any reply is seen; `width.py`, `groups.py` and `frontier.py` have what can be added: widths
that adapt, near-duplicates that share their budget, and DeepSearch's frontier and backup.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from treeward.search.fast import FastRollouts
from treeward.search.frontier import Signed, back_up_signed, select_frontier
from treeward.search.groups import Groups, Same, within_distance
from treeward.search.growing import absorb_samples
from treeward.search.leaf_value import critic_opinion
from treeward.search.mcts_settings import Backup, MctsSettings, Selection
from treeward.search.open_nodes import OpenNodes
from treeward.search.phases import Judged, back_up, families, judge
from treeward.search.requests import Growth, Kind, ask
from treeward.search.settings import SearchSettings
from treeward.search.tree import ROOT, Tree
from treeward.search.tree_policy import SCORES, select
from treeward.search.width import Opinions, allowed, importance, samples


@dataclass(slots=True, kw_only=True)
class Notes:
    """Holds what a search knows beside its tree."""

    settings: SearchSettings
    own: MctsSettings
    scored: bool
    """Whether there are critics to ask about every node."""
    fast: FastRollouts | None
    """None where only the policy's own rollouts steer."""
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
    fast: FastRollouts | None = None,
    same: Same | None = None,
) -> Growth:
    """Grows a tree by `settings.simulations` expansions, or until nothing is left to expand.

    Args:
        tree: Holds its root only; modified in place.
        settings: How far and where to look.
        own: What else there is to say about that; None for the defaults.
        scored: Whether there are critics to ask about every node.
        fast: Rollouts that steer beside the policy's own; None for none.
        same: Tells which siblings are one to the search; None goes by `own.group_distance`.
    """
    own = own or MctsSettings()
    if same is None and own.group_distance is not None:
        same = within_distance(own.group_distance)
    groups = Groups(same) if same else None
    notes = Notes(settings=settings, own=own, scored=scored, fast=fast, groups=groups)
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
    return samples(notes.own, node=node, width=width)


def missing(tree: Tree, notes: Notes, node: int) -> int:
    """Returns how many different children an expanded node may still get."""
    own = notes.own
    if own.width_max is None or node in notes.full:
        return 0
    worth_asking = importance(tree, notes.opinions, node, own.width_sd)
    least = samples(own, node=node, width=notes.settings.width)
    most = allowed(worth_asking, own, node=node, least=least)
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
    ready = []
    if tree.nodes.depth[node] + 1 < notes.settings.max_depth:
        judgements = tree.nodes.judgement
        ready += [child for child in new if judgements[child] is None]
    if missing(tree, notes, node):
        ready.append(node)
    notes.open_nodes.offer(tree, ready)


def evaluate(tree: Tree, notes: Notes, nodes: Sequence[int]) -> Growth:
    """Finds out what nodes are worth, keeps it and backs it up."""
    found = yield from judge(tree, nodes, notes.settings, scored=notes.scored, fast=notes.fast)
    for family in families(tree, found):
        for judged in family:
            keep(tree, notes, judged)
        back_up(tree, {judged.node: judged.value for judged in family})


def keep(tree: Tree, notes: Notes, judged: Judged) -> None:
    """Keeps what a node was worth, for what reads it; modifies the notes alone."""
    node = judged.node
    if notes.own.width_max is not None:
        notes.opinions.value[node] = judged.value
        if not tree.is_terminal(node):
            scores, settings = tree.nodes.scores[node], notes.settings
            said = scores is not None and critic_opinion(scores, settings) is not None
            notes.opinions.weight[node] = judged.known + said * settings.critic_rollouts
    if notes.own.backup is Backup.SIGNED:
        back_up_signed(tree, notes.signed, node, judged.value)

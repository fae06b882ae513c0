"""DeepSearch's options (Wu et al. 2025): one frontier for the whole tree, and a backup with a sign.

Of all ready nodes at once, the one with the highest

    F(s) = l1 tanh(Q(parent)) + l2 H(s) + l3 sqrt(depth(s) / max_depth)

is expanded next. Q is in [-1, 1] there, where a right end is worth 1 and a wrong one -1; our values
in [0, 1] are read as Q = 2 q - 1. H is the policy's entropy, for which the step's surprise stands,
`-logprob / tokens`: its expectation, a token. Where the log-probability is unknown it is 0.

The backup adds to each node i steps from the root, above an end l steps from it,

    q(i) <- q(i) + gamma(i, l) q_end,  gamma(i, l) = max(i / l, .1)

except that a failure never lowers a node with a success below it (q > 0), and a success wipes out
the failures counted before it (q < 0). q_end is 1 or -1 where a solution ends; a node that rollouts
or critics find worth v counts as an end worth 2 v - 1. Selection alone reads this q; visits and
means are kept beside it as ever.
"""

from collections.abc import Iterator
from math import sqrt, tanh

from treeward.search.groups import Groups
from treeward.search.mcts_settings import Backup, MctsSettings
from treeward.search.open_nodes import OpenNodes
from treeward.search.tree import ROOT, Tree
from treeward.search.tree_policy import face_of

LEAST_SHARE = 0.1
"""Of an end's worth that reaches every node above it."""

Signed = dict[int, float]
"""DeepSearch's q by node; 0 where it is missing."""


def select_frontier(
    tree: Tree,
    open_nodes: OpenNodes,
    *,
    width: int,
    own: MctsSettings,
    max_depth: int,
    signed: Signed,
    groups: Groups | None = None,
) -> list[int]:
    """Returns up to `width` ready nodes with the highest F, best first, and makes them unready.

    It looks at the whole frontier each time.

    Args:
        tree: Not modified.
        open_nodes: What may be asked about; the chosen ones are taken out.
        width: How many are wanted.
        own: Holds the weights and says which q is read.
        max_depth: Depth of the deepest nodes, d_T.
        signed: DeepSearch's q.
        groups: Of which only the open member that looks best is looked below; None for all.
    """

    def rank(node: int) -> tuple[float, int]:
        return -frontier_score(tree, node, own=own, max_depth=max_depth, signed=signed), node

    chosen = sorted(_candidates(tree, open_nodes, groups), key=rank)[:width]
    for node in chosen:
        open_nodes.take(tree, node)
    return chosen


def frontier_score(
    tree: Tree, node: int, *, own: MctsSettings, max_depth: int, signed: Signed
) -> float:
    """Returns F of a node; the root stands in for its parent."""
    nodes = tree.nodes
    above = ROOT if node == ROOT else nodes.parent[node]
    if own.backup is Backup.SIGNED:
        q = signed.get(above, 0.0)
    else:
        visits = nodes.visits[above]
        q = 2 * nodes.value_sum[above] / visits - 1 if visits else 0.0
    logprob = nodes.logprob[node]
    surprise = 0.0 if logprob is None else -logprob / max(len(nodes.step_ids[node]), 1)
    return (
        own.frontier_value * tanh(q)
        + own.frontier_entropy * surprise
        + own.frontier_depth * sqrt(nodes.depth[node] / max_depth)
    )


def back_up_signed(tree: Tree, signed: Signed, node: int, value: float) -> None:
    """Adds an evaluation to a node and all above.

    Args:
        tree: Not modified.
        signed: Modified in place.
        node: What was evaluated.
        value: In [0, 1].
    """
    length, end = tree.nodes.depth[node], 2 * value - 1
    for at in tree.ancestors(node):
        before = signed.get(at, 0.0)
        share = max(tree.nodes.depth[at] / length, LEAST_SHARE) if length else 1.0
        if before * end >= 0:
            signed[at] = before + share * end
        elif end > 0:
            signed[at] = share * end


def _candidates(tree: Tree, open_nodes: OpenNodes, groups: Groups | None) -> Iterator[int]:
    """Yields the ready nodes, of each group only those below the member that looks best."""
    stack = [ROOT]
    while stack:
        node = stack.pop()
        if node in open_nodes.ready:
            yield node
        children = open_nodes.children.get(node, [])
        if groups is None or not children:
            stack += children
        else:
            faces = (face_of(tree, members, children) for members in groups.of[node])
            stack += [face for face in faces if face is not None]

"""Beam search: a golden tree, what goes on after each step, and what holds for any policy."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.worlds import (
    RIGHT,
    UNKNOWN,
    WRONG,
    World,
    check_values,
    completion,
    drawn,
    drive,
    new_tree,
    text,
)

from treeward.search.algorithms import METHODS
from treeward.search.beam import BeamSettings, beam, best
from treeward.search.errors import BadInput
from treeward.search.phases import back_up
from treeward.search.replies import Failure, Reply
from treeward.search.requests import Kind, Request
from treeward.search.settings import Algorithm, SearchSettings
from treeward.search.steps import Finish
from treeward.search.tree import ROOT, Creation, Tree

SAMPLES = {
    "": [completion("a"), completion("b"), completion("c"), completion("d", WRONG)],
    "a": [completion("e"), completion("f"), completion("g", RIGHT), completion("e")],
    "b": [completion("h"), completion("h"), completion("h"), completion("h")],
    "ae": [completion("i", RIGHT), completion("j", WRONG)] * 2,
    "bh": [completion("k", WRONG)] * 4,
}
ROLLOUTS = {
    "": [RIGHT, WRONG],
    "a": [RIGHT, RIGHT],
    "b": [RIGHT, WRONG],
    "c": [WRONG, WRONG],
    "ae": [RIGHT, RIGHT],
    "af": [RIGHT, WRONG],
    "bh": [RIGHT, UNKNOWN],
}


def by_hand(request: Request) -> Reply:
    place = text(request.prefix_ids)
    if request.kind is Kind.SAMPLE:
        return Reply(tuple(SAMPLES[place]))
    return Reply(tuple(completion("r", reason) for reason in ROLLOUTS[place]))


def test_a_golden_tree() -> None:
    """Two beams, four samples each.

    After one step a is worth 1, b 1/2 and c 0; d has ended. Beams a and b go on. After two steps ae
    is worth 1 (2 samples), af 1/2 and bh 1 (of one known rollout; 4 samples): g has ended. Among
    equals more samples come first, so bh and ae go on and af does not. Then all has ended.
    """
    tree = new_tree()
    batches = drive(beam(tree, SearchSettings(width=4, rollouts=2), BeamSettings(beams=2)), by_hand)
    expanded = [[text(r.prefix_ids) for r in b] for b in batches if b[0].kind is Kind.SAMPLE]
    assert expanded == [[""], ["a", "b"], ["bh", "ae"]]
    assert drawn(tree) == "\n".join(
        [
            "root     x0 visits 12 q 0.54",
            "  a      x1 visits 6 q 0.75",
            "    e    x2 visits 3 q 0.67",
            "      i  x2 visits 1 q 1.00 right",
            "      j  x2 visits 1 q 0.00 wrong",
            "    f    x1 visits 1 q 0.50",
            "    g    x1 visits 1 q 1.00 right",
            "  b      x1 visits 3 q 0.50",
            "    h    x4 visits 2 q 0.50",
            "      k  x4 visits 1 q 0.00 wrong",
            "  c      x1 visits 1 q 0.00",
            "  d      x1 visits 1 q 0.00 wrong",
        ]
    )


def family(*children: tuple[int, float | None]) -> Tree:
    """A root that is worth .5 and its children, each with samples and what it is worth."""
    tree = new_tree()
    back_up(tree, {ROOT: 0.5})
    for token, (samples, worth) in enumerate(children):
        node = ROOT
        for _ in range(samples):
            node = tree.add_step(ROOT, (token,), creation=Creation.SAMPLED, finish=Finish.STEP)
        back_up(tree, {} if worth is None else {node: worth})
    return tree


def test_what_nobody_knows_is_as_good_as_what_led_there() -> None:
    """The root's mean is (.5 + .9 + 0) / 3 = .47: the unknown comes between the two."""
    assert best(family((1, 0.0), (1, None), (1, 0.9)), [1, 2, 3], 3) == [3, 2, 1]
    assert best(family((1, None), (2, None), (1, None)), [1, 2, 3], 2) == [2, 1]


searches = st.builds(
    SearchSettings,
    width=st.integers(1, 4),
    rollouts=st.integers(1, 3),
    wave=st.integers(1, 6),
    max_depth=st.integers(1, 5),
)
worlds = st.builds(World, st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 1.0]))


@settings(max_examples=200)
@given(worlds, searches, st.integers(1, 5))
def test_what_holds_for_every_search(world: World, search: SearchSettings, beams: int) -> None:
    tree, own = new_tree(), BeamSettings(beams=beams)
    batches = drive(beam(tree, search, own), world)
    nodes = tree.nodes
    expansions = [batch for batch in batches if batch[0].kind is Kind.SAMPLE]
    leaves = [request.node for batch in expansions for request in batch]

    # Every node is expanded once at most, some in a wave, all of a depth before any below.
    assert len(set(leaves)) == len(leaves)
    assert all(len(batch) <= search.wave for batch in expansions)
    assert [nodes.depth[leaf] for leaf in leaves] == sorted(nodes.depth[leaf] for leaf in leaves)
    # At every depth as many go on as there are beams, or all that are open, and never one that is
    # known to be worth less than one that does not.
    counts = Counter(nodes.depth[leaf] for leaf in leaves)
    for depth in range(max(nodes.depth) + 1):
        level = [n for n in range(len(tree)) if nodes.depth[n] == depth and not tree.is_terminal(n)]
        allowed = min(beams, len(level)) if depth < search.max_depth else 0
        assert counts[depth] == allowed
        known = [(node in leaves, evaluated(tree, node)) for node in level]
        went = [worth for goes, worth in known if goes and worth is not None]
        stayed = [worth for goes, worth in known if not goes and worth is not None]
        if went and stayed:
            assert min(went) >= max(stayed)

    rolled = Counter(tree.rollouts.node)
    for node in range(len(tree)):
        assert rolled[node] == (0 if tree.is_terminal(node) else search.rollouts)
    check_values(tree)
    most = METHODS[Algorithm.BEAM].bounds(search, own)
    assert len(tree) <= most.nodes
    assert len(leaves) * search.width <= most.samples
    assert len(tree.rollouts.node) <= most.rollouts
    assert sum(map(len, batches)) <= most.calls


def evaluated(tree: Tree, node: int) -> float | None:
    """What a node's own rollouts say, None where none is known."""
    verdicts = [
        completion.judgement.verdict
        for at, completion in zip(tree.rollouts.node, tree.rollouts.completion, strict=True)
        if at == node and completion and completion.judgement
    ]
    known = [verdict == "right" for verdict in verdicts if verdict != "unknown"]
    return sum(known) / len(known) if known else None


def test_a_failed_expansion_costs_its_beam_and_no_other() -> None:
    def reply(request: Request) -> Reply:
        if text(request.prefix_ids) == "a" and request.kind is Kind.SAMPLE:
            return Reply(failure=Failure("timeout", "late"))
        return by_hand(request)

    tree = new_tree()
    drive(beam(tree, SearchSettings(width=4, rollouts=2), BeamSettings(beams=2)), reply)
    a, b, *_ = tree.nodes.children[ROOT]
    assert tree.nodes.failure[a] == Failure("timeout", "late")
    assert not tree.nodes.children[a]
    assert tree.nodes.children[b]


def test_there_is_a_beam() -> None:
    with pytest.raises(BadInput, match=r"beam\.beams must be at least 1, got 0"):
        BeamSettings(beams=0)

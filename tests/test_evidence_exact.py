"""What may count for what, on policies whose values are known.

Most laws are shown exactly: every tree that a search can grow in a small world is grown, and
expectations are sums over them. Nothing there can fail by chance.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial

import pytest

from treeward.critics.evidence import strict_evidence
from treeward.critics.tree_value import tree_values
from treeward.search.adaptive import adaptive, seeded
from treeward.search.beam import BeamSettings, beam
from treeward.search.best_of_n import BestOfNSettings, best_of_n
from treeward.search.fast import FAST_SAMPLER, FastRollouts
from treeward.search.growing import absorb_rollouts, add_path, ask_rollouts, cut_rollout
from treeward.search.mcts import mcts
from treeward.search.mcts_settings import MctsSettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Completion, Reply
from treeward.search.requests import Growth, Kind, Request, Search, ask
from treeward.search.rollouts import rollouts
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish
from treeward.search.tokens import byte_tokens
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason

PROBLEM = Problem(id="p", prompt="?", answer="1")
READER = Reader(Template(name="test"), byte_tokens())
RIGHT, WRONG = "Answer: 1\n", "Answer: 0\n"

Script = dict[str, dict[str, float]]

SMALL: Script = {
    "": {"a\n": 0.5, "b\n": 0.5},
    "a\n": {"c\n": 0.5, RIGHT: 0.25, WRONG: 0.25},
    "b\n": {"c\n": 0.25, WRONG: 0.75},
    "a\nc\n": {RIGHT: 0.75, WRONG: 0.25},
    "b\nc\n": {RIGHT: 0.5, WRONG: 0.5},
}
"""Values: a .625, b .125, a c .75, b c .5, the root .375; solutions of two and three steps."""


def value_of(script: Script, text: str) -> float:
    if "Answer" in text:
        return float(text.endswith(RIGHT))
    return sum(p * value_of(script, text + step) for step, p in script[text].items())


@dataclass
class Run:
    """One of the trees that a search can grow."""

    tree: Tree
    probability: float
    options: list[int] = field(default_factory=list)
    """How many ways there were to go on, at each choice."""


def every_run(script: Script, search: Search) -> Iterator[Run]:
    choices: list[int] = []
    while True:
        run = follow(script, search, choices)
        yield run
        choices += [0] * (len(run.options) - len(choices))
        while choices and choices[-1] + 1 == run.options[len(choices) - 1]:
            choices.pop()
        if not choices:
            return
        choices[-1] += 1


def follow(script: Script, search: Search, choices: list[int]) -> Run:
    """Grows the tree of some choices; after them, of the first option everywhere."""
    run = Run(Tree(PROBLEM), 1.0)
    growth = search(run.tree)
    requests = next(growth, None)
    while requests is not None:
        replies = []
        for request in requests:
            completions = []
            for _ in range(request.n):
                options = continuations(script, request)
                at = choices[len(run.options)] if len(run.options) < len(choices) else 0
                run.options.append(len(options))
                run.probability *= options[at][1]
                completions.append(options[at][0])
            replies.append(Reply(tuple(completions)))
        try:
            requests = growth.send(replies)
        except StopIteration:
            requests = None
    return run


FAST: Script = {
    "": {"b\n": 1.0},
    "a\n": {RIGHT: 0.5, WRONG: 0.5},
    "b\n": {RIGHT: 1.0},
    "a\nc\n": {WRONG: 1.0},
    "b\nc\n": {RIGHT: 1.0},
}
"""A cheap sampler that is wrong about everything: values a .5, b 1, a c 0, b c 1, the root 1."""


def continuations(script: Script, request: Request) -> list[tuple[Completion, float]]:
    script = FAST if request.sampler_id == FAST_SAMPLER else script
    prefix = READER.text(request.prefix_ids)
    found: list[tuple[Completion, float]] = []
    paths: list[tuple[str, tuple[float, ...]]] = [("", (1.0,))]
    while paths:
        text, chances = paths.pop()
        if "Answer" in text or (text and request.kind is Kind.SAMPLE):
            found.append((completion(text, chances[1:]), math.prod(chances)))
        else:
            paths += [(text + step, (*chances, p)) for step, p in script[prefix + text].items()]
    return found


def completion(text: str, chances: tuple[float, ...]) -> Completion:
    ends = "Answer" in text
    reason = Reason.MATCH if text.endswith(RIGHT) else Reason.MISMATCH
    return Completion(
        token_ids=tuple(text.encode()),
        logprob=math.log(math.prod(chances)),
        finish=Finish.END if ends else Finish.STEP,
        seed=0,
        judgement=Judgement(reason) if ends else None,
        step_logprobs=tuple(map(math.log, chances)) if len(chances) > 1 else (),
    )


def puct(simulations: int) -> Search:
    settings = SearchSettings(simulations=simulations, width=2, rollouts=1, wave=1, c=0.1)
    return partial(mcts, settings=settings)


def rushed(simulations: int) -> Search:
    """Goes by one rollout of the policy's and one of another sampler's, which weighs far more."""
    settings = SearchSettings(simulations=simulations, width=2, rollouts=1, wave=1, c=0.1)
    return partial(mcts, settings=settings, fast=FastRollouts(n=1, weight=8.0, max_tokens=99))


def widened(simulations: int) -> Search:
    """Asks for a third step at the root where one of two was worth something else than it."""
    settings = SearchSettings(simulations=simulations, width=2, rollouts=1, wave=1, c=0.1)
    return partial(mcts, settings=settings, own=MctsSettings(width_max=3))


def blind(width: int = 2, fresh: int = 1) -> Search:
    settings = SearchSettings(width=width, rollouts=fresh, wave=2)
    return partial(rollouts, settings=settings, cut=READER.cut)


def mistakes(tree: Tree, fresh: int = 1) -> Growth:
    """Splits the first wrong rollout because it is wrong, as OmegaPRM does; then asks anew."""
    for _ in range(2):
        requests = [ask(tree, ROOT, Kind.ROLLOUT, 1)]
        replies = yield requests
        absorb_rollouts(tree, requests, replies)
        (drawn,) = replies[0].completions
        if len(tree) == 1 and drawn.judgement == Judgement(Reason.MISMATCH):
            index = len(tree.rollouts.node) - 1
            path = cut_rollout(tree, index, READER.cut, creation=Creation.CHOSEN)
            requests = ask_rollouts(tree, path[:-1], fresh)
            absorb_rollouts(tree, requests, (yield requests))


def beams(width: int, beams: int) -> Search:
    settings = SearchSettings(width=width, rollouts=1, max_depth=2)
    return partial(beam, settings=settings, own=BeamSettings(beams=beams))


def thompson(simulations: int) -> Search:
    settings = SearchSettings(simulations=simulations, width=1, rollouts=1, wave=1)
    return partial(adaptive, settings=settings, chances=seeded(0))


def whole(width: int) -> Search:
    settings, own = SearchSettings(width=width), BestOfNSettings()
    return partial(best_of_n, settings=settings, own=own, cut=READER.cut)


SEARCHES: dict[str, Search] = {
    "one expansion": puct(1),
    "two expansions": puct(2),
    "two expansions, fast rollouts": rushed(2),
    "one expansion, widened": widened(2),
    "one beam of two": beams(2, 1),
    "three choices": thompson(3),
    "best of two": whole(2),
    "two solutions": blind(),
    "one solution, two rollouts": blind(1, 2),
    "mistakes": mistakes,
}


@dataclass
class Known:
    """What evidence says about one node of one run, beside the truth."""

    probability: float
    text: str
    truth: float
    right: int
    n: int
    expanded: bool
    tree: float
    counted: float
    """The same where probabilities are not known."""
    q: float


@cache
def everything(search: str) -> list[Known]:
    """All nodes that are no ends, of all trees that a search can grow."""
    return [known for run in every_run(SMALL, SEARCHES[search]) for known in examine(run, SMALL)]


def examine(run: Run, script: Script) -> Iterator[Known]:
    tree, nodes = run.tree, run.tree.nodes
    evidence = strict_evidence(tree, READER.cut)
    from_tree = tree_values(tree, evidence, as_is=True).value
    counted = tree_values(tree, evidence, as_is=False).value
    for node in range(len(tree)):
        if not tree.is_terminal(node):
            text = READER.text(tree.prefix_ids(node))
            yield Known(
                probability=run.probability,
                text=text,
                truth=value_of(script, text),
                right=int(evidence.n_right[node]),
                n=int(evidence.n_rollouts[node]),
                expanded=bool(nodes.children[node]),
                tree=float(from_tree[node]),
                counted=float(counted[node]),
                q=nodes.value_sum[node] / max(nodes.visits[node], 1),
            )


def surplus(nodes: list[Known]) -> dict[str, float]:
    """E[k - n V] of each prefix."""
    found: dict[str, float] = defaultdict(float)
    for node in nodes:
        found[node.text] += node.probability * (node.right - node.n * node.truth)
    return found


def error(nodes: list[Known], text: str, what: Callable[[Known], float], power: int) -> float:
    """E[(x - V)^power] at a prefix, where the search expanded it."""
    chosen = [node for node in nodes if node.text == text and node.expanded]
    total = sum(node.probability for node in chosen)
    errors = (node.probability * (what(node) - node.truth) ** power for node in chosen)
    return sum(errors) / total


def strict(node: Known) -> float:
    return node.right / node.n


def of_tree(node: Known) -> float:
    return node.tree


def counted(node: Known) -> float:
    return node.counted


@pytest.mark.parametrize("search", SEARCHES)
def test_all_runs_together_are_certain(search: str) -> None:
    roots = [node for node in everything(search) if node.text == ""]
    assert sum(node.probability for node in roots) == pytest.approx(1.0)
    assert {node.text for node in everything(search)} == {
        text for text in SMALL if search != "one expansion" or "c" not in text
    }


@pytest.mark.parametrize("search", SEARCHES)
def test_strict_evidence_is_unbiased_at_every_prefix(search: str) -> None:
    for text, over in surplus(everything(search)).items():
        assert over == pytest.approx(0.0, abs=1e-12), text


def test_counting_the_rollout_that_made_a_node_would_be_biased() -> None:
    def claim_it_was_blind(tree: Tree) -> Growth:
        yield from mistakes(tree)
        for node, creation in enumerate(tree.nodes.creation):
            if creation is Creation.CHOSEN:
                tree.nodes.creation[node] = Creation.BLIND

    runs = every_run(SMALL, claim_it_was_blind)
    assert surplus([node for run in runs for node in examine(run, SMALL)])["a\n"] < -0.1


def test_a_rollout_split_because_it_was_wrong_would_make_a_95_an_84() -> None:
    # One step, then right in 19 of 20. Of 8 fresh rollouts 7.6 are right: .95; of 9 with the one
    # that was split, .844. The second rollout from the root comes after the node: it counts.
    script = {"": {"a\n": 1.0}, "a\n": {RIGHT: 0.95, WRONG: 0.05}}
    made, counted, naive = 0.0, 0.0, 0.0
    for run in every_run(script, partial(mistakes, fresh=8)):
        if len(run.tree) > 1 and run.tree.rollouts.node[1] == 1:
            evidence = strict_evidence(run.tree, READER.cut)
            assert (evidence.n_rollouts[1], evidence.n_rollouts[ROOT]) == (9, 2)
            made += run.probability
            counted += run.probability * evidence.n_right[1] / 9
            naive += run.probability * evidence.started_right[1] / (8 + 1)
    assert counted / made == pytest.approx(0.95)
    assert naive / made == pytest.approx(0.95 * 8 / 9)


def test_rollouts_count_for_all_blind_nodes_that_they_pass() -> None:
    for run in every_run(SMALL, blind()):
        tree = run.tree
        drawn = [
            (start, tree.prefix_ids(start) + completion.token_ids)
            for start, completion in zip(tree.rollouts.node, tree.rollouts.completion, strict=True)
            if completion
        ]
        counted = strict_evidence(tree, READER.cut).n_rollouts
        for node in range(len(tree)):
            prefix, path = tree.prefix_ids(node), tree.path(node)
            through = [start in path and ids[: len(prefix)] == prefix for start, ids in drawn]
            assert counted[node] == (0 if tree.is_terminal(node) else sum(through))


@pytest.mark.parametrize("search", ["two solutions", "one solution, two rollouts", "best of two"])
@pytest.mark.parametrize("text", SMALL)
def test_counted_draws_are_unbiased_where_no_outcome_decides(search: str, text: str) -> None:
    assert error(everything(search), text, counted, 1) == pytest.approx(0.0, abs=1e-12)


def test_probabilities_leave_little_to_chance() -> None:
    nodes = everything("one solution, two rollouts")
    for text in ("a\n", "b\n", "a\nc\n", "b\nc\n"):
        assert error(nodes, text, of_tree, 2) < 0.95 * error(nodes, text, counted, 2), text
    assert error(nodes, "b\n", of_tree, 2) < 0.5 * error(nodes, "b\n", counted, 2)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_what_was_not_drawn_is_taken_for_what_was(n: int) -> None:
    """With both ends drawn the value is exact; with one, nothing speaks for the other."""

    def lone(tree: Tree) -> Growth:
        requests = [ask(tree, ROOT, Kind.ROLLOUT, n)]
        absorb_rollouts(tree, requests, (yield requests))

    bias = 0.0
    for run in every_run({"": {RIGHT: 0.75, WRONG: 0.25}}, lone):
        (root,) = examine(run, {"": {RIGHT: 0.75, WRONG: 0.25}})
        assert root.tree == pytest.approx(0.75 if 0 < root.right < n else root.right / n)
        bias += run.probability * (root.tree - root.truth)
    assert bias == pytest.approx(0.25 * 0.75**n - 0.75 * 0.25**n)


def below_a_mistake(tree: Tree, n: int) -> Growth:
    """Cuts a wrong solution of two steps because it is wrong; then asks behind the first."""
    drawn, chances = completion("a\n" + WRONG, (1.0, 0.4)), ("a\n", WRONG)
    steps = [tuple(text.encode()) for text in chances]
    node, _ = add_path(tree, ROOT, steps, drawn, creation=Creation.CHOSEN)
    requests = [ask(tree, node, Kind.ROLLOUT, n)]
    absorb_rollouts(tree, requests, (yield requests))


FOUR_WAYS: Script = {
    "": {"a\n": 1.0},
    "a\n": {WRONG: 0.4} | {way + RIGHT: 0.15 for way in ("", "x", "y", "z")},
}


@pytest.mark.parametrize(("n", "most"), [(1, 0.13), (2, 0.05), (4, 0.01)])
def test_a_step_that_is_there_because_it_is_wrong_stands_for_no_other(n: int, most: float) -> None:
    runs = every_run(FOUR_WAYS, partial(below_a_mistake, n=n))
    nodes = [node for run in runs for node in examine(run, FOUR_WAYS) if node.text == "a\n"]
    assert nodes[0].truth == pytest.approx(0.6)
    assert -most < error(nodes, "a\n", of_tree, 1) < 0.0
    assert error(nodes, "a\n", counted, 1) == pytest.approx(0.0, abs=1e-12)
    assert error(nodes, "a\n", of_tree, 2) < 0.5 * error(nodes, "a\n", counted, 2)


@pytest.mark.parametrize("text", ["a\n", "b\n", "a\nc\n", "b\nc\n"])
def test_a_step_chosen_for_an_outcome_makes_its_parent_err_less(text: str) -> None:
    nodes = everything("mistakes")
    assert error(nodes, text, counted, 1) == pytest.approx(0.0, abs=1e-12)
    assert error(nodes, text, of_tree, 2) < 0.4 * error(nodes, text, counted, 2)
    assert -0.11 < error(nodes, text, of_tree, 1) < 0.01, "of one draw"


def test_tree_evidence_is_a_little_too_low_once_outcomes_decide_where_to_look() -> None:
    assert error(everything("one expansion"), "", of_tree, 1) == pytest.approx(0.0, abs=1e-12)
    assert -0.05 < error(everything("two expansions"), "", of_tree, 1) < 0.0
    assert -0.05 < error(everything("one beam of two"), "", of_tree, 1) < 0.0


def test_tree_evidence_errs_little_where_outcomes_decide_how_often_to_sample() -> None:
    """How many samples there are at a node then depends on what they were worth."""
    assert 0.0 < abs(error(everything("three choices"), "", of_tree, 1)) < 0.05


def test_widths_that_adapt_cost_tree_evidence_less_than_looking_where_it_is_good() -> None:
    bias = error(everything("one expansion, widened"), "", of_tree, 1)
    assert 0 < abs(bias) < abs(error(everything("two expansions"), "", of_tree, 1)) / 3


@pytest.mark.parametrize(
    "search",
    ["one expansion", "two expansions", "one beam of two", "three choices", "two solutions"],
)
def test_tree_evidence_errs_less_than_strict_evidence(search: str) -> None:
    nodes = everything(search)
    assert error(nodes, "", of_tree, 2) < 0.7 * error(nodes, "", strict, 2)


def test_q_is_optimistic() -> None:
    assert error(everything("two expansions"), "", lambda node: node.q, 1) > 0.02


def test_fast_rollouts_steer_and_are_no_evidence() -> None:
    nodes = [node for node in everything("two expansions, fast rollouts") if node.text == "b\n"]
    share = sum(node.probability for node in nodes)
    steered = sum(node.probability * (node.q - node.truth) for node in nodes) / share
    assert steered > 0.5, "the search believes them"
    assert surplus(nodes)["b\n"] == pytest.approx(0.0, abs=1e-12)
    # Of one rollout and one that weighs 8: (k + 8) / 9 where nothing else is known.
    assert {round(9 * node.q, 9) for node in nodes if not node.expanded} == {8.0, 9.0}

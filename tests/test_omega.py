"""OmegaPRM takes each wrong rollout once, and finds where it went wrong."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plain_beliefs import right_chances as believed_right

from treeward.export.columns import Origin, tree_tables
from treeward.export.config import build
from treeward.export.label_beliefs import right_chances
from treeward.export.labels import LEARNING_READS
from treeward.export.tree_batch import TreeBatch
from treeward.search.error_grid import prior
from treeward.search.errors import BadInput
from treeward.search.information import information
from treeward.search.localise import (
    Finding,
    Localiser,
    LocaliserSettings,
    Stop,
    find_by_halves,
    find_by_posterior,
    find_first_error,
)
from treeward.search.omega import OmegaSettings, Pool, omega
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.requests import Growth, Request
from treeward.search.samples import Samples, TreeSamples
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish, StepRule, cut
from treeward.search.stopping import StopRule
from treeward.search.survey import Survey
from treeward.search.tokens import byte_tokens
from treeward.search.tree import ROOT, Creation, Tree
from treeward.search.verdicts import Judgement, Reason, Verdict

TOKENS = byte_tokens()
RULE = StepRule(answer_mark="A")
LENGTH = 8
ORIGIN = Origin(
    reader=Reader(Template(name="t", rule=RULE), TOKENS), search="omega", policy="scripted", seed=0
)


def cut_steps(ids: tuple[int, ...]) -> list[tuple[int, ...]]:
    return cut(ids, TOKENS, RULE)


def rollout(rng: random.Random, prefix: str, slip: float, luck: float) -> Completion:
    """Goes on with steps "g" until one slips to "b"; from then on all are "b".

    Right to the end is right; wrong, it ends right with probability `luck`.
    """
    steps, chances = prefix.split(), []
    while len(steps) < LENGTH:
        wrong = "b" in steps
        steps.append("b" if wrong or rng.random() < slip else "g")
        chances.append(1.0 if wrong else slip if steps[-1] == "b" else 1 - slip)
    wrong = "b" in steps
    right = not wrong or rng.random() < luck
    chances.append((luck if right else 1 - luck) if wrong else 1.0)
    text = "".join(step + "\n" for step in steps)[len(prefix) :] + f"A{int(right)}\n"
    return Completion(
        token_ids=tuple(text.encode()),
        logprob=sum(map(math.log, chances)),
        step_logprobs=tuple(map(math.log, chances)),
        finish=Finish.END,
        seed=0,
        judgement=Judgement(Reason.MATCH if right else Reason.MISMATCH),
    )


def drive(
    growth: Growth, seed: int = 0, *, slip: float = 0.2, luck: float = 0.0, failing: float = 0.0
) -> list[list[Request]]:
    """Answers all requests; returns the batches."""
    rng = random.Random(seed)
    batches: list[list[Request]] = []
    replies: list[Reply] | None = None
    while True:
        try:
            batches.append(growth.send(replies) if replies is not None else next(growth))
        except StopIteration:
            return batches
        replies = [
            Reply(failure=Failure("timeout", "late"))
            if len(batches) > 1 and rng.random() < failing
            else Reply(
                tuple(
                    rollout(rng, bytes(request.prefix_ids).decode(), slip, luck)
                    for _ in range(request.n)
                )
            )
            for request in batches[-1]
        ]


def new_tree() -> Tree:
    return Tree(Problem(id="p", prompt="?"))


def omega_of(tree: Tree, own: OmegaSettings, *, width: int = 8, looks: int = 20) -> Growth:
    search = SearchSettings(width=width, simulations=looks, rollouts=8, wave=2)
    return omega(tree, search, own, cut_steps)


ways = st.one_of(
    st.builds(
        OmegaSettings,
        localiser=st.just(Localiser.BINARY),
        stop=st.sampled_from(Stop),
    ),
    st.builds(OmegaSettings, most=st.integers(1, 20), batch=st.integers(1, 3)),
)


@given(ways, st.integers(0, 10**6), st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=40)
def test_a_wrong_rollout_is_taken_once_and_counts_as_a_visit(
    own: OmegaSettings, seed: int, failing: float
) -> None:
    """An open implementation puts a rollout back and takes 2.6 different ones in 20 turns."""
    tree = new_tree()
    drive(omega_of(tree, own), seed, failing=failing)
    chosen = [at for at, made in enumerate(tree.nodes.creation) if made is Creation.CHOSEN]
    taken = sum(tree.nodes.visits)
    wrong = [
        completion
        for completion in tree.rollouts.completion
        if completion and completion.judgement and completion.judgement.verdict is Verdict.WRONG
    ]
    assert taken <= len(wrong)
    if tree.nodes.visits[ROOT] and failing == 0:
        # Nothing is left over unless the turns ran out.
        states = {node for node in set(tree.rollouts.node) if right_of(tree, node)}
        waiting = [
            (*tree.prefix_ids(at), *c.token_ids)
            for at, c in zip(tree.rollouts.node, tree.rollouts.completion, strict=True)
            if at in states and c in wrong
        ]
        assert taken == len(waiting) if len({*waiting}) < 20 else taken >= 20
    assert all(tree.nodes.n_samples[node] >= 1 for node in chosen)


def test_a_solution_is_looked_into_once_however_often_it_was_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight rollouts of short chains repeat each other; each look is at another solution."""
    ends: list[int] = []

    def look(survey: Survey, path: Sequence[int], *rest: Any, **named: Any) -> Growth:
        ends.append(path[-1])
        yield from find_first_error(survey, path, *rest, **named)

    monkeypatch.setattr("treeward.search.omega.find_first_error", look)
    repeats = 0
    for seed in range(20):
        ends.clear()
        tree = new_tree()
        drive(omega_of(tree, OmegaSettings(), looks=5), seed)
        assert len(ends) == len({*ends}) <= 5
        repeats += sum(tree.nodes.visits) - len(ends)
    assert repeats


def test_where_outcomes_decide_how_much_is_asked_the_tree_says_so() -> None:
    """What they decided is not taken for a number that was settled before."""
    tree = new_tree()
    batches = drive(omega_of(tree, OmegaSettings(localiser=Localiser.BINARY)))
    asked = {request.node for batch in batches[1:] for request in batch}
    assert asked
    rules = [tree.nodes.stop_rule[node] for node in range(len(tree))]
    assert {node for node, rule in enumerate(rules) if rule == StopRule.LOCATED} == asked


def right_of(tree: Tree, node: int) -> int:
    return sum(
        1
        for at, completion in zip(tree.rollouts.node, tree.rollouts.completion, strict=True)
        if at == node
        and completion
        and completion.judgement
        and completion.judgement.verdict is Verdict.RIGHT
    )


def test_all_solutions_of_the_problem_are_blind_and_later_cuts_chosen() -> None:
    tree = new_tree()
    drive(omega_of(tree, OmegaSettings(localiser=Localiser.BINARY)), 3, slip=0.3)
    kinds = Counter(tree.nodes.creation[1:])
    assert kinds[Creation.BLIND] > 0
    assert kinds[Creation.CHOSEN] > 0
    assert kinds[Creation.SAMPLED] == 0


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=40)
def test_what_a_survey_keeps_is_what_the_finished_tree_says(seed: int, luck: float) -> None:
    """What is believed while the tree grows is what labels are made of in the end."""
    tree = new_tree()
    survey = Survey(tree, cut_steps)

    def growth() -> Growth:
        yield from survey.sample_solutions(6)
        for _ in range(2):
            inner = [node for node in range(len(tree)) if not tree.is_terminal(node)]
            yield from survey.roll(inner[:12], 2)
            for index in range(0, len(tree.rollouts.node), 3):
                outcome = tree.rollouts.completion[index]
                if outcome and outcome.judgement and outcome.judgement.verdict is Verdict.WRONG:
                    survey.choose(index)

    drive(growth(), seed, slip=0.1, luck=luck)
    finished = TreeSamples(tree, cut_steps)
    finished.take()
    assert by_prefix(survey.drawn.samples) == by_prefix(finished.samples)
    assert any(end for end, *_ in by_prefix(finished.samples).values())
    rows = tree_tables(tree, "t", ORIGIN)["nodes"].to_pylist()
    chances = right_chances(TreeBatch.of_rows(rows, LEARNING_READS), prior(), 0)
    believed = believed_right(survey.beliefs)
    steps = survey.drawn.step_of
    assert chances == pytest.approx([believed[steps[row["node_id"]]] for row in rows], abs=1e-6)


def by_prefix(samples: Samples) -> dict[tuple[object, ...], tuple[object, ...]]:
    """How each step ends, how likely it is and how many take it, by all steps before it."""
    ids = {step: key for (_, key), step in samples._found.items()}
    keys: list[tuple[object, ...]] = [()]
    for step in range(1, len(samples)):
        keys.append((*keys[samples.parent[step]], ids[step]))
    return {
        key: (samples.end[step], samples.logprob[step], samples.taken[step])
        for step, key in enumerate(keys)
    }


def test_a_solution_that_is_looked_into_is_one_sample_still() -> None:
    tree = new_tree()
    drive(omega_of(tree, OmegaSettings(localiser=Localiser.BINARY), looks=8), 3, slip=0.3)
    assert tree.nodes.visits[ROOT] > 0
    # Halving asks for no rollouts at the root, so these are the 8 solutions of the beginning.
    assert tree.rollouts.node.count(ROOT) == 8
    assert tree.nodes.n_samples_below[ROOT] == 8
    assert sum(tree.nodes.n_samples[child] for child in tree.nodes.children[ROOT]) == 8


def ended(right: bool, n_tokens: int) -> Completion:
    reason = Reason.MATCH if right else Reason.MISMATCH
    ids = (0,) * n_tokens
    return Completion(
        token_ids=ids, logprob=-1.0, finish=Finish.END, seed=0, judgement=Judgement(reason)
    )


def a_pool(c: float) -> tuple[Pool, Survey]:
    """Rollouts 0 to 2 are the root's, 3 to 6 those of a state, 7 that of a state never right."""
    tree = new_tree()
    for text in ("s", "t"):
        ids = tuple(text.encode())
        tree.add_step(ROOT, ids, creation=Creation.BLIND, finish=Finish.STEP)
    survey = Survey(tree, cut_steps)
    told = [(ROOT, True, 9), (ROOT, False, 4), (ROOT, False, 500)]
    told += [(1, True, 9), (1, True, 9), (1, False, 10), (1, False, 20), (2, False, 1)]
    for node, right, n_tokens in told:
        tree.add_rollout(node, nodes_before=3, completion=ended(right, n_tokens))
        survey.known[node] += 1
        survey.right[node] += right
    pool = Pool(OmegaSettings(alpha=0.5, beta=0.9, length=500, c=c))
    pool.refill(tree)
    return pool, survey


@pytest.mark.parametrize(
    ("state", "index", "taken", "visits", "score"),
    [
        # alpha^(1 - MC) beta^(tokens / L) + c sqrt(taken) / (1 + visits), worked out by hand.
        (ROOT, 1, 0, 0, 0.5 ** (2 / 3) * 0.9**0.008),
        (ROOT, 2, 4, 0, 0.5 ** (2 / 3) * 0.9 + 0.25),
        (1, 5, 9, 2, 0.5**0.5 * 0.9**0.02 + 0.125),
    ],
)
def test_the_pools_score_is_that_of_the_paper(
    state: int, index: int, taken: int, visits: int, score: float
) -> None:
    pool, survey = a_pool(c=0.125)
    survey.tree.nodes.visits[state] = visits
    assert pool._score(survey, state, index, taken) == pytest.approx(score, rel=1e-12)


@pytest.mark.parametrize(
    ("c", "order"), [(0.0, [5, 6, 1, 2]), (0.125, [5, 6, 1, 2]), (0.5, [5, 1, 6, 2])]
)
def test_the_pool_gives_each_wrong_rollout_of_a_state_that_can_end_right_once(
    c: float, order: list[int]
) -> None:
    pool, survey = a_pool(c)
    taken = []
    while (index := pool.take(survey)) is not None:
        taken.append(index)
        pool.refill(survey.tree)
    assert taken == order
    nodes = survey.tree.nodes
    assert nodes.visits == [2, 2, 0]
    assert nodes.value_sum == pytest.approx([2 / 3, 1.0, 0.0])


def path_with_error(survey: Survey, place: int) -> list[int]:
    """A wrong solution whose step `place`, from 1, is the first wrong one."""
    text = "g\n" * (place - 1) + "b\n" * (LENGTH - place + 1) + "A0\n"
    tree, node, path = survey.tree, ROOT, [ROOT]
    for step in cut_steps(tuple(text.encode())):
        ends = bytes(step).startswith(b"A")
        node = tree.add_step(
            node,
            step,
            creation=Creation.BLIND,
            finish=Finish.END if ends else Finish.STEP,
            judgement=Judgement(Reason.MISMATCH) if ends else None,
        )
        path.append(node)
    survey.note()
    return path


@pytest.mark.parametrize("place", range(1, LENGTH + 1))
def test_both_ways_find_a_clear_error(place: int) -> None:
    """Right prefixes are worth .9 or more, wrong ones 0."""
    for seed in range(3):
        survey = Survey(new_tree(), cut_steps)
        path = path_with_error(survey, place)
        halves = found_by(find_by_halves(survey, path, 8, wave=1), seed, slip=0.01)
        settings = LocaliserSettings(most=64)
        posterior = found_by(find_by_posterior(survey, path, settings), seed, slip=0.01)
        assert [halves, posterior] == [place - 1, place - 1]


def found_by(finding: Finding, seed: int, *, slip: float, luck: float = 0.0) -> int:
    """What a search for a step finds."""
    found: list[int] = []

    def growth() -> Growth:
        found.append((yield from finding))

    drive(growth(), seed, slip=slip, luck=luck)
    return found[0]


def test_a_middle_is_left_at_its_first_success() -> None:
    """A path of 9 steps, all prefixes right, is halved 4 times."""

    def asked(wave: int | None) -> int:
        survey = Survey(new_tree(), cut_steps)
        path = path_with_error(survey, LENGTH)
        found_by(find_by_halves(survey, path, 8, wave=wave), 0, slip=0.0)
        return sum(survey.asked.values())

    # The first three middles are right; the last is the wrong step itself, which has none of 8.
    assert asked(None) == 8 * 4
    assert asked(1) == 3 + 8


def test_rollouts_are_asked_for_where_they_tell_most_for_their_tokens() -> None:
    """In batches, as many as may be, and none where one is expected to tell too little."""

    def asked(settings: LocaliserSettings) -> list[int]:
        """How many, each time."""
        survey = Survey(new_tree(), cut_steps)
        path, found = path_with_error(survey, 5), []
        steps = len(path) - 1
        finding = find_by_posterior(survey, path, settings)

        def growth() -> Growth:
            requests = next(finding)
            while True:
                (request,) = requests
                told = information(survey.beliefs, survey.steps(path))[:steps]
                sizes = [len(survey.tree.nodes.step_ids[node]) for node in path]
                left = [sum(sizes[at + 1 :]) + sum(sizes) / steps for at in range(steps)]
                value = told / np.array(left)
                assert value[path.index(request.node)] == pytest.approx(value.max())
                found.append((request.n, path.index(request.node) == told.argmax()))
                replies = yield requests
                try:
                    requests = finding.send(replies)
                except StopIteration:
                    return

        drive(growth(), 3, slip=0.3, luck=0.3)
        assert not all(alike for _, alike in found), "the cheapest is not always what tells most"
        return [n for n, _ in found]

    sure = LocaliserSettings(confidence=0.9999, least=1e-6, most=7, batch=3)
    assert asked(sure) == [3, 3, 1]
    survey = Survey(new_tree(), cut_steps)
    nothing = find_by_posterior(survey, path_with_error(survey, 5), LocaliserSettings(least=5.0))
    found_by(nothing, 0, slip=0.3)
    assert sum(survey.asked.values()) == 0


def test_a_middle_whose_calls_failed_proves_nothing() -> None:
    """The step after it is not called wrong: the search ends where it was."""
    survey = Survey(new_tree(), cut_steps)
    finding = find_by_halves(survey, path_with_error(survey, LENGTH), 8, wave=None)
    assert len(next(finding)) == 1
    with pytest.raises(StopIteration) as ended:
        finding.send([Reply(failure=Failure("timeout", "late"))])
    assert ended.value.value == 0


def test_luck_leads_halving_astray_and_the_posterior_less() -> None:
    """A wrong prefix comes right 10 % of the time, so one of 8 rollouts does more often than not.

    100 solutions; the difference is wanted to be 15 at least, which is 3 standard errors of it.
    """
    hits = Counter[str]()
    for seed in range(100):
        place = 1 + seed % LENGTH
        survey = Survey(new_tree(), cut_steps)
        path = path_with_error(survey, place)
        halving = find_by_halves(survey, path, 8, wave=1)
        hits["halves"] += found_by(halving, seed, slip=0.05, luck=0.1) == place - 1
        survey = Survey(new_tree(), cut_steps)
        path = path_with_error(survey, place)
        asking = find_by_posterior(survey, path, LocaliserSettings())
        hits["posterior"] += found_by(asking, seed, slip=0.05, luck=0.1) == place - 1
    assert hits["posterior"] >= hits["halves"] + 15


@pytest.mark.parametrize(
    "own", [OmegaSettings(localiser=Localiser.BINARY), OmegaSettings(least=1e-6, confidence=0.999)]
)
def test_failed_calls_end_a_search_for_a_step(own: OmegaSettings) -> None:
    """Rollouts that failed are asked for once, stay unknown, and nothing waits for them."""
    tree = new_tree()
    drive(omega_of(tree, own), 1, slip=0.1, failing=1.0)
    asked_for = tree.rollouts.completion[8:]
    assert asked_for
    assert all(completion is None for completion in asked_for)
    if own.localiser is Localiser.BAYES:
        times = Counter(tree.rollouts.node[8:])
        # Of the root something is known, so that each of the wrong solutions asks once.
        assert times.pop(ROOT, 0) <= 8
        assert set(times.values()) == {1}


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"localiser": Localiser.BINARY, "most": 4}, "omega.most=4 is read only with omega.loc"),
        ({"stop": Stop.FIXED}, "omega.stop='fixed' is read only with omega.localiser=binary"),
    ],
)
def test_what_the_other_way_reads_is_refused(own: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        OmegaSettings(**own)


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": 1.0},
        {"most": 0},
        {"batch": 0},
        {"least": 0.0},
        {"alpha": 0.0},
        {"beta": 1.5},
        {"length": 0.0},
        {"length": math.inf},
        {"c": -1.0},
        {"c": math.inf},
    ],
)
def test_settings_that_break_a_rule_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=f"omega.{next(iter(wrong))} must be"):
        build(OmegaSettings, "omega", {f"omega.{name}": value for name, value in wrong.items()})

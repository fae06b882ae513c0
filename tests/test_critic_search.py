"""Critics steer a search and change no evidence; trees depend on what they say alone."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from tests.fakes import Crash, Exact, Memory

from treeward.critics.evidence import strict_evidence
from treeward.export.journal import Journal
from treeward.search.algorithms import METHODS, Tools
from treeward.search.critic import Prefix, Scores
from treeward.search.errors import BadInput
from treeward.search.forest import Forest, Plan, grow_forest
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Failure
from treeward.search.requests import Recorder
from treeward.search.scoring import CriticThread
from treeward.search.scripted import ScriptedCritic, ScriptedPolicy
from treeward.search.settings import Algorithm, SearchSettings
from treeward.search.steps import StepRule
from treeward.search.tokens import byte_tokens
from treeward.search.tree import ROOT, Tree

READER = Reader(
    Template(name="t", answer="A{answer}", rule=StepRule(answer_mark="A")), byte_tokens()
)
PROBLEMS = [Problem(id=f"p{n}", prompt=f"{n}", answer=str(n % 2)) for n in range(8)]
SETTINGS = SearchSettings(
    simulations=5, width=3, rollouts=2, wave=2, critic_progress=0.5, critic_outcome=0.25
)


def script(prompt: str, text: str) -> list[tuple[str, float]]:
    if text.count("\n") == 3:
        return [("A0\n", 0.5), ("A1\n", 0.5)]
    return [("go\n", 0.5), (f"{prompt.strip()}\n", 0.3), ("A1\n", 0.2)]


def opinion(prompt: str, steps: Sequence[str]) -> Scores:
    """A function of the text that has no other meaning."""
    digest = hashlib.sha256("/".join([prompt, *steps]).encode()).digest()
    value, progress, outcome = (byte / 255 for byte in digest[:3])
    return Scores(value, 2 * progress - 1, outcome) if steps else Scores(value, None, None)


class Slow(ScriptedCritic):
    """Takes its time, never the same, and counts the prefixes it scored."""

    def __init__(
        self, seed: int = 0, says: Callable[[str, Sequence[str]], Scores] = opinion
    ) -> None:
        super().__init__(says)
        self.rng = random.Random(seed)
        self.scored = 0

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        time.sleep(self.rng.choice([0.0, 0.001]))
        self.scored += len(prefixes)
        return super().score(prefixes)


def grow(
    critic: ScriptedCritic | None,
    *,
    search: Algorithm = Algorithm.MCTS,
    settings: SearchSettings = SETTINGS,
    concurrency: int = 8,
    alone: bool = False,
    recorder: Recorder | None = None,
    problems: Sequence[Problem] = PROBLEMS,
    plan: Plan | None = None,
) -> dict[str, Tree]:
    """Grows a forest and returns its trees by problem."""
    trees: dict[str, Tree] = {}
    plan = plan or Plan(problems=iter(problems), concurrency=concurrency)

    method = METHODS[search]
    tools = Tools(cut=READER.cut, scored=critic is not None, seed=7)

    async def run() -> None:
        thread = None if critic is None else CriticThread(critic, alone=alone)
        forest = Forest(
            search=method.start(settings, method.own(), tools),
            samplers=[
                PolicySampler(
                    policy=ScriptedPolicy(script),
                    settings=PolicySettings(max_step_tokens=10, max_rollout_tokens=40),
                )
            ],
            reader=READER,
            verifier=Exact(),
            recorder=recorder or Memory(),
            seed=7,
            tree_id=lambda problem: problem.id,
            critic=thread,
        )
        async with asyncio.timeout(20):
            try:
                await grow_forest(forest, plan, lambda tree: trees.update({tree.problem.id: tree}))
            finally:
                if thread is not None:
                    await thread.close()
                assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing goes on"

    asyncio.run(run())
    return trees


STEERED = [algorithm for algorithm, method in METHODS.items() if method.steered]


@pytest.fixture(scope="module", params=STEERED)
def search(request: pytest.FixtureRequest) -> Algorithm:
    return Algorithm(request.param)


@pytest.fixture(scope="module")
def undisturbed(search: Algorithm) -> dict[str, Tree]:
    return grow(ScriptedCritic(opinion), search=search, concurrency=1, alone=True)


@pytest.fixture(scope="module")
def by_mcts() -> dict[str, Tree]:
    return grow(ScriptedCritic(opinion))


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("concurrency", [1, 8])
def test_trees_depend_on_what_critics_say_alone(
    search: Algorithm, undisturbed: dict[str, Tree], concurrency: int, alone: bool
) -> None:
    critic = Slow(concurrency)
    assert grow(critic, search=search, concurrency=concurrency, alone=alone) == undisturbed
    assert critic.scored == sum(len(tree) for tree in undisturbed.values())


def test_every_node_has_what_was_said_about_it(undisturbed: dict[str, Tree]) -> None:
    for tree in undisturbed.values():
        steps = [READER.text(ids) for ids in tree.nodes.step_ids]
        for node in range(len(tree)):
            said = opinion(tree.problem.prompt, [steps[at] for at in tree.path(node)[1:]])
            assert tree.nodes.scores[node] == said
        assert tree.nodes.score_failure == [None] * len(tree)


@pytest.mark.parametrize("at", [0, 1, 2, 5, 13, 34, 70])
def test_a_run_that_died_asks_nobody_again(
    search: Algorithm, undisturbed: dict[str, Tree], at: int
) -> None:
    memory = Memory(room=at)
    with pytest.raises(Crash):
        grow(Slow(at), search=search, recorder=memory)
    scored = sum(len(reply.scores) for reply in memory.kept.values())
    memory.room = 10**9
    critic = Slow(at + 1)
    assert grow(critic, search=search, recorder=memory) == undisturbed
    assert critic.scored == sum(len(tree) for tree in undisturbed.values()) - scored
    silent = Slow()
    assert grow(silent, search=search, recorder=memory) == undisturbed
    assert silent.scored == 0


def test_scores_cost_no_policy_tokens() -> None:
    """With weights of 0 critics are heard and not heeded: all else is as without them."""
    deaf = SearchSettings(simulations=5, width=3, rollouts=2, wave=2, critic_value=0.0)
    heard = grow(ScriptedCritic(opinion), settings=deaf)
    for name, tree in grow(None, settings=deaf).items():
        assert any(heard[name].nodes.scores)
        heard[name].nodes.scores = tree.nodes.scores
        assert heard[name] == tree


def test_critics_change_where_a_search_looks(by_mcts: dict[str, Tree]) -> None:
    assert any(
        tree.nodes.step_ids != by_mcts[name].nodes.step_ids for name, tree in grow(None).items()
    )


def test_evidence_stays_counted(by_mcts: dict[str, Tree]) -> None:
    """A node that both searches made has the same rollouts: their seeds do not know of critics."""
    shared = 0
    for name, plain in grow(None).items():
        scored = by_mcts[name]
        places = {scored.prefix_ids(node): node for node in range(len(scored))}
        started = [strict_evidence(tree, READER.cut) for tree in (plain, scored)]
        for node in range(len(plain)):
            twin = places.get(plain.prefix_ids(node))
            if twin is not None:
                pair = [(started[0], node), (started[1], twin)]
                right, wrong = ({int(getattr(counts, column)[at]) for counts, at in pair}
                                for column in ("started_right", "started_wrong"))  # fmt: skip
                assert (len(right), len(wrong)) == (1, 1)
                shared += 1
    assert shared > 40


def test_without_rollouts_critics_alone_say_what_a_node_is_worth() -> None:
    settings = SearchSettings(simulations=4, width=3, rollouts=0, wave=1)
    for tree in grow(ScriptedCritic(opinion), settings=settings).values():
        nodes = tree.nodes
        assert not tree.rollouts.node
        assert set(nodes.stop_rule) == {None}
        worth = []
        for node in range(len(tree)):
            exact, scores = tree.terminal_value(node), nodes.scores[node]
            assert scores is not None
            worth.append(scores.value if exact is None else exact)
        assert nodes.value_sum[ROOT] == pytest.approx(sum(value or 0.0 for value in worth))
        assert nodes.visits[ROOT] == len(tree)


def test_an_end_that_nobody_can_check_is_worth_its_outcome_score() -> None:
    problem = Problem(id="open", prompt="?", answer=None)
    settings = SearchSettings(simulations=4, width=4, rollouts=1, wave=1)
    (tree,) = grow(ScriptedCritic(opinion), settings=settings, problems=[problem]).values()
    ends = [node for node in range(len(tree)) if tree.is_terminal(node)]
    assert ends
    for node in ends:
        scores = tree.nodes.scores[node]
        assert scores is not None
        assert (tree.nodes.visits[node], tree.nodes.value_sum[node]) == (1, scores.outcome)


def test_a_critic_that_fails_is_data_and_the_search_goes_on() -> None:
    def short_sighted(prompt: str, steps: Sequence[str]) -> Scores:
        if len(steps) > 1:
            raise BadInput("the prefix is too long")
        return opinion(prompt, steps)

    memory = Memory()
    plan = Plan(problems=iter(PROBLEMS), concurrency=8)
    trees = grow(ScriptedCritic(short_sighted), recorder=memory, plan=plan)
    failure = Failure("critic", "the prefix is too long")
    deep = 0
    for tree in trees.values():
        for node, depth in enumerate(tree.nodes.depth):
            assert (tree.nodes.scores[node] is None) == (depth > 1)
            assert tree.nodes.score_failure[node] == (failure if depth > 1 else None)
            deep += depth > 1
        # What rollouts say is still counted.
        assert tree.nodes.visits[ROOT] == len(tree)
    assert plan.progress.failures == deep > 0
    # Nothing is kept of those who know nothing, and so they are asked again.
    assert all(reply.n_came for reply in memory.kept.values())


def refuses(steps: Sequence[str]) -> bool:
    """Whether a critic has nothing to say about a step, here or above: one in four."""
    digests = [
        hashlib.sha256("/".join(steps[:n]).encode()).digest() for n in range(1, 1 + len(steps))
    ]
    return any(digest[0] < 64 for digest in digests)


def picky(prompt: str, steps: Sequence[str]) -> Scores:
    if refuses(steps):
        raise BadInput("no word about it")
    return opinion(prompt, steps)


@pytest.mark.parametrize("at", [0, 3, 8, 21, 10**9])
def test_a_sibling_without_scores_costs_no_other(
    search: Algorithm, tmp_path: Path, at: int
) -> None:
    plan = Plan(problems=iter(PROBLEMS), concurrency=8)
    trees = grow(Slow(says=picky), search=search, plan=plan, alone=True)
    silent, shared = 0, 0
    for tree in trees.values():
        steps = [READER.text(ids) for ids in tree.nodes.step_ids]
        nodes = range(len(tree))
        refused = [refuses([steps[at] for at in tree.path(node)[1:]]) for node in nodes]
        failures = [Failure("critic", "no word about it") if no else None for no in refused]
        assert tree.nodes.score_failure == failures
        assert [said is None for said in tree.nodes.scores] == refused
        silent += sum(refused)
        shared += sum(
            len({refused[child] for child in tree.nodes.children[node]}) == 2 for node in nodes
        )
    assert plan.progress.failures == silent > 0
    assert shared > 0, "some families are refused in part"

    memory = Memory(room=at)
    with pytest.raises(Crash) if at < 10**9 else nullcontext():
        grow(Slow(says=picky), search=search, recorder=memory, alone=True)
    # What a critic said is read back from disk and never asked for again.
    with Journal(tmp_path) as journal:
        for (tree_id, key), reply in memory.kept.items():
            journal.record(tree_id, key, reply)
    again = Slow(says=picky)
    known = sum(isinstance(said, Scores) for reply in memory.kept.values() for said in reply.scores)
    with Journal(tmp_path) as journal:
        assert grow(again, search=search, recorder=journal, alone=True) == trees
    assert again.scored == sum(len(tree) for tree in trees.values()) - known
    with Journal(tmp_path) as journal:
        last = Slow(says=picky)
        assert grow(last, search=search, recorder=journal, alone=True) == trees
    assert last.scored == silent

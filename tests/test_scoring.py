"""Critics are asked from one thread, together or alone, and one refusal costs nobody else."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from treeward.search.critic import Prefix, Scores
from treeward.search.errors import BadInput, CallFailed
from treeward.search.problem import Problem
from treeward.search.replies import Failure
from treeward.search.scoring import TOGETHER, CriticThread, score_each
from treeward.search.scripted import ScriptedCritic

PROBLEM = Problem(id="p", prompt="?")


def opinion(prompt: str, steps: Sequence[str]) -> Scores:
    """The last step is the number of hundredths of its value."""
    if not steps:
        return Scores(0.5, None, None)
    if steps[-1] == "long":
        raise BadInput("the prefix is too long")
    return Scores(int(steps[-1]) / 100, 0.0, None)


class Watched(ScriptedCritic):
    """Keeps the sizes of its batches and the threads that called it."""

    def __init__(self) -> None:
        super().__init__(opinion)
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.inside = 0

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        self.inside += 1
        assert self.inside == 1, "called from one thread at a time"
        self.sizes.append(len(prefixes))
        self.threads.add(threading.get_ident())
        time.sleep(0.002)
        self.inside -= 1
        return super().score(prefixes)


def prefix(*steps: str) -> Prefix:
    return Prefix(PROBLEM, steps)


def ask_all(
    critic: ScriptedCritic, askers: Sequence[Sequence[str]], *, alone: bool
) -> list[object]:
    """Returns what all askers get, one after the other."""

    async def run() -> list[object]:
        async with asyncio.timeout(20):
            thread = CriticThread(critic, alone=alone)
            asked = (thread.score([prefix(step) for step in each]) for each in askers)
            said = await asyncio.gather(*asked)
            await thread.close()
            return [scores for of_asker in said for scores in of_asker]

    return asyncio.run(run())


@pytest.mark.parametrize("together", [1, 4, TOGETHER, 3 * TOGETHER])
@pytest.mark.parametrize("alone", [True, False])
def test_everyone_gets_their_own_scores(alone: bool, together: int) -> None:
    critic = Watched()
    steps = [str(n % 101) for n in range(3 * TOGETHER)]
    askers = [steps[first : first + together] for first in range(0, len(steps), together)]
    said = ask_all(critic, askers, alone=alone)
    assert said == [opinion("?", [step]) for step in steps]
    assert sum(critic.sizes) == len(steps)
    assert critic.threads != {threading.get_ident()}
    assert len(critic.threads) == 1
    assert set(critic.sizes) == ({1} if alone else {TOGETHER}), "those who wait go together"


def test_no_batch_is_larger_than_it_may_be() -> None:
    critic = Watched()
    steps = [str(n) for n in range(5)]
    said = ask_all(critic, [steps] * 26, alone=False)
    assert said == [opinion("?", [step]) for step in steps] * 26
    assert critic.sizes == [60, 60, 10], "of those that wait whole askers, no more than fit"


@pytest.mark.parametrize("alone", [True, False])
def test_a_prefix_that_is_refused_costs_no_other(alone: bool) -> None:
    refused = Failure("critic", "the prefix is too long")
    expected = [opinion("?", ["10"]), refused, opinion("?", ["20"])]
    assert ask_all(Watched(), [["10", "long", "20"]], alone=alone) == expected
    assert ask_all(Watched(), [["10"], ["long"], ["20"]], alone=alone) == expected


def test_a_failure_keeps_its_kind() -> None:
    def late(prompt: str, steps: Sequence[str]) -> Scores:
        raise CallFailed("timeout", "late")

    assert score_each(ScriptedCritic(late), [prefix()], alone=True) == [Failure("timeout", "late")]


def test_a_bug_is_no_failure() -> None:
    def broken(prompt: str, steps: Sequence[str]) -> Scores:
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        ask_all(ScriptedCritic(broken), [["1"]], alone=True)


@pytest.mark.parametrize(
    ("root", "step", "says"),
    [
        (Scores(0.5, None, None), Scores(float("nan"), None, None), "value is nan"),
        (Scores(0.5, None, None), Scores(1.5, None, None), "value is 1.5"),
        (Scores(0.5, None, None), Scores(None, -1.5, None), r"progress is -1.5"),
        (Scores(0.5, None, None), Scores(None, None, -0.5), "outcome is -0.5"),
        (Scores(0.5, 0.0, None), Scores(None, None, None), "of a bare problem must be None"),
    ],
)
def test_what_is_no_score_is_refused_and_never_kept(root: Scores, step: Scores, says: str) -> None:
    critic = ScriptedCritic(lambda prompt, steps: step if steps else root)
    (failure,) = score_each(critic, [prefix("1")], alone=True)
    assert isinstance(failure, Failure)
    assert says in failure.message


def test_too_few_scores_are_refused() -> None:
    class Short(ScriptedCritic):
        def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
            return [scores[:-1] for scores in super().score(prefixes)]

    (failure,) = score_each(Short(opinion), [prefix("1", "2")], alone=True)
    assert failure == Failure("critic", "2 scores for a problem and 2 steps")


def test_one_who_gives_up_waiting_holds_up_nobody() -> None:
    async def run() -> tuple[Scores | Failure, ...]:
        thread = CriticThread(Watched(), alone=True)
        first = asyncio.create_task(thread.score([prefix("1")]))
        second = asyncio.create_task(thread.score([prefix("2")]))
        await asyncio.sleep(0)
        first.cancel()
        async with asyncio.timeout(20):
            said = await second
            await thread.close()
        return said

    assert asyncio.run(run()) == (opinion("?", ["2"]),)

"""The scripted policy draws what its script says, within the same budgets as any other."""

import asyncio
import math
from collections import Counter

import pytest
from scipy import stats

from treeward.search.errors import CallFailed
from treeward.search.policy import Ask, Draw, LogprobAsk, PolicySettings
from treeward.search.requests import Kind
from treeward.search.scripted import Script, ScriptedPolicy
from treeward.search.steps import Finish, StepRule
from treeward.search.tokens import byte_tokens

TOKENS = byte_tokens()
CHOICES = [("go\n", 0.5), ("never\n", 0.0), ("stop\n", 0.2), ("Answer: 7\n", 0.3)]


def script(prompt: str, text: str) -> list[tuple[str, float]]:
    assert prompt == "?"
    return CHOICES


def ask(
    kind: Kind, *seeds: int, prefix: str = "", step: int = 100, total: int = 1000
) -> list[Draw]:
    call = Ask(
        prompt_ids=tuple(b"?"),
        prefix_ids=tuple(prefix.encode()),
        kind=kind,
        seeds=seeds,
        settings=PolicySettings(max_step_tokens=step, max_rollout_tokens=total),
        rule=StepRule(),
        stick_to="p",
    )
    return asyncio.run(ScriptedPolicy(script).draw(call))


def texts(draws: list[Draw]) -> list[str]:
    return [TOKENS.text_of(draw.token_ids) for draw in draws]


def test_steps_come_with_their_probabilities() -> None:
    """False alarm with probability 1e-4, once: the seeds are fixed."""
    draws = ask(Kind.SAMPLE, *range(3000))
    counts = Counter(texts(draws))
    likely = {step: share for step, share in CHOICES if share}
    assert counts.keys() == likely.keys()
    observed = [counts[step] for step in likely]
    assert stats.chisquare(observed, [3000 * share for share in likely.values()]).pvalue > 1e-4
    for draw, text in zip(draws, texts(draws), strict=True):
        assert draw.logprob == pytest.approx(math.log(likely[text]))
        assert draw.finish is (Finish.END if "Answer" in text else Finish.STEP)


def test_rollouts_go_on_to_the_answer() -> None:
    draws = ask(Kind.ROLLOUT, *range(50))
    for draw, text in zip(draws, texts(draws), strict=True):
        *steps, answer = text.splitlines()
        assert answer == "Answer: 7"
        assert set(steps) <= {"go", "stop"}
        shares = [0.5 if step == "go" else 0.2 for step in steps]
        assert draw.logprob == pytest.approx(sum(map(math.log, [*shares, 0.3])))
        assert draw.finish is Finish.END
    # Answers come after 0, 1, 2... steps with probability .3 * .7**k: 50 equal ones are not.
    assert len(set(texts(draws))) > 5


def test_a_draw_depends_on_its_seed_and_not_on_its_companions() -> None:
    together = ask(Kind.ROLLOUT, 5, 6, 7)
    assert together == ask(Kind.ROLLOUT, 5, 6) + ask(Kind.ROLLOUT, 7)
    assert together[1] == ask(Kind.ROLLOUT, 6)[0]


@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_the_prefix_counts_against_the_budget_of_a_solution(total: int) -> None:
    draws = ask(Kind.ROLLOUT, *range(20), prefix="go\ngo\n", total=6 + total)
    assert all(draw.finish is Finish.LENGTH for draw in draws)
    assert {len(draw.token_ids) for draw in draws} == {total}


def test_the_budget_of_a_step_is_one_steps() -> None:
    for text, draw in zip(
        texts(draws := ask(Kind.ROLLOUT, *range(40), step=4)), draws, strict=True
    ):
        *steps, last = text.splitlines()
        assert set(steps) <= {"go"}
        assert (last, draw.finish) in {("stop", Finish.LENGTH), ("Answ", Finish.LENGTH)}


def test_the_script_is_told_the_prompt_and_the_steps_so_far() -> None:
    told: list[tuple[str, str]] = []

    def listening(prompt: str, text: str) -> list[tuple[str, float]]:
        told.append((prompt, text))
        return [("x\n", 1.0)]

    policy = ScriptedPolicy(_typed(listening))
    call = Ask(
        prompt_ids=tuple("é".encode()),
        prefix_ids=tuple(b"a\n"),
        kind=Kind.ROLLOUT,
        seeds=(1,),
        settings=PolicySettings(max_rollout_tokens=6),
        rule=StepRule(),
        stick_to="p",
    )
    asyncio.run(policy.draw(call))
    assert told == [("é", "a\n"), ("é", "a\nx\n")]


def _typed(script: Script) -> Script:
    return script


def logprobs(text: str) -> list[float]:
    call = LogprobAsk(prompt_ids=tuple(b"?"), ids=tuple(text.encode()), stick_to="p")
    return asyncio.run(ScriptedPolicy(lambda *_: [*CHOICES, ("é\n", 0.1)]).logprobs(call))


def test_given_steps_have_the_probabilities_that_drawn_ones_have() -> None:
    """All of a step's at its first token, however many bytes its letters have."""
    told = logprobs("é\ngo\nAnswer: 7\n")
    assert told == pytest.approx(
        [math.log(0.1), 0, 0, math.log(0.5), 0, 0, math.log(0.3), *[0.0] * 9]
    )
    draws = ask(Kind.ROLLOUT, 1, 2, 3)
    for draw, text in zip(draws, texts(draws), strict=True):
        assert sum(logprobs(text)) == pytest.approx(draw.logprob)


@pytest.mark.parametrize("text", ["go\nnever\n", "go\nwhat\n", "go\ng"])
def test_what_the_script_never_says_is_a_failed_call(text: str) -> None:
    with pytest.raises(CallFailed, match="the script never says"):
        logprobs(text)

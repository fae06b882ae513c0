"""Whatever comes out of vLLM in one step, a draw is what was asked for."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tests.vllm.drawing import Result, asks_for

from treeward.search.errors import CallFailed
from treeward.search.jobs import Job
from treeward.search.policy import Ask, Draw
from treeward.search.requests import Kind
from treeward.search.steps import Finish
from treeward.search.tokens import byte_tokens
from treeward.search.vllm_engine import VllmEngine

TOKENS = byte_tokens()


class ManyAtOnce:
    """Says the same to every request, several tokens a step, as speculative decoding does."""

    def __init__(self, text: str, per_step: int) -> None:
        self.ids = TOKENS.encode(text)
        self.per_step = per_step
        self.said: dict[str, int] = {}
        self.most = 0
        self.seeds: list[int] = []
        self.aborted: list[str] = []

    def add_request(self, request_id: str, prompt: Any, params: Any) -> str:
        self.said[request_id] = 0
        self.most = max(self.most, len(self.said))
        self.seeds.append(params.seed)
        return request_id

    def step(self) -> list[Any]:
        return [self.gain(request_id) for request_id in list(self.said)]

    def gain(self, request_id: str) -> Any:
        start = self.said[request_id]
        ids = self.ids[start : start + self.per_step]
        self.said[request_id] += self.per_step
        finished = self.said[request_id] >= len(self.ids)
        if finished:
            del self.said[request_id]
        chances = [{token: SimpleNamespace(logprob=-0.5)} for token in ids]
        gained = SimpleNamespace(token_ids=ids, logprobs=chances, finish_reason="length")
        return SimpleNamespace(
            request_id=request_id,
            outputs=[gained],
            finished=finished,
            prompt_token_ids=[0],
            num_cached_tokens=0,
        )

    def abort_request(self, request_ids: Sequence[str]) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            del self.said[request_id]

    def reset_prefix_cache(self) -> bool:
        return True


def given(llm: ManyAtOnce, kind: Kind, samples: int) -> tuple[VllmEngine, Ask, list[Result]]:
    """Returns an engine of two slots, what it was asked, and where its reply will be."""
    ask = next(ask for ask in asks_for(TOKENS, 3, samples=samples) if ask.kind is kind)
    engine = VllmEngine(llm, TOKENS, max_positions=1000, slots=2)
    results: list[Result] = []
    engine.add(Job(ask=ask, done=results.append))
    return engine, ask, results


def drawn(llm: ManyAtOnce, kind: Kind) -> list[Result]:
    engine, _, results = given(llm, kind, samples=2)
    while engine.busy:
        engine.tick()
    return results


def test_what_a_step_brings_beyond_the_end_is_dropped() -> None:
    for per_step in (1, 2, 5, 60):
        llm = ManyAtOnce("1+1=2\nA2\n0+0\n" + "9" * 40, per_step)
        (draws,) = drawn(llm, Kind.SAMPLE)
        assert draws == [Draw(tuple(TOKENS.encode("1+1=2\n")), -3.0, Finish.STEP)] * 2
        assert not llm.said, "nothing is left under way"
        (draws,) = drawn(llm, Kind.ROLLOUT)
        both = tuple(TOKENS.encode("1+1=2\nA2\n"))
        assert draws == [Draw(both, -4.5, Finish.END, (-3.0, -1.5))] * 2
        assert bool(llm.aborted) is (per_step < 60)


def test_a_continuation_that_vllm_ends_by_itself_is_a_failed_call() -> None:
    (result,) = drawn(ManyAtOnce("1+1", 1), Kind.SAMPLE)
    assert isinstance(result, CallFailed)
    assert (result.kind, result.message) == ("engine", "vLLM ended a continuation early: length")


def test_vllm_is_handed_twice_what_it_runs_and_the_rest_in_turn() -> None:
    llm = ManyAtOnce("1+1=2\n", 1)
    engine, ask, results = given(llm, Kind.SAMPLE, samples=7)
    while engine.busy:
        engine.tick()
    (draws,) = results
    assert draws == [Draw(tuple(TOKENS.encode("1+1=2\n")), -3.0, Finish.STEP)] * 7
    assert llm.most == 4
    assert tuple(llm.seeds) == ask.seeds


def test_what_was_cleared_is_not_handed_over_later() -> None:
    llm = ManyAtOnce("1+1=2\n", 1)
    engine, _, results = given(llm, Kind.SAMPLE, samples=7)
    engine.tick()
    engine.clear()
    assert not engine.busy
    assert not llm.said
    assert not results, "whoever clears tells those who wait"

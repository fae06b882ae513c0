"""A model that vLLM runs comes and goes without a trace."""

import asyncio
import gc
import weakref
from pathlib import Path

import pytest
import torch
from tests.vllm.drawing import SETTINGS, Result, asks_for, draw_all, draws_of, ids_of

from treeward.search.errors import CallFailed, TreewardError
from treeward.search.vllm_policy import VllmPolicy, vllm_identity_of


def test_an_error_of_the_engine_reaches_all_who_wait_and_a_closed_one_frees(nano: Path) -> None:
    policy = VllmPolicy(nano, "fingerprint", SETTINGS)
    error = ZeroDivisionError("bug")
    asks = asks_for(policy.tokens, 3)
    kept = ids_of(draws_of(policy, asks))
    (model,) = policy.engine._llm.apply_model(weakref.ref)  # type: ignore[attr-defined]  # vLLM's own
    gc.unfreeze()  # vLLM hides what it has made from the collector
    assert largest_tensor() >= 2**26
    assert policy.identity == vllm_identity_of("fingerprint", SETTINGS)

    def broken() -> None:
        raise error

    policy.engine.tick = broken  # type: ignore[method-assign]  # a bug, injected
    assert draw_all(policy, asks) == [error] * 3
    assert draw_all(policy, asks[:1]) == [error]
    asyncio.run(policy.close())
    gc.collect()
    assert model() is None
    assert largest_tensor() < 2**24

    again = VllmPolicy(nano, "fingerprint", SETTINGS)
    assert ids_of(draws_of(again, asks)) == kept
    with pytest.raises(TreewardError, match="one model at a time"):
        VllmPolicy(nano, "fingerprint", SETTINGS)
    asyncio.run(again.close())
    closed: list[Result] = draw_all(again, asks[:1])
    assert isinstance(closed[0], CallFailed)
    assert "closed" in closed[0].message


def largest_tensor() -> int:
    """The bytes behind the largest tensor that the collector knows: keys and values of a layer."""
    tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    return max((each.untyped_storage().nbytes() for each in tensors), default=0)

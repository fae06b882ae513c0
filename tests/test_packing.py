import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, set_seed

from treeward.search.errors import BadInput
from treeward.train.forward import check_packing, target_logits
from treeward.train.packing import IGNORED, Row, batches, collate, pack
from treeward.train.sft import backward
from treeward.train.sft_settings import SftSettings

TINY = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
MODELS: dict[str, dict[str, Any]] = {
    "llama": TINY | HEADS,
    "mistral": TINY | HEADS | {"sliding_window": 3},
    "gpt2": {"vocab_size": 11, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
}
ROWS = [
    Row(ids=np.array(ids, np.int32), learned=np.array(learned, np.bool_))
    for ids, learned in [
        ([1, 2, 3, 4, 5], [0, 0, 1, 1, 1]),
        ([6, 7], [0, 1]),
        ([8, 9, 10, 1, 2, 3, 4], [0, 0, 0, 0, 0, 1, 1]),
        ([5, 4, 3, 2], [0, 1, 0, 1]),
    ]
]
PACKINGS = [[[0], [1], [2], [3]], [[0, 1, 2, 3]], [[3, 0], [2, 1]], [[2], [1, 3, 0]]]


def from_settings(kind: str, settings: dict[str, Any]) -> PreTrainedModel:
    set_seed(0)
    factory: Any = AutoModelForCausalLM
    model = factory.from_config(AutoConfig.for_model(kind, **settings))
    assert isinstance(model, PreTrainedModel)
    model.train(False)
    return model


def tiny(kind: str) -> PreTrainedModel:
    return from_settings(kind, MODELS[kind] | {"initializer_range": 0.3})


@given(st.lists(st.integers(1, 20), max_size=200), st.integers(20, 50))
def test_packs_hold_each_row_once_and_never_too_much(sizes: list[int], room: int) -> None:
    packs = list(pack(range(len(sizes)), sizes, room))
    assert sorted(itertools.chain(*packs)) == list(range(len(sizes)))
    assert all(0 < sum(sizes[row] for row in rows) <= room for rows in packs)


def test_packs_are_nearly_full() -> None:
    sizes = np.random.default_rng(0).integers(10, 90, 5000).tolist()
    packs = list(pack(range(5000), sizes, 256))
    assert sum(sizes) / (256 * len(packs)) > 0.97


def test_an_epoch_is_a_permutation_of_the_rows_and_no_two_are_alike() -> None:
    sizes = [4] * 30  # seven rows to a sequence of 30, hence five sequences an epoch
    stream = batches(sizes, room=30, batch_size=5, seed=3)
    epochs = [list(itertools.chain(*next(stream))) for _ in range(4)]
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_what_a_step_sees_depends_on_its_number_and_the_seed_alone() -> None:
    sizes = [3, 8, 5, 2, 9, 4, 7]

    def first(n: int, seed: int) -> list[list[list[int]]]:
        return list(itertools.islice(batches(sizes, room=12, batch_size=2, seed=seed), n))

    assert first(40, 1) == first(40, 1)
    assert first(40, 1)[:7] == first(7, 1)
    assert first(40, 1) != first(40, 2)


def test_a_sequence_as_tensors() -> None:
    batch = collate(ROWS, [[0, 1], [3]])
    assert batch.input_ids_BT.tolist() == [[1, 2, 3, 4, 6], [5, 4, 3, 0, 0]]
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1]]
    ignored = IGNORED
    assert batch.labels_BT.tolist() == [[ignored, 3, 4, 5, 7], [4, ignored, 2, ignored, ignored]]
    assert (batch.n_tokens, batch.n_targets) == (8, 6)


def every_logit(model: PreTrainedModel, packs: Sequence[Sequence[int]]) -> torch.Tensor:
    batch = collate(ROWS, packs)
    keep = torch.ones_like(batch.labels_BT, dtype=torch.bool)
    with torch.no_grad():
        return target_logits(model, batch.input_ids_BT, batch.position_ids_BT, keep)


@pytest.mark.parametrize("kind", MODELS)
def test_a_row_has_the_same_logits_packed_or_alone(kind: str) -> None:
    model = tiny(kind)
    order = [2, 1, 3, 0]
    packed = every_logit(model, [order])
    alone = torch.cat([every_logit(model, [[row]]) for row in order])
    assert alone.std() > 0.1
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)


def reference(model: PreTrainedModel) -> torch.Tensor:
    """The mean loss over all learned tokens, one row at a time, with all the logits."""
    losses = []
    for row in ROWS:
        ids = torch.from_numpy(row.ids).long()[None]
        logits = model(input_ids=ids).logits[0, :-1]
        each = functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        losses.append(each[torch.from_numpy(row.learned[1:])])
    return torch.cat(losses).mean()


@pytest.mark.parametrize("packs", PACKINGS, ids=str)
@pytest.mark.parametrize("micro_batch_size", [0, 1, 3])
def test_loss_and_gradient_do_not_depend_on_how_rows_are_packed_or_split(
    packs: list[list[int]], micro_batch_size: int
) -> None:
    model = tiny("llama")
    expected = reference(model)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    batch = collate(ROWS, packs)
    loss_sum, hits = backward(model, batch, SftSettings(micro_batch_size=micro_batch_size))
    assert loss_sum / batch.n_targets == pytest.approx(expected.item(), abs=1e-6)
    assert 0 <= hits <= batch.n_targets == 8
    assert max(float(gradient.abs().max()) for gradient in wanted) > 0.01
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-6)


def test_models_that_keep_rows_apart_are_told_from_those_that_do_not() -> None:
    for kind in MODELS:
        check_packing(tiny(kind))
    sizes = {"vocab_size": 11, "hidden_size": 16, "attention_hidden_size": 16}
    recurrent = from_settings("rwkv", sizes | {"num_hidden_layers": 2})
    with pytest.raises(BadInput, match="'rwkv' mixes rows"):
        check_packing(recurrent)

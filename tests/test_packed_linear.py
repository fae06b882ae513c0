"""Packed layers compute what plain ones do, and take their place where the CPU can use them."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from treeward.search.packed_linear import PackedLinear, pack_linear

on_this_cpu = pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="the CPU does not compute in bfloat16"
)


@on_this_cpu
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 64, 100])
@torch.inference_mode()
def test_a_packed_layer_computes_what_the_plain_one_does(rows: int, bias: bool) -> None:
    torch.manual_seed(rows)
    plain = torch.nn.Linear(48, 80, bias=bias).to(torch.bfloat16)
    states = torch.randn(rows, 3, 48).to(torch.bfloat16)
    packed = PackedLinear(plain)(states)
    assert packed.shape == (rows, 3, 80)
    torch.testing.assert_close(packed, plain(states), rtol=2e-2, atol=2e-2)


def model_in(dtype: torch.dtype) -> Any:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(dtype).eval()


@on_this_cpu
@torch.inference_mode()
def test_a_packed_model_says_what_the_plain_one_does() -> None:
    plain, packed = model_in(torch.bfloat16), model_in(torch.bfloat16)
    pack_linear(packed)
    kinds = {type(layer) for layer in packed.modules()}
    assert PackedLinear in kinds
    assert torch.nn.Linear not in kinds
    ids = torch.arange(12)[None]
    said, expected = packed(ids).logits.float(), plain(ids).logits.float()
    torch.testing.assert_close(said, expected, rtol=3e-2, atol=3e-2)


def test_a_model_in_float32_stays_as_it_is() -> None:
    model = model_in(torch.float32)
    pack_linear(model)
    assert not any(isinstance(layer, PackedLinear) for layer in model.modules())

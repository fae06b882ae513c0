"""What a pass says is what the model says, whatever the size of its vocabulary."""

from typing import Any

import pytest
import torch
import transformers

from treeward.search import attention
from treeward.search.kv_cache import PrefillCache
from treeward.search.network import Network


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_that_of_torch(dtype: torch.dtype, queries: int) -> None:
    torch.manual_seed(queries)
    query = torch.randn(3, 6, queries, 8).to(dtype)
    long = torch.randn(2, 3, 2, 14, 8).to(dtype)
    key, value = long[:, :, :, :11]  # part of a longer run, as in a cache
    hidden = torch.rand(3, 1, queries, 11) < 0.4
    hidden[..., 0] = False
    mask = torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, torch.finfo(dtype).min)
    found, _ = attention.grouped_attention(
        torch.nn.Identity(), query, key, value, mask, scaling=0.7
    )
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.float(),
        key.float().repeat_interleave(3, dim=1),
        value.float().repeat_interleave(3, dim=1),
        attn_mask=~hidden,
        scale=0.7,
    )
    near = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found.float(), expected.transpose(1, 2), rtol=near, atol=near)


@pytest.mark.parametrize("size", [37, 512, 1100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_logits_are_those_of_the_model(size: int, dtype: torch.dtype) -> None:
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.25,
    )
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(config, attn_implementation=attention.register()).to(dtype).eval()
    ids_BT = torch.randint(size, (6, 5))
    hidden_BTK = torch.ones((5, 5), dtype=torch.bool).triu(1).expand(6, -1, -1)
    mask_B1TK = torch.zeros((6, 1, 5, 5), dtype=dtype)
    mask_B1TK.masked_fill_(hidden_BTK[:, None], torch.finfo(dtype).min)
    last_B = torch.tensor([4, 0, 2, 4, 1, 3])
    network = Network(model)
    cache = PrefillCache(torch.zeros((2, 2, 6, 2, 5, 8), dtype=dtype), 0)
    positions_BT = torch.arange(5).expand(6, -1)
    found = network.forward(ids_BT, positions_BT, hidden_BTK, cache, last_B)
    expected = model(input_ids=ids_BT, attention_mask=mask_B1TK).logits[range(6), last_B]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)

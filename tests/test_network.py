"""What a pass says is what the model says, whatever the size of its vocabulary."""

from typing import Any

import pytest
import torch
import transformers

from treeward.search import attention
from treeward.search.kv_cache import PrefillCache
from treeward.search.network import Network


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

"""Groups on one sequence give what each completion gives alone, with the prompt read once."""

import random
from typing import Any

import pytest
import torch
import transformers

from treeward.search.errors import BadInput
from treeward.train.groups import Group, lay_out, merge_repeats, passes, share_prompts
from treeward.train.logprobs import check_groups, token_logprobs
from treeward.train.settings import Dtype

SHAPE: dict[str, Any] = {
    "vocab_size": 37,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.25,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).train(False)


def group(seed: int, size: int) -> Group:
    rng = random.Random(seed)

    def ids(least: int) -> tuple[int, ...]:
        return tuple(rng.randrange(37) for _ in range(rng.randrange(least, 12)))

    return Group(prompt_ids=ids(1), completions=tuple(ids(1) for _ in range(size)))


def plainly(model: Any, group: Group, temperature: float) -> list[float]:
    """The reference: every completion in a sequence of its own, all logits at once."""
    found = []
    for completion in group.completions:
        ids = torch.tensor([[*group.prompt_ids, *completion]])
        with torch.no_grad():
            logprobs = (model(ids).logits[0].double() / temperature).log_softmax(-1)
        start = len(group.prompt_ids) - 1
        found += [float(logprobs[start + k, token]) for k, token in enumerate(completion)]
    return found


def ours(
    model: Any, groups: list[Group], *, temperature: float = 1.0, chunk: int = 1024
) -> torch.Tensor:
    layout = lay_out(groups)
    return token_logprobs(model, layout, temperature=temperature, chunk=chunk, dtype=Dtype.FLOAT32)[
        0
    ]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_those_of_each_completion_alone(model: Any, temperature: float) -> None:
    groups = [group(seed, size) for seed, size in ((1, 4), (2, 1), (3, 7))]
    expected = [value for each in groups for value in plainly(model, each, temperature)]
    found = ours(model, groups, temperature=temperature).detach().tolist()
    assert found == pytest.approx(expected, abs=2e-5)


def test_padding_order_and_company_do_not_matter(model: Any) -> None:
    short, long = group(4, 2), group(5, 9)
    alone = [ours(model, [each]).detach() for each in (short, long)]
    for groups, expected in (([short, long], alone), ([long, short], alone[::-1])):
        torch.testing.assert_close(ours(model, groups).detach(), torch.cat(expected))
    turned = Group(prompt_ids=long.prompt_ids, completions=long.completions[::-1])
    parts = torch.split(ours(model, [turned]).detach(), [len(c) for c in turned.completions])
    torch.testing.assert_close(torch.cat(parts[::-1]), alone[1])


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_chunks_change_neither_values_nor_gradients(model: Any, chunk: int) -> None:
    groups = [group(6, 3), group(7, 2)]
    gradients = []
    for size in (1024, chunk):
        model.zero_grad()
        ours(model, groups, chunk=size).square().sum().backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=2e-3, atol=1e-4)


def test_no_tensor_of_all_logits_is_ever_held(model: Any) -> None:
    """The largest tensor that the head makes has `chunk` rows, on the way there and back."""
    rows: list[int] = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, __, logits: rows.append(logits.shape[0])
    )
    ours(model, [group(8, 6)], chunk=5).sum().backward()  # type: ignore[no-untyped-call]
    hook.remove()
    assert max(rows) == 5
    assert sum(rows) == 2 * len(lay_out([group(8, 6)]).targets_N)


def test_entropy_is_that_of_the_distribution(model: Any) -> None:
    layout = lay_out([group(9, 2)])
    _, entropies = token_logprobs(model, layout, temperature=2.0, chunk=4, dtype=Dtype.FLOAT32)
    assert not entropies.requires_grad
    first = torch.tensor([[*group(9, 2).prompt_ids]])
    with torch.no_grad():
        logits = model(first).logits[0, -1]
    probabilities = torch.softmax(logits / 2.0, dim=-1)
    expected = -(probabilities * probabilities.log()).sum()
    assert float(entropies[0]) == pytest.approx(float(expected), abs=1e-5)


def test_a_prompt_is_read_once_whatever_the_group(model: Any) -> None:
    prompt, completion = tuple(range(10)), (1, 2, 3)
    layout = lay_out([Group(prompt_ids=prompt, completions=(completion,) * 8)])
    assert layout.input_ids_BT.shape == (1, 10 + 8 * 2)
    assert len(layout.targets_N) == 8 * 3


def test_what_repeats_is_read_once_and_counts_as_often() -> None:
    groups = [
        Group(prompt_ids=(1,), completions=((2, 3), (4,), (2, 3), (2,))),
        Group(prompt_ids=(5, 6), completions=((2, 3), (2, 3))),
    ]
    merged, places_N = merge_repeats(groups)
    assert [group.completions for group in merged] == [((2, 3), (4,), (2,)), ((2, 3),)]
    assert [group.prompt_ids for group in merged] == [(1,), (5, 6)]
    flat = torch.tensor([token for group in merged for ids in group.completions for token in ids])
    given = [token for group in groups for ids in group.completions for token in ids]
    assert flat[places_N].tolist() == given
    # The two groups share no reading: what follows other prompts is no repetition.
    assert places_N.tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 4, 5]


def test_passes_take_every_group_once() -> None:
    assert list(passes(5, 0)) == [slice(0, 5)]
    assert list(passes(5, 2)) == [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_a_model_that_mixes_completions_is_refused(model: Any) -> None:
    check_groups(model)
    torch.manual_seed(0)
    config = transformers.MambaConfig(vocab_size=37, hidden_size=16, num_hidden_layers=1)
    with pytest.raises(BadInput, match="mamba"):
        check_groups(transformers.MambaForCausalLM(config))


def test_a_split_group_has_the_same_logprobs_in_the_same_order(model: Any) -> None:
    whole = group(3, 7)
    parts = share_prompts(whole, width=1)
    assert len(parts) > 1
    assert tuple(ids for part in parts for ids in part.completions) == whole.completions
    found = ours(model, parts).detach().tolist()
    assert found == pytest.approx(plainly(model, whole, 1.0), abs=2e-5)


def test_a_prompt_is_shared_by_as_many_as_pays() -> None:
    """With prompt P and n completions of C, size k costs n / k (P + k C) (6 E + P + k C)."""

    def sizes(prompt: int, completion: int, width: int) -> list[int]:
        whole = Group(prompt_ids=(1,) * prompt, completions=((2,) * completion,) * 8)
        return [len(part.completions) for part in share_prompts(whole, width)]

    # 1: 8 x 10 x 16 = 1,280. 2: 4 x 19 x 25 = 1,900.
    assert sizes(prompt=1, completion=9, width=1) == [1] * 8
    # 1: 8 x 83 x 851 = 565,064. 2: 4 x 148 x 916 = 542,272. 4: 2 x 278 x 1,046 = 581,576.
    assert sizes(prompt=18, completion=65, width=128) == [2] * 4
    # 4: 2 x 1,040 x 7,040 = 14,643,200. 8: 1,080 x 7,080 = 7,646,400.
    assert sizes(prompt=1000, completion=10, width=1000) == [8]

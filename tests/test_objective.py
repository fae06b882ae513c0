"""The objective against a plain loop over tokens, by hand, and by finite differences."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from treeward.train.advantages import (
    EPSILON,
    ScaleRewards,
    outcome_advantages,
    spread,
    step_advantages,
)
from treeward.train.objective import LossType, token_loss, token_weights
from treeward.train.spans import Span, per_token

Completion = tuple[list[float], list[float], list[float]]
"""Log-probabilities, old ones, and advantages of a completion's tokens."""


def completions(seed: int, n: int = 6) -> list[Completion]:
    """Completions of many lengths, with ratios on both sides of the range."""
    rng = random.Random(seed)
    result = []
    for _ in range(n):
        length = rng.randrange(1, 9)
        old = [-rng.random() * 3 for _ in range(length)]
        new = [value + rng.uniform(-0.6, 0.6) for value in old]
        result.append((new, old, [rng.gauss(0, 1)] * length))
    return result


def plain_loss(batch: Sequence[Completion], kind: LossType, low: float, high: float) -> float:
    """The reference: one token after the other, normalised as the papers write it."""
    per_completion = []
    for new, old, advantages in batch:
        terms = []
        for logprob, before, advantage in zip(new, old, advantages, strict=True):
            ratio = math.exp(logprob - before)
            bounded = min(max(ratio, 1 - low), 1 + high)
            terms.append(min(ratio * advantage, bounded * advantage))
        per_completion.append(terms)
    if kind is LossType.DAPO:
        every = [term for terms in per_completion for term in terms]
        return -sum(every) / len(every)
    if kind is LossType.GRPO:
        return -sum(sum(terms) / len(terms) for terms in per_completion) / len(batch)
    return -sum(sum(terms) for terms in per_completion) / (len(batch) * 10)


def our_loss(
    batch: Sequence[Completion],
    kind: LossType,
    parts: Sequence[Sequence[int]],
    low: float = 0.2,
    high: float = 0.28,
) -> tuple[float, list[torch.Tensor]]:
    """Our loss and the gradients of the log-probabilities, computed in parts."""
    weights = token_weights([len(new) for new, _, _ in batch], kind, 10)
    leaves = [torch.tensor(new, dtype=torch.float64, requires_grad=True) for new, _, _ in batch]
    total = 0.0
    for part in parts:
        loss = token_loss(
            torch.cat([leaves[k] for k in part]),
            torch.tensor([x for k in part for x in batch[k][1]], dtype=torch.float64),
            torch.tensor([x for k in part for x in batch[k][2]], dtype=torch.float64),
            torch.tensor([weights[k] for k in part for _ in batch[k][0]], dtype=torch.float64),
            epsilon=low,
            epsilon_high=high,
        )
        torch.autograd.backward(loss.loss)
        total += float(loss.loss.detach())
    return total, [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("kind", list(LossType))
@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_that_of_a_loop_over_tokens(kind: LossType, seed: int) -> None:
    batch = completions(seed)
    ours, _ = our_loss(batch, kind, [range(len(batch))])
    assert ours == pytest.approx(plain_loss(batch, kind, 0.2, 0.28), abs=1e-12)


@pytest.mark.parametrize("kind", list(LossType))
def test_neither_split_nor_order_changes_the_loss(kind: LossType) -> None:
    batch = completions(7, n=8)
    whole, gradients = our_loss(batch, kind, [range(8)])
    for parts in (
        [[k] for k in range(8)],
        [[7, 0, 3], [1, 2], [6, 5, 4]],
        [[5], [*range(5), 6, 7]],
    ):
        split, split_gradients = our_loss(batch, kind, parts)
        assert split == pytest.approx(whole, abs=1e-14)
        for one, other in zip(gradients, split_gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", list(LossType))
def test_gradients_are_finite_differences(kind: LossType) -> None:
    batch = completions(3)
    _, gradients = our_loss(batch, kind, [range(len(batch))])
    step = 1e-6
    for row, (new, old, advantages) in enumerate(batch):
        for place in range(len(new)):
            around = []
            for sign in (1, -1):
                moved = list(new)
                moved[place] += sign * step
                changed = [*batch[:row], (moved, old, advantages), *batch[row + 1 :]]
                around.append(plain_loss(changed, kind, 0.2, 0.28))
            slope = (around[0] - around[1]) / (2 * step)
            assert float(gradients[row][place]) == pytest.approx(slope, abs=1e-8)


def test_clipping_by_hand() -> None:
    """Ratios 2 and 1/2, gains and losses.

    A = 1, ratio 2: bounded by 1.28, counted as clipped high, no gradient. A = 1, ratio 1/2: stays.
    A = -1, ratio 2: stays -2 (the worse counts). A = -1, ratio 1/2: bounded by .8, clipped low.
    """
    logprobs = torch.log(torch.tensor([2.0, 0.5, 2.0, 0.5])).requires_grad_()
    loss = token_loss(
        logprobs,
        torch.zeros(4),
        torch.tensor([1.0, 1.0, -1.0, -1.0]),
        torch.ones(4),
        epsilon=0.2,
        epsilon_high=0.28,
    )
    assert float(loss.loss.detach()) == pytest.approx(-(1.28 + 0.5 - 2.0 - 0.8))
    assert (loss.clipped_low, loss.clipped_high) == (1, 1)
    torch.autograd.backward(loss.loss)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0, -0.5, 2.0, 0.0])


def test_divergence_from_the_reference_by_hand() -> None:
    """pi = 1/2, reference = 1/4: d = log(1/2), so exp(d) - d - 1 = log 2 - 1/2."""
    loss = token_loss(
        torch.log(torch.tensor([0.5])),
        torch.log(torch.tensor([0.5])),
        torch.zeros(1),
        torch.ones(1),
        epsilon=0.2,
        epsilon_high=0.2,
        beta=0.1,
        reference_N=torch.log(torch.tensor([0.25])),
    )
    assert loss.kl == pytest.approx(math.log(2) - 0.5)
    assert float(loss.loss) == pytest.approx(0.1 * (math.log(2) - 0.5))


def test_advantages_by_hand() -> None:
    """One right of four: mean 1/4, sample standard deviation 1/2; 3/2 and -1/2 by GRPO."""
    group = [1.0, 0.0, 0.0, 0.0]
    (grpo,) = outcome_advantages([group], ScaleRewards.GROUP)
    assert grpo == pytest.approx([0.75 / (0.5 + EPSILON), *[-0.25 / (0.5 + EPSILON)] * 3])
    (dr_grpo,) = outcome_advantages([group], ScaleRewards.NONE)
    assert dr_grpo == [0.75, -0.25, -0.25, -0.25]
    both = outcome_advantages([group, [1.0, 1.0]], ScaleRewards.BATCH)
    # 1, 0, 0, 0, 1, 1: standard deviation sqrt(6 * 1/4 / 5).
    assert both[0] == pytest.approx([x / (math.sqrt(0.3) + EPSILON) for x in (0.75, *[-0.25] * 3)])
    assert both[1] == [0.0, 0.0]


@pytest.mark.parametrize("scale", list(ScaleRewards))
def test_a_group_of_one_says_nothing(scale: ScaleRewards) -> None:
    assert outcome_advantages([[0.7]], scale) == [[0.0]]
    assert outcome_advantages([[0.7, None]], scale) == [[0.0, None]]
    assert spread([0.7]) == spread([None, 0.7]) == spread([]) == 0.0
    lone = [[Span(0, 2, 0.5, "step")]]
    assert step_advantages([lone], [1.0], scale) == [[[]]]


@pytest.mark.parametrize("size", range(2, 40))
@pytest.mark.parametrize("reward", [0.1, 1 / 3, 0.7, -1.0])
def test_equal_rewards_have_no_spread_whatever_the_size_of_the_group(
    size: int, reward: float
) -> None:
    assert spread([reward] * size) == 0.0


def test_unknown_rewards_have_no_advantage_and_no_say() -> None:
    with_unknown = outcome_advantages([[1.0, None, 0.0]], ScaleRewards.GROUP)[0]
    without = outcome_advantages([[1.0, 0.0]], ScaleRewards.GROUP)[0]
    assert with_unknown == [without[0], None, without[1]]
    assert spread([1.0, None, 0.0]) == 0.5


def test_step_advantages_keep_their_sign_and_have_unit_size() -> None:
    """Differences 3/5 and -4/5 of one completion, 0 of the other: root mean square sqrt(1/3)."""
    group = [[Span(0, 2, 0.6, "step"), Span(2, 5, -0.8, "step")], [Span(0, 1, 0.0, "step")]]
    (scaled,) = step_advantages([group], [0.5], ScaleRewards.GROUP)
    size = math.sqrt(1 / 3) + EPSILON
    assert [span.value for span in scaled[0]] == pytest.approx([0.3 / size, -0.4 / size])
    assert scaled[1][0].value == 0.0
    assert [(span.start, span.end) for span in scaled[0]] == [(0, 2), (2, 5)]
    assert step_advantages([[[], []]], [1.0], ScaleRewards.GROUP) == [[[], []]]
    (raw,) = step_advantages([group], [0.5], ScaleRewards.NONE)
    assert [span.value for span in raw[0]] == [0.3, -0.4]


@pytest.mark.parametrize("scale", [ScaleRewards.GROUP, ScaleRewards.BATCH])
def test_a_group_whose_steps_hardly_differ_says_little(scale: ScaleRewards) -> None:
    """Beside differences of .4 those of .004 stay a hundredth; a lone completion has no say."""
    groups = [[[Span(0, 1, value, "step")], [Span(0, 1, -value, "step")]] for value in (0.4, 0.004)]
    lone = [[Span(0, 1, 9.0, "step")]]
    large, small, left_out = step_advantages([*groups, lone], [1.0] * 3, scale)
    assert large[0][0].value == pytest.approx(math.sqrt(2), rel=1e-3)
    assert small[0][0].value == pytest.approx(large[0][0].value / 100)
    assert left_out == [[]]


def test_spans_add_up_token_by_token() -> None:
    spans = [Span(0, 4, 1.0, "outcome"), Span(1, 3, -0.5, "step"), Span(4, 4, 9.0, "step")]
    np.testing.assert_array_equal(per_token(spans, 4), np.array([1.0, 0.5, 0.5, 1.0], np.float32))


def test_weights_add_up_to_one_where_the_loss_is_a_mean() -> None:
    lengths = [3, 1, 8]
    for kind in (LossType.DAPO, LossType.GRPO):
        weights = token_weights(lengths, kind, 10)
        assert sum(w * n for w, n in zip(weights, lengths, strict=True)) == pytest.approx(1.0)
    assert token_weights(lengths, LossType.DR_GRPO, 10) == [1 / 30] * 3

"""Tokens follow their distribution, and the noise follows seed and position alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from treeward.search.sampling import draw_tokens, uniforms

words = st.integers(0, 2**64 - 1)


def grid(seeds: int, positions: int, offset: int = 0) -> NDArray[np.float64]:
    """The noise of consecutive seeds and positions, [seeds, positions]."""
    seed, position = np.meshgrid(
        np.arange(offset, offset + seeds, dtype=np.uint64),
        np.arange(positions, dtype=np.uint64),
        indexing="ij",
    )
    return uniforms(seed.ravel(), position.ravel()).reshape(seeds, positions)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=20))
def test_noise_depends_on_seed_and_position_alone(pairs: list[tuple[int, int]]) -> None:
    seeds, positions = np.array(pairs, dtype=np.uint64).T
    together = uniforms(seeds, positions)
    alone = [
        uniforms(np.array([seed], np.uint64), np.array([position], np.uint64))[0]
        for seed, position in pairs
    ]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < 1)).all()


def test_splitmix64_is_the_published_one() -> None:
    """The first outputs of SplitMix64 from state 1234567, as in its reference implementation."""
    from treeward.search.sampling import _GOLDEN, _mix

    state = np.uint64(1234567)
    with np.errstate(over="ignore"):
        states = state + np.arange(1, 4, dtype=np.uint64) * _GOLDEN
        outputs = _mix(states)
    assert outputs.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("offset", [0, 2**40])
def test_noise_is_uniform_and_independent(offset: int) -> None:
    """Seeds are fixed, so this cannot fail by chance twice; p < 1e-4 in 6 tests: 6e-4 before."""
    noise = grid(300, 100, offset)
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-4
    for a, b in ((noise[:, :-1], noise[:, 1:]), (noise[:-1], noise[1:])):
        cells, *_ = np.histogram2d(a.ravel(), b.ravel(), bins=8, range=[[0, 1], [0, 1]])
        assert stats.chisquare(cells.ravel()).pvalue > 1e-4


def draws(
    logits: list[float], n: int, *, temperature: float = 1.0, top_p: float = 1.0
) -> list[int]:
    """How often each token is drawn with n different seeds."""
    logits_BV = torch.tensor(logits).expand(n, -1)
    tokens, _ = draw_tokens(logits_BV, grid(n, 1)[:, 0], temperature=temperature, top_p=top_p)
    counts: list[int] = np.bincount(tokens, minlength=len(logits)).tolist()
    return counts


LOGITS = [1.0, -0.5, 2.0, 0.0, -3.0, 0.3]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_follow_the_softmax_at_a_temperature(temperature: float) -> None:
    """False alarm with probability 1e-4 each, once: the seeds are fixed."""
    weights = np.exp(np.array(LOGITS) / temperature)
    expected = 20_000 * weights / weights.sum()
    observed = draws(LOGITS, 20_000, temperature=temperature)
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_top_p_keeps_the_nucleus_and_its_proportions() -> None:
    # .5, .25, .125, .125: .75 needs the first two; a hair more needs a third, the first of a tie.
    logits = np.log([0.125, 0.5, 0.125, 0.25]).tolist()
    observed = draws(logits, 10_000, top_p=0.75)
    assert observed[0] == observed[2] == 0
    assert stats.binomtest(observed[1], 10_000, 2 / 3).pvalue > 1e-4
    observed = draws(logits, 10_000, top_p=0.76)
    assert observed[2] == 0
    assert observed[0] > 0
    assert draws(logits, 100, top_p=1e-9) == [0, 100, 0, 0]


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    nothing = float("-inf")
    logits = torch.tensor([[nothing, 0.0, nothing, 0.0, nothing]]).expand(3, -1)
    edges = np.array([0.0, 0.5, 1 - 2.0**-53])
    tokens, _ = draw_tokens(logits, edges, temperature=1.0, top_p=1.0)
    assert tokens == [1, 3, 3]


def test_tiny_temperatures_take_the_best_token() -> None:
    assert draws([5.0, 9.0, -40.0], 50, temperature=1e-42) == [0, 50, 0]


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=9),
    temperature=st.floats(0.1, 5),
    top_p=st.floats(0.01, 1),
    noise=st.floats(0, 1, exclude_max=True),
)
def test_log_probabilities_are_those_at_temperature_one(
    logits: list[float], temperature: float, top_p: float, noise: float
) -> None:
    logits_BV = torch.tensor([logits])
    tokens, logprobs = draw_tokens(
        logits_BV, np.array([noise]), temperature=temperature, top_p=top_p
    )
    expected = torch.log_softmax(logits_BV.double(), -1)[0, tokens[0]]
    assert logprobs[0] == pytest.approx(float(expected), abs=1e-5)


def test_rows_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn((16, 32), generator=generator)
    noise = grid(16, 1)[:, 0]
    together = draw_tokens(logits_BV, noise, temperature=0.7, top_p=0.9)[0]
    backwards = draw_tokens(logits_BV.flip(0), noise[::-1].copy(), temperature=0.7, top_p=0.9)[0]
    assert together == backwards[::-1]


@pytest.mark.parametrize("size", [1, 127, 128, 129, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_draw_is_where_one_cumulative_sum_passes_the_noise(size: int, top_p: float) -> None:
    """However the vocabulary is divided; float32 may move a boundary by a millionth."""
    generator = torch.Generator().manual_seed(size)
    logits_BV = 3 * torch.randn((5, size), generator=generator)
    logits_BV[:, 1::3] = -np.inf
    source, noise = [4, 0, 0, 2, 1, 3] * 50, grid(300, 1)[:, 0]
    tokens, logprobs = draw_tokens(logits_BV, noise, temperature=1.5, top_p=top_p, source_N=source)
    for row, share, token, logprob in zip(source, noise, tokens, logprobs, strict=True):
        probs = (logits_BV[row].double() / 1.5).softmax(-1).numpy()
        if top_p < 1:
            order = np.argsort(-probs, kind="stable")
            before = np.cumsum(probs[order]) - probs[order]
            probs[order[before >= top_p]] = 0.0
        upto = np.cumsum(probs / probs.sum())
        assert upto[token] - probs[token] / probs.sum() - 1e-6 < share < upto[token] + 1e-6
        assert probs[token] > 0
        plain = logits_BV[row].double().log_softmax(-1)[token]
        assert logprob == pytest.approx(float(plain), abs=1e-5)

import math
from typing import Any

import pytest
import torch

from treeward.critics.heads import Head, Readout
from treeward.train.critic_loss import Known, beta_binomial_nll, losses


def nll(k: float, n: float, a: float, b: float) -> float:
    """-log BetaBinomial(k | n, a, b) as the heads' parameters give it."""
    logit, log_s = math.log(a / b), math.log(a + b)
    values = [torch.tensor([x], dtype=torch.float64) for x in (k, n, logit, log_s)]
    return float(beta_binomial_nll(*values))


@pytest.mark.parametrize(
    ("k", "n", "a", "b", "probability"),
    [
        # One rollout is a Bernoulli draw with the mean a / (a + b).
        (1, 1, 3, 1, 3 / 4),
        (0, 1, 3, 1, 1 / 4),
        # Beta(1, 1) makes every count equally likely.
        (0, 4, 1, 1, 1 / 5),
        (3, 4, 1, 1, 1 / 5),
        # C(3, 2) B(4, 2) / B(2, 1) = 3 (3! 1! / 5!) / (1! 0! / 2!) = 3 / 20 * 2.
        (2, 3, 2, 1, 3 / 10),
        # No rollout says nothing.
        (0, 0, 2, 5, 1),
    ],
)
def test_the_likelihood_is_that_of_the_closed_form(
    k: int, n: int, a: float, b: float, probability: float
) -> None:
    assert nll(k, n, a, b) == pytest.approx(-math.log(probability), abs=1e-12)


@pytest.mark.parametrize(("a", "b"), [(0.01, 0.02), (0.5, 0.5), (3.7, 1.2), (900.0, 100.0)])
@pytest.mark.parametrize("n", [1, 7, 64])
def test_the_probabilities_of_all_counts_sum_to_one(a: float, b: float, n: int) -> None:
    assert sum(math.exp(-nll(k, n, a, b)) for k in range(n + 1)) == pytest.approx(1, abs=1e-10)


def test_a_sure_head_has_the_likelihood_of_the_binomial() -> None:
    m, n, k, s = 0.3, 12, 5, 1e7
    binomial = math.comb(n, k) * m**k * (1 - m) ** (n - k)
    assert nll(k, n, m * s, (1 - m) * s) == pytest.approx(-math.log(binomial), rel=1e-5)


def test_gradients_are_those_of_the_form_with_log_gamma_functions() -> None:
    k = torch.tensor([0.0, 2.0, 5.0, 9.0], dtype=torch.float64)
    n = torch.tensor([4.0, 4.0, 5.0, 30.0], dtype=torch.float64)
    start = torch.tensor([[-1.0, 0.3, 2.0, -0.5], [0.0, 1.5, -1.0, 3.0]], dtype=torch.float64)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    torch.autograd.backward(beta_binomial_nll(k, n, ours[0], ours[1]).sum())
    a = torch.sigmoid(theirs[0]) * theirs[1].exp()
    b = torch.sigmoid(-theirs[0]) * theirs[1].exp()

    def log_beta(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)

    torch.autograd.backward((log_beta(a, b) - log_beta(a + k, b + n - k)).sum())
    assert ours.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_heads_far_out_still_have_finite_losses_and_gradients() -> None:
    said = torch.tensor([[-60.0, 60.0], [-7.0, 7.0]], requires_grad=True)
    k, n = torch.tensor([8.0, 0.0]).double(), torch.tensor([8.0, 8.0]).double()
    loss = beta_binomial_nll(k, n, said[0], said[1])
    # The first: a product of 8 factors a + i with a = e^-67, over s = e^-7: about 60.
    assert float(loss[0].detach()) == pytest.approx(60, abs=0.1)
    torch.autograd.backward(loss.sum())
    assert said.grad is not None
    assert bool(said.grad.isfinite().all())


NAN = math.nan
EVIDENCE: dict[str, list[Any]] = {
    "n_right": [2.0, 0.0, 1.0],
    "n_rollouts": [4.0, 0.0, 1.0],
    "progress": [NAN, 0.25, NAN],
    "outcome": [NAN, NAN, 1.0],
}


def known(columns: dict[str, list[Any]]) -> Known:
    return Known(*(torch.tensor(column, dtype=torch.float64) for column in columns.values()))


def readout(said: torch.Tensor) -> Readout:
    return Readout(said[:, 0], said[:, 1], torch.tanh(said[:, 2]), said[:, 3])


def test_losses_are_sums_over_what_is_known() -> None:
    found = losses(readout(torch.zeros(3, 4)), known(EVIDENCE))
    # Mean 1/2 and concentration 1: Beta(1/2, 1/2); C(4, 2) B(5/2, 5/2) / B(1/2, 1/2) = 9/64.
    assert float(found[Head.VALUE]) == pytest.approx(-math.log(9 / 64) + math.log(2))
    assert float(found[Head.PROGRESS]) == pytest.approx(0.25**2)
    assert float(found[Head.OUTCOME]) == pytest.approx(math.log(2))
    assert known(EVIDENCE).counts() == {Head.VALUE: 2, Head.PROGRESS: 1, Head.OUTCOME: 1}


def test_unknown_places_change_neither_losses_nor_gradients() -> None:
    said = torch.linspace(-2, 2, 20).reshape(5, 4)
    unknown = {"n_right": 0.0, "n_rollouts": 0.0, "progress": NAN, "outcome": NAN}
    padded = {name: [unknown[name], *EVIDENCE[name], unknown[name]] for name in EVIDENCE}
    results = []
    for columns, shown in ((EVIDENCE, said[1:4]), (padded, said)):
        leaf = shown.clone().requires_grad_()
        found = losses(readout(leaf), known(columns))
        torch.autograd.backward(torch.stack(list(found.values())).sum())
        assert leaf.grad is not None
        results.append(([float(loss.detach()) for loss in found.values()], leaf.grad))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1][1:4])
    assert not results[1][1][[0, 4]].any()
    assert bool(results[0][1].any(1).all())

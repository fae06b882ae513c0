"""The losses of the three critics, each a sum over the places where something is known.

Shape suffix: N places.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from treeward.critics.heads import Head, Readout
from treeward.train.critic_data import CriticRow
from treeward.train.critic_settings import Targets


class Known(NamedTuple):
    """Holds what is known at the places of some rows, one after the other, in float64."""

    n_right_N: torch.Tensor
    """Right rollouts."""
    n_rollouts_N: torch.Tensor
    """Right and wrong ones; 0 where nothing is known."""
    progress_N: torch.Tensor
    """NaN where not known."""
    outcome_N: torch.Tensor
    """1, 0, or NaN where not known."""

    def counts(self) -> dict[Head, int]:
        """Returns at how many places each head has something to learn."""
        return {
            Head.VALUE: int((self.n_rollouts_N > 0).sum()),
            Head.PROGRESS: int(self.progress_N.isfinite().sum()),
            Head.OUTCOME: int(self.outcome_N.isfinite().sum()),
        }


def known(rows: Sequence[CriticRow], targets: Targets, device: str) -> Known:
    """Returns what is known at the places of some rows."""
    names = ("n_right", "n_rollouts", "progress", "outcome")
    columns = [np.concatenate([getattr(row, name) for row in rows]) for name in names]
    k, n, progress, outcome = (torch.from_numpy(column).to(device) for column in columns)
    if targets is Targets.HARD:
        k, n = (k > 0).double(), (n > 0).double()
    return Known(k, n, progress, outcome)


def beta_binomial_nll(
    k_N: torch.Tensor,
    n_N: torch.Tensor,
    mean_logit_N: torch.Tensor,
    log_concentration_N: torch.Tensor,
) -> torch.Tensor:
    """Returns -log BetaBinomial(k | n, a, b) with a = m s, b = (1 - m) s; 0 where n is 0.

        BetaBinomial(k | n, a, b) = C(n, k) B(a + k, b + n - k) / B(a, b)
            = C(n, k) prod_{i<k} (a + i) prod_{i<n-k} (b + i) / prod_{i<n} (s + i)

    The products are summed as logarithms, in float64: differences of log-gamma functions lose
    their digits where s is large.

    Args:
        k_N: Successes.
        n_N: Trials.
        mean_logit_N: Logit of m.
        log_concentration_N: Logarithm of s.
    """
    logit_N, log_s_N = mean_logit_N.double(), log_concentration_N.double()
    log_a_N = functional.logsigmoid(logit_N) + log_s_N
    log_b_N = functional.logsigmoid(-logit_N) + log_s_N
    choose_N = torch.lgamma(n_N + 1) - torch.lgamma(k_N + 1) - torch.lgamma(n_N - k_N + 1)
    return (
        _log_rising(log_s_N, n_N)
        - _log_rising(log_a_N, k_N)
        - _log_rising(log_b_N, n_N - k_N)
        - choose_N
    )


def _log_rising(log_start_N: torch.Tensor, count_N: torch.Tensor) -> torch.Tensor:
    """Returns log prod_{i<count} (start + i)."""
    longest = int(count_N.max()) if len(count_N) else 0
    i = torch.arange(longest, device=count_N.device, dtype=torch.float64)
    # log(start + i) = logaddexp(log start, log i), exact however small the start is.
    logs = torch.logaddexp(log_start_N[:, None], torch.log(i)[None])
    return torch.where(i[None] < count_N[:, None], logs, 0.0).sum(1)


def losses(readout: Readout, known: Known) -> dict[Head, torch.Tensor]:
    """Returns by head the sum of its loss over what is known.

    Value: -log BetaBinomial, in nats. Progress: squared differences. Outcome: -log of the verdict's
    probability, in nats. Unknown places add nothing, to gradients neither.
    """
    counted = known.n_rollouts_N > 0
    value = beta_binomial_nll(
        known.n_right_N[counted],
        known.n_rollouts_N[counted],
        readout.value_logit_N[counted],
        readout.log_concentration_N[counted],
    )
    measured, ended = known.progress_N.isfinite(), known.outcome_N.isfinite()
    differences = readout.progress_N[measured].double() - known.progress_N[measured]
    outcome = functional.binary_cross_entropy_with_logits(
        readout.outcome_logit_N[ended].double(), known.outcome_N[ended], reduction="sum"
    )
    return {
        Head.VALUE: value.sum(),
        Head.PROGRESS: differences.square().sum(),
        Head.OUTCOME: outcome,
    }

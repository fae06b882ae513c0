"""From graded groups to gradients: advantages, the passes of a step, and what happened in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from treeward.search.policy import Draw
from treeward.train.advantages import outcome_advantages, step_advantages
from treeward.train.environment import Grades, Prompt
from treeward.train.groups import Group, Layout, lay_out, merge_repeats, passes, share_prompts
from treeward.train.logprobs import token_logprobs
from treeward.train.loop import Update
from treeward.train.objective import token_loss, token_weights
from treeward.train.output import Json
from treeward.train.rl_settings import RlSettings
from treeward.train.spans import Span, per_token
from treeward.train.weights import blank_like, load_weights, merged_weights

OUTCOME = "outcome"
"""Source of the advantages that come from rewards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Holds one group as drawn and graded."""

    prompt: Prompt
    draws: tuple[Draw, ...]
    grades: Grades


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Holds one group as it is learned; the columns have one entry a completion."""

    group: Group

    spans: tuple[tuple[Span, ...], ...]
    """The completions' advantages."""

    logprobs: tuple[float, ...]
    """Of whole completions, as the sampler computed them at temperature 1."""


def lessons(drawn: Sequence[Drawn], settings: RlSettings) -> list[Lesson]:
    """Returns groups with their advantages, without the completions that nobody can judge."""
    outcomes = outcome_advantages([group.grades.rewards for group in drawn], settings.scale_rewards)
    steps = step_advantages(
        [group.grades.known_steps for group in drawn],
        [group.grades.step_weight for group in drawn],
        settings.scale_rewards,
    )
    result = []
    for group, outcomes_G, steps_K in zip(drawn, outcomes, steps, strict=True):
        known = [
            (draw, outcome)
            for draw, outcome in zip(group.draws, outcomes_G, strict=True)
            if outcome is not None
        ]
        columns = [
            (draw, (Span(0, len(draw.token_ids), outcome, OUTCOME), *spans))
            for (draw, outcome), spans in zip(known, steps_K, strict=True)
        ]
        if columns:
            completions = tuple(draw.token_ids for draw, _ in columns)
            result.append(
                Lesson(
                    group=Group(prompt_ids=group.prompt.ids, completions=completions),
                    spans=tuple(spans for _, spans in columns),
                    logprobs=tuple(draw.logprob for draw, _ in columns),
                )
            )
    return result


@dataclass(frozen=True, slots=True)
class _Pass:
    """Holds what one forward pass reads; the columns have one entry a token."""

    layout: Layout
    """Completions that repeat are in it once."""

    repeats_N: torch.Tensor
    """Each token's number in the layout."""

    advantages_N: torch.Tensor
    weights_N: torch.Tensor


class Learner:
    """Takes the gradient of the objective; holds the reference where divergence costs."""

    def __init__(self, model: PreTrainedModel, settings: RlSettings) -> None:
        """Takes the model that is trained in place, as it is at the start."""
        self._model = model
        self._settings = settings
        self._reference: PreTrainedModel | None = None
        if settings.beta:
            self._reference = blank_like(model).train(False)
            load_weights(self._reference, merged_weights(model))

    def learn(self, batch: Sequence[Lesson], limit: int, update: Update) -> Json:
        """Takes `num_iterations` updates on a batch.

        Args:
            batch: What is learned.
            limit: Tokens that a completion may have.
            update: Takes an optimizer step.

        Returns:
            What happened, under TRL's names.
        """
        settings = self._settings
        parts = self._passes(batch, limit)
        old: list[torch.Tensor] = []
        sums = dict.fromkeys(("loss", "kl", "entropy", "low", "high"), 0.0)
        for iteration in range(settings.num_iterations):
            for number, part in enumerate(parts):
                logprobs_N, entropies_N = self._logprobs(self._model, part)
                if iteration == 0:
                    old.append(logprobs_N.detach())
                loss = token_loss(
                    logprobs_N,
                    old[number],
                    part.advantages_N,
                    part.weights_N,
                    epsilon=settings.epsilon,
                    epsilon_high=settings.epsilon_high,
                    beta=settings.beta,
                    reference_N=self._reference_logprobs(part),
                )
                torch.autograd.backward(loss.loss)
                sums["loss"] += float(loss.loss.detach())
                sums["kl"] += loss.kl
                sums["entropy"] += float(entropies_N.sum())
                sums["low"] += loss.clipped_low
                sums["high"] += loss.clipped_high
            update()
        tokens = settings.num_iterations * sum(len(part.weights_N) for part in parts)
        facts = {
            "loss": sums["loss"] / settings.num_iterations,
            "entropy": sums["entropy"] / tokens,
            "clip_ratio/low_mean": sums["low"] / tokens,
            "clip_ratio/high_mean": sums["high"] / tokens,
            "clip_ratio/region_mean": (sums["low"] + sums["high"]) / tokens,
        }
        if settings.beta:
            facts["kl"] = sums["kl"] / settings.num_iterations
        if settings.temperature == 1.0:
            facts["sampling/sampling_logp_difference/mean"] = _difference(batch, torch.cat(old))
        return facts

    def _passes(self, batch: Sequence[Lesson], limit: int) -> list[_Pass]:
        """Returns the forward passes of a step; weights count over all of them."""
        device = self._model.device
        lengths = [len(ids) for lesson in batch for ids in lesson.group.completions]
        weights = iter(token_weights(lengths, self._settings.loss_type, limit))
        parts = []
        for part in passes(len(batch), self._settings.micro_batch_size):
            advantages: list[torch.Tensor] = []
            weighed: list[torch.Tensor] = []
            for lesson in batch[part]:
                for ids, spans in zip(lesson.group.completions, lesson.spans, strict=True):
                    advantages.append(torch.from_numpy(per_token(spans, len(ids))))
                    weighed.append(torch.full((len(ids),), next(weights)))
            width = self._model.config.hidden_size
            merged, repeats_N = merge_repeats([lesson.group for lesson in batch[part]])
            layout = lay_out([some for group in merged for some in share_prompts(group, width)])
            parts.append(
                _Pass(
                    layout=layout.to(device),
                    repeats_N=repeats_N.to(device),
                    advantages_N=torch.cat(advantages).to(device),
                    weights_N=torch.cat(weighed).to(device),
                )
            )
        return parts

    def _logprobs(self, model: PreTrainedModel, part: _Pass) -> tuple[torch.Tensor, torch.Tensor]:
        settings = self._settings
        logprobs, entropies = token_logprobs(
            model,
            part.layout,
            temperature=settings.temperature,
            chunk=settings.logprob_chunk,
            dtype=settings.dtype,
        )
        return logprobs[part.repeats_N], entropies[part.repeats_N]

    def _reference_logprobs(self, part: _Pass) -> torch.Tensor | None:
        if self._reference is None:
            return None
        with torch.no_grad():
            return self._logprobs(self._reference, part)[0]


def _difference(batch: Sequence[Lesson], logprobs_N: torch.Tensor) -> float:
    """Returns how far trainer and sampler are apart, a token: the mean over the completions.

    It is a check on both: they compute the same thing by different code.
    """
    completions = [ids for lesson in batch for ids in lesson.group.completions]
    sampled = [logprob for lesson in batch for logprob in lesson.logprobs]
    ours = [
        float(part.double().sum())
        for part in torch.split(logprobs_N, [len(c) for c in completions])
    ]
    apart = [abs(a - b) / len(c) for a, b, c in zip(ours, sampled, completions, strict=True)]
    return sum(apart) / len(apart)

"""Reinforcement from rewards: the one loop of SRL and RLVR.

A step draws groups with the weights as they are, has them graded, and learns from those in which
some completions are known to be better than others. The others teach nothing: the next prompts are
asked in their place (dynamic sampling: DAPO, Yu et al. 2025, section 3.2).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from treeward.export.run_folder import digest
from treeward.search.errors import BadInput, TreewardError
from treeward.search.network import positions_of
from treeward.search.policy import Ask
from treeward.search.requests import Kind
from treeward.search.templates import spec_of
from treeward.search.tokens import load_tokens
from treeward.train.advantages import spread
from treeward.train.checkpoint import State
from treeward.train.environment import Environment, Prompt
from treeward.train.forward import load_trainable
from treeward.train.learning import Drawn, Learner, lessons
from treeward.train.logprobs import check_groups
from treeward.train.loop import Progress, Update, identity, run_loop, session
from treeward.train.output import Json, output, write_model
from treeward.train.rl_metrics import describe
from treeward.train.rl_settings import RlSettings
from treeward.train.sampler import Sampler, draw_seed

_WAY_OUT = "take problems that are neither always nor never solved, or raise train.group_size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Says what came of a training."""

    out: Path
    """The folder with the finished model."""

    ended: str | None
    """Why it ended before its last step; None where it did not."""


def train_rl(
    environment: Environment,
    model: Path,
    out: Path,
    settings: RlSettings,
    *,
    resume: bool,
    progress: Progress,
) -> Trained:
    """Trains a policy by reinforcement and writes the finished model.

    Args:
        environment: What is asked and rewarded.
        model: The Hugging Face folder to start from.
        out: A new folder; with `resume` one that holds the same run, whole or in part.
        settings: How it is trained.
        resume: Goes on from the latest checkpoint.
        progress: Is called at every logged step.

    Raises:
        BadInput: The model or the output folder cannot be used, or a prompt does not fit.
        SettingsConflict: The output folder holds another run.
        DamagedData: The checkpoint does not hold what was written to it.
        TreewardError: No group of the first step teaches anything, or of any without refilling;
            the disk is full, or the gradient stopped being a number.
    """
    with session(out, settings):
        trained = load_trainable(model, settings)
        check_groups(trained)
        check_room(trained, environment)
        tokens, threads = load_tokens(model), torch.get_num_threads()
        rows = settings.prompts_per_step * settings.group_size
        sampler = Sampler(model, tokens, device=settings.device, threads=threads, rows=rows)
        data = environment.about | {"template": digest(asdict(environment.template))}
        about = identity(environment.name, settings, model, data)
        with output(out, about, resume=resume):
            job = RlJob(trained.train(), sampler, environment, settings)
            state = run_loop(trained, out, settings, job, progress)
            if not state["lessons"] and state["ended"] is None:
                raise TreewardError(
                    f"no group of {state['step']} steps had a reward spread above "
                    f"{settings.min_reward_std}, so nothing was learned; {_WAY_OUT}"
                )
            trained.config.treeward_template = spec_of(environment.template)
            write_model(out, trained, model, settings.save_dtype)
    return Trained(out=out, ended=state["ended"])


class RlJob:
    """Learns from groups that the model draws itself; a `Job`."""

    def __init__(
        self,
        model: PreTrainedModel,
        sampler: Sampler,
        environment: Environment,
        settings: RlSettings,
    ) -> None:
        """Takes the model that is trained in place, as it is at the start."""
        self._model = model
        self._sampler = sampler
        self._environment = environment
        self._settings = settings
        self._learner = Learner(model, settings)
        self._limit = token_limit(environment)

    def start(self) -> State:
        """Returns no counts yet."""
        return {"asked": 0, "tokens": 0, "sampled": 0, "sums": {}, "ended": None, "lessons": 0}

    def step(self, state: State, update: Update) -> None:
        """Draws until there are enough groups with a signal, or once, and learns from them.

        Where there is no end to it, what was found is learned and training is done.
        """
        self._sampler.follow(self._model)
        drawn: list[Drawn] = []
        kept: list[Drawn] = []
        while len(kept) < self._settings.prompts_per_step and not state["done"]:
            state["ended"] = self._why_end(state, drawn, kept)
            state["done"] = state["ended"] is not None
            if not state["done"]:
                drawn += (more := self._draw(state))
                kept += [group for group in more if teaches(group, self._settings.min_reward_std)]
            if not self._settings.refill:
                break
        self._sampler.rest()
        state["lessons"] += len(kept)
        facts = describe(drawn, kept, self._environment.reward_name) if drawn else {}
        if kept:
            facts |= self._learner.learn(lessons(kept, self._settings), self._limit, update)
        for name, value in facts.items():
            total, count = state["sums"].get(name, (0.0, 0))
            state["sums"][name] = (total + value, count + 1)

    def record(self, state: State) -> Json:
        """Returns means since the last line, and totals."""
        line = {name: total / count for name, (total, count) in state["sums"].items()}
        totals = {
            "num_tokens": state["tokens"],
            "sampled_tokens": state["sampled"],
            "epoch": state["asked"] / len(self._environment.prompts),
        }
        state["sums"] = {}
        return line | totals

    def _why_end(self, state: State, drawn: Sequence[Drawn], kept: Sequence[Drawn]) -> str | None:
        """Returns why nothing more is drawn, or None.

        Raises:
            TreewardError: The very first step finds too little to learn from.
        """
        settings = self._settings
        if settings.token_budget is not None and state["sampled"] >= settings.token_budget:
            return f"the budget of {settings.token_budget:,} sampled tokens is spent"
        if len(drawn) < settings.max_refills * settings.prompts_per_step:
            return None
        rewards = [r for group in drawn for r in group.grades.rewards if r is not None]
        mean = f"{np.mean(rewards):.3g}" if rewards else "unknown"
        reason = (
            f"step {state['step'] + 1}: {len(kept)} of {len(drawn)} groups had a reward spread "
            f"above {settings.min_reward_std} (mean reward {mean}) and a step needs "
            f"{settings.prompts_per_step}"
        )
        if state["step"] == 0:
            raise TreewardError(f"{reason}; {_WAY_OUT} or train.max_refills")
        return reason

    def _draw(self, state: State) -> list[Drawn]:
        """Draws and grades the groups of the next prompts."""
        environment = self._environment
        n, size = self._settings.prompts_per_step, len(environment.prompts)
        visits = list(next_visits(state["asked"], n, size, self._settings.seed))
        asks = [self._ask(environment.prompts[place], round_) for round_, place in visits]
        groups = []
        for (_, place), draws in zip(visits, self._sampler.draw(asks), strict=True):
            prompt, grades = environment.prompts[place], environment.grade(place, draws)
            groups.append(Drawn(prompt=prompt, draws=tuple(draws), grades=grades))
            sampled = sum(len(draw.token_ids) for draw in draws)
            state["sampled"] += sampled
            state["tokens"] += sampled + len(prompt.ids)
        state["asked"] += n
        return groups

    def _ask(self, prompt: Prompt, round_: int) -> Ask:
        settings, environment = self._settings, self._environment
        seeds = (draw_seed(settings.seed, prompt.id, round_, i) for i in range(settings.group_size))
        return Ask(
            prompt_ids=prompt.prompt_ids,
            prefix_ids=prompt.prefix_ids,
            kind=environment.kind,
            seeds=tuple(seeds),
            settings=environment.sampling,
            rule=environment.rule,
            stick_to=prompt.id,
        )


def token_limit(environment: Environment) -> int:
    """Returns how many tokens a completion may have."""
    sampling = environment.sampling
    whole = environment.kind is Kind.ROLLOUT
    return sampling.max_rollout_tokens if whole else sampling.max_step_tokens


def check_room(model: PreTrainedModel, environment: Environment) -> None:
    """Raises BadInput unless every prompt leaves room for a completion in the model's context."""
    room = positions_of(model.config.to_dict())
    limit = token_limit(environment)
    longest = max(environment.prompts, key=lambda prompt: len(prompt.ids))
    if room is not None and len(longest.ids) + limit > room:
        raise BadInput(
            f"prompt {longest.id!r:.60} has {len(longest.ids)} tokens and a completion may have "
            f"{limit}, but the model has {room} positions; lower train.max_completion_length or "
            "leave that problem out"
        )


def teaches(group: Drawn, min_reward_std: float) -> bool:
    """Returns whether some of a group's completions, or steps, are known to be better."""
    steps = group.grades.known_steps if group.grades.step_weight else []
    by_steps = len(steps) > 1 and any(span.value for spans in steps for span in spans)
    return spread(group.grades.rewards) > min_reward_std or by_steps


def next_visits(asked: int, n: int, size: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yields the next n of endless rounds over all prompts: the round, and the prompt's place.

    Every round asks each prompt once, in an order drawn from the seed.
    """
    order, drawn = np.empty(0, dtype=np.int64), -1
    for number in range(asked, asked + n):
        round_, at = divmod(number, size)
        if round_ != drawn:
            order, drawn = np.random.default_rng([seed, round_]).permutation(size), round_
        yield round_, int(order[at])

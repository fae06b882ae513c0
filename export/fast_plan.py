"""What draws a run's fast rollouts: the second sampler, checked before any work."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from treeward.export.config import Values
from treeward.export.run_folder import Sampler
from treeward.search.backends import (
    AUTO,
    SETTINGS_OF,
    AnySettings,
    Backend,
    Running,
    check_room,
    check_temperature,
    choose_backend,
    is_deterministic,
    prepare,
)
from treeward.search.errors import BadInput
from treeward.search.fast import FAST_SAMPLER, FastRollouts, FastSettings
from treeward.search.http_settings import is_url
from treeward.search.models import ModelFolder
from treeward.search.policy import PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.tokens import Tokens, load_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class FastPlan:
    """Holds what draws fast rollouts; nothing has been loaded."""

    settings: FastSettings
    model: ModelFolder
    running: Running
    sampling: PolicySettings

    @property
    def rollouts(self) -> FastRollouts:
        """Returns what a search is told."""
        return FastRollouts(
            n=self.settings.rollouts,
            weight=self.settings.weight,
            max_tokens=self.sampling.max_rollout_tokens,
        )

    @property
    def sampler(self) -> Sampler:
        """Returns its row of the view `samplers`."""
        return Sampler(
            sampler_id=FAST_SAMPLER,
            policy=self.model.name,
            **asdict(self.sampling),
            purpose="steering",
        )

    @property
    def identity(self) -> Values:
        """Returns all of it that the run's rows depend on."""
        return {
            "fast.policy": self.model.name,
            "fast.fingerprint": self.model.fingerprint,
            "fast.rollouts": self.settings.rollouts,
            "fast.weight": self.settings.weight,
            "fast.temperature": self.sampling.temperature,
            "fast.max_rollout_tokens": self.sampling.max_rollout_tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Main:
    """Holds what draws a run's evidence, and how that was asked for."""

    model: ModelFolder
    kind: Backend
    settings: AnySettings
    """Those of section `backend.`."""
    running: Running
    sampling: PolicySettings


def plan_fast(
    asked: FastSettings,
    main: Main,
    template: Template,
    problems: Sequence[Problem],
    shortest: int,
    cache: Path,
) -> FastPlan | None:
    """Returns what draws fast rollouts; None where none are asked for.

    Args:
        asked: Section `fast.`.
        main: What draws the run's evidence.
        template: How problems are put to both.
        problems: The run's.
        shortest: Tokens of the shortest prompt.
        cache: Where downloaded models are kept.

    Raises:
        BadInput: The fast policy cannot be had, reads other tokens or too few, or is the run's own
            in all.
    """
    if asked.rollouts == 0:
        return None
    sampling = _sampling(asked, main.sampling)
    model, running = main.model, main.running
    if asked.policy is not None:
        model, running = _prepare_other(asked.policy, main, cache)
        _check_same_tokens(main.model, model, template, problems)
    check_temperature(running, "fast.temperature", sampling.temperature)
    check_room(model, running, "fast", sampling, shortest)
    if (model, running, sampling) == (main.model, main.running, main.sampling):
        raise BadInput(
            f"fast.rollouts={asked.rollouts} would be drawn just as the policy's own rollouts; set "
            "fast.policy, fast.max_rollout_tokens or fast.temperature, or give more search.rollouts"
        )
    return FastPlan(settings=asked, model=model, running=running, sampling=sampling)


def _prepare_other(policy: str, main: Main, cache: Path) -> tuple[ModelFolder, Running]:
    """Returns another model, and how it runs: as the run's policy does where both can."""
    in_process = not is_url(policy) and main.kind is not Backend.HTTP
    kind = choose_backend(main.kind if in_process else AUTO, policy)
    if kind is main.kind is Backend.VLLM:
        raise BadInput(
            f"fast.policy={policy!r} would be a second model, and vLLM runs one at a time in a "
            "process; serve it and give its URL, or take --backend transformers, or leave "
            "fast.policy out and set fast.max_rollout_tokens"
        )
    settings = main.settings if kind is main.kind else SETTINGS_OF[kind]()
    deterministic = is_deterministic(main.running)
    return prepare(policy, None, settings, deterministic=deterministic, cache=cache)


def _sampling(asked: FastSettings, sampling: PolicySettings) -> PolicySettings:
    """Returns how fast rollouts are sampled: like the policy's, but for what is set."""
    most = asked.max_rollout_tokens
    if most is not None and most > sampling.max_rollout_tokens:
        raise BadInput(
            f"fast.max_rollout_tokens must be at most policy.max_rollout_tokens, which is "
            f"{sampling.max_rollout_tokens}, got {most}"
        )
    return replace(
        sampling,
        temperature=asked.temperature or sampling.temperature,
        max_rollout_tokens=most or sampling.max_rollout_tokens,
    )


def _check_same_tokens(
    model: ModelFolder, fast: ModelFolder, template: Template, problems: Sequence[Problem]
) -> None:
    """Checks that two models read and write the same token ids.

    Raises:
        BadInput: They do not; says where they differ.
    """
    ours, theirs = load_tokens(model.path), load_tokens(fast.path)
    found = _difference(ours, theirs)
    if found is None:
        texts = (template.text(problem, ours) for problem in problems)
        strange = next((text for text in texts if ours.encode(text) != theirs.encode(text)), None)
        found = strange and f"it splits {strange[:60]!r} into other tokens"
    if found:
        raise BadInput(
            f"fast.policy {fast.name!r} must have the tokenizer of the policy {model.name!r}: "
            f"{found}; take a smaller model of the same family, or leave fast.policy out and set "
            "fast.max_rollout_tokens"
        )


def _difference(ours: Tokens, theirs: Tokens) -> str | None:
    """Returns where the ids of two models differ in what they stand for, or None.

    A model may have more logits than tokens: ids at the end that stand for nothing.
    """
    size = max(len(ours.pieces), len(theirs.pieces))
    mine, others = (
        tokens.pieces + (b"",) * (size - len(tokens.pieces)) for tokens in (ours, theirs)
    )
    for token, (one, other) in enumerate(zip(mine, others, strict=True)):
        if one != other:
            return f"token {token} is {_shown(other)} and should be {_shown(one)}"
    if ours.eos_ids != theirs.eos_ids:
        return (
            f"it ends with tokens {sorted(theirs.eos_ids)} and should with {sorted(ours.eos_ids)}"
        )
    return None


def _shown(piece: bytes) -> str:
    return repr(piece.decode("utf-8", "replace"))

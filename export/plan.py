"""What a `generate` command means: its problems, model and settings, checked before any work."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

from treeward import __version__
from treeward.critics.verifier import AnswerVerifier
from treeward.export.askable import can_be_judged, make_verifier, readable
from treeward.export.config import Values, build, check_names, flatten, read_values
from treeward.export.fast_plan import FastPlan, Main, plan_fast
from treeward.export.open_critic import open_critic
from treeward.export.options import SECTIONS, LabelSettings, Options, policy_name
from treeward.export.prompt_settings import (
    PromptSettings,
    build_sampling,
    choose_template,
    steps_of,
)
from treeward.export.run_folder import CRITIC, Identity, Sampler, digest
from treeward.export.shard import Shard, choose_shard
from treeward.export.solutions import judged
from treeward.search.algorithms import METHODS, Tools, check_guides, of_critics
from treeward.search.backends import (
    SETTINGS_OF,
    Running,
    check_room,
    check_settings,
    check_temperature,
    choose_backend,
    identity_without_loading,
    is_deterministic,
    prepare,
)
from treeward.search.critic import Critic
from treeward.search.errors import BadInput
from treeward.search.fast import FastSettings
from treeward.search.given import Given, Steps
from treeward.search.groups import SameStep
from treeward.search.models import ModelFolder, cache_root
from treeward.search.policy import PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.readers import ProblemSet, read_problems
from treeward.search.requests import Search, check_seed
from treeward.search.settings import WEIGHTS, Algorithm, SearchSettings
from treeward.search.spending import BudgetSettings
from treeward.search.tokens import Tokens
from treeward.search.transformers_policy import TransformersSettings
from treeward.search.verdicts import Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Holds what a run will be; nothing has been loaded or written."""

    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]
    """Rows left out, with the reason."""

    model: ModelFolder
    template: Template
    seed: int
    search: SearchSettings
    own: Any
    """What the search is told beside; the dataclass of the section that has its name."""
    sampling: PolicySettings
    backend: Running
    label: LabelSettings
    solutions: Mapping[str, tuple[Steps, ...]] = field(default_factory=dict)
    """Given solutions by problem id, sorted, each once; none where a search makes its own."""
    of_solutions: tuple[str, ...] = ()
    """What to know of how given solutions were read."""
    critic: Critic | None = None
    """None where rollouts alone say what a node is worth."""
    fast: FastPlan | None = None
    """None where there are no fast rollouts."""
    same_step: SameStep | None = None
    """What of one's own tells siblings apart, if anything."""
    steps: Values
    """What a step is, by setting, where the template does not say it."""
    budget: BudgetSettings
    """What may be spent in all."""
    shard: Shard | None = None
    """None where all trees are grown."""

    @property
    def share(self) -> Sequence[Problem]:
        """Returns the problems whose trees are to be grown here."""
        return self.problems if self.shard is None else self.shard.of(self.problems)

    @property
    def identity(self) -> Identity:
        """Returns all that the run's rows depend on."""
        settings: Values = {
            **flatten("search", self.search),
            **flatten(self.search.algorithm.value, self.own),
            **flatten("policy", self.sampling),
            **flatten("label", self.label),
            "policy.name": self.model.name,
            "prompt.template": self.template.name,
            "prompt.fingerprint": digest(asdict(self.template)),
            **self.steps,
            **(self.fast.identity if self.fast else {}),
            **(flatten("budget", self.budget) if self.budget.tokens is not None else {}),
            "seed": self.seed,
        }
        if self.same_step:
            settings["mcts.same_step"] = str(self.same_step)
        if self.solutions:
            settings["given.solutions"] = digest(dict(self.solutions))
        backend = identity_without_loading(self.model, self.backend)
        settings |= {f"backend.{name}": value for name, value in backend.items()}
        settings = self._with_critic(settings)
        sampler = Sampler(
            sampler_id=0,
            policy=self.model.name,
            **asdict(self.sampling),
            purpose="evidence",
        )
        libraries = ("torch", "transformers", "numpy", "pyarrow", "duckdb")
        versions = {"treeward": __version__} | {name: version(name) for name in libraries}
        samplers = (sampler, self.fast.sampler) if self.fast else (sampler,)
        return Identity(settings=settings, samplers=samplers, versions=versions)

    def _with_critic(self, settings: Values) -> Values:
        """Returns settings that name the critic, or without what only critics need."""
        if self.critic is not None:
            identity = self.critic.identity
            return settings | {f"{CRITIC}{name}": value for name, value in identity.items()}
        unused = of_critics(self.search.algorithm)
        return {name: value for name, value in settings.items() if name not in unused}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Returns what to know before the run is begun."""
        found = []
        if self.search.rollouts == 0 and METHODS[self.search.algorithm].rolls:
            found.append(
                "search.rollouts=0: the policy's own rollouts are the evidence, so all labels will "
                "be null but those of steps that end a solution"
            )
        found += self.of_solutions
        silent = [problem for problem in self.problems if not can_be_judged(problem)]
        if silent and self.critic is None:
            found.append(
                f"{len(silent)} of {len(self.problems)} problems have no answer (the first: id "
                f"{silent[0].id!r:.60}): no verdict on them is possible, so all of their labels "
                "will be null; give answers, or --critics to search for solutions"
            )
        return tuple(found)

    def reader(self, tokens: Tokens) -> Reader:
        """Returns what reads the policy's solutions."""
        return Reader(self.template, tokens)

    def make_search(self, reader: Reader, verifier: Verifier) -> Search:
        """Returns the search with its settings; given solutions are judged here."""
        given = {
            problem.id: [
                Given(steps=steps, judgement=judged(problem, steps, reader, verifier))
                for steps in self.solutions.get(problem.id, ())
            ]
            for problem in self.problems
        }
        tools = Tools(
            cut=reader.cut,
            scored=self.critic is not None,
            seed=self.seed,
            solutions=given,
            fast=self.fast.rollouts if self.fast else None,
            same=self.same_step.of_texts(reader.text) if self.same_step else None,
        )
        return METHODS[self.search.algorithm].start(self.search, self.own, tools)

    def make_verifier(self) -> AnswerVerifier:
        """Returns what judges answers; raises MissingExtra where an extra is needed."""
        return make_verifier(self.problems)


def make_plan(
    options: Options,
    sections: Mapping[str, type] = MappingProxyType(SECTIONS),
    *,
    found: ProblemSet | None = None,
) -> Plan:
    """Reads and checks everything that a run needs; problems before anything else.

    Args:
        options: What is asked for.
        sections: The settings that may be given, for callers that do not use all of them.
        found: The problems, where they have been read; their solutions are given then.

    Raises:
        BadInput: Something breaks its rule.
        MissingExtra: Something asked for needs an extra.
    """
    given = found is not None
    found = found or read_problems(options.problems, limit=options.limit, skip_bad=options.skip_bad)
    values = read_values(options.config, options.assignments)
    policy = policy_name(options)
    chosen = choose_backend(options.backend, policy)
    check_settings(chosen, values)
    check_names(values, {**sections, "backend": SETTINGS_OF[chosen]})
    asked = build(FastSettings, "fast", values)
    search, own = _search_settings(options, values, given=given, fast=asked.rollouts > 0)
    prompt = build(PromptSettings, "prompt", values)
    label = build(LabelSettings, "label", values)
    if options.budget_tokens is not None:
        values["budget.tokens"] = options.budget_tokens
    budget = build(BudgetSettings, "budget", values)
    shard = choose_shard(options.shard, budget=budget.tokens is not None)
    how, cache = build(SETTINGS_OF[chosen], "backend", values), cache_root(os.environ)
    model, backend = prepare(
        policy, options.model, how, deterministic=options.deterministic, cache=cache
    )
    template = choose_template(prompt, model.default_template, options.step_end)
    found, shortest = readable(found, template, model, skip_bad=options.skip_bad)
    sampling = build_sampling(values, template)
    check_room(model, backend, "policy", sampling, shortest)
    check_temperature(backend, "policy.temperature", sampling.temperature)
    main = Main(model=model, kind=chosen, settings=how, running=backend, sampling=sampling)
    check_seed("seed", options.seed)
    critic = _open_critic(options, backend, search, fast=asked.rollouts > 0)
    return Plan(
        problems=found.problems,
        skipped=found.skipped,
        model=model,
        template=template,
        seed=options.seed,
        search=search,
        own=own,
        sampling=sampling,
        backend=backend,
        label=label,
        critic=critic,
        fast=plan_fast(asked, main, template, found.problems, shortest, cache),
        same_step=options.same_step,
        steps=steps_of(prompt, options.step_end),
        budget=budget,
        shard=shard,
    )


def _search_settings(
    options: Options, values: Values, *, given: bool, fast: bool
) -> tuple[SearchSettings, Any]:
    """Returns the search's settings, common and own.

    Args:
        options: Name the search.
        values: All that is set.
        given: Whether solutions are there.
        fast: Whether fast rollouts are asked for.
    """
    if options.algorithm is not None:
        values["search.algorithm"] = options.algorithm
    search = build(SearchSettings, "search", values)
    if (search.algorithm is Algorithm.GIVEN) != given:
        raise BadInput(
            "the search `given` is that of `treeward label SOLUTIONS`, and of nothing else"
        )
    _check_sections(values, search.algorithm)
    own: Any = build(METHODS[search.algorithm].own, search.algorithm.value, values)
    check_guides(search, own, scored=options.critics is not None, fast=fast)
    if options.same_step is not None and getattr(own, "group_distance", 1.0) is not None:
        raise BadInput(
            f"same_step={options.same_step} groups siblings for the search mcts without "
            f"mcts.group_distance; leave one of them out, or take --search mcts"
        )
    return search, own


def _check_sections(values: Values, algorithm: Algorithm) -> None:
    """Raises BadInput for a setting that another search has than the one that is asked for."""
    for name in values:
        section = name.partition(".")[0]
        if section in {other.value for other in Algorithm} - {algorithm.value}:
            raise BadInput(
                f"{name} is a setting of --search {section}, and the search is {algorithm.value}"
            )


def _open_critic(
    options: Options, backend: Running, search: SearchSettings, *, fast: bool
) -> Critic | None:
    """Returns the critics asked for, to run where the policy runs; here where that is a server."""
    if options.critics is None:
        return None
    if isinstance(backend, TransformersSettings):
        threads, alone = backend.threads_used, is_deterministic(backend)
        critic = open_critic(options.critics, device=backend.device, threads=threads, alone=alone)
    else:
        critic = open_critic(options.critics)
    _check_heads(critic, search, fast=fast)
    return critic


def _check_heads(critic: Critic, search: SearchSettings, *, fast: bool) -> None:
    """Raises BadInput where critics say nothing, or steer a search alone and nothing of it counts.

    Those of `treeward train critics` name the heads that had something to learn; others need not.
    """
    trained = getattr(critic, "trained", None)
    if trained is not None and not trained:
        raise BadInput("the critics learned nothing, so they would say nothing; leave them out")
    rolls = METHODS[search.algorithm].rolls and (search.rollouts > 0 or fast)
    if trained is None or rolls:
        return
    counted = {name.removeprefix("critic_") for name in WEIGHTS if getattr(search, name) > 0}
    if search.algorithm is Algorithm.BEST_OF_N:
        counted.add("outcome")  # which ranks ends, whatever it weighs elsewhere
    if not counted & {*trained}:
        raise BadInput(
            f"the critics learned {', '.join(sorted(trained))}, of which nothing counts here; give "
            f"search.critic_{min(trained)} more than 0, or rollouts"
        )

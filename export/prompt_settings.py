"""How problems are put and what a step is: the settings, and the template that they choose."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from treeward.export.config import Values, build
from treeward.search.errors import BadInput
from treeward.search.policy import PolicySettings
from treeward.search.prompts import Template
from treeward.search.step_ends import CustomEnd
from treeward.search.steps import Steps, with_steps
from treeward.search.templates import load_template


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSettings:
    """How problems are put; section `prompt.`."""

    template: str | None = None
    """A template's name or a .toml file; None takes the policy's own."""

    steps: Steps | None = None
    """What a step is; None leaves it to the template."""

    step_tokens: int | None = None
    """Tokens of a step, with `prompt.steps=tokens`; else None."""

    def __post_init__(self) -> None:
        """Checks that the number of tokens is there where it is read.

        Raises:
            BadInput: It is missing or too small, or nothing reads it.
        """
        if (self.step_tokens is None) is (self.steps is Steps.TOKENS):
            raise BadInput(
                "prompt.step_tokens goes with prompt.steps=tokens; give both or neither, got "
                f"prompt.step_tokens={self.step_tokens!r} and prompt.steps={self.steps!r:.20}"
            )
        if self.step_tokens is not None and self.step_tokens < 1:
            raise BadInput(f"prompt.step_tokens must be at least 1, got {self.step_tokens!r}")


def choose_template(
    prompt: PromptSettings, default: Template, own_end: CustomEnd | None
) -> Template:
    """Returns the template asked for, with the steps asked for.

    Args:
        prompt: What is asked for.
        default: The template of the policy.
        own_end: Ends steps in a way of one's own; None takes what the settings say.

    Raises:
        BadInput: There is no such template, or it does not go with such steps.
    """
    template = load_template(prompt.template) if prompt.template else default
    if own_end is not None:
        if prompt.steps is not None:
            raise BadInput(
                f"prompt.steps={prompt.steps.value} and step_end {own_end} both say what a step "
                "is; leave one out"
            )
        return replace(template, rule=replace(template.rule, ends=own_end, step_tokens=None))
    return template_with_steps(template, prompt.steps, prompt.step_tokens)


def template_with_steps(
    template: Template, steps: Steps | None, step_tokens: int | None
) -> Template:
    """Returns a template with other steps; None leaves them."""
    if steps is None:
        return template
    return replace(template, rule=with_steps(template.rule, steps, step_tokens))


def with_steps_of(template: Template, about: Mapping[str, Any]) -> Template:
    """Returns a template with the steps that a run's settings name, as `steps_of` wrote them.

    Where a callable ended them, they stay the template's own: nobody can have it again.
    """
    steps, count = (about.get(f"prompt.{key}") for key in ("steps", "step_tokens"))
    if steps not in set(Steps):
        return template
    return template_with_steps(template, Steps(str(steps)), None if count is None else int(count))


def build_sampling(values: Values, template: Template) -> PolicySettings:
    """Returns how the policy samples: as set, else as the template says.

    Raises:
        BadInput: A value breaks its rule, or no step of the template would fit.
    """
    sampling = build(
        PolicySettings,
        "policy",
        values,
        max_step_tokens=template.max_step_tokens,
        max_rollout_tokens=template.max_rollout_tokens,
    )
    wanted = template.rule.step_tokens
    if wanted is not None and wanted > sampling.max_step_tokens:
        raise BadInput(
            f"steps of {wanted} tokens need policy.max_step_tokens={wanted} or more, got "
            f"{sampling.max_step_tokens}"
        )
    return sampling


def steps_of(prompt: PromptSettings, own_end: CustomEnd | None) -> Values:
    """Returns what a run says about its steps where that is not its template's own."""
    if own_end is not None:
        return {"prompt.steps": str(own_end)}
    named = {"prompt.steps": prompt.steps and prompt.steps.value}
    counted = {"prompt.step_tokens": prompt.step_tokens}
    return {name: value for name, value in (named | counted).items() if value is not None}

"""Supervised reinforcement learning: write an expert's next step (SRL, Deng et al. 2025, sec. 3).

A prompt is a problem with the expert's steps so far. One step is drawn, and its reward is how alike
it is to the expert's next one, in [0, 1], or -1 where it is no step. What is reasoned in a
`<think>` block, where the template asks for one, is free: only the step after it is compared.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from treeward.critics.similarity import Similarity, similarity, units
from treeward.export.dataset_mark import mark_of
from treeward.export.prompt_settings import with_steps_of
from treeward.export.run_folder import digest
from treeward.search.errors import BadInput
from treeward.search.policy import Draw, PolicySettings
from treeward.search.prompts import Template
from treeward.search.requests import Kind
from treeward.search.rows import as_problem
from treeward.search.steps import CLOSE, OPEN, Finish, StepRule, Steps, without_thoughts
from treeward.search.tokens import Tokens
from treeward.train.environment import Grades, Prompt
from treeward.train.loop import Progress
from treeward.train.output import Json
from treeward.train.rl import Trained, train_rl
from treeward.train.rl_data import problem_row, template_and_tokens, told_apart
from treeward.train.rl_settings import RlSettings
from treeward.train.rows import ANYTHING, TEXT, TEXTS, records
from treeward.train.settings import check_member

BAD_FORMAT = -1.0
"""The reward of what is no step: it did not end, it is empty, or its thoughts are not closed."""

_COLUMNS = {"id": TEXT, "prompt": ANYTHING, "prefix_steps": TEXTS, "target_step": TEXT}


@dataclass(frozen=True, slots=True, kw_only=True)
class SrlSettings(RlSettings):
    """How a policy learns an expert's steps; section `train.`."""

    similarity: Similarity = Similarity.NUMBERS
    """What steps are compared by."""

    match_ends: bool | None = None
    """Whether a step is 0 alike that answers or ends the solution where the expert goes on, or does
    not end it where the expert answers. False compares texts alone, as published: an answer is then
    like the step that it skips, for it repeats numbers, and may pay more than a try at that step.
    None matches ends where some targets answer (`export srl --answer-step`): without any, no end
    would ever pay, and a policy learns never to end."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        RlSettings.__post_init__(self)
        check_member(self, "similarity", Similarity)


def train_srl(
    data: Path, model: Path, out: Path, settings: SrlSettings, *, resume: bool, progress: Progress
) -> Trained:
    """Trains a policy on an `srl` dataset; see `train_rl`.

    Raises:
        BadInput: A row cannot be learned from; the message names it. Or the dataset's steps are
            written in another template than the model's own, and none is named.
        DamagedData: The dataset's folder says what it was made of and cannot be read.
    """
    template, tokens = template_and_tokens(model, settings)
    template = as_written(data, template, named=settings.template is not None)
    environment = Srl(data, template, tokens, settings)
    return train_rl(environment, model, out, settings, resume=resume, progress=progress)


def as_written(data: Path, template: Template, *, named: bool) -> Template:
    """Returns a template with the steps of the run that a dataset came from.

    Those that a delimiter ends, that is: sentences and numbers of tokens are cut from a policy's
    own ids, which a dataset's texts are not.

    Args:
        data: The dataset.
        template: How the model is asked.
        named: Whether somebody said so; else it must be the one that the dataset is written in.

    Raises:
        BadInput: It is another.
        DamagedData: The dataset's folder says what it was made of and cannot be read.
    """
    mark = mark_of(data)
    written = mark.get("template")
    if written and not named and written["fingerprint"] != digest(asdict(template)):
        raise BadInput(
            f"{data}: its steps are written in the template {written['name']!r} and the model is "
            f"asked by {template.name!r}, which is another; name one of them with train.template"
        )
    about = mark.get("run", {})
    by_text = about.get("prompt.steps") in {Steps.LINE, Steps.PARAGRAPH, Steps.FORMULA}
    return with_steps_of(template, about) if by_text else template


class Srl:
    """Asks for the next step of expert solutions; an `Environment`."""

    name = "srl"
    reward_name = "similarity"
    kind = Kind.SAMPLE

    def __init__(
        self, data: Path, template: Template, tokens: Tokens, settings: SrlSettings
    ) -> None:
        """Reads a dataset.

        Raises:
            BadInput: A row breaks a rule, or the model cannot read its prompt.
        """
        self._tokens = tokens
        self._by = settings.similarity
        self.template = template
        self.rule: StepRule = template.rule
        limit = settings.max_completion_length or template.max_step_tokens
        self._targets: list[str] = []
        self.prompts: list[Prompt] = []
        digest = hashlib.sha256()
        for where, record in records(data, self.name, _COLUMNS):
            prompt = _prompt(where, record, template, tokens)
            self._targets.append(_target(where, record, template, self._by))
            self.prompts.append(prompt)
            digest.update(json.dumps([prompt.id, prompt.ids, self._targets[-1]]).encode())
        if not self.prompts:
            raise BadInput(f"{data}: no rows to learn from")
        self.prompts = told_apart(self.prompts)
        matched = settings.match_ends
        self._match_ends = any(map(self._answers, self._targets)) if matched is None else matched
        longest = max(len(prompt.prefix_ids) for prompt in self.prompts)
        self.sampling = PolicySettings(
            temperature=settings.temperature,
            max_step_tokens=limit,
            # One more, so that a step of `limit` tokens ends as a step in every row.
            max_rollout_tokens=longest + limit + 1,
        )
        self.about: Json = {"sha256": digest.hexdigest(), "rows": len(self.prompts)}

    def grade(self, place: int, draws: Sequence[Draw]) -> Grades:
        """Returns how alike each step is to the expert's."""
        target, steps = self._targets[place], [self._step(draw) for draw in draws]
        rewards, wrong_ends = [], 0
        for draw, step in zip(draws, steps, strict=True):
            wrong_end = step is not None and self._ends_wrongly(draw.finish, step, target)
            wrong_ends += wrong_end
            if step is None:
                rewards.append(BAD_FORMAT)
            elif wrong_end and self._match_ends:
                rewards.append(0.0)
            else:
                rewards.append(similarity(step, target, self._by))
        shares = {
            "completions/bad_format_ratio": steps.count(None) / len(steps),
            "completions/wrong_end_ratio": wrong_ends / len(steps),
        }
        return Grades(rewards=tuple(rewards), shares=shares)

    def _ends_wrongly(self, finish: Finish, step: str, target: str) -> bool:
        """Returns whether a step ends the solution or answers where the expert goes on, or not."""
        if self._answers(target):
            return finish is not Finish.END
        return finish is Finish.END or self._answers(step)

    def _answers(self, step: str) -> bool:
        return self.template.answer_in(step) is not None

    def _step(self, draw: Draw) -> str | None:
        """Returns what a draw says as its step, or None where it is no step."""
        text = self._tokens.text_of(draw.token_ids)
        if self.rule.think:
            before, _, rest = text.partition(OPEN)
            _, closed, text = rest.partition(CLOSE)
            if before.strip() or not closed or OPEN in rest or CLOSE in text:
                return None
        step = text.replace(self.rule.delimiter, " ").strip()
        return None if draw.finish is Finish.LENGTH else step or None


def _prompt(where: str, record: dict[str, Any], template: Template, tokens: Tokens) -> Prompt:
    try:
        problem = as_problem(problem_row(record), "srl")
        prompt_ids = template.render(problem, tokens)
    except BadInput as e:
        raise BadInput(f"{where}: {e}") from e
    before = record["prefix_steps"]
    if None in before:
        raise BadInput(f"{where}: prefix_steps must not have nulls, got {before!r:.60}")
    prefix_ids = tokens.encode("".join(step + template.rule.delimiter for step in before))
    if (unread := tokens.before_unread(prefix_ids)) is not None:
        raise BadInput(
            f"{where}: prefix_steps hold what the model's tokenizer cannot read, after {unread!r}"
        )
    return Prompt(id=record["id"], prompt_ids=prompt_ids, prefix_ids=tuple(prefix_ids))


def _target(where: str, record: dict[str, Any], template: Template, by: Similarity) -> str:
    """Returns a row's target without thoughts, which are free in what is drawn too.

    Raises:
        BadInput: There is nothing in it to be like.
    """
    text: str = record["target_step"]
    target = text
    if template.rule.think:
        target = without_thoughts(target).strip()
    if not units(target, by):
        raise BadInput(
            f"{where}: target_step {text!r:.60} has no {by}; choose another train.similarity"
        )
    return target

"""Reinforcement learning with verified rewards: solve problems whose answers can be checked.

A whole solution is drawn; its reward is 1 if the answer is right and 0 if it is wrong, is missing
or did not come in time. What the checker cannot tell is not learned from. With stored trees, steps
that a tree knows bring their value differences as well, V(after) - V(before), so that the step that
lost the answer is blamed for it (VinePPO, Kazemnejad et al. 2024, section 4; values from search).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from treeward.export.askable import make_verifier
from treeward.search.errors import BadInput
from treeward.search.policy import Draw, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.requests import Kind
from treeward.search.rows import as_problem
from treeward.search.settings import refuse_unread
from treeward.search.steps import StepRule
from treeward.search.tokens import Tokens
from treeward.search.verdicts import VALUE_OF, Reason, Verifier
from treeward.train.environment import Grades, Prompt
from treeward.train.loop import Progress
from treeward.train.output import Json
from treeward.train.rl import Trained, train_rl
from treeward.train.rl_data import problem_row, template_and_tokens, told_apart
from treeward.train.rl_settings import RlSettings
from treeward.train.rows import ANYTHING, TEXT, records
from treeward.train.settings import check_least

if TYPE_CHECKING:
    from treeward.train.stored_values import StoredValues

_COLUMNS = {
    "problem_id": TEXT,
    "prompt": ANYTHING,
    "answer": ANYTHING,
    "dataset": TEXT,
    "data_source": TEXT,
    "info": TEXT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RlvrSettings(RlSettings):
    """How a policy learns from verdicts; section `train.`."""

    step_weight: float = 1.0
    """What the value differences of steps count beside the outcome; refused without trees."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        RlSettings.__post_init__(self)
        check_least(self, {"step_weight": 0})


def train_rlvr(
    data: Path,
    model: Path,
    out: Path,
    settings: RlvrSettings,
    *,
    trees: Path | None,
    resume: bool,
    progress: Progress,
) -> Trained:
    """Trains a policy on an `rlvr` dataset; see `train_rl`.

    Args:
        data: The dataset.
        model: The folder to start from.
        out: The training output.
        settings: How it is trained.
        trees: A run whose values of steps are used; None uses outcomes alone.
        resume: Goes on from the latest checkpoint.
        progress: Is called at every logged step.

    Raises:
        BadInput: A row cannot be learned from, the run has another tokenizer or template, or a
            setting is given that only trees would read.
        MissingExtra: A verifier needs an extra that is not installed.
    """
    if trees is None:
        refuse_unread("train", settings, "--trees", ("step_weight",))
    template, tokens = template_and_tokens(model, settings)
    problems = read_rlvr(data)
    stored = _stored_values(trees, template, tokens) if trees else None
    if stored is not None and not any(stored.values.get(problem.id) for problem in problems):
        raise BadInput(
            f"{trees}: it has values for none of the {len(problems)} problems of {data}; give the "
            "run that they were exported from"
        )
    with make_verifier(problems) as verifier:
        environment = Rlvr(problems, Reader(template, tokens), verifier, settings, stored)
        return train_rl(environment, model, out, settings, resume=resume, progress=progress)


def _stored_values(trees: Path, template: Template, tokens: Tokens) -> "StoredValues":
    # DuckDB and what it loads take some 50 MB, which outcomes alone do not need.
    from treeward.train.stored_values import read_stored_values

    return read_stored_values(trees, template, tokens)


def read_rlvr(data: Path) -> list[Problem]:
    """Returns the problems of an `rlvr` dataset.

    Raises:
        BadInput: A row breaks a rule; the message names it.
    """
    problems = []
    for where, record in records(data, "rlvr", _COLUMNS, nullable=("answer",)):
        try:
            fields = {"id": record["problem_id"], "verifier": record["dataset"]}
            info = json.loads(record["info"])
            if not isinstance(info, dict):
                raise BadInput(f"info must be the JSON text of an object, got {info!r:.60}")
            metadata = info.get("metadata", "{}")
            row = problem_row(record, answer=record["answer"], metadata=metadata, **fields)
            problems.append(as_problem(row, record["data_source"]))
        except (BadInput, RecursionError, ValueError) as e:
            raise BadInput(f"{where}: {e}") from e
    if not problems:
        raise BadInput(f"{data}: no rows to learn from")
    return problems


class Rlvr:
    """Asks for solutions and has their answers checked; an `Environment`."""

    name = "rlvr"
    reward_name = "outcome"
    kind = Kind.ROLLOUT

    def __init__(
        self,
        problems: Sequence[Problem],
        reader: Reader,
        verifier: Verifier,
        settings: RlvrSettings,
        stored: "StoredValues | None",
    ) -> None:
        """Takes problems and what reads and judges their solutions.

        Raises:
            BadInput: The model cannot read a prompt.
        """
        self._problems = problems
        self._reader = reader
        self._verifier = verifier
        self._stored = stored
        self._step_weight = settings.step_weight
        self.template: Template = reader.template
        template = self.template
        self.rule: StepRule = template.rule
        self.prompts = told_apart(
            Prompt(id=problem.id, prompt_ids=reader.prompt_ids(problem)) for problem in problems
        )
        most = settings.max_completion_length
        self.sampling = PolicySettings(
            temperature=settings.temperature,
            # A limit that is raised is raised for one long step too.
            max_step_tokens=max(template.max_step_tokens, most or 0),
            max_rollout_tokens=most or template.max_rollout_tokens,
        )
        rows = [
            [p.id, list(q.ids), p.answer, p.verifier, p.metadata]
            for p, q in zip(problems, self.prompts, strict=True)
        ]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        self.about: Json = {"sha256": digest, "rows": len(rows)}
        if stored is not None:
            self.about["trees_sha256"] = stored.fingerprint

    def grade(self, place: int, draws: Sequence[Draw]) -> Grades:
        """Returns verdicts as rewards, and the value differences of the steps that are known."""
        problem = self._problems[place]
        completions = self._reader.judge(self._verifier, problem, (), draws, [0] * len(draws))
        judgements = [completion.judgement for completion in completions]
        rewards = tuple(VALUE_OF.get(judgement.verdict) for judgement in judgements if judgement)
        silent = sum(j is not None and j.reason is Reason.NO_ANSWER for j in judgements)
        shares = {"completions/no_answer_ratio": silent / len(draws)}
        if self._stored is None:
            return Grades(rewards=rewards, shares=shares)
        steps = [self._stored.cut(draw.token_ids) for draw in draws]
        spans = tuple(self._stored.differences(problem.id, each) for each in steps)
        known = sum(map(len, spans)) / sum(map(len, steps))
        return Grades(
            rewards=rewards,
            steps=spans,
            step_weight=self._step_weight,
            shares=shares | {"steps/known_ratio": known},
        )

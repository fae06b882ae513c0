"""What SRL and RLVR read alike: a model's template and tokens, and problems in dataset rows."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from treeward.search.models import cache_root, resolve_model
from treeward.search.prompts import Template
from treeward.search.templates import load_template
from treeward.search.tokens import Tokens, load_tokens
from treeward.train.environment import Prompt
from treeward.train.rl_settings import RlSettings


def template_and_tokens(model: Path, settings: RlSettings) -> tuple[Template, Tokens]:
    """Returns how problems are put to a model, and what its token ids stand for.

    Raises:
        BadInput: There is no such template, or the folder holds no model.
    """
    found = resolve_model(str(model), cache_root(os.environ))
    template = load_template(settings.template) if settings.template else found.default_template
    return template, load_tokens(model)


def problem_row(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Returns a dataset's row as the fields of a problem: a chat of one question is plain text."""
    match record["prompt"]:
        case [{"role": "user", "content": str(prompt)}]:
            return {"prompt": prompt, **fields}
        case prompt:
            return {"prompt": prompt, **fields}


def told_apart(prompts: Iterable[Prompt]) -> list[Prompt]:
    """Returns prompts whose ids differ: rows that repeat one are each drawn for on their own."""
    seen: Counter[str] = Counter()
    apart = []
    for prompt in prompts:
        seen[prompt.id] += 1
        n = seen[prompt.id]
        apart.append(prompt if n == 1 else replace(prompt, id=f"{prompt.id}\x1f{n}"))
    return apart

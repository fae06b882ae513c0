"""What SRL and RLVR read alike: a model's template and tokens, and problems in dataset rows."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from treeward.export.dataset_mark import run_settings
from treeward.export.prompt_settings import with_steps_of
from treeward.export.run_folder import digest
from treeward.search.errors import BadInput
from treeward.search.models import cache_root, resolve_model
from treeward.search.prompts import Template
from treeward.search.templates import load_template
from treeward.search.tokens import Tokens, load_tokens
from treeward.train.rl_settings import RlSettings


def template_and_tokens(data: Path, model: Path, settings: RlSettings) -> tuple[Template, Tokens]:
    """Returns how problems are put to a model, and what its token ids stand for.

    Args:
        data: The dataset; steps are those of the run that it was exported from.
        model: The folder.
        settings: May name the template.

    Raises:
        BadInput: There is no such template, the folder holds no model, or the dataset was made with
            another template than the model's own and none is named.
        DamagedData: The dataset's folder says what it was made with and cannot be read.
    """
    found, about = resolve_model(str(model), cache_root(os.environ)), run_settings(data)
    chosen = load_template(settings.template) if settings.template else found.default_template
    template = with_steps_of(chosen, about)
    if not settings.template and about.get("prompt.fingerprint") not in {
        None,
        digest(asdict(template)),
    }:
        raise BadInput(
            f"{data}: made with the template {about.get('prompt.template')!r}, and that of {model} "
            f"is {template.name!r}, another; say which one to train with by train.template=NAME"
        )
    return template, load_tokens(model)


def problem_row(record: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Returns a dataset's row as the fields of a problem: a chat of one question is plain text."""
    match record["prompt"]:
        case [{"role": "user", "content": str(prompt)}]:
            return {"prompt": prompt, **fields}
        case prompt:
            return {"prompt": prompt, **fields}

"""Values of steps that a run's trees know, looked up by the sampled ids."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from treeward.export.prompt_settings import with_steps_of
from treeward.export.run_folder import RunFolder, digest, open_run_folder
from treeward.export.tree_stream import stream
from treeward.search.errors import BadInput
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.steps import Cut, Steps
from treeward.search.tokens import Tokens
from treeward.train.spans import Span

STEP = "step"
"""Source of the advantages that come from value differences."""

Ids = tuple[int, ...]

_COLUMNS = ("node_id", "path", "token_ids", "step_text", "value", "value_tree")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredValues:
    """Holds the values of prefixes, by problem and by the ids of all steps up to their end."""

    values: Mapping[str, Mapping[Ids, float]]

    cut: Cut
    """Splits the ids of a solution into steps as the run did."""

    fingerprint: str
    """A digest of all of them."""

    def differences(self, problem_id: str, steps: Sequence[Ids]) -> tuple[Span, ...]:
        """Returns V(after) - V(before) of a solution's steps, as long as its tree knows them.

        Only identical ids share a value. Where a solution leaves the tree, nothing more is known.
        """
        known = self.values.get(problem_id, {})
        spans: list[Span] = []
        prefix: Ids = ()
        for step_ids in steps:
            before, prefix = known.get(prefix), prefix + step_ids
            after = known.get(prefix)
            if before is None or after is None:
                break
            start = len(prefix) - len(step_ids)
            spans.append(Span(start, len(prefix), after - before, STEP))
        return tuple(spans)


def read_stored_values(path: Path, template: Template, tokens: Tokens) -> StoredValues:
    """Reads what a run knows of its prefixes: tree evidence, or else strict evidence.

    Args:
        path: The run folder.
        template: How problems are put to the model that is trained.
        tokens: Those of that model.

    Raises:
        BadInput: It is no run, or its policy has another tokenizer or template.
        DamagedData: A file of the run is not what was written.
    """
    values: dict[str, dict[Ids, float]] = {}
    seen = hashlib.sha256()
    run = open_run_folder(path)
    cut = Reader(_written(run, template), tokens).cut
    for item in stream(run, _COLUMNS):
        if item.tree is None:
            continue
        by_id = {node["node_id"]: tuple(node["token_ids"]) for node in item.tree.nodes}
        found: dict[Ids, float] = {}
        for node in item.tree.nodes:
            _check_tokens(path, node["step_text"], by_id[node["node_id"]], tokens)
            value = node["value"] if node["value_tree"] is None else node["value_tree"]
            if value is not None:
                found[tuple(token for at in node["path"] for token in by_id[at])] = value
        values[item.problem.id] = found
        seen.update(json.dumps([item.problem.id, [[*found.items()]]]).encode())
    return StoredValues(values=values, cut=cut, fingerprint=seen.hexdigest())


def _written(run: RunFolder, template: Template) -> Template:
    """Returns a template with the run's steps, which change nothing in how problems are put.

    Raises:
        BadInput: The run's template is another, as far as can be told: not where a callable ended
            its steps.
    """
    asked = run.identity.settings
    written = with_steps_of(template, asked)
    by_callable = "prompt.steps" in asked and asked["prompt.steps"] not in set(Steps)
    if not by_callable and asked["prompt.fingerprint"] != digest(asdict(written)):
        raise BadInput(
            f"{run.path}: its problems were put by the template {asked['prompt.template']!r}, and "
            f"this model is asked by {template.name!r}: its values are of other prompts; set "
            "train.template, or search with the template of this model"
        )
    return written


def _check_tokens(path: Path, text: str, ids: Ids, tokens: Tokens) -> None:
    if max(ids, default=0) >= len(tokens.pieces) or tokens.text_of(ids) != text:
        raise BadInput(
            f"{path}: its tokens are not this model's, so its trees say nothing about what this "
            "model samples; search with a policy of the same tokenizer"
        )

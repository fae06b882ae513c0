"""Cards: the README.md of a dataset, as the Hugging Face hub and its loader read it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from treeward.export.console import as_code
from treeward.export.dataset_spec import Dataset, ExportSettings, Kind, Tally
from treeward.export.licences import Licences, licences_of
from treeward.export.overlap import Overlap, overlap_lines
from treeward.export.run_folder import RunFolder

_TITLES = {
    Kind.PRM: "process labels",
    Kind.SRL: "expert steps",
    Kind.RLVR: "problems with checkable answers",
    Kind.SFT: "expert solutions",
    Kind.CRITIC: "step counts for critics",
    Kind.PREFERENCE: "pairs of steps",
    Kind.RL: "token advantages",
}
_USES = {
    Kind.PRM: "Training process reward models, and studying where a policy goes wrong.",
    Kind.SRL: "Supervised reinforcement learning on problems that a policy cannot solve yet.",
    Kind.RLVR: "Reinforcement learning with verifiable rewards, with a measured difficulty.",
    Kind.SFT: "Supervised fine-tuning.",
    Kind.CRITIC: "Training critics of value, progress and outcome on counts.",
    Kind.PREFERENCE: "Preference optimisation on steps, and reward models of steps.",
    Kind.RL: "Reinforcement learning that credits steps, on the policy's own samples.",
}
_TAGS = {
    Kind.PRM: ["prm", "process-supervision"],
    Kind.SRL: ["srl", "process-supervision"],
    Kind.RLVR: ["rlvr"],
    Kind.SFT: ["sft"],
    Kind.CRITIC: ["prm", "critic", "process-supervision"],
    Kind.PREFERENCE: ["dpo", "preference", "process-supervision"],
    Kind.RL: ["rl", "process-supervision"],
}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Holds what was exported: what a card and the other metadata tell."""

    kind: Kind
    """Also the name of the dataset's configuration."""

    settings: ExportSettings

    dataset: Dataset
    """Its columns and what it says of itself."""

    rows: Mapping[str, int]
    """By split."""

    files: Mapping[str, str]
    """Paths in the folder by split."""

    sizes: Mapping[str, int]
    """Bytes of the files, by split."""

    tally: Tally

    overlaps: Sequence[Overlap]
    """What the test sets that were named share with the run's problems."""

    @property
    def title(self) -> str:
        """Returns what it is in a few words."""
        return f"{_TITLES[self.kind].capitalize()} from tree search"


def make_card(made: Made, run: RunFolder) -> str:
    """Returns the card of a finished dataset."""
    by_source = run.problem_sources()
    sources = sorted(source for source in by_source if source)
    licences = licences_of(run, made.settings.licences)
    rule, files = made.dataset.label_rule, sorted(made.files.items())
    sections = {
        "Splits": [
            *(f"- {split}: {made.rows[split]:,} rows in `{file}`" for split, file in files),
            "",
            "All rows of a problem are in one split.",
        ],
        "How rows are made": "\n\n".join(made.dataset.says).splitlines(),
        **({"Label rule": [f"`{rule}`"]} if rule else {}),
        "What went in": _bullets(made.tally.kept),
        "What was left out": _bullets(made.tally.left_out) or ["Nothing."],
        "Columns": [f"- `{column.name}`: {column.says}" for column in made.dataset.columns],
        "Intended use": [_USES[made.kind]],
        "Data statement": _statement(run, sources, by_source.total()),
        "Overlap with test sets": overlap_lines(made.overlaps),
        "Known limits": [
            "What is said of a step is said for this policy, its prompt, its sampling settings and "
            "its token budget; for another policy it may be otherwise. Verdicts are those of an "
            "automatic checker of final answers."
        ],
        "Provenance": _provenance(run),
        "Licence": _licence_lines(licences, sources),
    }
    lines = ["---", *_yaml(_front_matter(made)), "---", ""]
    lines += [f"# {made.title} (`{made.kind}`)", ""]
    lines += [f'`datasets.load_dataset(FOLDER, "{made.kind}")` loads it; made with Treeward.', ""]
    for title, body in sections.items():
        lines += [f"## {title}", "", *body, ""]
    return "\n".join(lines)


def _statement(run: RunFolder, sources: Sequence[str], n_problems: int) -> list[str]:
    """Returns who wrote the texts, and how they were judged."""
    policies = _some(sorted({sampler.policy for sampler in run.identity.samplers}))
    if run.identity.solutions_are_given:
        wrote = f"given, by whom is not known; {policies} went on from them"
    else:
        wrote = f"written by {policies or 'no model'}; expert solutions may come with the problems"
    return [
        f"- Problems: {n_problems:,}, from {_some(sources) or 'a source that was not given'}; as "
        "they came, in their language.",
        f"- Steps and solutions: {wrote}.",
        "- Judged by a program that compares final answers with reference answers, not by people.",
        "- Personal or offensive content: what the problems have and the models write; nothing was "
        "filtered.",
    ]


def _some(names: Sequence[str], most: int = 10) -> str:
    """Returns the first names as code."""
    return ", ".join(map(as_code, names[:most])) + (", ..." if len(names) > most else "")


def _licence_lines(licences: Licences, sources: Sequence[str]) -> list[str]:
    where = f" ({_some(sources)})" if sources else ""
    return [
        *(
            f"- {as_code(name)}: {licence or 'not known'}"
            for name, licence in licences.models.items()
        ),
        f"- The problems{where}: {licences.problems or 'not known'}",
        "",
        "This export grants nothing of its own. What is not known can be said with "
        "`--licence NAME=LICENCE`.",
    ]


def _bullets(counts: Mapping[str, int]) -> list[str]:
    return [f"- {name}: {counts[name]:,}" for name in sorted(counts) if counts[name]]


def _provenance(run: RunFolder) -> list[str]:
    """Returns the run's identity as lists: samplers, settings, versions."""
    samplers = [
        f"- Sampler {sampler.sampler_id} ({sampler.purpose}): {as_code(sampler.policy)}, "
        f"temperature {sampler.temperature}, top_p {sampler.top_p}, {sampler.max_step_tokens} "
        f"tokens a step, {sampler.max_rollout_tokens} a solution."
        for sampler in run.identity.samplers
    ]
    settings = [f"- `{k}`: {json.dumps(v)}" for k, v in sorted(run.identity.settings.items())]
    versions = [f"- {name} {version}" for name, version in sorted(run.identity.versions.items())]
    return [*samplers, *settings, *versions]


def _front_matter(made: Made) -> dict[str, Any]:
    total = sum(made.rows.values())
    size = next((name for limit, name in _SIZES if total < limit), "n>10M")
    return {
        "pretty_name": f"Treeward {_TITLES[made.kind]}",
        "license": "other",
        "license_name": "see-the-card",
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": [*_TAGS[made.kind], "reasoning", "synthetic", "treeward"],
        "configs": [
            {
                "config_name": made.kind.value,
                "default": True,
                "data_files": [{"split": split, "path": made.files[split]} for split in made.rows],
            }
        ],
        "dataset_info": [
            {
                "config_name": made.kind.value,
                "features": [_feature(field) for field in made.dataset.schema],
                "splits": [
                    {
                        "name": split,
                        "num_bytes": made.sizes[split],
                        "num_examples": made.rows[split],
                    }
                    for split in made.rows
                ],
            }
        ],
    }


def _feature(field: pa.Field) -> dict[str, Any]:
    """Returns one column as the loader declares it."""
    return {"name": field.name, **_feature_type(field.type)}


def _feature_type(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"struct": [_feature(field) for field in kind]}
    if pa.types.is_list(kind):
        inner = _feature_type(kind.value_type)
        return {"list": inner.get("dtype", inner.get("struct"))}
    return {"dtype": str(kind).replace("double", "float64")}


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Returns nested dicts and lists of plain values as lines of YAML."""
    if isinstance(value, Mapping):
        lines = []
        for key, entry in value.items():
            nested = isinstance(entry, Mapping | list)
            lines += [f"{indent}{key}:" + ("" if nested else f" {json.dumps(entry)}")]
            lines += _yaml(entry, indent + "  ") if nested else []
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str):
        blocks = (_yaml(entry, indent + "  ") for entry in value)
        return [
            f"{indent}- {line.strip()}" if place == 0 else line
            for block in blocks
            for place, line in enumerate(block)
        ]
    return [f"{indent}{json.dumps(value)}"]

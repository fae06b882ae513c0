"""Cards: the README.md of a dataset, as the Hugging Face hub and its loader read it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from treeward.export.dataset_folder import DATA
from treeward.export.dataset_spec import Dataset, Kind, Tally
from treeward.export.run_folder import RunFolder

_TITLES = {
    Kind.PRM: "process labels",
    Kind.SRL: "expert steps",
    Kind.RLVR: "problems with checkable answers",
    Kind.SFT: "expert solutions",
    Kind.CRITIC: "step counts for critics",
}
_USES = {
    Kind.PRM: "Training process reward models, and studying where a policy goes wrong.",
    Kind.SRL: "Supervised reinforcement learning on problems that a policy cannot solve yet.",
    Kind.RLVR: "Reinforcement learning with verifiable rewards, with a measured difficulty.",
    Kind.SFT: "Supervised fine-tuning.",
    Kind.CRITIC: "Training critics of value, progress and outcome on counts.",
}
_TAGS = {
    Kind.PRM: ["prm", "process-supervision"],
    Kind.SRL: ["srl", "process-supervision"],
    Kind.RLVR: ["rlvr"],
    Kind.SFT: ["sft"],
    Kind.CRITIC: ["prm", "critic", "process-supervision"],
}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


def make_card(
    kind: Kind, dataset: Dataset, run: RunFolder, rows: Mapping[str, int], tally: Tally
) -> str:
    """Returns the card of a finished dataset.

    Args:
        kind: Its kind, and the name of its configuration.
        dataset: Its columns and what it says of itself.
        run: What it was made of.
        rows: How many rows each split has.
        tally: What went in and what did not.
    """
    by_source = run.problem_sources()
    sources = sorted(source for source in by_source if source)
    sections = {
        "Splits": [*_bullets(rows), "", "All rows of a problem are in one split."],
        "How rows are made": "\n\n".join(dataset.says).splitlines(),
        "What went in": _bullets(tally.kept),
        "What was left out": _bullets(tally.left_out) or ["Nothing."],
        "Columns": [f"- `{column.name}`: {column.says}" for column in dataset.columns],
        "Intended use": [_USES[kind]],
        "Known limits": [
            "What is said of a step is said for this policy, its prompt, its sampling settings and "
            "its token budget; for another policy it may be otherwise. Verdicts are those of an "
            "automatic checker of final answers. No check for overlap with benchmarks was made."
        ],
        "Provenance": _provenance(run, by_source.total()),
        "Licence": [
            "Not stated by this export: the terms of the problems ("
            + (", ".join(f"`{source}`" for source in sources[:10]) or "source not given")
            + (", ..." if len(sources) > 10 else "")
            + ") and of the policy's weights apply.",
        ],
    }
    lines = ["---", *_yaml(_front_matter(kind, dataset, rows)), "---", ""]
    lines += [f"# {_TITLES[kind].capitalize()} from tree search (`{kind}`)", ""]
    lines += [f'`datasets.load_dataset(FOLDER, "{kind}")` loads it; made with Treeward.', ""]
    for title, body in sections.items():
        lines += [f"## {title}", "", *body, ""]
    return "\n".join(lines)


def _bullets(counts: Mapping[str, int]) -> list[str]:
    return [f"- {name}: {counts[name]:,}" for name in sorted(counts) if counts[name]]


def _provenance(run: RunFolder, n_problems: int) -> list[str]:
    """Returns the run's identity as lists: samplers, settings, versions."""
    samplers = [
        f"Sampler {sampler.sampler_id} ({sampler.purpose}): {sampler.policy}, temperature "
        f"{sampler.temperature}, top_p {sampler.top_p}, {sampler.max_step_tokens} tokens a "
        f"step, {sampler.max_rollout_tokens} a solution."
        for sampler in run.identity.samplers
    ]
    settings = [f"- `{k}`: {json.dumps(v)}" for k, v in sorted(run.identity.settings.items())]
    versions = [f"- {name} {version}" for name, version in sorted(run.identity.versions.items())]
    return [f"A run of {n_problems:,} problems.", *samplers, "", *settings, "", *versions]


def _front_matter(kind: Kind, dataset: Dataset, rows: Mapping[str, int]) -> dict[str, Any]:
    total = sum(rows.values())
    size = next((name for limit, name in _SIZES if total < limit), "n>10M")
    return {
        "pretty_name": f"Treeward {_TITLES[kind]}",
        "license": "other",
        "license_name": "unspecified",
        "task_categories": ["text-generation"],
        "size_categories": [size],
        "tags": [*_TAGS[kind], "reasoning", "synthetic", "treeward"],
        "configs": [
            {
                "config_name": kind.value,
                "default": True,
                "data_files": [
                    {"split": split, "path": f"{DATA}/{split}.parquet"} for split in rows
                ],
            }
        ],
        "dataset_info": [
            {
                "config_name": kind.value,
                "features": [_feature(field) for field in dataset.schema],
                "splits": [{"name": split, "num_examples": rows[split]} for split in rows],
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

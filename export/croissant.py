"""Croissant: a dataset's metadata as JSON-LD that search engines and loaders read.

Format: docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. It tells what the card tells:
which files there are with their checksums, and which columns with their types.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from treeward import __version__
from treeward.export.cards import Made
from treeward.export.dataset_spec import Column
from treeward.export.durable import file_sha256

_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty "
    "fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet "
    "references regex repeated replace samplingRate separator source subField transform"
)
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
_ENCODINGS = {".parquet": "application/x-parquet", ".jsonl": "application/jsonlines"}
_TYPES = (
    (pa.types.is_boolean, "sc:Boolean"),
    (pa.types.is_integer, "sc:Integer"),
    (pa.types.is_floating, "sc:Float"),
)


def make_croissant(made: Made, folder: Path) -> bytes:
    """Returns the metadata of a finished dataset; the same bytes for the same files."""
    splits = list(made.rows)
    body = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": f"treeward-{made.kind}",
        "description": f"{made.title}. {made.dataset.says[0]}",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "version": __version__,
        "license": "See the section Licence of README.md.",
        "url": "README.md",
        "distribution": [_file(folder / made.files[split], made.files[split]) for split in splits],
        "recordSet": [_records(split, made.files[split], made.dataset.columns) for split in splits],
    }
    return (json.dumps(body, indent=2) + "\n").encode("ascii")


def _file(path: Path, name: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": _ENCODINGS[path.suffix],
        "sha256": file_sha256(path),
    }


def _records(split: str, file: str, columns: Sequence[Column]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "field": [
            _field(f"{split}/{column.name}", column.kind, column.says)
            | {
                "source": {
                    "fileObject": {"@id": file},
                    "extract": {"column": column.name},
                }
            }
            for column in columns
        ],
    }


def _field(name: str, kind: pa.DataType, says: str | None = None) -> dict[str, Any]:
    """Returns a field; a list says what its elements are, a record has fields of its own."""
    field: dict[str, Any] = {"@type": "cr:Field", "@id": name, "name": name}
    if says is not None:
        field["description"] = says
    if pa.types.is_list(kind):
        field |= {"isArray": True, "arrayShape": "-1"}
        kind = kind.value_type
    if pa.types.is_struct(kind):
        return field | {"subField": [_field(f"{name}/{each.name}", each.type) for each in kind]}
    return field | {"dataType": next((to for fits, to in _TYPES if fits(kind)), "sc:Text")}

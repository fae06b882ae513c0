"""mlcroissant finds nothing wrong with the metadata of any kind or format, and reads the rows."""

import json
from collections.abc import Callable
from pathlib import Path

import mlcroissant as mlc
import pytest
from datasets import load_dataset

from treeward.export.dataset_spec import Kind
from treeward.export.formats.registry import SHAPES

EVERY = [(None, kind) for kind in Kind] + [(form, kind) for form in SHAPES for kind in SHAPES[form]]


@pytest.mark.parametrize(("form", "kind"), EVERY)
def test_it_validates_and_tells_the_rows(
    exported: Callable[..., Path], tmp_path: Path, form: str | None, kind: str
) -> None:
    folder = exported(kind, form)
    described = mlc.Dataset(folder / "croissant.json")
    assert not described.metadata.ctx.issues.errors
    declared = json.loads((folder / "croissant.json").read_text())
    loaded = load_dataset(str(folder), kind, cache_dir=str(tmp_path / "cache"))
    assert {records["name"] for records in declared["recordSet"]} == set(loaded)
    for records in declared["recordSet"]:
        names = [field["name"].partition("/")[2] for field in records["field"]]
        assert names == loaded[records["name"]].column_names
        read = list(described.records(record_set=records["name"]))
        assert len(read) == len(loaded[records["name"]])

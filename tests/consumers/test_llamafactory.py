"""LLaMA-Factory's parser finds the datasets, and its converter throws none of their rows away."""

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def data() -> Any:
    """Its modules of datasets, without its package's imports of sound and video libraries."""
    spec = importlib.util.find_spec("llamafactory")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = types.ModuleType("llamafactory.data")
    package.__path__ = [str(Path(spec.submodule_search_locations[0]) / "data")]
    sys.modules["llamafactory.data"] = package
    from llamafactory.data import converter, parser

    return types.SimpleNamespace(converter=converter, parser=parser)


@pytest.mark.parametrize("kind", ["sft", "preference"])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows(exported: Callable[..., Path], data: Any, kind: str, split: str) -> None:
    folder = exported(kind, "llamafactory")
    (found,) = data.parser.get_dataset_list([f"treeward_{kind}_{split}"], str(folder))
    assert found.ranking == (kind == "preference")
    lines = (folder / found.dataset_name).read_text("ascii").splitlines()
    convert = data.converter.get_dataset_converter(found.formatting, found, None)
    for row in map(json.loads, lines):
        read = convert(row)
        asked = [turn["content"] for turn in read["_prompt"]]
        said = [turn["content"] for turn in read["_response"]]
        turns = [turn["content"] for turn in row["messages"]]
        if kind == "sft":
            assert asked + said == turns
            assert len(said) == 1
        else:
            assert asked == turns
            assert said == [row["chosen"]["content"], row["rejected"]["content"]]
    assert lines

"""What can be said of vLLM where it is not installed; `make test-vllm` runs the rest."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from treeward.search.errors import BadInput, MissingExtra
from treeward.search.vllm_policy import VllmPolicy, VllmSettings, vllm_identity_of


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("dtype", "int8", "must be float32, bfloat16 or float16, got 'int8'"),
        ("threads", 0, "must be at least 1, got 0"),
        ("slots", 0, "must be at least 1, got 0"),
        ("context", -1, "must be at least 1, got -1"),
        ("cache_gib", 0.0, "must be greater than 0, got 0.0"),
        ("cache_gib", float("nan"), "must be greater than 0, got nan"),
        ("memory_share", 1.5, "must be in (0, 1], got 1.5"),
    ],
)
def test_a_setting_that_breaks_its_rule_is_refused(name: str, value: Any, rule: str) -> None:
    with pytest.raises(BadInput) as raised:
        VllmSettings(**{name: value})
    assert str(raised.value) == f"backend.{name} {rule}"


def test_the_absence_of_vllm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without_vllm(name: str, package: str | None = None) -> Any:
        return None if name == "vllm" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_vllm)
    with pytest.raises(MissingExtra, match=r"pip install 'treeward\[vllm\]'"):
        VllmPolicy(Path("model"), "fingerprint", VllmSettings())


def test_the_identity_is_what_changes_replies() -> None:
    settings = VllmSettings(dtype="float32")
    identity = vllm_identity_of("abc", settings)
    assert identity["fingerprint"] == "abc"
    assert vllm_identity_of("abc", replace(settings, slots=3, cache_gib=1.0)) == identity
    assert vllm_identity_of("abc", replace(settings, dtype="bfloat16")) != identity

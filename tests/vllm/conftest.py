"""Fixtures of the tests with vLLM: `make test-vllm` runs them, and a missing vLLM fails there."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.vllm.drawing import SETTINGS

from treeward.search.models import NANO, resolve_model
from treeward.search.vllm_policy import VllmPolicy


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return resolve_model(NANO, tmp_path_factory.mktemp("cache")).path


@pytest.fixture(scope="module")
def policy(nano: Path) -> Iterator[VllmPolicy]:
    """One for each file: vLLM runs one model at a time in a process."""
    opened = VllmPolicy(nano, "fingerprint", SETTINGS)
    yield opened
    asyncio.run(opened.close())

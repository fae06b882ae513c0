"""Real exports of a real run, for what reads them: `make test-consumers` runs these tests."""

from pathlib import Path
from typing import Any

import pytest

import treeward
from treeward.export.api import Run

NANO = Path(treeward.__file__).parent / "search" / "nano"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trees of the embedded model on a dozen of problems."""
    return treeward.generate(
        "task:arithmetic?n=12&seed=3",
        tmp_path_factory.mktemp("run") / "run",
        assignments=["search.simulations=5", "search.width=4", "search.rollouts=4"],
    )


@pytest.fixture(scope="session")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exports a kind in a format, with a validation split, and returns its folder."""

    def export(kind: str, form: str | None = None, **settings: Any) -> Path:
        out = tmp_path_factory.mktemp("out") / kind
        run.export(kind, out, format=form, validation=0.3, **settings)
        return out

    return export


@pytest.fixture
def tokenizer() -> Any:
    """The embedded model's, with a chat template that needs no letters."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(NANO)
    tokenizer.chat_template = "{% for turn in messages %}{{ turn.content }}\n{% endfor %}"
    return tokenizer

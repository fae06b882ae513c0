"""A model is loaded whole or refused in one line: nothing is trained or asked that was made up."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from treeward.critics.learned import load_critics
from treeward.search.errors import BadInput
from treeward.search.models import resolve_model
from treeward.search.transformers_policy import TransformersSettings, load_model
from treeward.search.weights import load_whole
from treeward.train.forward import load_trainable
from treeward.train.settings import TrainSettings

NANO = resolve_model("nano", Path("unused")).path
Change = Callable[[Path], None]


def configured(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def lose_a_layer(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "model.norm.weight"}, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (configured(num_hidden_layers=2), r"config.json has no place for model.layers.2.input_lay"),
        (configured(num_attention_heads=0), "no model that transformers can load"),
        (configured(pad_token_id=99), "no model that transformers can load"),
        (lose_a_layer, "the weights lack model.norm.weight; fetch or save the model again"),
        (
            configured(vocab_size=9),
            r"embed_tokens.weight is \[20, 128\] in the weights and \[9, 128",
        ),
        (configured(num_attention_heads=7), "not a multiple of the number of attention heads"),
        (configured(num_hidden_layers="two"), "expected int, got str"),
        (configured(model_type="t5"), "no model that transformers can load"),
        (configured(model_type="unheard-of"), "no model that transformers can load"),
    ],
)
def test_what_is_no_whole_model_is_refused_by_all_who_load_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], change: Change, says: str
) -> None:
    folder = shutil.copytree(NANO, tmp_path / "model")
    change(folder)
    loaders: list[Callable[[], object]] = [
        lambda: load_whole(folder, dtype=torch.float32),
        lambda: load_trainable(folder, TrainSettings()),
        lambda: load_model(folder, TransformersSettings()),
    ]
    for load in loaders:
        with pytest.raises(BadInput, match=says) as refused:
            load()
        assert "\n" not in str(refused.value)
    said = capfd.readouterr()
    assert "LOAD REPORT" not in said.out + said.err


def test_a_configuration_alone_that_is_none_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(NANO / "config.json", folder)
    configured(num_attention_heads=7)(folder)
    with pytest.raises(BadInput, match="not a multiple of the number of attention heads"):
        load_trainable(folder, TrainSettings())
    with pytest.raises(BadInput, match="device must be a torch device"):
        load_critics(folder, device="gpu")

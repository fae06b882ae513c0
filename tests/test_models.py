"""`--policy` finds a model by name, folder or hub id, or says in one line why not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from treeward.search.errors import BadInput
from treeward.search.models import cache_root, check_model_folder, resolve_model
from treeward.search.smollm import NAME
from treeward.search.templates import TEMPLATES, spec_of


def make_model(folder: Path, **settings: object) -> Path:
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "eos_token_id": 0, **settings}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "README.md").write_text("card")
    save_file({"a": np.ones(300, np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def shard(model: Path) -> None:
    """Puts the weights into two files with an index."""
    (model / "model.safetensors").unlink()
    for name in "ab":
        save_file({name: np.ones(3, np.float32)}, model / f"{name}.safetensors")
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def resolved(policy: Path | str, cache: Path = Path("unused")) -> tuple[str, str]:
    found = resolve_model(str(policy), cache)
    return found.fingerprint, found.default_template.name


def test_nano_is_in_the_package(tmp_path: Path) -> None:
    found = resolve_model("nano", tmp_path)
    assert (found.name, found.default_template.name) == ("nano", "nano")
    assert found.path.parent.name == "search"


def test_smollm_comes_from_the_cache(tmp_path: Path) -> None:
    folder = make_model(tmp_path / NAME, treeward_template="sums")
    found = resolve_model(NAME, tmp_path)
    assert (found.name, found.path, found.default_template.name) == (NAME, folder, "sums")


def test_fingerprint_follows_contents_not_place_or_card(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "README.md").write_text("another card")
    assert resolved(copy) == resolved(model)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ],
)
def test_fingerprint_changes_with_every_file_that_decides(model: Path, name: str) -> None:
    before, _ = resolved(model)
    data = bytearray((model / name).read_bytes())
    # The last byte of the weights is a number's; in JSON a space more changes no meaning.
    data[-1:] = b"\x00" if name == "model.safetensors" else data[-1:] + b" "
    (model / name).write_bytes(data)
    assert resolved(model)[0] != before


def test_fingerprint_covers_every_shard(model: Path) -> None:
    shard(model)
    before, _ = resolved(model)
    save_file({"b": np.zeros(3, np.float32)}, model / "b.safetensors")
    assert resolved(model)[0] != before


def test_template_suits_the_model(model: Path, tmp_path: Path) -> None:
    assert resolved(model)[1] == "steps"
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert resolved(model)[1] == "chat"
    (model / "tokenizer_config.json").write_text("{}")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    assert resolved(model)[1] == "chat"
    trained = make_model(tmp_path / "trained", treeward_template="nano")
    assert resolved(trained)[1] == "nano"
    for spec, says in (
        ("unheard-of", "must be one of nano, "),
        (["nano"], "must be one of nano, "),
        ({"question": "?"}, r"question must contain \{prompt\}"),
        ({"qestion": "?"}, "unknown field 'qestion'"),
    ):
        (tmp_path / "strange").mkdir(exist_ok=True)
        strange = make_model(tmp_path / "strange" / "model", treeward_template=spec)
        with pytest.raises(BadInput, match=rf"config.json: treeward_template: .*{says}"):
            resolved(strange)
        shutil.rmtree(strange)


@pytest.mark.parametrize("base", TEMPLATES)
def test_a_model_names_its_template_or_has_it_whole(tmp_path: Path, base: str) -> None:
    assert spec_of(TEMPLATES[base]) == base
    for template in (TEMPLATES[base], replace(TEMPLATES[base], name="mine", max_step_tokens=7)):
        spec = json.loads(json.dumps(spec_of(template)))
        folder = make_model(tmp_path / template.name, treeward_template=spec)
        assert resolve_model(str(folder), Path("unused")).default_template == template


def only_pickled(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def cut_short(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-1])


def lose_a_shard(model: Path) -> None:
    shard(model)
    (model / "b.safetensors").unlink()


def empty_index(model: Path) -> None:
    shard(model)
    (model / "model.safetensors.index.json").write_text('{"weight_map": {}}')


def without(name: str) -> Callable[[Path], object]:
    return lambda model: (model / name).unlink()


def with_config(text: str) -> Callable[[Path], object]:
    return lambda model: (model / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (without("config.json"), "no config.json"),
        (without("model.safetensors"), "no model.safetensors"),
        (without("tokenizer.json"), "no tokenizer.json"),
        (with_config("{}"), "no model_type"),
        (with_config("[]"), "must hold a JSON object"),
        (with_config("{"), "no JSON"),
        (only_pickled, "pytorch_model.bin are pickled"),
        (cut_short, "no whole safetensors file"),
        (lose_a_shard, "b.safetensors: no whole safetensors file"),
        (empty_index, "names no weights"),
    ],
)
def test_a_folder_that_is_no_model_is_one_clear_line(
    model: Path, spoil: Callable[[Path], object], complaint: str
) -> None:
    check_model_folder(model)
    spoil(model)
    with pytest.raises(BadInput, match=complaint) as caught:
        resolve_model(str(model), Path("unused"))
    assert str(model) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ("http://localhost:8000/v1", "is no name or folder"),
        ("~nobody-here/model", "nobody has that home folder; write it out"),
        ("nanno", "did you mean 'nano'"),
        ("SmolLM2-135M-Instruct", f"did you mean '{NAME}'"),
        ("runs/modle", "did you mean 'runs/model'"),
        ("runs/weights.gguf", "is a file"),
        ("", "a model folder or a hub id"),
        ("../nowhere", "a model folder or a hub id"),
        ("owner/two--dashes", "could not be fetched"),
    ],
)
def test_what_names_no_model_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, complaint: str
) -> None:
    make_model(tmp_path / "runs" / "model")
    (tmp_path / "runs" / "weights.gguf").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=complaint) as caught:
        resolve_model(policy, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_hub_id_without_network(tmp_path: Path) -> None:
    """A model in the hub's own cache is used; any other is refused in one line."""
    repo = tmp_path / "hub" / "models--owner--known"
    snapshot = make_model(repo / "snapshots" / ("0" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("0" * 40)
    program = """if True:
        import sys
        from pathlib import Path
        from treeward.search.errors import BadInput
        from treeward.search.models import resolve_model
        for name in ("owner/known", "owner/unknown"):
            try:
                print(resolve_model(name, Path("unused")).path)
            except BadInput as e:
                print(e)
    """
    # The hub's library reads these settings when it is imported, hence a process of its own.
    offline = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=offline, capture_output=True, text=True, check=True
    )
    known, unknown = done.stdout.splitlines()
    assert known == str(snapshot)
    assert unknown.startswith("model 'owner/unknown' is not in the local hub cache")


def test_cache_root_prefers_the_most_specific_setting() -> None:
    own, shared = {"TREEWARD_CACHE": "/own"}, {"XDG_CACHE_HOME": "/shared"}
    assert cache_root(own | shared) == Path("/own")
    assert cache_root(shared) == Path("/shared/treeward")
    assert cache_root({}) == cache_root({"TREEWARD_CACHE": ""}) == Path.home() / ".cache/treeward"

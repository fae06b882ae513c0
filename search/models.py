"""Finds the model that `--policy` names and checks that its folder holds one.

Only folders with weights in safetensors are taken: other formats can run code when they are read.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from treeward.search import smollm
from treeward.search.errors import BadInput
from treeward.search.prompts import Template
from treeward.search.templates import TEMPLATES, template_in

NANO, NANO_FAST = "nano", "nano-fast"
SHIPPED = (NANO, NANO_FAST)
"""The models that are in the package."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_DECIDING = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_READING_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_HUB_FILES = (*_READING_FILES, "*.safetensors")
_EMBEDDED = (*SHIPPED, smollm.NAME)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """Holds one model that is ready to be loaded."""

    name: str
    """What the user called it."""

    path: Path
    """A Hugging Face folder: configuration, weights in safetensors, fast tokenizer."""

    fingerprint: str
    """16 hex digits of the files that decide what the model replies."""

    default_template: Template
    """The prompt template to use where none is asked for."""


def cache_root(environment: Mapping[str, str]) -> Path:
    """Returns the folder that downloaded models are kept in.

    Args:
        environment: The process's environment: TREEWARD_CACHE, else XDG_CACHE_HOME/treeward, else
            ~/.cache/treeward.
    """
    if chosen := environment.get("TREEWARD_CACHE"):
        return _expanded(chosen, "TREEWARD_CACHE").absolute()
    shared = environment.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "treeward"


def _expanded(path: str, name: str) -> Path:
    """Returns a path with a home folder in place of `~`; raises BadInput where nobody has one."""
    try:
        return Path(path).expanduser()
    except RuntimeError as e:
        raise BadInput(f"{name} {path!r}: nobody has that home folder; write it out") from e


def resolve_model(policy: str, cache: Path) -> ModelFolder:
    """Returns the model that `--policy` names, downloaded where need be.

    Args:
        policy: An embedded model's name, a model folder, or a hub id.
        cache: Where downloaded models are kept; see `cache_root`.

    Raises:
        BadInput: Nothing has that name, or it is no model that can be used.
        TreewardError: It cannot be fetched.
    """
    path = _locate(policy, cache)
    check_model_folder(path)
    return ModelFolder(
        name=policy,
        path=path,
        fingerprint=_fingerprint(path),
        default_template=default_template(path),
    )


def resolve_tokenizer(name: str, cache: Path) -> ModelFolder:
    """Returns a folder with a model's tokenizer and configuration; weights are not looked at.

    Args:
        name: An embedded model's name, a folder, or a hub id.
        cache: Where downloaded models are kept; see `cache_root`.

    Raises:
        BadInput: Nothing has that name, or the folder lacks one of the two.
        TreewardError: It cannot be fetched.
    """
    path = _locate(name, cache, _READING_FILES)
    template = default_template(path)
    _check_tokenizer(path)
    return ModelFolder(
        name=name, path=path, fingerprint=_hash(_deciding(path)), default_template=template
    )


def _locate(policy: str, cache: Path, hub_files: Sequence[str] = _HUB_FILES) -> Path:
    """Returns the folder that a policy's name stands for; some files of it where it is a hub id."""
    if policy in SHIPPED:
        return Path(__file__).parent / policy
    if policy == smollm.NAME:
        return smollm.fetch_smollm(cache)
    path = _expanded(policy, "model")
    if policy and path.is_dir():
        return path
    # `runs/sft` has the form of a hub id: where `runs` is a folder here, a folder was meant.
    if _HUB_ID.fullmatch(policy) and not path.parent.is_dir() and not path.is_file():
        return _from_hub(policy, hub_files)
    raise BadInput(_unknown(policy, path))


def _unknown(policy: str, path: Path) -> str:
    """Says that nothing has this name, and what comes nearest."""
    valid = f"{', '.join(_EMBEDDED)}, a model folder or a hub id owner/name"
    if path.is_file():
        return f"model {policy!r} is a file; it must be {valid}"
    near = difflib.get_close_matches(policy.lower(), _EMBEDDED, n=1, cutoff=0.5)
    if not near and path.parent.is_dir():
        folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
        near = [str(path.parent / n) for n in difflib.get_close_matches(path.name, folders, n=1)]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"model {policy!r} is no name or folder; it must be {valid}{hint}"


def _from_hub(name: str, files: Sequence[str]) -> Path:
    """Returns the local snapshot of a model on the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        # Weights in sub-folders are copies in other formats.
        return Path(snapshot_download(name, allow_patterns=[*files], ignore_patterns=["*/*"]))
    except GatedRepoError as e:
        reason = f"is gated: accept its terms on the hub and log in with `hf auth login` ({e})"
    except RepositoryNotFoundError as e:
        reason = f"is not on the hub, or is private ({e})"
    except LocalEntryNotFoundError as e:
        reason = (
            f"is not in the local hub cache and the hub cannot be reached ({e}); "
            "use a model folder or nano"
        )
    except (OSError, ValueError) as e:
        reason = f"could not be fetched from the hub ({e})"
    raise BadInput(f"model {name!r} " + " ".join(reason.split()))


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Returns a model folder's configuration if everything that is needed stands beside it.

    Raises:
        BadInput: The folder holds no model that can be used; says what is missing.
    """
    config = read_config(folder)
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (OSError, SafetensorError) as e:
            raise BadInput(f"{path}: no whole safetensors file: {e}; fetch or save it again") from e
    _check_tokenizer(folder)
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """Returns a model folder's configuration.

    Raises:
        BadInput: It has none.
    """
    config = _read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise BadInput(f"{folder / 'config.json'}: no model_type, so this is no model's config")
    return config


def _check_tokenizer(folder: Path) -> None:
    if not (folder / "tokenizer.json").is_file():
        raise BadInput(f"{folder}: no tokenizer.json; a policy folder needs a fast tokenizer")


def _weight_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a folder: one, or those that its index names."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if (folder / _INDEX).is_file():
        named = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(named, dict) or not named:
            raise BadInput(f"{folder / _INDEX}: no weight_map, so it names no weights")
        return [folder / name for name in sorted(set(map(str, named.values())))]
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        raise BadInput(
            f"{folder}: weights in {pickled[0]} are pickled and can run code when read; save the "
            "model as safetensors (save_pretrained does)"
        )
    raise BadInput(f"{folder}: no {_WEIGHTS}; a policy folder needs weights in safetensors")


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise BadInput(f"{path.parent}: no {path.name}, so this folder is no model") from e
    except (OSError, ValueError) as e:
        raise BadInput(f"{path}: no JSON: {e}") from e
    if not isinstance(data, dict):
        raise BadInput(f"{path}: must hold a JSON object")
    return data


def _fingerprint(folder: Path) -> str:
    """Returns a hash of the weights and of what else decides which ids go in and come out."""
    return _hash([*_weight_files(folder), *_deciding(folder)])


def _deciding(folder: Path) -> list[Path]:
    """Returns the files beside the weights that decide which ids go in and come out."""
    names = (*_DECIDING, "chat_template.jinja")
    return [folder / name for name in names if (folder / name).is_file()]


def _hash(files: Iterable[Path]) -> str:
    """Returns 16 hex digits that stand for the names and contents of files."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        total.update(path.name.encode() + b"\x00" + digest)
    return total.hexdigest()[:16]


def default_template(folder: Path) -> Template:
    """Returns the template that suits a model: one it was made with, chat, or plain steps.

    The embedded models, and those trained by reinforcement, have it in their configuration.

    Raises:
        BadInput: The folder has no configuration that can be read, or no template is in it.
    """
    chosen = _read_json(folder / "config.json").get("treeward_template")
    if chosen is not None:
        try:
            return template_in(chosen)
        except (BadInput, ValueError) as e:
            raise BadInput(f"{folder / 'config.json'}: treeward_template: {e}") from e
    settings = folder / "tokenizer_config.json"
    is_chat = (folder / "chat_template.jinja").is_file() or (
        settings.is_file() and "chat_template" in _read_json(settings)
    )
    return TEMPLATES["chat" if is_chat else "steps"]

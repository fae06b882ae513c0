"""What this machine can run, and what to install for the rest."""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from treeward.search import smollm
from treeward.search.backends import require_client
from treeward.search.errors import TreewardError
from treeward.search.http_settings import HttpSettings, read_urls
from treeward.search.models import SHIPPED, cache_root, resolve_model
from treeward.search.tokens import Tokens, load_tokens

_EXTRAS = {
    "reasoning_gym": ("gym", "problems from gym:NAME"),
    "math_verify": ("math", "checking of mathematical answers (verifier math)"),
    "gguf": ("smollm", f"the policy {smollm.NAME}"),
    "httpx2": ("http", "policies behind the URLs of servers"),
    "peft": ("lora", "training of adapters (train.lora_r)"),
    "resvg_py": ("png", "plots as PNG (view --png)"),
    "tensorboard": ("tensorboard", "metrics for TensorBoard (train.report_to)"),
    "vllm": ("vllm", "models in this process on vLLM (--backend vllm)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Holds one thing that was looked at."""

    name: str
    ok: bool
    finding: str
    remedy: str | None = None
    """What to do where it is not ok."""


def examine(out: Path) -> list[Check]:
    """Returns what was found; `out` is where runs would be written."""
    return [*_libraries(), *_devices(), *_models(), *_extras(), _disk(out)]


def examine_servers(policy: str, model: str | None) -> list[Check]:
    """Returns what servers can do, up to the first thing that each cannot.

    Args:
        policy: Their base URLs, with commas between.
        model: The name that they serve the model by; None takes the only one there is.

    Raises:
        BadInput: The policy is no list of base URLs.
        MissingExtra: What speaks HTTP is not installed.
    """
    urls = read_urls(policy)
    require_client()
    return [check for url in urls for check in _server(url, model)]


def _server(url: str, model: str | None) -> Iterator[Check]:
    from treeward.search.http_probe import probe
    from treeward.search.http_service import find_service

    settings = HttpSettings()
    try:
        served = find_service((url,), model, settings).served
    except TreewardError as e:
        yield Check(name=url, ok=False, finding=str(e), remedy="start the server, or mend the URL")
        return
    yield Check(name=url, ok=True, finding=f"serves {served.name}, {served.context} positions")
    for found in probe(url, served.name, _tokens_of(served.name), settings):
        remedy = None if found.ok else "use a server that continues token ids exactly: vLLM's does"
        if found.silent:
            remedy = "try again later"
        yield Check(name=found.name, ok=found.ok, finding=found.finding, remedy=remedy)


def _tokens_of(name: str) -> Tokens | None:
    """Returns the tokens of a model where its name is that of a folder here."""
    try:
        return load_tokens(Path(name)) if Path(name).is_dir() else None
    except TreewardError:
        return None


def _libraries() -> Iterator[Check]:
    for name in ("torch", "transformers", "pyarrow", "duckdb"):
        yield Check(name=name, ok=True, finding=version(name))


def _devices() -> Iterator[Check]:
    threads = f"{os.cpu_count()} processors, {torch.get_num_threads()} threads"
    yield Check(name="cpu", ok=True, finding=threads)
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Check(name="cuda", ok=True, finding=", ".join(names))
    else:
        yield Check(
            name="cuda",
            ok=False,
            finding="no CUDA device",
            remedy="small models run on the CPU; for others use a machine with a GPU",
        )


def _models() -> Iterator[Check]:
    cache = cache_root(os.environ)
    for name in SHIPPED:
        try:
            model = resolve_model(name, cache)
        except TreewardError as e:
            yield Check(name=name, ok=False, finding=str(e), remedy="reinstall treeward")
        else:
            finding = f"embedded, fingerprint {model.fingerprint[:12]}"
            yield Check(name=name, ok=True, finding=finding)
    there = (cache / smollm.NAME / "config.json").is_file()
    finding = (
        f"in {cache}" if there else f"not fetched yet; the first use takes about 100 MB to {cache}"
    )
    yield Check(name=smollm.NAME, ok=True, finding=finding)


def _extras() -> Iterator[Check]:
    for module, (extra, purpose) in _EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        yield Check(
            name=f"extra {extra}",
            ok=there,
            finding=purpose if there else f"not installed: no {purpose}",
            remedy=None if there else f"pip install 'treeward[{extra}]'",
        )


def _disk(out: Path) -> Check:
    place = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    writable = place.is_dir() and os.access(place, os.W_OK)
    return Check(
        name="disk",
        ok=writable and free > 1,
        finding=f"{free:.1f} GiB free in {place}" + ("" if writable else ", not writable"),
        remedy=None if writable and free > 1 else "choose another folder for runs",
    )

"""Chooses what runs the policy, and opens it. Nothing above knows the backends apart."""

import importlib.util
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path

import torch

from treeward.search.errors import BadInput, MissingExtra
from treeward.search.http_settings import (
    HttpService,
    HttpSettings,
    http_identity_of,
    is_url,
    read_urls,
)
from treeward.search.models import (
    SHIPPED,
    ModelFolder,
    read_config,
    resolve_model,
    resolve_tokenizer,
)
from treeward.search.network import positions_of
from treeward.search.policy import Mode, Policy, PolicySettings
from treeward.search.tokens import load_tokens
from treeward.search.transformers_policy import (
    TransformersPolicy,
    TransformersSettings,
    identity_of,
)
from treeward.search.vllm_engine import refuse_temperature
from treeward.search.vllm_policy import VllmPolicy, VllmSettings, vllm_identity_of

AUTO = "auto"


class Backend(StrEnum):
    """What can run a policy."""

    TRANSFORMERS = "transformers"
    """A model in this process."""
    VLLM = "vllm"
    """A model in this process, run by vLLM."""
    HTTP = "http"
    """Servers that continue token ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """How the policy runs in this process; section `backend.`."""

    threads: int | None = None
    """Threads; None takes one in deterministic mode and all otherwise."""

    dtype: str | None = None
    """`float32` or `bfloat16`; None takes float32 in deterministic mode and on CPUs that have no
    bfloat16 instructions, else the weights' own."""

    device: str = "cpu"
    """A torch device."""

    slots: int = 64
    """Continuations decoded at once."""


AnySettings = BackendSettings | VllmSettings | HttpSettings

SETTINGS_OF: dict[Backend, type[AnySettings]] = {
    Backend.TRANSFORMERS: BackendSettings,
    Backend.VLLM: VllmSettings,
    Backend.HTTP: HttpSettings,
}
"""What section `backend.` holds for each."""

Running = TransformersSettings | VllmSettings | HttpService
"""How a policy runs, by backend."""


def choose_backend(asked: str, policy: str) -> Backend:
    """Returns the backend for a policy.

    Args:
        asked: A backend's name, or `auto`: servers where the policy is a URL, else vLLM where that
            and a GPU are here and the model is no embedded one, else transformers.
        policy: What `--policy` says.

    Raises:
        BadInput: There is none of that name, or it cannot run this policy.
    """
    if asked not in {AUTO, *Backend}:
        raise BadInput(f"--backend must be {AUTO}, {' or '.join(Backend)}, got {asked!r}")
    if is_url(policy):
        if asked not in {AUTO, Backend.HTTP}:
            raise BadInput(f"--backend {asked} runs models, and policy {policy!r} is a server")
        return Backend.HTTP
    if asked == Backend.HTTP:
        raise BadInput(
            f"--backend {asked} asks a server, and policy {policy!r} is none; give its base URL "
            "such as http://host:8000/v1"
        )
    if asked != AUTO:
        return Backend(asked)
    fast = importlib.util.find_spec("vllm") is not None and torch.cuda.is_available()
    return Backend.VLLM if fast and policy not in SHIPPED else Backend.TRANSFORMERS


def check_settings(backend: Backend, names: Iterable[str]) -> None:
    """Refuses settings that only another backend reads.

    Raises:
        BadInput: Says which backend reads it.
    """
    mine = _settings(backend)
    for name in names:
        for other in Backend:
            if name in _settings(other) - mine:
                raise BadInput(f"{name} is a setting of the {other} backend; this is {backend}")


def _settings(backend: Backend) -> set[str]:
    return {f"backend.{field.name}" for field in fields(SETTINGS_OF[backend])}


def prepare(
    policy: str,
    served: str | None,
    settings: AnySettings,
    *,
    deterministic: bool | None,
    cache: Path,
) -> tuple[ModelFolder, Running]:
    """Returns a policy's files and how it runs; loads nothing.

    Args:
        policy: What `--policy` says.
        served: What `--model` says: the name of a model that servers serve.
        settings: Those of the backend.
        deterministic: None is on for the embedded models and off for all others.
        cache: Where downloaded models are kept.

    Raises:
        BadInput: Nothing has that name, or what is asked for does not go together.
        TreewardError: It cannot be fetched, or a server cannot be reached.
    """
    if isinstance(settings, HttpSettings):
        return _prepare_service(policy, served, settings, deterministic=deterministic, cache=cache)
    if served is not None:
        raise BadInput(
            f"--model {served!r} names a model of a server, and policy {policy!r} is none; leave "
            "it out"
        )
    model = resolve_model(policy, cache)
    if isinstance(settings, VllmSettings):
        if deterministic:
            raise BadInput(
                "--deterministic: vLLM's last bits depend on what is computed beside a call; leave "
                "it out, or take --backend transformers"
            )
        return model, settings
    if deterministic is None:
        deterministic = model.name in SHIPPED
    mode = Mode.DETERMINISTIC if deterministic else Mode.NORMAL
    return model, TransformersSettings(mode=mode, **asdict(settings))


def _prepare_service(
    policy: str,
    name: str | None,
    settings: HttpSettings,
    *,
    deterministic: bool | None,
    cache: Path,
) -> tuple[ModelFolder, Running]:
    if deterministic:
        raise BadInput(
            "--deterministic: a server computes calls in batches of what there happens to be, so "
            "rows can depend on companions; leave it out, or give --policy a model to run here"
        )
    urls = read_urls(policy)
    require_client()
    from treeward.search.http_service import find_service

    service = find_service(urls, name, settings)
    served = service.served
    tokenizer = settings.tokenizer or served.name
    try:
        folder = resolve_tokenizer(tokenizer, cache)
    except BadInput as e:
        raise BadInput(
            f"the tokenizer of {served.name!r}: {e}; name its folder or hub id with "
            "--set backend.tokenizer=NAME"
        ) from e
    model = ModelFolder(
        name=served.name,
        path=folder.path,
        fingerprint=folder.fingerprint,
        default_template=folder.default_template,
    )
    return model, service


def require_client() -> None:
    """Raises MissingExtra where what speaks HTTP is not installed."""
    if importlib.util.find_spec("httpx2") is None:
        raise MissingExtra("a policy behind a URL", "http")


def check_temperature(running: Running, name: str, temperature: float) -> None:
    """Refuses what vLLM would sample at another temperature, or not at all.

    Args:
        running: How the policy runs.
        name: The setting's.
        temperature: Its value.

    Raises:
        BadInput: vLLM, here or behind a server, does not sample at this temperature.
    """
    refusal = refuse_temperature(name, temperature)
    if refusal is not None and not isinstance(running, TransformersSettings):
        raise refusal


def check_room(
    model: ModelFolder, running: Running, section: str, sampling: PolicySettings, shortest: int
) -> None:
    """Refuses solutions so long that no problem leaves room for one: every rollout would fail.

    Args:
        model: What is asked.
        running: How it runs.
        section: Of the settings that say how it samples.
        sampling: Says how long a solution may be.
        shortest: Tokens of the shortest prompt.

    Raises:
        BadInput: Prompt and solution need more positions than there are, as far as that is known
            before the model is loaded.
    """
    context, most = context_of(model, running), sampling.max_rollout_tokens
    if context is None or shortest + most <= context:
        return
    name = f"{section}.max_rollout_tokens"
    way_out = (
        f"set {name} to at most {context - shortest}"
        if context > shortest
        else "take a model that reads more"
    )
    raise BadInput(
        f"{name}={most} and the shortest prompt, of {shortest} tokens, need more "
        f"than the {context} positions of {model.name!r}; {way_out}"
    )


def context_of(model: ModelFolder, running: Running) -> int | None:
    """Returns the positions of a prompt and its solution; None where they are not known yet."""
    if isinstance(running, HttpService):
        return running.served.context
    if isinstance(running, VllmSettings):
        return running.context
    return positions_of(read_config(model.path))


def identity_without_loading(model: ModelFolder, running: Running) -> dict[str, str | int]:
    """Returns what the replies of a policy depend on."""
    if isinstance(running, HttpService):
        return http_identity_of(model.fingerprint, running)
    if isinstance(running, VllmSettings):
        return vllm_identity_of(model.fingerprint, running)
    return identity_of(model.fingerprint, running)


def is_deterministic(running: Running) -> bool:
    """Returns whether no companion in a batch may change a reply's bits."""
    return isinstance(running, TransformersSettings) and running.mode is Mode.DETERMINISTIC


def open_policy(model: ModelFolder, running: Running) -> Policy:
    """Returns a policy that can be asked.

    Raises:
        BadInput: The model cannot be run, or a server cannot do what it must.
    """
    if isinstance(running, TransformersSettings):
        return TransformersPolicy(model.path, model.fingerprint, running)
    if isinstance(running, VllmSettings):
        return VllmPolicy(model.path, model.fingerprint, running)
    from treeward.search.http_policy import HttpPolicy
    from treeward.search.http_probe import require_able

    tokens = load_tokens(model.path)
    require_able(running, tokens)
    return HttpPolicy(running, tokens, model.fingerprint, jitter=random.Random())

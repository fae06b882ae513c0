"""Finds the model that servers serve, and which of them answer."""

import logging
from collections.abc import Sequence
from typing import Any, TypeVar

import httpx2

from treeward.search.errors import BadInput, TreewardError
from treeward.search.http_asking import asking, is_silent
from treeward.search.http_calls import require_ok
from treeward.search.http_protocol import Fault
from treeward.search.http_settings import HttpService, HttpSettings, Served

T = TypeVar("T")

logger = logging.getLogger(__name__)


def find_service(urls: Sequence[str], name: str | None, settings: HttpSettings) -> HttpService:
    """Returns the model that servers serve by a name, behind those of them that answer.

    The others are left out, with a line on standard error: a server is used that was looked at.

    Args:
        urls: Their base URLs.
        name: The model's name; None takes the only one there is.
        settings: How servers are asked.

    Raises:
        TreewardError: No server can be reached.
        BadInput: A server does not serve it, or serves another by that name.
    """
    found: dict[str, Served] = {}
    silent: dict[str, str] = {}
    for url in urls:
        try:
            found[url] = _served_by(url, name, settings)
        except Fault as fault:
            silent[url] = f"{url}: cannot be reached ({fault.message.removeprefix(f'{url}: ')})"
    if not found:
        raise TreewardError("; ".join(silent.values()))
    (first, served), *others = found.items()
    for url, other in others:
        if other != served:
            raise BadInput(
                f"{url} serves {other} and {first} serves {served}; give servers of one model"
            )
    for line in silent.values():
        logger.warning("%s; its trees go to the others until the command is started anew", line)
    return HttpService(urls=tuple(found), served=served, settings=settings)


def _served_by(url: str, name: str | None, settings: HttpSettings) -> Served:
    """Returns the model that a server serves; raises a Fault where it does not answer."""

    async def call(client: httpx2.AsyncClient) -> httpx2.Response:
        response = await client.get(f"{url}/models")
        require_ok(response, response.text)
        return response

    try:
        with asking(url, settings) as asker:
            cards = asker.ask(call).json()["data"]
        models = [
            Served(
                name=str(card["id"]),
                root=_optional(card, "root", str),
                context=_optional(card, "max_model_len", int),
            )
            for card in cards
        ]
    except httpx2.InvalidURL as e:
        raise BadInput(f"policy {url!r} is no URL: {e}") from e
    except Fault as fault:
        if is_silent(fault):
            raise
        raise _no_list(url, fault.message) from fault
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as e:
        raise _no_list(url, str(e)) from e
    names = ", ".join(model.name for model in models)
    chosen = [model for model in models if name is None or model.name == name]
    if len(chosen) != 1:
        wanted = "say which model with --model" if name is None else f"--model {name!r} is not one"
        raise BadInput(f"{url} serves {names or 'nothing'}; {wanted}")
    return chosen[0]


def _no_list(url: str, why: str) -> BadInput:
    return BadInput(f"{url}/models lists no models ({why}); is this the base URL?")


def _optional(card: dict[str, Any], name: str, kind: type[T]) -> T | None:
    """Returns a field of a model's card, None where it is not there."""
    value = card.get(name)
    if value is not None and type(value) is not kind:
        raise TypeError(f"{name} is {value!r:.40}")
    return value

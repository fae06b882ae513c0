"""What the commands have in common: options, and how a result is printed.

Data goes to stdout, everything else to stderr.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

PATH = click.Path(path_type=Path)


def progress_console() -> Console:
    """Returns where progress is shown: stderr."""
    return Console(stderr=True)


def print_result(result: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Prints a result to stdout, as JSON or as text."""
    if as_json:
        data = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        click.echo(json.dumps(data, default=str))
    else:
        click.echo(text())


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
config_option = click.option("--config", type=PATH, help="Settings in a TOML file.")
served_option = click.option(
    "--model", help="The name that servers serve the model by.  [default: the only one]"
)
backend_option = click.option(
    "--backend",
    type=click.Choice(["auto", "transformers", "vllm", "http"]),
    default="auto",
    help="auto is http for servers, vllm where it and a GPU are here, else transformers.",
)
set_option = click.option(
    "--set", "assignments", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting."
)

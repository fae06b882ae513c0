"""What the commands have in common: options, and how a result is printed.

Data goes to stdout, everything else to stderr.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from treeward.search.errors import TreewardError

PATH = click.Path(path_type=Path)


def progress_console() -> Console:
    """Returns where progress is shown: stderr."""
    return Console(stderr=True)


def print_result(result: Any, *, as_json: bool, text: Callable[[], str]) -> None:
    """Prints a result to stdout, as JSON or as text.

    Raises:
        TreewardError: Standard output takes no more.
    """
    if as_json:
        data = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
        said = json.dumps(data, default=str)
    else:
        said = text()
    with output_errors():
        click.echo(said)


@contextmanager
def output_errors() -> Iterator[None]:
    """Says in one line why standard output takes no more; no error where nobody reads on.

    A command whose reader is gone does what it does without a reader, and ends with its own code.

    Raises:
        TreewardError: The disk is full or failed.
    """
    try:
        yield
    except OSError as e:
        # What waits in the buffer would fail again at the end of the process.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not isinstance(e, BrokenPipeError):
            reason = e.strerror or " ".join(str(e).split())
            raise TreewardError(
                f"standard output: cannot be written to: {reason}; send it to another place"
            ) from e


class StandardOutput:
    """Writes bytes to stdout, with the errors of `output_errors`."""

    def write(self, data: bytes) -> None:
        """Writes some of the output."""
        with output_errors():
            sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Writes what waits."""
        with output_errors():
            sys.stdout.buffer.flush()


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

"""Keeps libraries from drawing on the terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging


@contextmanager
def no_bars() -> Iterator[None]:
    """Keeps transformers from drawing progress bars of its own."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps transformers from drawing bars and reports of what it loads."""
    levels: Any = logging
    level = levels.get_verbosity()
    levels.set_verbosity_error()
    try:
        with no_bars():
            yield
    finally:
        levels.set_verbosity(level)

"""Searches trees of reasoning steps and writes what it learns about every step as data."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treeward.critics.learned import load_critics
    from treeward.export.api import generate, open_run, score

__version__ = "0.1.0"

__all__ = ["__version__", "generate", "load_critics", "open_run", "score"]


def __getattr__(name: str) -> Any:
    """Imports the public functions when they are first asked for: they bring torch and DuckDB."""
    if name == "load_critics":
        from treeward.critics.learned import load_critics

        return load_critics
    if name in {"generate", "open_run", "score"}:
        from treeward.export import api

        return getattr(api, name)
    raise AttributeError(f"module 'treeward' has no attribute {name!r}")

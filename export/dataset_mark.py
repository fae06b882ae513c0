"""What an exported folder says of the run that it came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treeward.export.durable import unseal
from treeward.export.schema import SCHEMA_VERSION

MARK = "export.json"


def mark_of(data: Path) -> Mapping[str, Any]:
    """Returns what the exported folder says that some data is, or is in; nothing of other data.

    Args:
        data: An exported folder, its `data` folder or a file in that, or anything else.

    Raises:
        DamagedData: The folder says something and it cannot be read.
    """
    folder = data.resolve().parent if data.is_file() else data.resolve()
    if folder.name == "data" and not (folder / MARK).is_file():
        folder = folder.parent
    return unseal(folder / MARK, SCHEMA_VERSION) if (folder / MARK).is_file() else {}

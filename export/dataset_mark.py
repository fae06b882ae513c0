"""What an exported folder says of the run that it came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treeward.export.durable import unseal
from treeward.export.schema import SCHEMA_VERSION

MARK = "export.json"


def read_mark(data: Path) -> Mapping[str, Any]:
    """Returns what an exported folder says of itself; nothing of any other data.

    Raises:
        DamagedData: The folder says something and it cannot be read.
    """
    return unseal(data / MARK, SCHEMA_VERSION) if (data / MARK).is_file() else {}

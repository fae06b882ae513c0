"""What an exported folder says of the run that it came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treeward.export.durable import unseal
from treeward.export.schema import SCHEMA_VERSION

MARK = "export.json"


def run_settings(data: Path) -> Mapping[str, Any]:
    """Returns the settings of the run that an exported folder came from; none of any other data.

    Raises:
        DamagedData: The folder says so and cannot be read.
    """
    if not (data / MARK).is_file():
        return {}
    settings = unseal(data / MARK, SCHEMA_VERSION).get("run")
    return settings if isinstance(settings, dict) else {}

"""Which devices models may run on."""

import torch

from treeward.search.errors import BadInput


def check_device(name: str, device: str) -> None:
    """Checks that a device is there.

    Args:
        name: The setting's.
        device: Its value.

    Raises:
        BadInput: It is no torch device, or not one of this machine.
    """
    try:
        asked = torch.device(device)
    except (RuntimeError, ValueError) as e:
        raise BadInput(f"{name} must be a torch device such as cpu or cuda, got {device!r}") from e
    module = getattr(torch, asked.type, None)
    count = module.device_count() if module is not None and module.is_available() else 0
    if (asked.index or 0) >= count:
        raise BadInput(f"{name} is {device} and this machine has none; use {name}=cpu")

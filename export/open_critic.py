"""Opens the critics that a command or a Python caller names."""

import hashlib
import json
from pathlib import Path

from treeward.search.critic import Critic


def open_critic(
    critics: Path | str | Critic,
    *,
    device: str = "cpu",
    threads: int | None = None,
    alone: bool = False,
) -> Critic:
    """Returns critics that can be asked.

    Args:
        critics: A folder that `treeward train critics` made, or critics of one's own.
        device: A torch device, for those in a folder.
        threads: Threads of a pass, likewise; None takes their own default.
        alone: Whether each prefix has a pass of its own, also for learned ones that are given.

    Raises:
        BadInput: The folder holds no critics.
    """
    if isinstance(critics, Path | str):
        from treeward.critics.learned import load_critics

        return load_critics(critics, device=device, threads=threads, alone=alone)
    from treeward.critics.learned import LearnedCritic

    if alone and isinstance(critics, LearnedCritic):
        return critics.standing_alone(threads)
    return critics


def critic_name(critic: Critic) -> str:
    """Returns 16 hex digits that stand for all that a critic's scores depend on."""
    return name_of(critic.identity)


def name_of(identity: dict[str, str | int]) -> str:
    """Returns the name of critics with an identity."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

"""A disk that fails, or a process that dies, at the n-th change that a run makes."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from treeward.export import disk, journal

NAMES = (
    *("make_folder", "write", "sync", "rename", "remove", "remove_tree", "open_lock"),
    *("journal.open", "journal.write"),
)
"""The changes that growing a run makes."""
MERGING = ("link", "exchange")
"""Those that only merging parts makes."""


class Fault(Enum):
    """What happens at one change."""

    EIO = errno.EIO
    ENOSPC = errno.ENOSPC
    EMFILE = errno.EMFILE
    PARTIAL = "a write is cut in the middle, and the disk is full"
    AFTER = "the change is made, and then an error is reported"
    CRASH = "the process dies before it"
    TORN = "the process dies in the middle of a write"
    POWER = "the machine dies before it: what was not synced is cut to half"

    def can_be_at(self, name: str) -> bool:
        """Whether a change of a name can fail like this."""
        if self in (Fault.PARTIAL, Fault.TORN):
            return name.endswith("write")
        if self is Fault.EMFILE:
            return name in ("write", "sync", "open_lock", "journal.open")
        if self is Fault.ENOSPC:
            return name in ("make_folder", "write", "rename", "link", "open_lock", "journal.write")
        # Dying after a change is dying before the next one.
        return self is not Fault.AFTER or name in (
            *("make_folder", "rename", "sync", "remove", "link", "exchange"),
        )


class Died(BaseException):
    """Ends the process, as far as the code under test can tell."""


@dataclass
class FaultyDisk:
    """Counts changes, and lets one of them go wrong."""

    at: int | None = None
    """Which change, from 0; None only counts."""
    fault: Fault = Fault.EIO
    made: list[str] = field(default_factory=list)
    dead: bool = False
    unsynced: set[Path] = field(default_factory=set)
    at_fault: Callable[[], None] = lambda: None
    """Called just before it goes wrong."""

    def change(self, name: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        if self.dead:
            raise Died
        number = len(self.made)
        self.made.append(name)
        if number != self.at:
            result = call(*args, **named)
            self._note(name, args)
            return result
        self.at_fault()
        return self._fail(name, call, *args, **named)

    def _fail(self, name: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        fault = self.fault
        if fault in (Fault.PARTIAL, Fault.TORN) and name.endswith("write"):
            data = bytes(args[1])
            call(args[0], data[: len(data) // 2], *args[2:])
        if fault is Fault.AFTER:
            call(*args, **named)
        if fault is Fault.POWER:
            for path in self.unsynced:
                if path.is_file():
                    os.truncate(path, path.stat().st_size // 2)
        if fault in (Fault.CRASH, Fault.TORN, Fault.POWER):
            self.dead = True
            raise Died
        code = {Fault.PARTIAL: errno.ENOSPC, Fault.AFTER: errno.EIO}.get(fault, fault.value)
        raise OSError(code, os.strerror(int(code)), str(args[0]))

    def _note(self, name: str, args: tuple[Any, ...]) -> None:
        if name == "write":
            self.unsynced.add(args[0])
        elif name == "sync":
            self.unsynced.discard(args[0])
        elif name == "rename" and args[0] in self.unsynced:
            self.unsynced ^= {args[0], args[1]}


@contextmanager
def on(faulty: FaultyDisk) -> Iterator[FaultyDisk]:
    """Puts the disk under the store for a while."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (*NAMES, *MERGING):
            if not name.startswith("journal."):
                patch.setattr(disk, name, _through(faulty, name, getattr(disk, name)))
        calls = {name: getattr(os, name) for name in dir(os) if not name.startswith("_")}
        calls |= {
            name: _through(faulty, f"journal.{name}", calls[name]) for name in ("open", "write")
        }
        patch.setattr(journal, "os", SimpleNamespace(**calls))
        yield faulty


def _through(faulty: FaultyDisk, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*args: Any, **named: Any) -> Any:
        return faulty.change(name, call, *args, **named)

    return changed

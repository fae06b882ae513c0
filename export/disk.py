"""Every change that the store makes on a disk, one function each, and nothing else.

Whoever writes a run calls these by the module's name (`disk.rename(...)`), so that a test can put a
fault in the place of any of them.
"""

import ctypes
import errno
import os
import shutil
import sys
from pathlib import Path

_HERE = -100 if sys.platform == "linux" else -2
"""AT_FDCWD: names are meant from the current folder."""
_EXCHANGE = 2
"""RENAME_EXCHANGE of renameat2(2), RENAME_SWAP of renameatx_np(2)."""


def make_folder(path: Path) -> None:
    """Makes a folder and those above it; one that is there stays as it is."""
    path.mkdir(parents=True, exist_ok=True)


def write(path: Path, data: bytes | memoryview) -> None:
    """Writes a file that holds the data and nothing else; a failure can leave a part of it."""
    path.write_bytes(data)


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(path: Path, to: Path) -> None:
    """Gives a file or a folder another name at once; a file of that name is replaced."""
    path.replace(to)


def link(path: Path, to: Path) -> None:
    """Gives a file a second name."""
    os.link(path, to)


def exchange(path: Path, other: Path) -> None:
    """Lets two folders change places at once: nobody ever sees one of them missing."""
    libc = ctypes.CDLL(None, use_errno=True)
    name = "renameat2" if sys.platform == "linux" else "renameatx_np"
    call = getattr(libc, name, None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(path))
    if call(_HERE, os.fsencode(path), _HERE, os.fsencode(other), ctypes.c_uint(_EXCHANGE)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path), None, str(other))


def remove(path: Path) -> None:
    """Removes a file, if it is there."""
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a folder and what is in it, as far as that is possible."""
    shutil.rmtree(path, ignore_errors=True)


def open_lock(path: Path) -> int:
    """Returns a descriptor of a file that can be locked, made where missing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

"""Writes that survive the death of the process; one-line errors where the disk refuses them."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from treeward.export import disk
from treeward.search.errors import BadInput, DamagedData, TreewardError

_REFUSED = {
    errno.EACCES,
    errno.EEXIST,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
_WAY_OUT = {
    errno.ENOSPC: "free some space, then give the same command again; what is committed is kept",
    errno.EDQUOT: "raise the quota, then give the same command again; what is committed is kept",
}


@contextmanager
def disk_errors(place: Path, doing: str) -> Iterator[None]:
    """Turns what the operating system refuses into one line that names the place.

    Raises:
        BadInput: The place cannot be written to by this user.
        TreewardError: The disk is full or failed.
    """
    try:
        yield
    except OSError as e:
        reason = os.strerror(e.errno) if e.errno else " ".join(str(e).split())
        if e.errno in _REFUSED:
            raise BadInput(
                f"{place}: {doing}: {reason}; give a folder that can be written to"
            ) from e
        way_out = _WAY_OUT.get(e.errno or 0, "mend it, then give the same command again")
        raise TreewardError(f"{place}: {doing}: {reason}; {way_out}") from e


def write_file(path: Path, data: bytes) -> None:
    """Writes a whole file: afterwards it holds either what it held before or all of the data."""
    half = path.with_name(f".{path.name}.half")
    try:
        disk.write(half, data)
        disk.sync(half)
        disk.rename(half, path)
    except OSError:
        with suppress(OSError):
            disk.remove(half)
        raise
    disk.sync(path.parent)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(body: Mapping[str, Any]) -> bytes:
    """Returns JSON that carries its own checksum under `sha256`."""
    text = json.dumps(body, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, indent=2) + "\n").encode()


def unseal(path: Path, newest: int) -> dict[str, Any]:
    """Reads a file that `seal` made, without its checksum.

    Args:
        path: The file.
        newest: The newest `schema_version` that can be read.

    Raises:
        BadInput: The file was written by a newer version.
        DamagedData: The file is not what was written.
    """
    data = path.read_bytes()
    try:
        body = json.loads(data)
        version = body["schema_version"]
        del body["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise DamagedData(f"{path}: damaged: not the JSON that was written; restore it") from e
    if isinstance(version, int) and version > newest and seal(body) == data:
        raise BadInput(
            f"{path}: has schema_version {version} and this treeward reads up to {newest}; "
            "update treeward"
        )
    if seal(body) != data:
        raise DamagedData(f"{path}: damaged: it does not match its checksum; restore it")
    return dict(body)

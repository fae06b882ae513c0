"""The journal: replies to unfinished trees, so that a tree half grown can be grown again.

One append-only file a tree, one line a reply: `{"key": ..., "reply": ..., "crc": ...}`. A line is
written by one call to the operating system; a last line without its line feed was cut off by the
death of the process and never existed. Any other unreadable line is damage. The numbers of a
completion are packed, `drawn` in base64: to write them out takes three times as long as all else.
"""

import json
import os
import re
import resource
import struct
import zlib
from binascii import a2b_base64, b2a_base64
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from json.encoder import encode_basestring
from math import isfinite
from pathlib import Path
from typing import Any, Self

from treeward.export import disk
from treeward.export.durable import disk_errors
from treeward.search.critic import Scores
from treeward.search.errors import DamagedData
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.steps import Finish
from treeward.search.verdicts import Judgement, Reason

_TREE_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_FINISH = {finish: f'"{finish.value}"' for finish in Finish}
_REASON = {reason: f'"{reason.value}"' for reason in Reason}
"""Their JSON; to ask an enumeration for its text takes as long as all else of a completion."""
_MOST_OPEN = 1024
_SHARE_OF_FILES = 4
"""The journal keeps at most one in so many of the files open that the process may have."""


@dataclass(slots=True)
class _File:
    """A tree's file that is open for appending, and the length of its whole lines."""

    descriptor: int
    size: int

    def append(self, line: bytes, *, sync: bool) -> None:
        """Appends a line whole, or leaves the file as it was and raises OSError."""
        try:
            written = os.write(self.descriptor, line)
            while written < len(line):  # the disk took a part of it and may refuse the rest
                written += os.write(self.descriptor, line[written:])
            if sync:
                os.fsync(self.descriptor)
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            raise
        self.size += len(line)


class Journal:
    """Keeps replies on disk; a `Recorder`. At most one writer at a time.

    The files written last stay open, so that a reply costs one call to the operating system; close
    the journal, or use it in a `with` statement.
    """

    def __init__(self, folder: Path, *, sync: bool = False) -> None:
        """Opens the journal of a run; reads nothing yet.

        Args:
            folder: Where its files are.
            sync: Whether a recorded reply also survives a power cut, at the cost of a disk flush
                each; the death of the process alone loses nothing either way.
        """
        self._folder = folder
        self._sync = sync
        self._replies: dict[str, dict[str, Reply]] = {}
        self._paths: dict[str, Path] = {}
        self._open: OrderedDict[str, _File] = OrderedDict()
        """By tree, the file written last at the end."""
        self._most_open = _most_open()
        self.n_used = 0
        """How many known replies were handed out instead of asking again."""

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Closes all files; the journal can still be used and opens them again."""
        for file in self._open.values():
            os.close(file.descriptor)
        self._open.clear()

    def known(self, tree_id: str, key: str) -> Reply | None:
        """Returns the reply to a request that an earlier journal recorded, or None if none did.

        Raises:
            DamagedData: The tree's file is not what was written.
        """
        reply = self._started(tree_id).get(key)
        self.n_used += reply is not None
        return reply

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        """Keeps a reply; once this returns, the death of the process cannot lose it.

        Raises:
            TreewardError: The disk is full or failed; the journal is as it was.
        """
        self._started(tree_id)  # a torn line is cut off before another follows it
        try:
            self._file(tree_id).append(encode_entry(key, reply), sync=self._sync)
        except OSError:
            with disk_errors(self._folder, "cannot record a reply"):
                raise

    def drop(self, tree_id: str) -> None:
        """Forgets a tree; for after its part is committed."""
        self._replies.pop(tree_id, None)
        if tree_id in self._open:
            os.close(self._open.pop(tree_id).descriptor)
        with disk_errors(self._folder, "cannot drop the replies of a committed tree"):
            disk.remove(self._path(tree_id))
        del self._paths[tree_id]

    def trees(self) -> set[str]:
        """Returns the ids of the trees that have recorded replies."""
        return {path.stem for path in self._folder.glob("*.jsonl")}

    def _path(self, tree_id: str) -> Path:
        if tree_id not in self._paths:
            assert _TREE_ID.fullmatch(tree_id), f"not a file name: {tree_id!r}"
            self._paths[tree_id] = self._folder / f"{tree_id}.jsonl"
        return self._paths[tree_id]

    def _started(self, tree_id: str) -> dict[str, Reply]:
        """Returns the replies in a tree's file when first read; a torn line is then cut off."""
        replies = self._replies.get(tree_id)
        if replies is None:
            path = self._path(tree_id)
            replies, whole = read_entries(path)
            with disk_errors(self._folder, "cannot open the journal"):
                if path.exists() and path.stat().st_size > whole:
                    os.truncate(path, whole)
            self._replies[tree_id] = replies
        return replies

    def _file(self, tree_id: str) -> _File:
        """Returns a tree's file, open; closes the one not written to for longest if need be."""
        file = self._open.get(tree_id)
        if file is None:
            if len(self._open) >= self._most_open:
                os.close(self._open.popitem(last=False)[1].descriptor)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._path(tree_id), flags, 0o644)
            file = self._open[tree_id] = _File(descriptor, os.fstat(descriptor).st_size)
        self._open.move_to_end(tree_id)
        return file


def _most_open() -> int:
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _MOST_OPEN
    return min(_MOST_OPEN, max(1, allowed // _SHARE_OF_FILES))


def read_entries(path: Path) -> tuple[dict[str, Reply], int]:
    """Reads the replies in a tree's file and the length of its whole lines.

    Raises:
        DamagedData: A whole line is not what was written.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    whole = data.rfind(b"\n") + 1
    replies = {}
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            key, reply = decode_entry(line)
        except (ValueError, KeyError, TypeError, struct.error) as e:
            raise DamagedData(
                f"{path}:{number}: damaged reply; remove the file to search its tree anew"
            ) from e
        replies[key] = reply
    return replies, whole


def encode_entry(key: str, reply: Reply) -> bytes:
    """Returns one line: JSON whose last member is the CRC-32 of what stands before it."""
    failure = reply.failure
    scored = f',"scored":[{",".join(map(_scores_text, reply.scores))}]' if reply.scores else ""
    failed = "null" if failure is None else _ENCODER.encode([failure.kind, failure.message])
    text = (
        f'{{"key":{encode_basestring(key)},"reply":{{"completions":'
        f"[{','.join([_completion_text(drawn) for drawn in reply.completions])}],"
        f'"failure":{failed}{scored}}}'
    )
    # Lone surrogates are kept as they are: escaped, two of them would be read back as one letter.
    body = text.encode("utf-8", "surrogatepass")
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def _scores_text(said: Scores | Failure) -> str:
    """Returns three numbers, or the two words of a failure, as JSON."""
    if isinstance(said, Failure):
        return _ENCODER.encode([said.kind, said.message])
    value, progress, outcome = said.value, said.progress, said.outcome
    return f"[{_number_text(value)},{_number_text(progress)},{_number_text(outcome)}]"


def _number_text(number: float | None) -> str:
    if number is None:
        return "null"
    return repr(number) if type(number) is float and isfinite(number) else _ENCODER.encode(number)


def _completion_text(drawn: Completion) -> str:
    """Returns a completion as JSON, put together here: an encoder of anything takes twice as long.

    `drawn` is the log-probability, the seed and the token ids, little-endian; `steps` the
    log-probabilities of several steps.
    """
    ids, logprob, finish, seed, judged, steps = drawn
    judgement = "null"
    if judged is not None:
        answer = "null" if judged.answer is None else encode_basestring(judged.answer)
        judgement = f"[{_REASON[judged.reason]},{answer}]"
    packed = _base64(_layout(len(ids)).pack(logprob, seed, *ids))
    along = f',"steps":"{_base64(struct.pack(f"<{len(steps)}d", *steps))}"' if steps else ""
    return f'{{"drawn":"{packed}","finish":{_FINISH[finish]},"judgement":{judgement}{along}}}'


def _base64(data: bytes) -> str:
    return b2a_base64(data, newline=False).decode()


@cache
def _layout(n_ids: int) -> struct.Struct:
    return struct.Struct(f"<dQ{n_ids}I")


def decode_entry(line: bytes) -> tuple[str, Reply]:
    """Reads a line without its line feed.

    Raises:
        ValueError: It is not what was written.
        KeyError: As above.
        TypeError: As above.
        struct.error: As above.
    """
    body, _, check = line.rpartition(b',"crc":"')
    if check != b'%08x"}' % zlib.crc32(body):
        raise ValueError("the checksum does not match")
    data = json.loads((body + b"}").decode("utf-8", "surrogatepass"))
    return str(data["key"]), _reply_of(data["reply"])


def _reply_of(data: dict[str, Any]) -> Reply:
    failure = data["failure"]
    return Reply(
        tuple([_completion_of(drawn) for drawn in data["completions"]]),
        None if failure is None else Failure(*failure),
        tuple([_scores_of(said) for said in data.get("scored", ())]),
    )


def _scores_of(data: list[Any]) -> Scores | Failure:
    return Failure(*data) if len(data) == 2 else Scores(*data)


def _completion_of(data: dict[str, Any]) -> Completion:
    packed = a2b_base64(data["drawn"], strict_mode=True)
    n_ids = (len(packed) - _layout(0).size) // 4
    logprob, seed, *ids = _layout(n_ids).unpack(packed)
    return Completion(
        token_ids=tuple(ids),
        logprob=logprob,
        finish=Finish(data["finish"]),
        seed=seed,
        judgement=_judgement_of(data["judgement"]),
        step_logprobs=_numbers_of(data.get("steps", "")),
    )


def _numbers_of(packed: str) -> tuple[float, ...]:
    data = a2b_base64(packed, strict_mode=True)
    return struct.unpack(f"<{len(data) // 8}d", data)


def _judgement_of(data: list[Any] | None) -> Judgement | None:
    if data is None:
        return None
    reason, answer = data
    return Judgement(Reason(reason), answer)

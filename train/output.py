"""The folder that a trainer writes: identity, metrics, checkpoints, the finished model."""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import PreTrainedModel

from treeward.export.disk import sync
from treeward.export.durable import write_file
from treeward.export.run_folder import locked
from treeward.search.errors import BadInput, DamagedData, MissingExtra, SettingsConflict
from treeward.train.checkpoint import latest_checkpoint
from treeward.train.settings import Dtype, ReportTo
from treeward.train.weights import blank_like, load_weights, merged_weights

Json = dict[str, Any]

COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)
"""Files of the model trained from that belong to the finished one as they are."""

_BEGUN = {"run.json", "metrics.jsonl", "checkpoints", "tensorboard", "best"}
"""What a run has before its first checkpoint."""

_SAYS_NOTHING = {
    f"train.{name}" for name in ("log_every", "report_to", "save_every", "save_total_limit")
}
"""Settings that decide no weight; a resume may change them."""


@contextmanager
def output(out: Path, identity: Json, *, resume: bool) -> Iterator[None]:
    """Makes the folder with its `run.json`, or checks that it holds a run of this identity.

    Meanwhile no other process trains into it.

    Args:
        out: The folder.
        identity: Whatever decides the outcome; JSON values, nested by section.
        resume: Whether the folder may hold a run already. Where it holds none, or one that has come
            to no checkpoint, one starts.

    Raises:
        BadInput: The folder is not empty, and not to be resumed or no training output.
        SettingsConflict: The run that it holds differs; the message says how.
        DamagedData: Its `run.json` is not what was written.
        TreewardError: Another process trains into it.
    """
    path, checkpoints = out / "run.json", out / "checkpoints"
    fresh = not out.exists() or (out.is_dir() and _is_fresh(out))
    if not fresh and not (resume and path.is_file()):
        why = "is no training output" if resume else "exists; --resume goes on with a run"
        raise BadInput(f"{out}: {why}; give --out a new folder")
    checkpoints.mkdir(parents=True, exist_ok=True)
    with locked(checkpoints):
        if fresh:
            shutil.rmtree(out / "tensorboard", ignore_errors=True)
            write_file(path, (json.dumps(identity, indent=2) + "\n").encode())
        elif differences := _differences(_read(path), identity):
            raise SettingsConflict(f"{out} holds another run: " + "; ".join(differences))
        yield


def _is_fresh(out: Path) -> bool:
    """Returns whether a folder holds nothing, or a run that has come to no checkpoint."""
    names = {entry.name for entry in out.iterdir()}
    begun = "run.json" in names and names <= _BEGUN and latest_checkpoint(out) is None
    return begun or not names


def _read(path: Path) -> Json:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as e:
        raise DamagedData(f"{path}: {e}; put it back, or train again with a new --out") from e
    if not isinstance(found, dict):
        raise DamagedData(f"{path}: holds no object; train again with a new --out")
    return found


def _differences(before: Json, now: Json) -> list[str]:
    old, new = _flat(before), _flat(now)
    keys = [key for key in {**old, **new} if key not in _SAYS_NOTHING]
    keys = [key for key in keys if old.get(key) != new.get(key)]
    return [f"{key} is {old.get(key)!r} there and {new.get(key)!r} here" for key in keys]


def _flat(sections: Json) -> Json:
    """Returns two levels of keys as one, joined by a dot."""
    flat: Json = {}
    for key, value in sections.items():
        inner = value if isinstance(value, dict) else {"": value}
        flat.update({f"{key}.{name}".rstrip("."): entry for name, entry in inner.items()})
    return flat


class Metrics:
    """Appends one JSON object a line to `metrics.jsonl`, and tells TensorBoard where asked."""

    def __init__(self, out: Path, size: int, report_to: ReportTo, steps: int) -> None:
        """Opens the file and cuts off what was written later than a checkpoint.

        Args:
            out: The training output folder.
            size: What the checkpoint has of the file, in bytes.
            report_to: Who else is told.
            steps: Those that the checkpoint has behind it; 0 at the start.

        Raises:
            DamagedData: The file is shorter than that.
        """
        self._board = _tensorboard(out, steps) if report_to is ReportTo.TENSORBOARD else None
        path = out / "metrics.jsonl"
        self._file = path.open("ab")
        if self._file.tell() < size:
            self._file.close()
            raise DamagedData(
                f"{path}: missing or cut short, the checkpoint has {size} bytes of it; put it "
                "back, or train again with a new --out"
            )
        self._file.truncate(size)

    def append(self, record: Json) -> None:
        """Writes one line."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        if self._board is None:
            return
        for name, value in record.items():
            if name != "step" and value is not None:
                self._board.add_scalar(name, value, record["step"])

    def sync(self) -> int:
        """Returns the size in bytes, once all of them are on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._board:
            self._board.close()


def check_board(report_to: ReportTo) -> None:
    """Raises MissingExtra where TensorBoard is asked for and not installed."""
    if report_to is ReportTo.TENSORBOARD and importlib.util.find_spec("tensorboard") is None:
        raise MissingExtra("train.report_to=tensorboard", "tensorboard")


def _tensorboard(out: Path, steps: int) -> Any:
    """Returns a writer of TensorBoard's event files; later points than those steps are no more."""
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter
    return writer(str(out / "tensorboard"), purge_step=steps + 1 if steps else None)


def write_model(
    out: Path,
    model: PreTrainedModel,
    source: Path,
    dtype: Dtype,
    others: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Writes the finished model, its weights last, with the tokenizer of the one it came from.

    Args:
        out: The training output folder.
        model: Left as it is; adapters are merged into what is written.
        source: The model folder trained from.
        dtype: What the weights are saved in.
        others: Further files by name.
    """
    staging = out / ".staging"
    shutil.rmtree(staging, ignore_errors=True)
    finished: Any = blank_like(model)
    load_weights(finished, merged_weights(model))
    finished.to(dtype=getattr(torch, dtype)).save_pretrained(staging)
    for name, content in others.items():
        (staging / name).write_bytes(content)
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, staging / name)
    for path in sorted(staging.iterdir(), key=lambda path: path.suffix == ".safetensors"):
        sync(path)
        path.replace(out / path.name)
    staging.rmdir()
    sync(out)

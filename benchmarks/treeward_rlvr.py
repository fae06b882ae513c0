"""Our side of `against_trl.py`: the RLVR trainer, in a process of its own.

    python benchmarks/treeward_rlvr.py JOB.json

The job names the model folder, the dataset, the output folder and assignments of settings. Writes
`steps.jsonl` in the columns of `trl_grpo.py`, and the trained model.
"""

import json
import sys
import time
from pathlib import Path

from treeward.export.config import build, read_values
from treeward.train.output import Json
from treeward.train.rlvr import RlvrSettings, train_rlvr


class Clock:
    """Writes what each step took and gave."""

    def __init__(self, path: Path) -> None:
        """Starts an empty file and the clock."""
        self._path = path
        self._path.write_text("")
        self._sampled = 0
        self._cpu = time.process_time()

    def __call__(self, line: Json) -> None:
        """Writes a line for a step."""
        sampled, cpu = line["sampled_tokens"] - self._sampled, time.process_time() - self._cpu
        self._sampled, self._cpu = self._sampled + sampled, self._cpu + cpu
        row = {
            "reward": line["reward"],
            "sampled": sampled,
            "learned": sampled * line["groups/kept_share"],
            "seconds": line["step_time"],
            "cpu_seconds": cpu,
        }
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def main() -> None:
    """Trains."""
    job = json.loads(Path(sys.argv[1]).read_text())
    settings = build(RlvrSettings, "train", read_values(None, job["assignments"]))
    train_rlvr(
        Path(job["data"]),
        Path(job["model"]),
        Path(job["out"]),
        settings,
        trees=None,
        resume=False,
        progress=Clock(Path(job["steps"])),
    )


if __name__ == "__main__":
    main()

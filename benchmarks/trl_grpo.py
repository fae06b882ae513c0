"""The other side of `against_trl.py`: TRL's GRPOTrainer on the same problems and settings.

    PYTHON_OF_TRL benchmarks/trl_grpo.py JOB.json

Runs where TRL is installed and needs nothing of Treeward. The job names the model folder, the
output folder, the problems (prompt text and answer) and the settings under TRL's names. Writes
`steps.jsonl`, one JSON object a step, and the trained model.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def outcome(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """Returns 1 for each completion whose first answer line, "A893", holds the answer, else 0.

    A line that the token limit cut off is no answer.
    """
    said = [
        next((line[1:] for line in text.split("\n")[:-1] if line.startswith("A")), None)
        for text in completions
    ]
    return [float(a == b) for a, b in zip(said, answer, strict=True)]


class Clock(TrainerCallback):
    """Writes what each step took and what the trainer logged of it."""

    def __init__(self, path: Path) -> None:
        """Starts an empty file."""
        self._path = path
        self._path.write_text("")
        self._started = self._seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Takes the time since the end of the step before."""
        now = time.perf_counter()
        self._seconds, self._started = now - self._started, now

    def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
        """Writes a line for a step; the last log, of the whole training, has no reward."""
        if "reward" in logs:
            with self._path.open("a") as file:
                file.write(json.dumps({**logs, "seconds": self._seconds}) + "\n")


def main() -> None:
    """Trains."""
    job = json.loads(Path(sys.argv[1]).read_text())
    out = Path(job["out"])
    trainer = GRPOTrainer(
        model=job["model"],
        reward_funcs=outcome,
        args=GRPOConfig(output_dir=str(out), **job["settings"]),
        train_dataset=Dataset.from_list(job["problems"]),
        callbacks=[Clock(out / "steps.jsonl")],
    )
    trainer.train()
    trainer.save_model(str(out))


if __name__ == "__main__":
    main()

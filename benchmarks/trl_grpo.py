"""The other side of `against_trl.py`: TRL's GRPOTrainer on the same problems and settings.

    PYTHON_OF_TRL benchmarks/trl_grpo.py JOB.json

Runs where TRL is installed and needs nothing of Treeward. The job names the model folder, the
output folder, the problems (prompt text and answer) and the settings under TRL's names. Writes one
JSON object a step to `steps.jsonl`, and the trained model.
"""

import json
import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer


def outcome_of(ends: Collection[int]) -> Callable[..., list[float]]:
    """Returns the reward: 1 where a completion's first answer line holds the answer, else 0.

    The line is "A893" or "Answer: 893", as the mark says. It ends with a line feed or with the
    completion; where the token limit cut that off it is none.

    Args:
        ends: The tokens that end a completion.
    """

    def outcome(
        completions: list[str],
        completion_ids: list[list[int]],
        answer: list[str],
        mark: list[str],
        **_: Any,
    ) -> list[float]:
        rewards = []
        for text, ids, right, begins in zip(completions, completion_ids, answer, mark, strict=True):
            lines = text.split("\n")
            if ids[-1] not in ends:
                lines.pop()
            said = next((line for line in lines if line.startswith(begins)), begins)
            rewards.append(float(said.removeprefix(begins).strip() == right))
        return rewards

    return outcome


class Clock(TrainerCallback):
    """Writes what each step took and gave."""

    def __init__(self, path: Path, completions: int) -> None:
        """Starts an empty file; a step samples that many completions."""
        self._path = path
        self._path.write_text("")
        self._completions = completions
        self._seconds = self._cpu = 0.0
        self._took = (0.0, 0.0)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Starts the clocks."""
        self._seconds, self._cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Takes the time since the end of the step before."""
        seconds, cpu = time.perf_counter(), time.process_time()
        self._took = (seconds - self._seconds, cpu - self._cpu)
        self._seconds, self._cpu = seconds, cpu

    def on_log(self, *_: Any, **said: Any) -> None:
        """Writes a line for a step; the last log, of the whole training, has no reward.

        All completions count as learned from, those without an advantage too.
        """
        logs = said["logs"]
        if "reward" in logs:
            sampled = logs["completions/mean_length"] * self._completions
            row = {"reward": logs["reward"], "sampled": sampled, "learned": sampled}
            row |= dict(zip(("seconds", "cpu_seconds"), self._took, strict=True))
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def main() -> None:
    """Trains."""
    job = json.loads(Path(sys.argv[1]).read_text())
    args = GRPOConfig(output_dir=job["out"], **job["settings"])
    model: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    if job["stop"]:
        # What follows the answer is not learned on our side either.
        generate = partial(model.generate, stop_strings=[job["stop"]], tokenizer=tokenizer)
        model.generate = generate
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    also = model.generation_config.eos_token_id
    ends.update([also] if isinstance(also, int) else also or [])
    completions = args.generation_batch_size
    clock = Clock(Path(job["steps"]), completions)
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=outcome_of(ends),
        args=args,
        train_dataset=Dataset.from_list(job["problems"]),
        callbacks=[clock],
    )
    trainer.train()
    trainer.save_model(job["out"])


if __name__ == "__main__":
    main()

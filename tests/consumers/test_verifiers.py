"""verifiers makes tasks of `rlvr` as it is."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import load_dataset
from verifiers.v1.configs.taskset import TasksetConfig
from verifiers.v1.task import Task, TaskData
from verifiers.v1.taskset import Taskset


class Question(TaskData):  # type: ignore[misc]  # its library has no types here
    """What a task of verifiers holds of a row."""

    answer: str
    info: dict[str, Any]


class Asked(Task[Question]):  # type: ignore[misc]
    """A task whose key is the row's id."""

    @property
    def key(self) -> str:
        return str(self.data.id)


class Questions(Taskset[Asked]):  # type: ignore[misc]
    """A set of tasks as its documentation makes one: a loop over rows."""

    rows: Any

    def load(self) -> Iterator[Asked]:
        for row in self.rows:
            yield Asked(
                Question(
                    id=row["id"],
                    prompt=row["prompt"],
                    answer=row["answer"],
                    info=json.loads(row["info"]),
                )
            )


def test_tasks(exported: Callable[..., Path], tmp_path: Path) -> None:
    rows = load_dataset(
        str(exported("rlvr")), "rlvr", split="train", cache_dir=str(tmp_path / "cache")
    )
    questions = Questions(TasksetConfig(id="questions"))
    questions.rows = rows
    tasks = list(questions)
    assert len(tasks) == len(rows) > 0
    for row, task in zip(rows, tasks, strict=True):
        assert task.data.prompt_text == row["prompt"][-1]["content"]
        assert task.data.answer == row["ground_truth"]
        assert task.data.info["source"] == "task:arithmetic"
    assert len({task.key for task in tasks}) == len(rows)

import dataclasses
import json
import math
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from treeward.critics.heads import CriticModel
from treeward.critics.learned import load_critics, reader_for
from treeward.critics.reading import PrefixReader
from treeward.export.durable import file_sha256
from treeward.search.critic import Prefix
from treeward.search.errors import BadInput, DamagedData, SettingsConflict
from treeward.search.problem import Problem
from treeward.search.templates import load_template
from treeward.train.best_weights import needed
from treeward.train.critic_data import CriticData, read_critic_data
from treeward.train.critic_job import CriticJob, batch_of
from treeward.train.critic_settings import CriticSettings, Targets
from treeward.train.critics import TrainedCritics, train_critics
from treeward.train.forward import load_trainable

Rows = list[dict[str, Any]]
WriteRows = Callable[[Path, Rows], Path]

SETTINGS = CriticSettings(
    steps=8,
    batch_size=4,
    learning_rate=3e-3,
    eval_every=2,
    patience=0,
    save_every=4,
    log_every=1,
    validation=0.3,
    threads=1,
)


def worlds(n: int) -> Rows:
    """Sums of which the first step is right or wrong, and everything after it with it."""
    rng = random.Random(0)
    rows: Rows = []
    for a in range(n):
        right = rng.random() < 0.5
        total = a + 1 if right else a + 7
        k = [rng.choice([7, 8]) if right else rng.choice([0, 1])]
        rows.append(
            {"problem": f"{a} +1", "steps": [f"{a}+1={total}", f"A{total}"]}
            | {"problem_n_right": rng.randint(2, 6), "problem_n_rollouts": 8}
            | {"n_right": [*k, 0], "n_rollouts": [8, 0]}
            | {"progress": [0.4 if right else -0.4, 0.0]}
            | {"verdict": [None, "right" if right else "wrong"]}
        )
    return rows


@pytest.fixture
def data(write_critic_rows: WriteRows, tmp_path: Path) -> Path:
    return write_critic_rows(tmp_path / "data.parquet", worlds(20))


@pytest.fixture
def reader(tiny_trunk: Path) -> PrefixReader:
    trunk = load_trainable(tiny_trunk, SETTINGS)
    return reader_for(trunk, tiny_trunk, load_template("nano"))


def run(
    data: Path, model: Path, out: Path, *, resume: bool = False, **changes: Any
) -> TrainedCritics:
    settings = dataclasses.replace(SETTINGS, **changes)
    return train_critics(data, model, out, settings, resume=resume, progress=lambda _: None)


def metrics(out: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(record.pop("step_time") > 0 for record in records)
    return records


def bits(out: Path) -> dict[str, str]:
    """Digests of what a finished training leaves, its last checkpoint included."""
    last = sorted((out / "checkpoints").glob("step-*"))[-1]
    files = [out / name for name in ("model.safetensors", "heads.safetensors", "critics.json")]
    files += [out / "calibration.json", *sorted(last.glob("*.safetensors"))]
    assert len(files) == 6
    return {path.name: file_sha256(path) for path in files}


CHILD = """
import json, sys
from pathlib import Path
from treeward.train.critic_settings import CriticSettings
from treeward.train.critics import train_critics
data, model, out, settings = sys.argv[1:]
def progress(record):
    print(record["step"], flush=True)
    if record["step"] == 6:
        sys.stdin.read()
train_critics(Path(data), Path(model), Path(out), CriticSettings(**json.loads(settings)),
              resume=False, progress=progress)
"""


def test_a_killed_run_resumes_to_the_same_bits(
    data: Path, tiny_trunk: Path, tmp_path: Path
) -> None:
    straight, out = tmp_path / "straight", tmp_path / "killed"
    whole = run(data, tiny_trunk, straight)
    changed = {
        name: value
        for name, value in dataclasses.asdict(SETTINGS).items()
        if value != getattr(CriticSettings(), name)
    }
    command = [sys.executable, "-c", CHILD, str(data), str(tiny_trunk), str(out)]
    with subprocess.Popen([*command, json.dumps(changed)], stdin=-1, stdout=-1) as process:
        assert process.stdout is not None
        assert [next(process.stdout) for _ in range(6)][-1] == b"6\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-000004"]
    assert not (out / "model.safetensors").exists()
    resumed = run(data, tiny_trunk, out, resume=True)
    assert metrics(out) == metrics(straight)
    assert bits(out) == bits(straight)
    assert resumed == dataclasses.replace(whole, out=out)
    assert run(data, tiny_trunk, out, resume=True) == resumed
    assert bits(out) == bits(straight)


def test_the_weights_of_the_lowest_held_out_loss_are_kept(
    data: Path, tiny_trunk: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    # A rate so high that it soon gets worse.
    found = run(data, tiny_trunk, out, steps=60, learning_rate=3e-2, patience=3)
    looks = {line["step"]: line["eval_loss"] for line in metrics(out) if "eval_loss" in line}
    assert found.best_step == min(looks, key=looks.__getitem__)
    assert found.steps == max(looks) == found.best_step + 3 * SETTINGS.eval_every < 60
    best = load_file(out / "best" / f"step-{found.best_step:06d}.safetensors")
    trunk, heads = load_file(out / "model.safetensors"), load_file(out / "heads.safetensors")
    assert all(torch.equal(best[f"trunk.{name}"], trunk[name]) for name in trunk)
    assert all(torch.equal(best[f"heads.{name}"], heads[name]) for name in heads)
    last = out / "checkpoints" / f"step-{found.steps:06d}" / "model.safetensors"
    assert not torch.equal(load_file(last)["heads.value.weight"], heads["value.weight"])


def test_best_weights_stay_as_long_as_a_checkpoint_needs_them() -> None:
    assert needed({40}, set()) == {40}
    assert needed({10, 20, 30, 40}, {25, 38}) == {20, 30, 40}
    assert needed({10, 40}, {5, 25}) == {10, 40}


def test_damaged_best_weights_are_named(data: Path, tiny_trunk: Path, tmp_path: Path) -> None:
    found = run(data, tiny_trunk, tmp_path / "out")
    (tmp_path / "out" / "best" / f"step-{found.best_step:06d}.safetensors").write_bytes(b"")
    with pytest.raises(DamagedData, match="missing or damaged; train again"):
        run(data, tiny_trunk, tmp_path / "out", resume=True)


def test_critics_learn_what_the_counts_say(
    write_critic_rows: WriteRows, tiny_trunk: Path, tmp_path: Path
) -> None:
    rows = worlds(6)
    for row in rows:
        row["problem"] += " "  # Another question, that says the same.
    held_out = tmp_path / "data"
    held_out.mkdir()
    write_critic_rows(held_out / "validation.parquet", rows)
    write_critic_rows(held_out / "train.parquet", worlds(6))
    run(held_out, tiny_trunk, tmp_path / "out", steps=150, eval_every=50, validation=0.1)
    critics = load_critics(tmp_path / "out")
    for row in rows:
        problem = Problem(id="p", prompt=row["problem"])
        (scores,) = critics.score([Prefix(problem, tuple(row["steps"]))])
        assert scores[1].value == pytest.approx(row["n_right"][0] / 8, abs=0.15)
        assert scores[1].progress == pytest.approx(row["progress"][0], abs=0.1)
        assert scores[2].outcome == pytest.approx(1.0 * (row["verdict"][1] == "right"), abs=0.15)
        assert scores[2].value == pytest.approx(1.0 * (row["verdict"][1] == "right"), abs=0.15)


def test_hard_targets_are_one_outcome_a_step(
    write_critic_rows: WriteRows, tiny_trunk: Path, tmp_path: Path
) -> None:
    rows = worlds(20)
    cut = [
        row
        | {"problem_n_right": int(row["problem_n_right"] > 0), "problem_n_rollouts": 1}
        | {"n_right": [int(row["n_right"][0] > 0), 0], "n_rollouts": [1, 0]}
        for row in rows
    ]
    for name, table, targets in (
        ("hard", rows, Targets.HARD),
        ("cut", cut, Targets.COUNTS),
        ("counts", rows, Targets.COUNTS),
    ):
        data = write_critic_rows(tmp_path / f"{name}.parquet", table)
        run(data, tiny_trunk, tmp_path / name, targets=targets)
    assert metrics(tmp_path / "hard") == metrics(tmp_path / "cut")
    assert metrics(tmp_path / "hard") != metrics(tmp_path / "counts")


def gradients(data: CriticData, trunk: Path, rows: list[int], **changes: Any) -> torch.Tensor:
    """The gradient of one step on some rows, without dropout, as one vector."""
    settings = dataclasses.replace(SETTINGS, **changes)
    model = CriticModel(load_trainable(trunk, settings))
    torch.nn.init.normal_(model.heads.value.weight, generator=torch.Generator().manual_seed(0))
    job = CriticJob(model.train(False), data, trunk, settings)
    job._backward([data.train[row] for row in rows])
    found = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(found)


def test_neither_forward_passes_nor_rows_without_news_change_the_gradient(
    data: Path, reader: PrefixReader, tiny_trunk: Path
) -> None:
    rows = read_critic_data(data, reader, validation=0.3, skip_long=False)
    whole = gradients(rows, tiny_trunk, [0, 1, 2, 3, 4])
    split = gradients(rows, tiny_trunk, [0, 1, 2, 3, 4], micro_batch_size=2)
    torch.testing.assert_close(whole, split, rtol=1e-4, atol=1e-6)
    silent = dataclasses.replace(
        rows.train[5],
        n_rollouts=np.zeros(3),
        progress=np.full(3, np.nan),
        outcome=np.full(3, np.nan),
    )
    more = dataclasses.replace(rows, train=[*rows.train[:5], silent])
    added = gradients(more, tiny_trunk, [0, 1, 2, 3, 4, 5])
    torch.testing.assert_close(whole, added, rtol=1e-4, atol=1e-6)


def test_each_step_counts_once(
    write_critic_rows: WriteRows, reader: PrefixReader, tmp_path: Path
) -> None:
    first: dict[str, Any] = {
        "problem": "1 +1",
        "steps": ["1+1=2", "A2"],
        "n_right": [3, 0],
        "n_rollouts": [4, 0],
    }
    first |= {"problem_n_right": 1, "problem_n_rollouts": 2, "verdict": [None, "right"]}
    first |= {"progress": [0.5, None]}
    second = first | {"steps": ["1+1=2", "A3"], "is_new": [False, True]}
    second |= {"verdict": [None, "unknown"]}
    third = second | {"verdict": [None, "wrong"], "steps": ["1+1=2", "A4"], "progress": [0.5, -0.5]}
    others = [row | {"problem_id": row["problem"]} for row in worlds(9)[2:]]
    data = write_critic_rows(tmp_path / "d.parquet", [first, second, third, *others])
    rows = read_critic_data(data, reader, validation=0.3, skip_long=False)
    mine = [row for row in (*rows.train, *rows.validation) if row.problem_id == "1 +1"]
    assert len(mine) == 2  # nothing is new and known in the second
    one, other = mine
    assert (one.n_right.tolist(), one.n_rollouts.tolist()) == ([1, 3, 1], [2, 4, 1])
    assert (other.n_right.tolist(), other.n_rollouts.tolist()) == ([0, 0, 0], [0, 0, 1])
    nan = math.nan
    np.testing.assert_array_equal(one.progress, [nan, 0.5, nan])
    np.testing.assert_array_equal(one.outcome, [nan, nan, 1.0])
    np.testing.assert_array_equal(other.progress, [nan, nan, -0.5])
    np.testing.assert_array_equal(other.outcome, [nan, nan, 0.0])


def test_an_epoch_has_every_row_once(data: Path, reader: PrefixReader) -> None:
    rows = read_critic_data(data, reader, validation=0.3, skip_long=False).train
    settings = dataclasses.replace(SETTINGS, batch_size=len(rows) - 1)
    seen = [id(row) for step in range(len(rows)) for row in batch_of(rows, step, settings)]
    epochs = [seen[start : start + len(rows)] for start in range(0, len(seen), len(rows))]
    assert all(sorted(epoch) == sorted(map(id, rows)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_no_problem_is_in_both_splits(data: Path, reader: PrefixReader) -> None:
    few = read_critic_data(data, reader, validation=0.2, skip_long=False)
    many = read_critic_data(data, reader, validation=0.5, skip_long=False)
    ids = [{row.problem_id for row in rows} for rows in (few.train, few.validation)]
    assert not ids[0] & ids[1]
    assert len(ids[0] | ids[1]) == 20
    assert ids[1] < {row.problem_id for row in many.validation}
    assert few.fingerprint() != many.fingerprint()


def test_what_is_given_for_validation_is_held_out(
    write_critic_rows: WriteRows, reader: PrefixReader, tmp_path: Path
) -> None:
    rows = worlds(10)
    write_critic_rows(tmp_path / "train.parquet", rows[:7])
    write_critic_rows(tmp_path / "validation.parquet", rows[7:])
    found = read_critic_data(tmp_path, reader, validation=0.9, skip_long=False)
    assert (len(found.train), len(found.validation)) == (7, 3)
    write_critic_rows(tmp_path / "validation.parquet", rows[6:])
    with pytest.raises(BadInput, match=r"question '6 \+1' is in both splits"):
        read_critic_data(tmp_path, reader, validation=0.9, skip_long=False)


NOTHING = {"n_rollouts": [0, 0], "n_right": [0, 0], "problem_n_rollouts": 0, "problem_n_right": 0}
BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "uneven": ({"n_right": [1]}, "row 0: must have lists of 2 entries each"),
    "too many": ({"n_right": [9, 0]}, "row 0: must have 0 <= n_right <= n_rollouts"),
    "progress": ({"progress": [1.5, None]}, r"row 0: must have progress in \[-1, 1\]"),
    "verdict": ({"verdict": [None, "maybe"]}, "row 0: must have verdicts of"),
    "unreadable": ({"steps": ["0+1=?", "A1"]}, "row 0: problem .* cannot read"),
    "long": ({"steps": ["0+1=1" * 20, "A1"]}, "row 0: needs .* tokens and the model reads 96"),
    "nothing": (
        NOTHING | {"verdict": [None, None], "progress": [None, None]},
        "no row of the train split teaches anything; search more problems",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_rows_that_teach_nothing_stop_before_anything_is_written(
    change: dict[str, Any],
    message: str,
    write_critic_rows: WriteRows,
    tiny_trunk: Path,
    tmp_path: Path,
) -> None:
    rows = [row | change for row in worlds(8)]
    data = write_critic_rows(tmp_path / "data.parquet", rows)
    with pytest.raises(BadInput, match=message) as caught:
        run(data, tiny_trunk, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_long_rows_are_left_out_and_counted_on_demand(
    write_critic_rows: WriteRows, reader: PrefixReader, tmp_path: Path
) -> None:
    rows = worlds(9)
    rows[0]["steps"] = ["0+1=1" * 20, "A1"]
    data = write_critic_rows(tmp_path / "data.parquet", rows)
    found = read_critic_data(data, reader, validation=0.3, skip_long=True)
    assert found.n_too_long == 1
    # Of the first only the bare question can be read, and that is new there.
    rows_read = [*found.train, *found.validation]
    assert sorted(len(row.reading.ends) for row in rows_read) == [1] + [3] * 8


def test_what_other_rows_go_on_from_is_learned_of_a_long_row_too(
    write_critic_rows: WriteRows, reader: PrefixReader, tmp_path: Path
) -> None:
    long = worlds(1)[0]
    long |= {"steps": ["1+1=2", "0+1=1" * 20], "n_right": [3, 1], "n_rollouts": [4, 2]}
    long |= {"problem_n_right": 5, "problem_n_rollouts": 8, "progress": [0.25, 0.5]}
    long |= {"verdict": [None, None], "problem_id": long["problem"]}
    others = [row | {"problem_id": row["problem"]} for row in worlds(9)[1:]]
    data = write_critic_rows(tmp_path / "data.parquet", [long, *others])
    found = read_critic_data(data, reader, validation=0.3, skip_long=True)
    (row,) = (
        row for row in (*found.train, *found.validation) if row.problem_id == long["problem_id"]
    )
    assert (row.n_right.tolist(), row.n_rollouts.tolist()) == ([5, 3], [8, 4])
    assert row.progress[1] == 0.25
    assert row.reading == reader.read(Problem(id="p", prompt=long["problem"]), ["1+1=2"])


@pytest.mark.parametrize("turn", [None, {"role": "user", "content": None}])
def test_turns_with_nulls_are_named(data: Path, reader: PrefixReader, turn: object) -> None:
    table = pq.read_table(data)
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    place = table.schema.names.index("messages")
    chats = pa.array([[turn]] * len(table), kind)
    pq.write_table(table.set_column(place, "messages", chats), data)
    with pytest.raises(BadInput, match="row 0: messages must have role and content"):
        read_critic_data(data, reader, validation=0.3, skip_long=False)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("problem", 5, "a text, got 5"),
        ("steps", [5, 6], "a list of texts"),
        ("n_right", ["1", "0"], "a list of numbers"),
        ("progress", 0.5, "a list of numbers, got 0.5"),
    ],
)
def test_columns_of_another_type_are_named(
    data: Path, reader: PrefixReader, column: str, value: object, words: str
) -> None:
    table = pq.read_table(data)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array([value] * len(table))), data)
    with pytest.raises(BadInput, match=rf"row 0: {column} must be {words}"):
        read_critic_data(data, reader, validation=0.3, skip_long=False)


@pytest.mark.parametrize(
    ("column", "value"),
    [("n_right", [0.5, 0.0]), ("n_rollouts", [math.inf, 0.0]), ("problem_n_rollouts", 8.25)],
)
def test_parts_of_rollouts_are_named(
    data: Path, reader: PrefixReader, column: str, value: object
) -> None:
    table = pq.read_table(data)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array([value] * len(table))), data)
    with pytest.raises(BadInput, match="row 0: must have whole n_right and n_rollouts"):
        read_critic_data(data, reader, validation=0.3, skip_long=False)


def test_another_kind_of_dataset_is_named(data: Path, tiny_trunk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(data).drop(["n_rollouts"]), other)
    with pytest.raises(BadInput, match=r"no column n_rollouts, so it is no critic dataset"):
        run(other, tiny_trunk, tmp_path / "out")


def test_an_output_folder_is_of_one_run(data: Path, tiny_trunk: Path, tmp_path: Path) -> None:
    run(data, tiny_trunk, tmp_path / "out")
    with pytest.raises(SettingsConflict, match=r"train\.targets is 'counts' there and .*HARD"):
        run(data, tiny_trunk, tmp_path / "out", resume=True, targets=Targets.HARD)
    with pytest.raises(BadInput, match="--resume"):
        run(data, tiny_trunk, tmp_path / "out")


def test_a_head_that_counts_nothing_says_nothing(
    data: Path, tiny_trunk: Path, tmp_path: Path
) -> None:
    found = run(data, tiny_trunk, tmp_path / "out", progress_weight=0.0)
    assert found.progress is None
    assert found.value is not None
    written = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert written["progress"] is None
    assert written["value"]["ece"] == found.value.ece
    assert {*map(str, load_critics(tmp_path / "out").trained)} == {"value", "outcome"}


OUTCOME_ALONE = {"value_weight": 0.0, "progress_weight": 0.0}
NO_ENDS, NO_PROGRESS = {"verdict": [None, None]}, {"progress": [None, None]}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            NO_ENDS,
            OUTCOME_ALONE,
            r"the train split \(\d+ rows\) has no verdicts on finished solutions for outcome, so "
            r"nothing would be learned; .*give train\.value_weight more than 0$",
        ),
        (
            NOTHING | NO_ENDS,
            {"progress_weight": 0.0},
            r"has no counted rollouts and no verdicts on finished solutions for value and outcome.*"
            r"give train\.progress_weight more than 0$",
        ),
    ],
    ids=["outcome", "value and outcome"],
)
def test_data_that_teaches_no_head_with_weight_stops_before_anything_is_written(
    change: dict[str, Any],
    settings: dict[str, Any],
    message: str,
    write_critic_rows: WriteRows,
    tiny_trunk: Path,
    tmp_path: Path,
) -> None:
    data = write_critic_rows(tmp_path / "data.parquet", [row | change for row in worlds(20)])
    with pytest.raises(BadInput, match=message) as caught:
        run(data, tiny_trunk, tmp_path / "out", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_held_out_split_measures_a_head_that_learns(
    write_critic_rows: WriteRows, tiny_trunk: Path, tmp_path: Path
) -> None:
    """Here what is held out tells progress and outcomes, of which nothing is learned."""
    data, rows = tmp_path / "data", worlds(9)
    data.mkdir()
    write_critic_rows(data / "train.parquet", [row | NO_ENDS for row in rows[:6]])
    write_critic_rows(data / "validation.parquet", [row | NO_PROGRESS for row in rows[6:]])
    message = (
        r"the validation split \(3 rows\) has no steps with progress for progress, so no weights "
        r"would be known to be the best; .*train\.validation"
    )
    with pytest.raises(BadInput, match=message) as caught:
        run(data, tiny_trunk, tmp_path / "out", value_weight=0.0, validation=0.1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_head_without_anything_to_learn_is_left_out_and_named(
    write_critic_rows: WriteRows, tiny_trunk: Path, tmp_path: Path
) -> None:
    data = write_critic_rows(tmp_path / "data.parquet", [row | NO_ENDS for row in worlds(20)])
    found = run(data, tiny_trunk, tmp_path / "out")
    assert found.trained == ("value", "progress")
    assert load_critics(tmp_path / "out").trained == {"value", "progress"}
    assert f"critics of step {found.best_step} of 8, without outcome\n" in str(found)


def test_a_step_that_teaches_nothing_has_no_loss(
    write_critic_rows: WriteRows, tiny_trunk: Path, tmp_path: Path
) -> None:
    rows = worlds(20)
    rows[::2] = [row | NO_ENDS for row in rows[::2]]
    data = write_critic_rows(tmp_path / "data.parquet", rows)
    # Every row tells a value, so that it is read; of outcomes every second tells nothing.
    changes: dict[str, Any] = {"batch_size": 1, **OUTCOME_ALONE}
    run(data, tiny_trunk, tmp_path / "out", **changes)
    lines = metrics(tmp_path / "out")
    assert {line["loss"] is None for line in lines} == {True, False}
    assert all(line["loss"] == line["outcome_loss"] for line in lines)


def test_adapters_are_merged_into_what_is_written(
    data: Path, tiny_trunk: Path, tmp_path: Path
) -> None:
    run(data, tiny_trunk, tmp_path / "whole", steps=1)
    base = tmp_path / "whole"
    found = run(data, base, tmp_path / "lora", lora_r=2, learning_rate=1e-2)
    checkpoint = load_file(tmp_path / "lora" / "checkpoints" / "step-000008" / "model.safetensors")
    assert all(".lora_" in name or name.startswith("heads.") for name in checkpoint)
    before, after = (load_file(path / "model.safetensors") for path in (base, found.out))
    assert before.keys() == after.keys()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before[name], after[name])
    assert load_critics(found.out).identity != load_critics(base).identity


@pytest.mark.parametrize(
    ("name", "value"),
    [("patience", -1), ("eval_every", 0), ("validation", 1.0), ("targets", "soft")],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(BadInput, match=f"train\\.{name} must be"):
        CriticSettings(**changes)
    with pytest.raises(BadInput, match="are all 0"):
        CriticSettings(value_weight=0.0, progress_weight=0.0, outcome_weight=0.0)

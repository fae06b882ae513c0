import dataclasses
import importlib.util
import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from treeward.export.durable import file_sha256
from treeward.search.errors import (
    BadInput,
    DamagedData,
    MissingExtra,
    SettingsConflict,
    TreewardError,
)
from treeward.search.tokens import load_tokens
from treeward.train.forward import load_trainable
from treeward.train.optim import Schedule
from treeward.train.settings import Dtype, ReportTo, TrainSettings
from treeward.train.sft import train_sft
from treeward.train.sft_data import read_sft
from treeward.train.sft_settings import SftSettings
from treeward.train.stopping import Stopped

Records = list[dict[str, Any]]

CHARACTERS = ["<end>", "<unk>", *"0123456789+-*=A \n<>|uas"]
SUMS: Records = [
    {"prompt": f"{a} +{b}\n", "completion": f"{a}+{b}={a + b}\nA{a + b}\n"}
    for a in range(6)
    for b in range(6)
]
SETTINGS = SftSettings(
    steps=8,
    batch_size=3,
    sequence_length=32,
    learning_rate=3e-3,
    warmup_steps=2,
    save_every=4,
    log_every=1,
    threads=1,
)
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": len(CHARACTERS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "eos_token_id": 0,
    "bos_token_id": None,
    "initializer_range": 0.1,
    "attention_dropout": 0.1,  # so that a resume must also find its randomness again
    "treeward_template": "nano",
}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights: 18 thousand parameters, one token a character."""
    folder = tmp_path_factory.mktemp("model")
    ids = {character: place for place, character in enumerate(CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"}
    settings |= {"unk_token": "<unk>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def write(path: Path, records: Records) -> Path:
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data.parquet", SUMS)


def ignore(_: dict[str, Any]) -> None:
    """Shows nobody."""


def run(
    data: Path, model: Path, out: Path, *, resume: bool = False, **changes: Any
) -> list[dict[str, Any]]:
    """Trains and returns the metrics without times."""
    settings = dataclasses.replace(SETTINGS, **changes)
    assert train_sft(data, model, out, settings, resume=resume, progress=ignore) == out
    return metrics(out)


def metrics(out: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(record.pop("step_time") > 0 for record in records)
    return records


def bits(out: Path) -> list[str]:
    """Digests of the finished weights, of the last checkpoint's, and of the optimizer's state."""
    last = out / "checkpoints" / "step-000008"
    files = [out / "model.safetensors", *sorted(last.glob("*.safetensors"))]
    assert len(files) == 3
    return [file_sha256(path) for path in files]


@pytest.fixture
def straight(data: Path, model: Path, tmp_path: Path) -> Path:
    """The output of an undisturbed run."""
    run(data, model, tmp_path / "straight")
    return tmp_path / "straight"


CHILD = """
import json, sys
from pathlib import Path
from treeward.train.sft import train_sft
from treeward.train.sft_settings import SftSettings
from treeward.train.optim import Schedule
from treeward.train.settings import Dtype, ReportTo
data, model, out, settings = sys.argv[1:]
settings = json.loads(settings)
settings |= {"schedule": Schedule(settings["schedule"]), "dtype": Dtype(settings["dtype"])}
settings |= {"report_to": ReportTo(settings["report_to"])}
settings |= {"save_dtype": Dtype(settings["save_dtype"])}
def progress(record):
    print(record["step"], flush=True)
    if record["step"] == 6:
        sys.stdin.read()
train_sft(Path(data), Path(model), Path(out), SftSettings(**settings), resume=False,
          progress=progress)
"""


def test_a_killed_run_resumes_to_the_same_bits(
    data: Path, model: Path, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "killed"
    settings = json.dumps(dataclasses.asdict(SETTINGS))
    command = [sys.executable, "-c", CHILD, str(data), str(model), str(out), settings]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        seen = [next(process.stdout).strip() for _ in range(6)]
        assert process.poll() is None
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert seen == ["1", "2", "3", "4", "5", "6"]
    assert [path.name for path in (out / "checkpoints").glob("step-*")] == ["step-000004"]
    assert len(metrics(out)) == 6  # two of them newer than the checkpoint
    assert not (out / "model.safetensors").exists()

    assert run(data, model, out, resume=True) == metrics(straight)
    assert bits(out) == bits(straight)


@pytest.mark.parametrize(("step", "log_every"), [(1, 1), (4, 1), (4, 3), (5, 3), (8, 1)])
def test_a_run_may_stop_anywhere(
    step: int, log_every: int, data: Path, model: Path, tmp_path: Path
) -> None:
    whole = run(data, model, tmp_path / "whole", log_every=log_every)
    settings = dataclasses.replace(SETTINGS, log_every=log_every)

    def stop(record: dict[str, Any]) -> None:
        if record["step"] >= step:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train_sft(data, model, out, settings, resume=False, progress=stop)
    assert run(data, model, out, resume=True, log_every=log_every) == whole
    assert bits(out) == bits(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_after_its_step_and_a_resume_goes_on(
    number: signal.Signals, data: Path, model: Path, straight: Path, tmp_path: Path
) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            signal.raise_signal(number)

    out, mine = tmp_path / "out", signal.default_int_handler
    # A shell lets programs in the background ignore Ctrl-C; what is ignored stays so.
    before = signal.signal(number, mine)
    try:
        with pytest.raises(Stopped, match="stopped after step 3; --resume goes on") as stopped:
            train_sft(data, model, out, SETTINGS, resume=False, progress=stop)
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)
    assert stopped.value.exit_code == 128 + number
    assert (out / "checkpoints" / "step-000003").is_dir()
    assert run(data, model, out, resume=True) == metrics(straight)
    assert bits(out) == bits(straight)


def test_two_processes_never_train_into_one_folder(data: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def again(record: dict[str, Any]) -> None:
        if record["step"] == 5:
            with pytest.raises(TreewardError, match=r"process \d+ is writing to this run"):
                run(data, model, out, resume=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_sft(data, model, out, SETTINGS, resume=False, progress=again)


def test_a_run_without_a_checkpoint_is_begun_anew(
    data: Path, model: Path, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(TreewardError, match="gradient norm"):
        run(data, model, out, learning_rate=1e38)
    assert run(data, model, out) == metrics(straight)
    assert bits(out) == bits(straight)


def test_settings_that_decide_no_weight_may_change(
    data: Path, model: Path, straight: Path, tmp_path: Path
) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 5:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train_sft(data, model, out, SETTINGS, resume=False, progress=stop)
    run(data, model, out, resume=True, save_every=3, save_total_limit=1, log_every=2)
    assert bits(out) == bits(straight)


def test_what_shows_metrics_is_looked_for_before_anything_is_written(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="tensorboard"):
        run(data, model, tmp_path / "out", report_to=ReportTo.TENSORBOARD)
    assert not (tmp_path / "out").exists()


def test_models_that_scale_their_logits_are_not_trained(
    data: Path, model: Path, tmp_path: Path
) -> None:
    scaled = shutil.copytree(model, tmp_path / "scaled")
    config = CONFIG | {"model_type": "granite", "architectures": ["GraniteForCausalLM"]}
    config |= {"logits_scaling": 8.0, "pad_token_id": 0}
    (scaled / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="neither scale nor cap their logits; this 'granite' does"):
        run(data, scaled, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resuming_a_finished_run_changes_nothing(data: Path, model: Path, straight: Path) -> None:
    before, lines = bits(straight), (straight / "metrics.jsonl").read_bytes()
    run(data, model, straight, resume=True)
    assert bits(straight) == before
    assert (straight / "metrics.jsonl").read_bytes() == lines


def test_seconds_a_step_are_those_since_the_resume(
    data: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock here goes on by one whenever it is looked at: once a line, and at the start."""
    out = tmp_path / "out"
    monkeypatch.setattr("time.perf_counter", itertools.count().__next__)
    steps: dict[str, Any] = {"steps": 4, "save_every": 1, "log_every": 4}
    run(data, model, out, **steps)
    shutil.rmtree(out / "checkpoints" / "step-000004")
    (out / "model.safetensors").unlink()
    train_sft(
        *(data, model, out, dataclasses.replace(SETTINGS, **steps)), resume=True, progress=ignore
    )
    (line,) = (out / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step_time"] == 1.0


def test_a_run_leaves_the_process_as_it_was(data: Path, model: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(data, model, tmp_path / "out", steps=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_metrics_say_what_was_done(model: Path, data: Path, straight: Path) -> None:
    lines = metrics(straight)
    assert [line["step"] for line in lines] == list(range(1, 9))
    # Two warm steps at 1/3 and 2/3 of the peak; from the peak it falls by sixths, to 0 after 8.
    rates = [line["learning_rate"] for line in lines]
    assert rates == pytest.approx(
        [3e-3 * x for x in (1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)]
    )
    assert lines[0]["loss"] == pytest.approx(math.log(len(CHARACTERS)), rel=0.2)
    rows = read_sft(data, model, room=32, skip_long=False).rows
    places = sum(row.places for row in rows)
    assert lines[-1]["num_tokens"] / lines[-1]["epoch"] == pytest.approx(places, rel=0.05)


def test_a_finished_model_writes_what_it_was_taught(model: Path, tmp_path: Path) -> None:
    taught = SUMS[7:35:9]
    data, out = write(tmp_path / "few.parquet", taught), tmp_path / "out"
    lines = run(data, model, out, steps=150, save_dtype=Dtype.BFLOAT16, schedule=Schedule.COSINE)
    assert lines[-1]["loss"] < 0.05 < 2 < lines[0]["loss"]
    assert lines[-1]["mean_token_accuracy"] == 1
    trained: Any = AutoModelForCausalLM.from_pretrained(str(out))
    assert trained.dtype == torch.bfloat16
    assert all(t.dtype == torch.bfloat16 for t in load_file(out / "model.safetensors").values())
    assert trained.config.treeward_template == "nano"
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    for record in taught:
        ids = tokenizer(record["prompt"], return_tensors="pt").input_ids
        text = trained.generate(ids, do_sample=False, max_new_tokens=20, pad_token_id=0)
        assert tokenizer.decode(text[0, ids.shape[1] :]) == record["completion"] + "<end>"


def test_training_goes_on_from_weights_that_the_model_has(
    data: Path, model: Path, straight: Path, tmp_path: Path
) -> None:
    further = run(data, straight, tmp_path / "further", steps=1)
    assert further[0]["loss"] < metrics(straight)[0]["loss"] - 0.3


def test_completions_and_the_end_are_learned(model: Path, data: Path) -> None:
    tokens = load_tokens(model)
    rows = read_sft(data, model, room=32, skip_long=False).rows
    for row, record in zip(rows, SUMS, strict=True):
        learned = row.ids[row.learned].tolist()
        assert learned[-1] == 0
        assert tokens.text_of(learned) == record["completion"]
        assert tokens.text_of(row.ids[~row.learned].tolist()) == record["prompt"]


def test_of_a_chat_the_assistant_is_learned(model: Path, tmp_path: Path) -> None:
    turns = [
        ("system", "1"),
        ("user", "2+3"),
        ("assistant", "5"),
        ("user", "*2"),
        ("assistant", "10"),
    ]
    chat = [{"role": role, "content": content} for role, content in turns]
    data = write(tmp_path / "chat.parquet", [{"messages": chat}])
    (row,) = read_sft(data, model, room=64, skip_long=False).rows
    tokens = load_tokens(model)
    assert tokens.text_of(row.ids.tolist()) == "<s>1\n<u>2+3\n<a>5\n<u>*2\n<a>10\n"
    assert tokens.text_of(row.ids[row.learned].tolist()) == "5\n10\n"


def test_a_chat_template_that_refuses_a_row_names_it(model: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict"
    shutil.copytree(model, strict)
    settings = json.loads((strict / "tokenizer_config.json").read_text())
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no systems') }}{% endif %}"
    settings["chat_template"] = refusal + TEMPLATE
    (strict / "tokenizer_config.json").write_text(json.dumps(settings))
    turns = [{"role": role, "content": "1"} for role in ("system", "user", "assistant")]
    data = write(tmp_path / "chat.parquet", [{"messages": turns[1:]}, {"messages": turns}])
    with pytest.raises(BadInput, match=r"row 1: the chat template refuses .*: no systems"):
        read_sft(data, strict, room=64, skip_long=False)


def test_a_folder_gives_its_training_split(model: Path, tmp_path: Path) -> None:
    (tmp_path / "sft").mkdir()
    write(tmp_path / "sft" / "train-0.parquet", SUMS[:5])
    write(tmp_path / "sft" / "test-0.parquet", SUMS[5:])
    assert len(read_sft(tmp_path, model, room=32, skip_long=False).rows) == 5
    (tmp_path / "sft" / "train-0.parquet").unlink()
    assert len(read_sft(tmp_path, model, room=32, skip_long=False).rows) == 31


GOOD = {"prompt": "1 +1\n", "completion": "A2\n"}
BAD_ROWS: dict[str, tuple[Records, str]] = {
    "long": ([GOOD, GOOD | {"completion": "1" * 40}], "row 1: needs 45 tokens.*sequence_length"),
    "empty": ([GOOD | {"completion": ""}], "row 0: completion must be a text"),
    "null": ([GOOD, {"prompt": None, "completion": "A"}], "row 1: prompt must be a text"),
    "unreadable": ([GOOD, GOOD | {"prompt": "1 ?"}], "row 1: .*cannot read what follows '1 '"),
    "columns": ([{"prompt": "1"}], r"needs columns .* has \['prompt'\]"),
    "no rows": ([GOOD][:0], "needs columns"),
    "no role": ([{"messages": [{"content": "1"}]}], "row 0: messages must have role and"),
    "null content": (
        [{"messages": [{"role": "user", "content": None}]}],
        "row 0: messages must have role and content",
    ),
    "no messages": ([{"messages": ["1"]}], "row 0: messages must have role and content"),
    "silent": ([{"messages": [{"role": "user", "content": "1"}]}], "row 0: needs something to"),
}


@pytest.mark.parametrize(("records", "message"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_rows_that_teach_nothing_stop_before_anything_is_written(
    records: Records, message: str, model: Path, tmp_path: Path
) -> None:
    data, out = write(tmp_path / "data.parquet", records), tmp_path / "out"
    with pytest.raises(BadInput, match=message):
        run(data, model, out)
    assert not out.exists()


def test_long_rows_are_left_out_and_counted_on_demand(model: Path, tmp_path: Path) -> None:
    long = GOOD | {"completion": "1" * 40}
    data = write(tmp_path / "data.parquet", [long, GOOD, long])
    run(data, model, tmp_path / "out", steps=1, skip_long=True)
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (about["data"]["rows"], about["data"]["rows_too_long"]) == (1, 2)
    write(data, [long])
    with pytest.raises(BadInput, match="no rows to learn from"):
        run(data, model, tmp_path / "none", skip_long=True)


def test_rows_beyond_the_models_positions_are_refused(model: Path, tmp_path: Path) -> None:
    small = shutil.copytree(model, tmp_path / "small")
    (small / "config.json").write_text(json.dumps(CONFIG | {"max_position_embeddings": 12}))
    long = GOOD | {"completion": "1" * 20}
    data = write(tmp_path / "data.parquet", [GOOD, long])
    with pytest.raises(BadInput, match=r"a row needs \d+ tokens and .*small has 12 positions"):
        run(data, small, tmp_path / "out", steps=1, sequence_length=64)
    assert not (tmp_path / "out").exists()
    run(data, small, tmp_path / "out", steps=1, sequence_length=12, skip_long=True)


def test_data_and_models_that_are_none_are_named(data: Path, model: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("no table")
    for wrong in (text, tmp_path / "absent", model):
        with pytest.raises(BadInput, match=wrong.name):
            run(wrong, model, tmp_path / "out")
    with pytest.raises(BadInput, match=r"no config\.json"):
        run(data, tmp_path, tmp_path / "out")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (pickled / name).write_bytes((model / name).read_bytes())
    small = CONFIG | {"vocab_size": 9}
    (pickled / "config.json").write_text(json.dumps(small))
    with pytest.raises(BadInput, match="vocab_size 9"):
        run(data, pickled, tmp_path / "out")
    (pickled / "pytorch_model.bin").write_bytes(b"?")
    with pytest.raises(BadInput, match="safetensors"):
        run(data, pickled, tmp_path / "out")


def test_what_a_resume_needs_and_does_not_find_is_named(
    data: Path, model: Path, tmp_path: Path
) -> None:
    """It ends with 5, and nothing is made up in the place of what was lost."""
    out = tmp_path / "out"
    run(data, model, out, steps=2, save_every=1)
    lost = (out / "metrics.jsonl").read_bytes()
    (out / "metrics.jsonl").write_bytes(lost[:-1])
    with pytest.raises(DamagedData, match=rf"metrics\.jsonl: missing or cut short.*{len(lost)}"):
        run(data, model, out, resume=True, steps=2, save_every=1)
    (out / "metrics.jsonl").write_bytes(lost + b"more")
    run(data, model, out, resume=True, steps=2, save_every=1)
    assert (out / "metrics.jsonl").read_bytes() == lost
    for text in ("{", "[]", "\xff"):
        (out / "run.json").write_text(text, encoding="latin-1")
        with pytest.raises(DamagedData, match=r"run\.json: .*train again with a new --out"):
            run(data, model, out, resume=True, steps=2, save_every=1)


def test_half_an_alpha_counts_half(model: Path) -> None:
    adapted: Any = load_trainable(model, TrainSettings(lora_r=4, lora_alpha=0.5))
    scalings = {
        module.scaling["default"] for module in adapted.modules() if hasattr(module, "lora_A")
    }
    assert scalings == {0.125}


def test_an_output_folder_is_never_overwritten(
    data: Path, model: Path, straight: Path, tmp_path: Path
) -> None:
    before = bits(straight)
    with pytest.raises(BadInput, match="--resume"):
        run(data, model, straight)
    with pytest.raises(SettingsConflict, match=r"train\.learning_rate is 0\.003 there and 0\.004"):
        run(data, model, straight, resume=True, learning_rate=0.004)
    other = write(tmp_path / "other.parquet", SUMS[1:])
    with pytest.raises(SettingsConflict, match=r"data\.sha256.*data\.rows is 36 there and 35"):
        run(other, model, straight, resume=True)
    with pytest.raises(SettingsConflict, match=r"model\.model\.safetensors"):
        run(data, straight, straight, resume=True)
    retold = shutil.copytree(model, tmp_path / "retold")
    (retold / "tokenizer_config.json").write_text('{"clean_up_tokenization_spaces": false}')
    with pytest.raises(SettingsConflict, match=r"model\.tokenizer_config\.json"):
        run(data, retold, straight, resume=True)
    with pytest.raises(BadInput, match="no training output"):
        run(data, model, tmp_path, resume=True)
    assert bits(straight) == before


def test_divergence_is_an_error_and_no_model(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(TreewardError, match=r"step \d: gradient norm (nan|inf)"):
        run(data, model, tmp_path / "out", learning_rate=1e38)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_full_disk_costs_nothing_that_was_saved(
    data: Path,
    model: Path,
    straight: Path,
    tmp_path: Path,
    file_size_limit: Callable[[int], AbstractContextManager[None]],
) -> None:
    out = tmp_path / "out"
    with (
        file_size_limit(20_000),
        pytest.raises(TreewardError, match=f"^{out}: cannot write the training output: .*resume"),
    ):
        run(data, model, out)
    assert not list((out / "checkpoints").glob("step-*"))
    run(data, model, out, resume=True)
    assert bits(out) == bits(straight)


def test_bfloat16_computes_nearly_the_same(data: Path, model: Path, tmp_path: Path) -> None:
    exact = run(data, model, tmp_path / "a", steps=2)
    half = run(data, model, tmp_path / "b", steps=2, dtype=Dtype.BFLOAT16)
    assert half[0]["loss"] != exact[0]["loss"]
    assert half[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("sequence_length", 1),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("adam_beta2", 1.0),
        ("max_grad_norm", -1.0),
        ("threads", 0),
        ("schedule", "polynomial"),
        ("dtype", "float16"),
        ("device", "tpu"),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(BadInput, match=f"train\\.{name} must be"):
        SftSettings(**changes)

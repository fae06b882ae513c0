"""Formats hold what our own columns say, in the columns that their consumers document."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pyarrow.parquet as pq
import pytest
from tests.dataset_world import Row, contents, grow, make_run

from treeward.cli import export as command
from treeward.export.dataset_spec import Format, Tally
from treeward.export.datasets import ExportReport, ExportSettings, Kind, export_dataset
from treeward.export.formats import chat, pairs, processbench, questions, solutions, stepwise
from treeward.export.formats.registry import SHAPES
from treeward.export.formats.spec import Shape
from treeward.export.labels import Label, Labels
from treeward.export.run_folder import RunFolder
from treeward.search.errors import BadInput
from treeward.search.tree import Tree

SUPPORTED = [(form, kind) for form in Format for kind in SHAPES[form]]


@pytest.fixture(scope="module")
def trees() -> list[Tree]:
    return grow()


@pytest.fixture(scope="module")
def run(trees: list[Tree], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), trees, size=5)


def rows_of(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for path in sorted((folder / "data").iterdir()):
        if path.suffix == ".parquet":
            rows += pq.read_table(path).to_pylist()
        else:
            rows += [json.loads(line) for line in path.read_text("ascii").splitlines()]
    return rows


def export(
    run: RunFolder, kind: Kind, out: Path, form: Format | None, **settings: Any
) -> tuple[list[Row], ExportReport]:
    report = export_dataset(run, kind, out, ExportSettings(format=form, **settings))
    return rows_of(out), report


PRM: Row = {
    "id": "i",
    "prompt": "1 + 1 + 1 = ?",
    "messages": None,
    "completions": ["1 + 1 = 2", "2 + 1 = 4", "so 4"],
    "labels": [True, False, False],
    "label_mask": [True, True, True],
}
PAIR: Row = {
    "id": "i",
    "prompt": "Question: 2 + 2\nStep 1: two\n",
    "chosen": "Answer: 4\n",
    "rejected": "Answer: 5\n",
    "margin": 0.75,
    "messages": [{"role": "user", "content": "2 + 2"}],
    "shared_steps": "Step 1: two\n",
}
OPEN_TURN: Row = {
    **PAIR,
    "prompt": [*PAIR["messages"], {"role": "assistant", "content": "Step 1: two\n"}],
    "chosen": [{"role": "assistant", "content": "Answer: 4\n"}],
    "rejected": [{"role": "assistant", "content": "Answer: 5\n"}],
}
RIGHT, WRONG = "Step 1: two\nAnswer: 4\n", "Step 1: two\nAnswer: 5\n"
SFT: Row = {
    "id": "i",
    "messages": [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4\n"}],
    "prompt": "Question: 2 + 2\n",
    "completion": "4\n",
}
SFT_CHAT = {name: SFT[name] for name in ("id", "messages")}
RLVR: Row = {
    "id": "i",
    "prompt": [{"role": "user", "content": "2 + 2"}],
    "data_source": "made",
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"split": "train", "index": 0, "problem_id": "p", "verifier": "math"},
    "solution": "\\boxed{4}",
    "ground_truth": "4",
}


def turn(text: str) -> Row:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("shape", "row", "golden"),
    [
        (
            stepwise.TRL,
            PRM,
            {name: PRM[name] for name in ("id", "prompt", "completions", "labels")},
        ),
        (
            stepwise.OPENRLHF,
            PRM,
            {
                "id": "i",
                "input": "1 + 1 + 1 = ?\n1 + 1 = 2 ки\n2 + 1 = 4 ки\nso 4 ки\n",
                "value": ["+", "-", "-"],
            },
        ),
        (
            stepwise.QWEN,
            PRM,
            {
                "id": "i",
                "messages": [
                    {
                        "role": "system",
                        "content": "Please reason step by step, and put your final answer within "
                        "\\boxed{}.",
                    },
                    {"role": "user", "content": "1 + 1 + 1 = ?"},
                    turn("1 + 1 = 2<extra_0>2 + 1 = 4<extra_0>so 4<extra_0>"),
                ],
                "labels": [1, 0, 0],
            },
        ),
        (
            pairs.TRL,
            PAIR,
            {name: PAIR[name] for name in ("id", "prompt", "chosen", "rejected")},
        ),
        (
            pairs.OPENRLHF,
            PAIR,
            {name: PAIR[name] for name in ("id", "prompt", "chosen", "rejected", "margin")},
        ),
        (
            pairs.OPENRLHF,
            OPEN_TURN,
            {
                "id": "i",
                "prompt": PAIR["messages"],
                "chosen": [turn(RIGHT)],
                "rejected": [turn(WRONG)],
                "margin": 0.75,
            },
        ),
        (
            pairs.LLAMAFACTORY,
            OPEN_TURN,
            {
                "id": "i",
                "messages": PAIR["messages"],
                "chosen": turn(RIGHT),
                "rejected": turn(WRONG),
            },
        ),
        (
            pairs.SWIFT,
            PAIR,
            {
                "id": "i",
                "messages": [{"role": "user", "content": "2 + 2"}, turn(RIGHT)],
                "rejected_response": WRONG,
                "margin": 0.75,
            },
        ),
        (solutions.TRL, SFT, {name: SFT[name] for name in ("id", "prompt", "completion")}),
        (solutions.TRL, SFT_CHAT, SFT_CHAT),
        (solutions.OPENRLHF, SFT, {"id": "i", "input": "Question: 2 + 2\n", "output": "4\n"}),
        (
            solutions.OPENRLHF,
            SFT_CHAT,
            {"id": "i", "input": PAIR["messages"], "output": [turn("4\n")]},
        ),
        (solutions.SWIFT, SFT, SFT_CHAT),
        (questions.OPENRLHF, RLVR, {"id": "i", "input": RLVR["prompt"], "label": "4"}),
        (
            questions.SWIFT,
            RLVR,
            {"id": "i", "messages": RLVR["prompt"], "solution": "\\boxed{4}"},
        ),
        (
            questions.VERL,
            RLVR,
            {name: RLVR[name] for name in RLVR if name not in ("solution", "ground_truth")},
        ),
    ],
)
def test_rows_are_as_the_consumer_documents_them(
    shape: Shape, row: Row, golden: Mapping[str, Any]
) -> None:
    assert shape.convert(row, Tally()) == golden


def test_a_question_that_goes_on_from_a_chat_is_asked_whole_or_left_out() -> None:
    turns = [("user", "1 + 1 = ?"), ("assistant", "2"), ("user", "1 + 1 + 1 = ?")]
    history = [{"role": role, "content": content} for role, content in turns]
    system = {"role": "system", "content": "Count."}
    tally = Tally()
    for shape in (stepwise.TRL, stepwise.OPENRLHF):
        assert shape.convert(PRM | {"messages": history}, tally) is None
        assert shape.convert(PRM | {"messages": [system, history[2]]}, tally) is not None
    assert tally.left_out.total() == 2
    given = (history, stepwise.QWEN_SYSTEM), ([system, *history], "Count.")
    for messages, first in given:
        row = stepwise.QWEN.convert(PRM | {"messages": messages}, tally)
        assert row is not None
        assert row["messages"][0] == {"role": "system", "content": first}
        asked = [turn for turn in row["messages"][:-1] if turn["role"] != "system"]
        assert asked == [turn for turn in messages if turn["role"] != "system"]
    marked = [{"role": "user", "content": "a<extra_0>"}, *history[1:]]
    assert stepwise.QWEN.convert(PRM | {"messages": marked}, tally) is None


@pytest.mark.parametrize("shape", [stepwise.TRL, stepwise.OPENRLHF, stepwise.QWEN])
def test_steps_that_are_not_to_be_learned_from_are_cut_and_counted(shape: Shape) -> None:
    tally = Tally()
    cut = shape.convert(PRM | {"label_mask": [True, False, True]}, tally)
    assert cut is not None
    assert len(cut["labels"] if "labels" in cut else cut["value"]) == 1
    assert shape.convert(PRM | {"label_mask": [False, True, True]}, tally) is None
    assert tally.left_out == {
        "steps from the first that is not to be learned from": 5,
        "rows without a step to learn from": 1,
    }


@pytest.mark.parametrize(
    ("shape", "mark"), [(stepwise.OPENRLHF, "ки"), (stepwise.QWEN, "<extra_0>")]
)
def test_a_text_that_holds_the_mark_of_steps_cannot_be_carried(shape: Shape, mark: str) -> None:
    tally = Tally()
    for name, text in (("prompt", f"a{mark}"), ("completions", ["a", mark, "b"])):
        assert shape.convert(PRM | {name: text}, tally) is None
    assert tally.left_out == {f"rows whose text holds {mark}, the mark of a step": 2}


def test_chats_that_llamafactory_would_throw_away_are_counted() -> None:
    tally = Tally()
    user, answer, system = ({"role": r, "content": "x"} for r in ("user", "assistant", "system"))
    for messages, fits in (
        ([user, answer], True),
        ([system, user], True),
        ([user, user], False),
        ([answer], False),
        ([user, system], False),
        ([system], False),
    ):
        assert chat.takes_turns(messages, tally) is fits
    assert tally.left_out.total() == 4


@pytest.mark.parametrize(("form", "kind"), SUPPORTED)
def test_the_same_bytes_each_time_and_they_load(
    run: RunFolder,
    form: Format,
    kind: Kind,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    rows, report = export(run, kind, tmp_path / "one", form, validation=0.3)
    export(run, kind, tmp_path / "two", form, validation=0.3)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sum(report.rows.values()) == len(rows) > 0
    loaded = datasets.load_dataset(
        str(tmp_path / "one"), kind.value, cache_dir=str(tmp_path / "cache")
    )
    assert [row for split in ("train", "validation") for row in loaded[split]] == rows
    assert not caplog.messages  # the loader takes the card's features as they are
    ours, _ = export(run, kind, tmp_path / "ours", None, validation=0.3)
    if form is not Format.PROCESSBENCH:
        assert {row["id"] for row in rows} == {row["id"] for row in ours}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("form", list(Format))
def test_a_format_that_cannot_carry_a_kind_says_what_it_can(
    run: RunFolder, form: Format, kind: Kind, tmp_path: Path
) -> None:
    if (form, kind) in SUPPORTED:
        return
    with pytest.raises(BadInput) as refused:
        export(run, kind, tmp_path / "out", form)
    (said,) = str(refused.value).splitlines()
    assert said.startswith(f"format {form} carries {', '.join(SHAPES[form])}, not {kind}; ")
    others = [other for other in Format if (other, kind) in SUPPORTED]
    assert (
        f"{kind} goes to {', '.join(others)}" if others else f"no format carries {kind}"
    ) in said
    assert not (tmp_path / "out").exists()


def test_pairs_of_chats_are_refused_by_verl(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="as plain text only"):
        export(run, Kind.PREFERENCE, tmp_path / "out", Format.VERL, template="chat")
    rows, _ = export(run, Kind.PREFERENCE, tmp_path / "out", Format.TRL, template="chat")
    assert {turn["role"] for row in rows for turn in row["chosen"]} == {"assistant"}


def test_an_export_in_one_format_does_not_replace_one_in_another(
    run: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export(run, Kind.SFT, out, Format.LLAMAFACTORY)
    export(run, Kind.SFT, out, Format.LLAMAFACTORY)
    with pytest.raises(BadInput, match=r"holds a sft \(llamafactory\) export, not sft \(trl\)"):
        export(run, Kind.SFT, out, Format.TRL)
    with pytest.raises(BadInput, match=r"holds a sft \(llamafactory\) export, not sft;"):
        export(run, Kind.SFT, out, None)


def test_the_card_names_what_a_format_has_no_place_for(run: RunFolder, tmp_path: Path) -> None:
    export(run, Kind.PRM, tmp_path / "out", Format.TRL)
    card = (tmp_path / "out" / "README.md").read_text()
    left = card.partition("no place for these columns of the kind: ")[2].partition(".")[0]
    assert "`soft_labels`" in left
    assert "`value_low`" in left
    assert "`labels`" not in left
    assert "- `n_rollouts`:" not in card


def test_llamafactory_finds_its_files_by_the_index(run: RunFolder, tmp_path: Path) -> None:
    rows, _ = export(run, Kind.PREFERENCE, tmp_path / "out", Format.LLAMAFACTORY, validation=0.3)
    index = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert list(index) == ["treeward_preference_train", "treeward_preference_validation"]
    for entry in index.values():
        assert (tmp_path / "out" / entry["file_name"]).is_file()
        assert entry["formatting"] == "sharegpt"
        assert entry["ranking"] is True
        assert set(entry["columns"]) == set(entry["columns"].values()) < rows[0].keys()


def test_processbench_holds_whole_solutions_and_their_first_error(
    run: RunFolder, tmp_path: Path
) -> None:
    rows, report = export(run, Kind.PRM, tmp_path / "out", Format.PROCESSBENCH, min_rollouts=6)
    assert set(rows[0]) == {
        *("id", "generator", "problem", "steps", "final_answer_correct", "label"),
    }
    for row in rows:
        assert row["generator"] == "toy"
        assert row["steps"][-1].startswith("Answer: ")
        assert row["final_answer_correct"] == (row["steps"][-1] == "Answer: 7")
        # The policy never comes right after "bad", nor on the hard problem.
        if row["problem"] == "hard" or row["steps"][0].endswith("bad"):
            assert row["label"] == 0
        else:
            assert row["label"] == (-1 if row["final_answer_correct"] else len(row["steps"]) - 1)
    assert report.kept.keys() == {"solutions with an error", "solutions without an error"}
    assert "solutions with an unknown verdict" in report.left_out


@pytest.mark.parametrize(
    ("labels", "index"),
    [
        ([Label.RIGHT, Label.RIGHT], -1),
        ([Label.RIGHT, Label.WRONG, Label.WRONG], 1),
        ([Label.RIGHT, Label.WRONG, None], 1),
        ([Label.RIGHT, None], None),
        ([None, Label.WRONG], None),
        ([Label.WRONG, Label.RIGHT], 0),
    ],
)
def test_a_first_error_is_known_where_all_before_it_is_decided(
    labels: Labels, index: int | None
) -> None:
    assert processbench.first_error(labels) == index


def test_the_command_offers_every_kind_and_format() -> None:
    """The command names them itself, so that `--help` need not load what writes them."""
    choices = {
        option.name: option.type.choices
        for option in command.params
        if isinstance(option.type, click.Choice)
    }
    assert sorted(choices["kind"]) == sorted(Kind)
    assert sorted(choices["format"]) == sorted(Format)

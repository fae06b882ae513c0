"""Problems that stand in a test set are found by their text, counted, named and kept."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.dataset_world import PROBLEMS, export, grow, make_run

from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.overlap import Overlap, find_overlaps, normal_words
from treeward.export.run_folder import RunFolder
from treeward.search.errors import BadInput
from treeward.search.problem import Problem

STORY = "A baker sells seven loaves a day and two cakes more than half of that each week"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"), grow(), size=5)


def overlap(prompt: str, question: str, tmp_path: Path) -> str:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"problem": question}))
    (found,) = find_overlaps([Problem(id="p", prompt=prompt)], [path])
    assert found.n_questions == 1
    return "same" if found.same else "shared" if found.shared else "none"


@pytest.mark.parametrize(
    ("prompt", "question", "found"),
    [
        ("What is $x+1$?", "what is x + 1", "same"),
        ("\uff21\uff12", "a2", "same"),  # full-width letters
        ("4 + 3", "4 - 3", "none"),  # operators tell problems apart
        (STORY, f"Once upon a time: {STORY.upper()}!", "shared"),
        (" ".join(STORY.split()[:13]), f"{STORY}. How many?", "shared"),
        (" ".join(STORY.split()[:12]), f"{STORY}. How many?", "none"),
        (STORY.replace("seven", "eight"), STORY, "shared"),  # 13 words follow the number
        (STORY.replace("seven", "eight").replace("half", "most"), STORY, "none"),
        ("???", "!", "none"),  # no words are no text
    ],
)
def test_what_overlaps(prompt: str, question: str, found: str, tmp_path: Path) -> None:
    assert overlap(prompt, question, tmp_path) == found


def test_words_are_lower_case_words_and_operators() -> None:
    assert normal_words("\\frac{1}{2}  Über_x <= 3·4") == [
        *("frac", "1", "2", "über", "x", "<", "=", "3", "4"),
    ]


def test_every_form_of_file_is_read(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "easy 1"}]
    (tmp_path / "a.jsonl").write_text('{"question": "easy 0"}\n' + json.dumps({"prompt": chat}))
    (tmp_path / "b.json").write_text(json.dumps([{"problem": "Easy 0."}]))
    pq.write_table(pa.table({"question": ["hard", "new"]}), tmp_path / "c.parquet")
    found = find_overlaps(PROBLEMS, sorted(tmp_path.iterdir()))
    assert [(each.test_set, each.same) for each in found] == [
        ("a.jsonl", ("easy 0", "easy 1")),
        ("b.json", ("easy 0",)),
        ("c.parquet", ("hard",)),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [("{}", "test.jsonl:1: has no text under"), ("[]", "must be an object"), ("{", "invalid JSON")],
)
def test_a_bad_test_set_is_one_line_and_nothing_is_written(
    run: RunFolder, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(content)
    with pytest.raises(BadInput, match=message):
        export(run, Kind.RLVR, tmp_path / "out", test_sets=(path,))
    with pytest.raises(BadInput, match=r"none\.jsonl: no such test set"):
        export(run, Kind.RLVR, tmp_path / "out", test_sets=(tmp_path / "none.jsonl",))
    assert not (tmp_path / "out").exists()


def test_what_overlaps_is_said_and_kept(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text('{"question": "HARD"}')
    kept = export(run, Kind.RLVR, tmp_path / "without")
    settings = ExportSettings(test_sets=(path,))
    report = export_dataset(run, Kind.RLVR, tmp_path / "with", settings)
    assert report.rows["train"] == len(kept)
    assert report.overlaps == (
        Overlap(test_set="test.jsonl", n_questions=1, same=("hard",), shared=()),
    )
    assert "test set `test.jsonl` (questions: 1): problems with the same text: 1;" in str(report)
    card = (tmp_path / "with" / "README.md").read_text()
    assert "`test.jsonl` (questions: 1): problems with the same text: 1;" in card
    assert "words in a row: 0 (`hard`)" in card
    assert "13 words in a row that are the same" in card
    mark = json.loads((tmp_path / "with" / "export.json").read_text())
    assert mark["overlaps"][0]["same"] == ["hard"]
    assert str(tmp_path) not in json.dumps(mark)
    assert "No check was made" in (tmp_path / "without" / "README.md").read_text()


def test_licences_are_known_or_said(run: RunFolder, tmp_path: Path) -> None:
    export(run, Kind.RLVR, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- `toy`: not known" in card
    assert "- The problems (`made`): not known" in card
    said = ("toy=Apache-2.0", "problems=CC BY 4.0")
    export(run, Kind.RLVR, tmp_path / "out", licences=said)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- `toy`: Apache-2.0" in card
    assert "- The problems (`made`): CC BY 4.0" in card
    for bad, message in (("toy", "must be NAME=LICENCE"), ("toi=MIT", "no model 'toi'.*toy")):
        with pytest.raises(BadInput, match=message):
            export(run, Kind.RLVR, tmp_path / "out", licences=(bad,))

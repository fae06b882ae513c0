"""Solutions as other tools wrote them: every layout of docs/labels.md, and what contradicts."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treeward.export.label_plan import plan_label
from treeward.export.layouts import COLUMNS, NAMES, block_fields, read_layout
from treeward.export.options import Options
from treeward.export.plan import Plan
from treeward.export.solutions import read_solutions, with_references
from treeward.search.errors import BadInput
from treeward.search.problem import Problem
from treeward.search.templates import TEMPLATES
from treeward.search.tokens import load_tokens

Command = Callable[..., Any]
Row = dict[str, Any]

PAGE = (Path(__file__).parents[1] / "docs" / "labels.md").read_text()
SECTION = PAGE.partition("## What `treeward label` reads")[2]
ROWS = re.findall(r"```json\n(.*?)```", SECTION, flags=re.DOTALL)
(TEXT,) = re.findall(r"```text\n(.*?)```", SECTION, flags=re.DOTALL)
EXAMPLES = [("s.jsonl", rows) for rows in ROWS] + [("s.txt", TEXT)]

ASKED = {"prompt": "5 +3 *2", "answer": "16"}
GOOD, BAD = "5+3=8\n8*2=16\nA16", "5+3=9\n9*2=18\nA18"
BENCH: Row = {
    "id": "x-0",
    "problem": "5 +3 *2",
    "steps": ["so", "5+3=8", "is $\\boxed{16}$"],
    "final_answer_correct": True,
}


def plan(path: Path, text: str, **options: Any) -> Plan:
    path.write_text(text)
    return plan_label(Options(problems=str(path), policy="nano", **options))


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def only(path: Path, row: Row) -> Problem:
    (problem,) = read_solutions(written(path / "s.jsonl", row)).found.problems
    return problem


@pytest.mark.parametrize(("name", "text"), EXAMPLES)
def test_an_example_of_the_page_is_one_problem_with_its_solutions(
    tmp_path: Path, name: str, text: str
) -> None:
    """All examples are solutions of one problem, of which there are two."""
    made = plan(tmp_path / name, text)
    reader = made.reader(load_tokens(made.model.path))
    (problem,) = made.problems
    assert (problem.asked, problem.answer, problem.verifier) == ("5 +3 *2", "16", "number")
    (given,) = made.solutions.values()
    spelt = {"".join(map(reader.text, steps)) for steps in given}
    said = {f"{one}\n" for one in (GOOD, BAD) if one[:5] in text}
    assert spelt == said


def test_the_command_reads_every_example_of_the_page(treeward: Command, tmp_path: Path) -> None:
    """Also all in one file, which makes one tree but for the row with an id of its own."""
    for name, text in EXAMPLES:
        (tmp_path / name).write_text(text)
        asked = ("label", tmp_path / name, "--policy", "nano", "--out", tmp_path / "x")
        ran = treeward(*asked, "--dry-run", "--json")
        assert (ran.code, ran.err, json.loads(ran.out)["n_problems"]) == (0, "", 1)
    named = {name for names in NAMES.values() for name in names}
    assert {*re.findall(r"`([a-z_.]+)`", SECTION)} >= named


@pytest.mark.parametrize("line", [line for rows in ROWS for line in rows.splitlines()])
def test_an_example_says_the_same_in_parquet(tmp_path: Path, line: str) -> None:
    """Beside columns that other rows have, and this one does not: null says nothing."""
    row = json.loads(line)
    path = tmp_path / "s.parquet"
    pq.write_table(pa.Table.from_pylist([{**dict.fromkeys(COLUMNS), **row}]), path)
    (table,) = read_solutions(path).entries
    (lines,) = read_solutions(written(tmp_path / "s.jsonl", row)).entries
    assert table.layout.solutions == lines.layout.solutions
    assert replace(table.problem, source="") == replace(lines.problem, source="")


def test_a_layout_says_only_what_its_columns_say() -> None:
    layout = read_layout({**ASKED, "solution": "5+3=8\n8*2=16", "output": GOOD, "score": 0.0})
    assert (layout.solutions, layout.right) == ((GOOD,), None)
    assert layout.fields == {**ASKED, "solution": "5+3=8\n8*2=16"}, "an expert's, beside an answer"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({**ASKED, "steps": ["5+3=8"], "completion": "5+3=9"}, "steps and completion say differ"),
        ({**ASKED, "completion": GOOD, "responses": [GOOD, BAD]}, "completion and responses say"),
        ({**ASKED, "gts": "18", "output": GOOD}, "answer and gts say different things, '16' and '"),
        ({**ASKED, "input": "7 -2", "output": GOOD}, "prompt and input say different things"),
        (
            {"instruction": "Add these.", "input": "5 and 3", "output": "8", "answer": "8"},
            "input and instruction say different things",
        ),
        (
            {**ASKED, "completion": [{"role": "user", "content": GOOD}]},
            "completion must be a text, or one message of the assistant,",
        ),
        ({**ASKED, "responses": [GOOD, 5]}, "responses must be a text"),
        ({**ASKED, "responses": ["", ""]}, "responses must be a text"),
        ({**ASKED, "responses": []}, "responses must be a text"),
        (
            {**ASKED, "answer": "5+3=8\n####", "output": GOOD},
            "what answer has behind #### is empty",
        ),
        ({"input": "5", "gts": 5, "output": GOOD, "gts ": 1, "answer": True}, "answer must be"),
        ({"prompt": "5", "output": GOOD, "solution": "The answer is 5."}, "no answer; rollouts"),
        ({"prompt": "5", "output": GOOD, "solution": "5+3=8\n8*2"}, "no answer; rollouts"),
        ({**BENCH, "final_answer_correct": "yes"}, "final_answer_correct must be true or false"),
        (
            {"problem": "5", "responses": [GOOD, BAD], "final_answer_correct": True},
            "final_answer_correct is said of one solution, and responses has 2",
        ),
        (
            {"input": "user\n\n5 +3 *2assistant\n\n", "output": GOOD, "gts": "16"},
            "ends a chat whose question cannot be told from it; give the question as prompt",
        ),
        (
            {"input": "user\n5\nassistant\n<think>\n", "output": GOOD, "gts": "5"},
            "ends a chat whose question cannot be told",
        ),
        ({"input": "user\n5 +3", "output": GOOD, "gts": "8"}, "ends a chat whose question"),
    ],
)
def test_what_contradicts_or_breaks_its_rule_is_refused_in_a_line(
    tmp_path: Path, row: Row, says: str
) -> None:
    file = written(tmp_path / "s.jsonl", {**ASKED, "output": GOOD}, row)
    with pytest.raises(BadInput, match=re.escape(says)) as refused:
        read_solutions(file)
    assert str(refused.value).startswith(f"{file}:2: ")
    assert "\n" not in str(refused.value)
    assert len(read_solutions(file, skip_bad=True).found.skipped) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"completion": "5+3=8\n\n8*2=16 A16"},
        {"responses": [GOOD]},
        {"ground_truth": 16.0, "reward_model": {"ground_truth": "$16$"}},
        {"question": "Solve 5 +3 *2 step by step.", "response": "", "completions": []},
    ],
)
def test_columns_that_say_the_same_do_not_contradict(more: Row) -> None:
    layout = read_layout({**ASKED, "steps": GOOD.split(), **more})
    assert (layout.solutions, layout.fields) == ((tuple(GOOD.split()),), ASKED)


def test_a_chat_that_verl_decoded_is_a_chat_again(tmp_path: Path) -> None:
    asked = "system\nBe brief.\nuser\n5 +3\n*2\nassistant\n8\nuser\nAnd *2?\nassistant\n"
    chat = only(tmp_path, {"input": asked, "output": GOOD, "gts": "16"})
    assert chat.messages is not None
    assert [*map(tuple, chat.messages)] == [
        ("system", "Be brief."),
        ("user", "5 +3\n*2"),
        ("assistant", "8"),
        ("user", "And *2?"),
    ]
    given = {"input": "user\n\n5 +3 *2assistant\n\n", "output": GOOD, "gts": "16"}
    assert only(tmp_path, {**given, "prompt": "5 +3 *2"}).prompt == "5 +3 *2"
    assert only(tmp_path, {**given, "input": "5 +3 *2"}).messages is None


@pytest.mark.parametrize(
    ("solution", "answer", "expert"),
    [
        ("16", "16", None),
        ("$\\frac{1}{2}$", "$\\frac{1}{2}$", None),
        ("It is \\boxed{16}.", "16", None),
        ("5+3=8\nso \\boxed{16}", "16", ("5+3=8", "so \\boxed{16}")),
    ],
)
def test_the_solution_of_trl_is_the_reference(
    tmp_path: Path, solution: str, answer: str, expert: tuple[str, ...] | None
) -> None:
    problem = only(tmp_path, {"prompt": "5", "completion": GOOD, "solution": solution})
    assert (problem.answer, problem.solution) == (answer, expert)


def test_rows_of_processbench_share_the_answer_of_a_right_one(tmp_path: Path) -> None:
    """A box, the template's mark before it, and an answer that the file states before both."""
    wrong = {**BENCH, "id": "x-1", "steps": ["5+3=9", "A18"], "final_answer_correct": False}
    other = {**wrong, "problem": "1 +2"}
    file = written(tmp_path / "s.jsonl", wrong, BENCH, other)
    read = read_solutions(file, skip_bad=True)
    assert not read.complete
    with pytest.raises(BadInput, match=r"s\.jsonl:3: no answer: no solution .* column answer"):
        with_references(file, read, TEMPLATES["chat"].answer_in)
    found = with_references(file, read, TEMPLATES["chat"].answer_in, skip_bad=True)
    (problem,) = found.found.problems
    assert (problem.answer, problem.verifier, len(found.found.skipped)) == ("16", "number", 1)
    assert [solution.where for solution in found.solutions[problem.id]] == [
        f"{file}:1",
        f"{file}:2",
    ]
    marked = {**BENCH, "steps": ["Answer: 16.0", "\\boxed{7}"]}
    for rows, answer in (([marked], "16.0"), ([marked, BENCH], "16"), ([BENCH, marked], "16")):
        read = read_solutions(written(file, *rows, {**wrong, "verifier": "number"}), skip_bad=True)
        settled = with_references(file, read, TEMPLATES["steps"].answer_in, skip_bad=True)
        assert {each.answer for each in settled.found.problems} == {answer}
    read = read_solutions(written(file, {**wrong, "answer": "17"}, BENCH))
    (problem,) = with_references(file, read, TEMPLATES["chat"].answer_in).found.problems
    assert problem.answer == "17"
    read = read_solutions(written(file, BENCH, {**BENCH, "steps": ["\\boxed{17}"]}))
    with pytest.raises(BadInput, match="of its problem the file has 16 and 17; give a column"):
        with_references(file, read, TEMPLATES["chat"].answer_in)


def test_rows_without_a_reference_are_left_out_and_counted(
    treeward: Command, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in ROWS[-1].splitlines()]
    odd = {**rows[1], "problem": "1 +2"}
    asked = ("--policy", "nano", "--out", tmp_path / "x", "--dry-run", "--json")
    file = written(tmp_path / "s.jsonl", odd, *rows)
    refused = treeward("label", file, *asked)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert f"{file}:1: no answer: " in refused.err
    ran = treeward("label", file, *asked, "--skip-bad")
    assert (ran.code, json.loads(ran.out)["n_problems"]) == (0, 1)
    assert ran.err.startswith(f"left out: {file}:1: no answer: ")
    assert ran.err.count("\n") == 1
    alone = treeward("label", written(file, odd), *asked, "--skip-bad")
    assert (alone.code, "every row is bad, the first: " in alone.err) == (2, True)


def test_text_that_is_no_block_is_refused_with_the_layout(tmp_path: Path) -> None:
    file = tmp_path / "s.txt"
    file.write_bytes(TEXT.replace("\n", "\r\n").encode() + b"---\r\n\r\n---\r\n5+3=8\r\nA8\r\n")
    found = read_solutions(file, skip_bad=True)
    assert [solution.text for solution in found.entries[1].solutions] == [BAD + "\n\n"]
    (why,) = found.found.skipped
    assert why.startswith(f"{file}:17: a text must have question: ..., answer: ... and solution:")
    question = "How many?\nanswer: with care"
    block = f"question: {question}\nanswer: 16\nsolution: 5+3=8\n\nA16"
    assert block_fields(block) == {
        "prompt": question,
        "answer": "16",
        "completion": "5+3=8\n\nA16\n\n",
    }
    with pytest.raises(BadInput, match="another question: begins within its solution"):
        block_fields(f"{block}\n{block}")
    file.write_bytes(b"question: \xff")
    with pytest.raises(BadInput, match="invalid UTF-8 at byte 10; save it as UTF-8"):
        read_solutions(file)

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treeward import generate, open_run
from treeward.search.errors import BadInput
from treeward.search.models import resolve_model
from treeward.search.policy import Draw
from treeward.search.problem import Problem
from treeward.search.reader import Reader
from treeward.search.steps import Finish
from treeward.search.templates import load_template
from treeward.search.tokens import load_tokens
from treeward.search.verdicts import Judgement, Reason
from treeward.train.rlvr import Rlvr, RlvrSettings, read_rlvr, train_rlvr
from treeward.train.spans import Span
from treeward.train.stored_values import StoredValues, read_stored_values

NANO = resolve_model("nano", Path("unused")).path
TOKENS = load_tokens(NANO)
READER = Reader(load_template("nano"), TOKENS)
PROBLEM = Problem(id="p", prompt="12 *3 -4", answer="32")


class Exact:
    """Compares texts; answers of one digit are beyond it."""

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        if answer is None:
            return Judgement(Reason.NO_ANSWER)
        if len(answer) == 1:
            return Judgement(Reason.CHECKER_LIMIT, answer)
        return Judgement(Reason.MATCH if answer == problem.answer else Reason.MISMATCH, answer)


def environment(stored: StoredValues | None = None, **changes: Any) -> Rlvr:
    return Rlvr([PROBLEM], READER, Exact(), RlvrSettings(**changes), stored)


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENS.encode(text))


def draws(*texts: str, finish: Finish = Finish.END) -> list[Draw]:
    return [Draw(ids(text), 0.0, finish) for text in texts]


def test_only_a_right_answer_in_time_is_rewarded_and_unknown_is_no_number() -> None:
    ended = draws("12*3=36\n36-4=32\nA32\n", "A33\n", "A\n", "12*3=36\n", "A3\n")
    cut_short = draws("12*3=36\n36-4=32\nA32", finish=Finish.LENGTH)
    grades = environment().grade(0, ended + cut_short)
    assert grades.rewards == (1.0, 0.0, 0.0, 0.0, None, 0.0)
    assert grades.shares == {"completions/no_answer_ratio": 2 / 6}
    assert grades.steps == ()


def stored(**values: float) -> StoredValues:
    """Values of prefixes, given as their texts with `_` for the line's end."""
    known = {ids(text.replace("_", "\n")): value for text, value in values.items()}
    return StoredValues(values={"p": known}, cut=READER.cut, fingerprint="f")


def test_steps_that_a_tree_knows_bring_value_differences() -> None:
    values = stored(**{"": 0.5, "12*3=36_": 0.75, "12*3=35_": 0.125, "12*3=36_36-4=32_": 1.0})
    texts = ("12*3=36\n36-4=32\nA32\n", "12*3=35\n35-4=31\nA31\n", "12*3=30\nA30\n")
    grades = environment(values, step_weight=2.0).grade(0, draws(*texts))
    assert grades.steps == (
        (Span(0, 8, 0.25, "step"), Span(8, 16, 0.25, "step")),
        (Span(0, 8, -0.375, "step"),),
        (),
    )
    assert grades.step_weight == 2.0
    assert grades.shares["steps/known_ratio"] == pytest.approx(3 / 8)


def test_nothing_is_known_below_a_prefix_that_the_tree_lacks() -> None:
    """A gap stays a gap: no difference is made up across it."""
    values = stored(**{"": 0.5, "12*3=36_36-4=32_": 1.0})
    (spans,) = environment(values).grade(0, draws("12*3=36\n36-4=32\nA32\n")).steps
    assert spans == ()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rlvr") / "run"
    assignments = ("search.simulations=3", "search.rollouts=4")
    generate("task:arithmetic?n=4&seed=3", folder, assignments=assignments)
    return folder


def test_stored_values_are_those_of_the_nodes(run: Path) -> None:
    found = read_stored_values(run, load_template("nano"), TOKENS).values
    nodes = open_run(run).sql("SELECT problem_id, path, node_id, tree_id, value_tree FROM nodes")
    own = open_run(run).sql("SELECT tree_id, node_id, token_ids FROM nodes").to_pylist()
    ids_of = {(row["tree_id"], row["node_id"]): row["token_ids"] for row in own}
    checked = 0
    for row in nodes.to_pylist():
        prefix = tuple(t for node in row["path"] for t in ids_of[row["tree_id"], node])
        if row["value_tree"] is not None:
            assert found[row["problem_id"]][prefix] == row["value_tree"]
            checked += 1
    assert checked > 10


class Shifted:
    """Tokens in which every id stands for another character."""

    def __init__(self) -> None:
        self.pieces: Sequence[bytes] = TOKENS.pieces

    def text_of(self, token_ids: Sequence[int]) -> str:
        return TOKENS.text_of([(token + 1) % len(self.pieces) for token in token_ids])


def test_trees_of_another_tokenizer_are_refused(run: Path) -> None:
    other: Any = Shifted()
    with pytest.raises(BadInput, match="its tokens are not this model's"):
        read_stored_values(run, load_template("nano"), other)


def test_trees_of_other_prompts_are_refused(run: Path, tmp_path: Path) -> None:
    """Values are of what the policy was asked; steps of one's own change nothing in that."""
    other = dataclasses.replace(load_template("nano"), question="{prompt}\n\n")
    with pytest.raises(BadInput, match=r"put by the template 'nano', .*; set train\.template"):
        read_stored_values(run, other, TOKENS)
    steps = ("prompt.steps=tokens", "prompt.step_tokens=4", "search.simulations=1")
    generate("task:arithmetic?n=1&seed=3", tmp_path / "steps", assignments=steps)
    assert read_stored_values(tmp_path / "steps", load_template("nano"), TOKENS).values
    with pytest.raises(BadInput, match=r"put by the template 'nano', .*; set train\.template"):
        read_stored_values(tmp_path / "steps", other, TOKENS)


def test_solutions_are_cut_as_the_run_cut_its_own(tmp_path: Path) -> None:
    """Every step on the way to a node of the run is known, whatever a step is there."""
    steps = ("prompt.steps=tokens", "prompt.step_tokens=4", "search.simulations=2")
    grown = generate("task:arithmetic?n=1&seed=3", tmp_path / "steps", assignments=steps)
    found = read_stored_values(tmp_path / "steps", load_template("nano"), TOKENS)
    (problem,) = found.values
    sql = "SELECT node_id, path, token_ids, value_tree FROM nodes"
    nodes = {row["node_id"]: row for row in grown.sql(sql).to_pylist()}
    checked = 0
    for row in nodes.values():
        way = [nodes[at] for at in row["path"] if nodes[at]["token_ids"]]
        if all(at["value_tree"] is not None for at in way):
            solution = tuple(token for at in way for token in at["token_ids"])
            cut = found.cut(solution)
            assert [list(step) for step in cut] == [at["token_ids"] for at in way]
            assert len(found.differences(problem, cut)) == len(way)
            checked += len(way) > 1
    assert checked


def test_rows_that_repeat_a_problem_are_drawn_for_on_their_own() -> None:
    other = Problem(id="q", prompt="1 +2", answer="3")
    world = Rlvr([PROBLEM, other, PROBLEM, PROBLEM], READER, Exact(), RlvrSettings(), None)
    ids_of = [prompt.id for prompt in world.prompts]
    assert ids_of[:2] == ["p", "q"]
    assert len(set(ids_of)) == 4
    assert world.prompts[2].prompt_ids == world.prompts[0].prompt_ids


def test_trees_of_other_problems_are_refused(run: Path, tmp_path: Path) -> None:
    data, other = tmp_path / "rlvr", tmp_path / "other"
    open_run(run).export("rlvr", data)
    quick = ("search.simulations=1", "search.rollouts=1")
    generate("task:arithmetic?n=1&seed=99", other, assignments=quick)
    arguments = (data, NANO, tmp_path / "out", RlvrSettings())
    with pytest.raises(
        BadInput, match=r"other: it has values for none of the 4 problems of .*rlvr"
    ):
        train_rlvr(*arguments, trees=other, resume=False, progress=print)
    assert not (tmp_path / "out").exists()


def test_a_raised_limit_holds_for_one_long_step_too() -> None:
    template = load_template("nano")
    assert template.max_step_tokens == 24
    limits = [
        (each.sampling.max_step_tokens, each.sampling.max_rollout_tokens)
        for each in (
            environment(stored()),
            environment(stored(), max_completion_length=200),
            environment(stored(), max_completion_length=10),
        )
    ]
    assert limits == [(24, 96), (200, 200), (24, 10)]


def test_problems_come_back_from_the_dataset(run: Path, tmp_path: Path) -> None:
    report = open_run(run).export("rlvr", tmp_path / "data")
    assert report is not None
    problems = read_rlvr(tmp_path / "data")
    rows = open_run(run).sql("SELECT problem_id, prompt, answer FROM trees").to_pylist()
    expected = {(row["problem_id"], row["prompt"], row["answer"]) for row in rows}
    assert {(p.id, p.prompt, p.answer) for p in problems} == expected
    assert all(problem.verifier == "number" for problem in problems)


def test_a_row_that_is_no_problem_is_named(run: Path, tmp_path: Path) -> None:
    open_run(run).export("rlvr", tmp_path / "data")
    (path,) = (tmp_path / "data").rglob("*.parquet")
    table = pq.read_table(path)
    nullable = pa.schema([field.with_nullable(True) for field in table.schema])
    for column, value, message in (
        ("info", "{", r"row 0: "),
        ("info", None, r"row 0: info is null"),
        ("info", "[" * 100_000, r"row 0: "),
        ("info", 5, r"row 0: info must be a text, got 5"),
        ("info", "[]", r"row 0: info must be the JSON text of an object"),
        ("prompt", [], r"row 0: "),
        ("prompt", None, r"row 0: prompt is null"),
        ("dataset", "no-such", r"row 0: .*no-such"),
    ):
        changed = table.to_pylist()
        changed[0][column] = value
        schema = nullable
        if isinstance(value, int):
            changed = [row | {column: value} for row in changed]
            place = nullable.get_field_index(column)
            schema = nullable.set(place, pa.field(column, pa.int64()))
        pq.write_table(table.from_pylist(changed, schema=schema), tmp_path / "bad.parquet")
        with pytest.raises(BadInput, match=message):
            read_rlvr(tmp_path / "bad.parquet")


def test_the_digest_knows_prompts_answers_and_trees() -> None:
    digests = {str(environment().about), str(environment(stored(**{"": 0.5})).about)}
    other = Problem(id="p", prompt="12 *3 -4", answer="33")
    digests.add(str(Rlvr([other], READER, Exact(), RlvrSettings(), None).about))
    task = Problem(id="p", prompt="12 *3 -4", answer="32", metadata='{"seed":1}')
    digests.add(str(Rlvr([task], READER, Exact(), RlvrSettings(), None).about))
    assert len(digests) == 4

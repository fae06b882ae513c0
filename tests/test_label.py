"""`treeward label`: given solutions become paths, and what is found of them is evidence as ever."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from treeward.export.label_plan import plan_label
from treeward.export.options import Options
from treeward.export.solutions import Solution, encode, read_solutions
from treeward.search.errors import BadInput
from treeward.search.given import Given, GivenSettings, label_given
from treeward.search.policy import PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.settings import SearchSettings
from treeward.search.steps import Finish, StepRule
from treeward.search.tokens import byte_tokens, load_tokens
from treeward.search.tree import Tree
from treeward.search.verdicts import Judgement, Reason

Command = Callable[..., Any]

RIGHT = {"prompt": "5 +3 *2", "answer": "16", "steps": ["5+3=8", "8*2=16", "A16"]}
WRONG = {"prompt": "5 +3 *2", "answer": "16", "completion": "5+3=9\n9*2=18\nA18\n"}
OPEN = {"prompt": "7 -2 +4", "answer": "9", "response": "7-2=5\n"}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_solutions_of_a_problem_share_a_tree_and_are_no_samples(
    treeward: Command, tmp_path: Path
) -> None:
    """Three rows, two problems; the solution without an answer goes on as a prefix."""
    file, out = write(tmp_path / "s.jsonl", RIGHT, WRONG, OPEN), tmp_path / "run"
    ran = treeward("label", file, "--policy", "nano", "--out", out, "--json")
    assert ran.code == 0
    assert treeward("verify", out).code == 0
    sql = (
        "SELECT t.prompt, n.step_text, n.n_samples, n.prior, n.verdict, n.n_rollouts, t.search "
        "FROM nodes n JOIN trees t USING (tree_id) WHERE depth > 0 ORDER BY t.prompt, pre"
    )
    rows = json.loads(treeward("query", out, sql, "--json").out)
    assert [(row["prompt"], row["step_text"].strip(), row["verdict"]) for row in rows] == [
        ("5 +3 *2", "5+3=8", None),
        ("5 +3 *2", "8*2=16", None),
        ("5 +3 *2", "A16", "right"),
        ("5 +3 *2", "5+3=9", None),
        ("5 +3 *2", "9*2=18", None),
        ("5 +3 *2", "A18", "wrong"),
        ("7 -2 +4", "7-2=5", None),
    ]
    assert {(row["n_samples"], row["prior"], row["search"]) for row in rows} == {(0, None, "given")}
    again = treeward("label", file, "--policy", "nano", "--out", out, "--json")
    assert json.loads(again.out)["grown"] == 0


def test_the_policy_says_how_likely_given_steps_are(treeward: Command, tmp_path: Path) -> None:
    """The same numbers that it has for steps that it draws itself."""
    problems = tmp_path / "p.jsonl"
    write(problems, {"prompt": "5 +3 *2", "answer": "16"})
    drawn, out = tmp_path / "drawn", tmp_path / "run"
    options = ("--search", "rollouts", "--set", "search.width=8", "--set", "search.rollouts=1")
    assert treeward("generate", problems, "--policy", "nano", "--out", drawn, *options).code == 0
    solutions = write(tmp_path / "s.jsonl", RIGHT)
    assert treeward("label", solutions, "--policy", "nano", "--out", out).code == 0
    sql = "SELECT step_text, logprob FROM nodes WHERE depth > 0 ORDER BY depth, step_text"
    said, heard = (
        {row["step_text"]: row["logprob"] for row in json.loads(ran.out)}
        for ran in (treeward("query", run, sql, "--json") for run in (drawn, out))
    )
    common = said.keys() & heard.keys()
    assert len(common) == 3
    assert [heard[step] for step in common] == pytest.approx([said[step] for step in common], 1e-3)
    sql = (
        "SELECT (SELECT sum(policy_tokens) FROM trees)::INT AS drawn, "
        "(SELECT sum(prompt_tokens) FROM trees)::INT AS read, "
        "(SELECT sum(n_tokens) FROM rollouts)::INT AS of_rollouts, "
        "(SELECT sum(n_tokens) FROM nodes)::INT AS given"
    )
    (cost,) = json.loads(treeward("query", out, sql, "--json").out)
    assert cost["drawn"] == cost["of_rollouts"]
    assert cost["read"] > cost["given"] > 0


def test_reading_what_is_given_costs_nothing_of_a_budget(treeward: Command, tmp_path: Path) -> None:
    file, out = write(tmp_path / "s.jsonl", RIGHT, WRONG), tmp_path / "run"
    options = ("--policy", "nano", "--out", out, "--budget-tokens", "1")
    assert treeward("label", file, *options).code == 0
    sql = "SELECT count(*) AS nodes, count(logprob) AS heard, sum(n_rollouts)::INT AS n FROM nodes"
    (found,) = json.loads(treeward("query", out, sql, "--json").out)
    assert found == {"nodes": 7, "heard": 6, "n": 0}


def test_the_first_error_is_found_and_exported(treeward: Command, tmp_path: Path) -> None:
    """5+3=9 is an error that no rollout recovers from."""
    out, data = tmp_path / "run", tmp_path / "prm"
    file = write(tmp_path / "s.jsonl", RIGHT, WRONG)
    assert treeward("label", file, "--policy", "nano", "--out", out).code == 0
    assert treeward("export", out, "prm", "--rule", "posterior", "--out", data).code == 0
    rows = pq.read_table(data / "data" / "train.parquet").to_pylist()
    found = {tuple(row["completions"]): row for row in rows}
    assert found["5+3=8", "8*2=16", "A16"]["first_error"] == -1
    assert found["5+3=9",]["first_error"] == 0
    assert found["5+3=9",]["right_chances"][0] < 0.4


def test_no_step_is_right_from_the_prior_alone(treeward: Command, tmp_path: Path) -> None:
    """One step is likely right before anything is asked, and this one is wrong."""
    out, data = tmp_path / "run", tmp_path / "prm"
    file = write(tmp_path / "s.jsonl", {**OPEN, "response": "7-2=6\n"})
    assert treeward("label", file, "--policy", "nano", "--out", out).code == 0
    assert treeward("export", out, "prm", "--rule", "posterior", "--out", data).code == 0
    (row,) = pq.read_table(data / "data" / "train.parquet").to_pylist()
    assert (row["completions"], row["labels"]) == (["7-2=6"], [False])
    assert row["n_rollouts"][-1] > 0


def test_other_solutions_are_another_run(treeward: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = write(tmp_path / "a.jsonl", RIGHT)
    assert treeward("label", first, "--policy", "nano", "--out", out).code == 0
    second = write(tmp_path / "b.jsonl", {**RIGHT, "steps": WRONG["completion"].split()})
    ran = treeward("label", second, "--policy", "nano", "--out", out)
    assert ran.code == 3
    assert "given.solutions" in ran.err


def test_a_dry_run_bounds_the_cost(treeward: Command, tmp_path: Path) -> None:
    """A rollout a problem, and 32 a solution at most: 2 + 3 * 32 rounded up by tree."""
    file = write(tmp_path / "s.jsonl", RIGHT, WRONG, OPEN)
    ran = treeward(
        "label", file, "--policy", "nano", "--out", tmp_path / "x", "--dry-run", "--json"
    )
    assert json.loads(ran.out)["max_nodes"] == 1 + 3 + 3, "those of the first problem"
    assert json.loads(ran.out)["max_rollouts"] == 2 * (1 + 48)
    assert json.loads(ran.out)["max_calls"] == 2 * (1 + 50), "and a look at each solution"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("settings", "of_the_root"),
    [
        ((), 1),
        (("given.rollouts=3",), 3),
        (("given.rollouts=0",), 0),
        (("given.localiser=binary", "search.rollouts=5"), 1),
    ],
)
def test_the_bare_problem_has_rollouts_of_its_own(
    settings: tuple[str, ...], of_the_root: int, treeward: Command, tmp_path: Path
) -> None:
    file = write(tmp_path / "s.jsonl", RIGHT)
    given = [word for each in settings for word in ("--set", each)]
    asked = ("label", file, "--policy", "nano", "--out", tmp_path / "run", *given)
    assert treeward(*asked).code == 0
    sql = "SELECT n_rollouts FROM nodes WHERE depth = 0"
    (root,) = json.loads(treeward("query", tmp_path / "run", sql, "--json").out)
    assert root == {"n_rollouts": of_the_root}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("search.rollouts=9",), r"given\.localiser=binary \(those from the bare problem are"),
        (("given.localiser=binary", "search.rollouts=0"), "must be at least 1 for given.localiser"),
        (("given.rollouts=-1",), r"given\.rollouts must be at least 0, got -1"),
    ],
)
def test_rollouts_that_nothing_reads_are_refused(
    settings: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    file = write(tmp_path / "s.jsonl", RIGHT)
    with pytest.raises(BadInput, match=says):
        plan_label(Options(problems=str(file), policy="nano", assignments=settings))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "1 +2", "answer": "3"}, "no solution; give it as"),
        ({"prompt": "1 +2", "steps": ["1+2=3"]}, "no answer; rollouts cannot be judged"),
        ({"prompt": "1 +2", "answer": "3", "steps": []}, "steps must be a list of texts"),
        ({"prompt": "1 +2", "answer": "3", "completion": 7}, "completion must be a text"),
        ({"prompt": "1 +2", "answer": "3", "steps": ["x=y"]}, "the policy's tokens cannot spell"),
        ({"prompt": "1 +2", "answer": "3", "steps": ["1+2=3"] * 30}, "raise policy.max_rollout"),
        (
            {"prompt": "1 +2", "answer": "3", "completions": ["1+2=3\nA3", "1+2=4"]},
            "a row of its own",
        ),
    ],
)
def test_a_bad_row_is_named_with_its_rule(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    file = write(tmp_path / "s.jsonl", RIGHT, row)
    with pytest.raises(BadInput, match=says) as refused:
        plan_label(Options(problems=str(file), policy="nano"))
    assert str(refused.value).startswith(f"{file}:2: ")


def test_bad_rows_can_be_left_out_and_one_id_is_one_problem(tmp_path: Path) -> None:
    other = {"id": "p", "prompt": "1 +2", "answer": "3", "steps": ["1+2=3"]}
    file = write(tmp_path / "s.jsonl", {**RIGHT, "id": "p"}, other, {"prompt": "?"})
    with pytest.raises(BadInput, match="another problem too, which differs in prompt, answer"):
        read_solutions(file)
    found = read_solutions(file, skip_bad=True)
    assert [problem.prompt for problem in found.found.problems] == ["5 +3 *2"]
    assert len(found.found.skipped) == 2


def test_steps_that_become_one_line_are_counted(treeward: Command, tmp_path: Path) -> None:
    """Blank lines at a step's ends are none of it; solutions that are left out do not count."""
    rows: list[dict[str, Any]] = [
        {**RIGHT, "steps": ["5\n+3=8", "8*2=16", "A16"]},
        {**RIGHT, "steps": ["\n5+3=8\n", "8*2=16\n\n", "A16"]},
        WRONG,
        {**RIGHT, "steps": ["x\ny"]},
    ]
    path = write(tmp_path / "s.jsonl", *rows[1:3])
    assert plan_label(Options(problems=str(path), policy="nano")).warnings == ()
    write(path, *rows)
    asked = ("label", path, "--policy", "nano", "--skip-bad", "--out", tmp_path / "x", "--dry-run")
    ran = treeward(*asked)
    assert ran.code == 0, ran.err
    assert "left out: " in ran.err
    assert [line for line in ran.err.splitlines() if "given steps" in line] == [
        "1 given steps have '\\n' inside, which ends a step here, so a space stands there now; "
        "give each part as a step of its own, or set prompt.steps=paragraph"
    ]
    assert "given steps" not in treeward(*asked, "--set", "prompt.steps=paragraph").err


def test_a_step_in_which_a_solution_was_cut_off_is_left_out_and_said(
    treeward: Command, tmp_path: Path
) -> None:
    """What ends with the delimiter or an answer is finished, and so are steps of a list."""
    ends = ["5+3=8\n8*", "5+3=8\n8*2=16\n", "5+3=9\n9*2=18\nA18", "5+", " "]
    row = {"prompt": "5 +3 *2", "answer": "5+3=8, 8*2=16\n#### 16"}
    file = write(tmp_path / "s.jsonl", {**row, "responses": ends}, {**row, "steps": ["5+3=8"]})
    with pytest.raises(BadInput, match=r"solution 4: no finished step in '5\+'; a step ends with"):
        plan_label(Options(problems=str(file), policy="nano"))
    plan = plan_label(Options(problems=str(file), policy="nano", skip_bad=True))
    assert [reason.partition(": no ")[0] for reason in plan.skipped] == [
        f"{file}:1, solution 4",
        f"{file}:1, solution 5",
    ]
    assert [problem.answer for problem in plan.problems] == ["16"]
    (given,) = plan.solutions.values()
    assert [len(steps) for steps in given] == [1, 2, 3]
    ran = treeward(
        "label", file, "--policy", "nano", "--skip-bad", "--dry-run", "--out", tmp_path / "x"
    )
    assert "1 given solutions stop in mid-step (no answer, and no '\\n' at the end)" in ran.err


def test_lists_that_another_rule_for_steps_cuts_are_counted(tmp_path: Path) -> None:
    """Carriage returns are no part of a step."""
    path = write(tmp_path / "s.jsonl", {**RIGHT, "steps": ["5+3=8\r\n", "8*2=16", "A16"]})
    plan = plan_label(Options(problems=str(path), policy="nano"))
    assert plan.warnings == ()
    assert [len(steps) for given in plan.solutions.values() for steps in given] == [3]
    other = ("prompt.steps=tokens", "prompt.step_tokens=4")
    plan = plan_label(Options(problems=str(path), policy="nano", assignments=other))
    (said,) = plan.warnings
    assert said.startswith("1 given lists of steps are cut elsewhere by the rule for steps")


def test_solutions_that_cannot_be_read_are_left_out_too(tmp_path: Path) -> None:
    """The second row is too long, and the problem of the third is left without a solution."""
    bad: list[dict[str, Any]] = [{**RIGHT, "steps": ["5+3=8"] * 30}, {**OPEN, "response": "x=y"}]
    file = write(tmp_path / "s.jsonl", RIGHT, *bad)
    options = Options(problems=str(file), policy="nano", skip_bad=True)
    plan = plan_label(options)
    assert [problem.prompt for problem in plan.problems] == ["5 +3 *2"]
    assert [reason.split(": ")[0] for reason in plan.skipped] == [f"{file}:2", f"{file}:3"]
    assert [len(given) for given in plan.solutions.values()] == [1]
    write(file, *bad, RIGHT, {**OPEN, "id": "never looked at", "response": "x=y"})
    first = plan_label(replace(options, limit=1))
    assert [problem.prompt for problem in first.problems] == ["5 +3 *2"]
    assert len(first.skipped) == 1
    write(file, *bad)
    with pytest.raises(BadInput, match=r"every row is bad, the first: .*raise policy"):
        plan_label(options)


def test_given_solutions_are_not_said_to_be_the_policy_s(treeward: Command, tmp_path: Path) -> None:
    """The card and ProcessBench's rows leave open who wrote them; an open end is counted."""
    out, data = tmp_path / "run", tmp_path / "bench"
    file = write(tmp_path / "s.jsonl", RIGHT, WRONG, OPEN)
    assert treeward("label", file, "--policy", "nano", "--out", out).code == 0
    asked = ("prm", "--format", "processbench", "--rule", "posterior", "--out", data)
    assert treeward("export", out, *asked).code == 0
    rows = [json.loads(line) for line in (data / "data" / "train.jsonl").read_text().splitlines()]
    assert {row["generator"] for row in rows} == {None}
    card = (data / "README.md").read_text()
    assert "paths without a final answer: 1" in card
    assert "Steps and solutions: given, by whom is not known; `nano` went on from them." in card


def test_a_search_of_that_kind_needs_solutions(treeward: Command, tmp_path: Path) -> None:
    asked = ("--set", "search.algorithm=given")
    ran = treeward("generate", "task:arithmetic?n=2", "--out", tmp_path / "x", *asked)
    assert ran.code == 2
    assert "treeward label" in ran.err


def test_a_solution_without_an_answer_needs_room_to_go_on(tmp_path: Path) -> None:
    """With an answer, its last step needs none; 7-2=5 and its line's end are six tokens."""
    ended = {**OPEN, "response": None, "steps": ["7-2=5", "A5"]}
    for row, room, fits in ((OPEN, 6, False), (OPEN, 7, True), (ended, 6, False), (ended, 7, True)):
        file = write(tmp_path / "s.jsonl", row)
        sizes = (f"policy.max_rollout_tokens={room}", "policy.max_step_tokens=6")
        options = Options(problems=str(file), policy="nano", assignments=sizes)
        if fits:
            assert plan_label(options).solutions
        else:
            with pytest.raises(BadInput, match=r"raise policy\.max_rollout_tokens"):
                plan_label(options)


def test_a_solution_that_the_model_cannot_read_to_its_end_is_a_bad_row(tmp_path: Path) -> None:
    """The steps before its answer leave room to go on; prompt and whole and one more must fit."""
    shortest = {**RIGHT, "prompt": "5", "answer": "5", "steps": ["A5"]}
    plan = plan_label(Options(problems=str(write(tmp_path / "s.jsonl", RIGHT)), policy="nano"))
    reader = plan.reader(load_tokens(plan.model.path))
    context = json.loads((plan.model.path / "config.json").read_text())["max_position_embeddings"]
    digits = context - len(reader.prompt_ids(plan.problems[0])) - len("5+3=8\n8*2=16\nA\n") - 1
    for more in (0, 1):
        long = {**RIGHT, "steps": [*RIGHT["steps"][:2], "A" + "1" * (digits + more)]}
        file = write(tmp_path / "s.jsonl", shortest, long)
        options = Options(problems=str(file), policy="nano", skip_bad=True)
        left_out = plan_label(options).skipped
        assert len(left_out) == more
        if more:
            assert re.fullmatch(
                rf"{re.escape(str(file))}:2: the solution has (\d+) tokens, and behind its prompt "
                r"the model reads at most \d+; shorten it, or take a model that reads more",
                left_out[0],
            )


def test_a_solution_that_goes_on_from_another_gives_the_same_rows_in_either_order(
    treeward: Command, tmp_path: Path
) -> None:
    """What another solution goes on from is a step, and is judged as one."""
    longer = {**RIGHT, "steps": [*RIGHT["steps"], "16+1=17", "A17"]}
    shared = ["5+3=8", "8*2=16", "A16"]
    found = []
    for place, rows in enumerate(((RIGHT, longer, WRONG), (WRONG, RIGHT, longer, RIGHT))):
        file, out = write(tmp_path / f"{place}.jsonl", *rows), tmp_path / str(place)
        ran = treeward("label", file, "--policy", "nano", "--out", out)
        assert ran.code == 0, ran.err
        sql = "FROM nodes ORDER BY node_id"
        found.append(json.loads(treeward("query", out, sql, "--json").out))
    assert found[0] == found[1]
    steps = {row["step_text"].strip(): row["verdict"] for row in found[0]}
    assert [steps[step] for step in shared] == [None, None, None]
    assert (steps["A17"], steps["A18"]) == ("wrong", "wrong")


def test_a_solution_that_an_end_token_ends_is_spelt_with_it() -> None:
    """As the policy would have written it: no delimiter, and the lowest end token."""
    rule = StepRule(delimiter="\n\n", answer_ends=False)
    reader = Reader(Template(name="test", rule=rule), byte_tokens())
    end = "Answer: 1"
    texts: list[str | tuple[str, ...]] = [
        f"x\n\n{end}\n\n",
        f"x\n\n{end}",
        ("x\n", f"\n{end}\n\n"),
    ]
    for text in texts:
        steps = encode(Solution(where="here", text=text), reader, PolicySettings(), places=None)
        assert steps == (tuple(b"x\n\n"), (*end.encode(), 256))
    open_ended = encode(
        Solution(where="here", text="x\n\ny\n\n"), reader, PolicySettings(), places=None
    )
    assert open_ended == (tuple(b"x\n\n"), tuple(b"y\n\n"))


def test_what_one_failed_call_leaves_open_another_may_tell() -> None:
    """Two solutions begin alike; a third is no more than that, and nobody asks about it."""
    tree, judgement = Tree(Problem(id="p", prompt="?", answer="1")), Judgement(Reason.MISMATCH)
    first, second, third = ((name,) for name in b"abc")
    solutions = [
        Given(steps=(first,), judgement=None),
        Given(steps=(first, second), judgement=judgement),
        Given(steps=(first, third), judgement=judgement),
    ]
    growth = label_given(tree, SearchSettings(), GivenSettings(), lambda ids: [ids], solutions)
    assert [request.steps for request in next(growth)] == [(first, second), (first, third)]
    told = Completion(first + third, -3.0, Finish.END, 0, None, (-1.0, -2.0))
    failure = Failure("timeout", "too slow")
    growth.send([Reply(failure=failure), Reply((told,))])
    assert tree.nodes.step_ids[1:] == [first, second, third]
    assert tree.nodes.logprob[1:] == [-1.0, None, -2.0]
    assert tree.nodes.failure == [None, None, failure, None]

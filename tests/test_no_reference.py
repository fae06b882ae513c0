"""A problem without a reference answer gives no evidence, whatever a policy writes."""

import json
from pathlib import Path

import pytest

import treeward
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.search.verdicts import Reason


def test_it_is_said_before_anything_is_spent(tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    rows = [{"prompt": "3 + 4", "answer": "7"}, {"prompt": "1 + 2"}]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (warning,) = make_plan(Options(problems=str(problems), policy="nano")).warnings
    assert warning.startswith("1 of 2 problems have no answer")


@pytest.mark.parametrize(
    ("search", "size"), [("mcts", "search.simulations=8"), ("best_of_n", "search.width=16")]
)
def test_solutions_that_are_cut_off_or_say_nothing_are_of_unknown_verdict(
    tmp_path: Path, search: str, size: str
) -> None:
    problems = tmp_path / "problems.jsonl"
    prompt = "3 + 4 + 5 + 6 + 7 + 8 + 9 + 2"
    rows = [{"prompt": prompt}, {"prompt": prompt, "answer": "44", "id": "known"}]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = ("policy.max_rollout_tokens=24", size)
    run = treeward.generate(
        problems, tmp_path / "run", policy="nano", algorithm=search, assignments=sizes
    )
    ends = run.sql(
        "SELECT DISTINCT problem_id = 'known' AS known, verdict_reason, verdict FROM ("
        "SELECT tree_id, verdict_reason, verdict FROM rollouts UNION ALL "
        "SELECT tree_id, verdict_reason, verdict FROM nodes WHERE verdict_reason IS NOT NULL) "
        "JOIN trees USING (tree_id)"
    ).to_pylist()
    assert Reason.LENGTH in {row["verdict_reason"] for row in ends if row["known"]}
    assert [row for row in ends if not row["known"]] == [
        {"known": False, "verdict_reason": Reason.NO_REFERENCE, "verdict": "unknown"}
    ]

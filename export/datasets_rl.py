"""The dataset `rl`: what the policy sampled, with the advantages of its spans.

Every finished solution is a row: the ends of the trees, and the rollouts with the steps above them.
The advantage of a step is what it changed: V(after) - V(before), as in VinePPO (arXiv 2410.01679)
and TreeRL (ACL 2025). V is tree evidence, or strict evidence where there is none, and at the end of
a solution its reward. A step whose value is not known shares a span with the next one that is, so
that the step spans from the first known value to the end always add up to reward - V(first).
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from treeward.export.dataset_spec import (
    COUNT,
    ID,
    MESSAGES,
    PROBLEM_ID,
    REAL,
    TEXT,
    Column,
    Dataset,
    ExportSettings,
    Kind,
    Row,
    Tally,
    asked_of,
    list_of,
    row_id,
    struct_of,
    template_of,
)
from treeward.export.rollout_stream import RolledItem, with_rollouts
from treeward.export.run_folder import RunFolder
from treeward.export.tree_stream import Item
from treeward.search.errors import BadInput
from treeward.search.tree import POLICY_SAMPLER
from treeward.search.verdicts import Verdict

OUTCOME, STEP = "outcome", "step"
"""Sources of advantages, named as the trainers name them."""

Ids = tuple[int, ...]
Node = Mapping[str, Any]

_SPAN = struct_of(start=COUNT, end=COUNT, value=REAL, source=TEXT)
_COLUMNS = (
    ID,
    PROBLEM_ID,
    Column("tree_id", TEXT, "The tree in the run; its rows are a group."),
    Column("messages", MESSAGES, "The problem as a chat."),
    Column("token_ids", list_of(COUNT), "The sampled ids of the whole solution."),
    Column("text", TEXT, "What they say."),
    Column(
        "advantages",
        list_of(_SPAN),
        "Spans [start, end) of `token_ids` that were better than expected by `value`. `outcome` "
        "spans the solution: reward - V(problem). `step` spans: V(after) - V(before).",
    ),
    Column("reward", REAL, "1 where the final answer is right, else 0."),
    Column("verdict_reason", TEXT, "Why: `match`, `mismatch`, `no_answer` or `length`."),
    Column(
        "n_samples",
        COUNT,
        "How often the policy drew it; of ends that share a step, how often it drew the last step.",
    ),
    Column("logprob", REAL, "The log-probability of all ids; null where not known.", optional=True),
    Column("node_ids", list_of(COUNT), "The nodes that it passes, from the first step on."),
)
_PROMPT = Column("prompt", TEXT, "What the policy read, worked examples included.")
_SAYS = (
    "A row is a solution that the run's policy sampled to its end, as token ids of its own "
    "tokenizer. Text is for reading: to train, use the ids and never tokenise again.",
    "Spans overlap: take `outcome`, or `step`, or a weighted sum, and add up the values at "
    "each token. Values are raw differences of probabilities, not yet scaled by a group. "
    "The value that a solution is compared with was estimated from samples that it may be "
    "one of, which draws both together a little.",
    "Solutions of a tree share their first steps. Identical ids are one row; where a "
    "rollout and an end have the same ids they may be one sample, so `n_samples` is the "
    "larger of the two counts.",
)
_NODE_COLUMNS = (
    *("node_id", "parent_id", "path", "step_text", "token_ids", "logprob", "n_samples"),
    *("value", "value_tree", "verdict", "verdict_reason"),
)
_ROLLOUT_COLUMNS = (
    *("node_id", "sampler_id", "token_ids", "text", "logprob", "verdict", "verdict_reason"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Holds one solution as it was found."""

    ids: Ids
    text: str
    nodes: Sequence[Node]
    """The nodes that it passes, from the first step on."""
    logprob: float | None
    verdict: str
    reason: str
    n_samples: int


def rl(run: RunFolder, settings: ExportSettings, tally: Tally) -> Dataset:
    """Returns how the rows are made: one for each solution that the policy sampled.

    Raises:
        BadInput: The run's steps were given and not sampled.
    """
    if run.identity.solutions_are_given:
        raise BadInput(
            f"{run.path}: its steps were given, not sampled by the policy, so they have no "
            "advantages; export prm instead"
        )
    template = template_of(run, settings)

    def rows(item: Item) -> Iterator[Row]:
        assert isinstance(item, RolledItem)
        if item.tree is None:
            tally.left_out["problems without a finished tree"] += 1
            return
        root = item.tree.nodes[0]
        for sample in _samples(item, tally):
            if sample.verdict == Verdict.UNKNOWN:
                tally.left_out["solutions with an unknown verdict"] += 1
                continue
            tally.kept["solutions"] += 1
            reward = float(sample.verdict == Verdict.RIGHT)
            row: Row = {
                "id": row_id(Kind.RL, item.problem.id, sample.ids),
                "problem_id": item.problem.id,
                "tree_id": item.tree.row.tree_id,
                "messages": asked_of(item, template),
                "token_ids": list(sample.ids),
                "text": sample.text,
                "advantages": spans(root, sample.nodes, len(sample.ids), reward),
                "reward": reward,
                "verdict_reason": sample.reason,
                "n_samples": sample.n_samples,
                "logprob": sample.logprob,
                "node_ids": [node["node_id"] for node in sample.nodes],
            }
            if not template.chat:
                row["prompt"] = template.plain_text(item.problem)
            yield row

    return Dataset(
        columns=_COLUMNS if template.chat else (*_COLUMNS, _PROMPT),
        node_columns=_NODE_COLUMNS,
        rows=rows,
        around=lambda items: with_rollouts(items, _ROLLOUT_COLUMNS),
        says=_SAYS,
    )


def value_of(node: Node) -> float | None:
    """Returns tree evidence, or else strict evidence; None without any."""
    value = node["value"] if node["value_tree"] is None else node["value_tree"]
    return None if value is None else float(value)


def spans(root: Node, nodes: Sequence[Node], n_tokens: int, reward: float) -> list[Row]:
    """Returns the advantages of one solution.

    Args:
        root: The problem's node.
        nodes: The nodes that the solution passes, from the first step on.
        n_tokens: The length of the solution.
        reward: Its value at the end.
    """
    found: list[Row] = []
    before, start, end = value_of(root), 0, 0
    if before is not None:
        found.append(_span(0, n_tokens, reward - before, OUTCOME))
    for node in nodes:
        end += len(node["token_ids"])
        after = reward if end == n_tokens else value_of(node)
        if after is None:
            continue
        if before is not None:
            found.append(_span(start, end, after - before, STEP))
        before, start = after, end
    if start < n_tokens and before is not None:
        found.append(_span(start, n_tokens, reward - before, STEP))
    return found


def _span(start: int, end: int, value: float, source: str) -> Row:
    return {"start": start, "end": end, "value": value, "source": source}


def _samples(item: RolledItem, tally: Tally) -> list[_Sample]:
    """Returns a tree's solutions by their ids: ends first, in pre-order, then other rollouts."""
    assert item.tree is not None
    nodes = item.tree.nodes
    ends = {sample.ids: sample for sample in _ends(nodes)}
    rolled: dict[Ids, _Sample] = {}
    for sample in _rollouts(nodes, item.rollouts.to_pylist(), tally):
        known = rolled.get(sample.ids, sample)
        again = sample.ids in rolled
        rolled[sample.ids] = replace(known, n_samples=known.n_samples + again)
    for ids, end in ends.items():
        n_rolled = rolled.pop(ids).n_samples if ids in rolled else 0
        ends[ids] = replace(end, n_samples=max(end.n_samples, n_rolled))
    return [*ends.values(), *rolled.values()]


def _ends(nodes: Sequence[Node]) -> Iterator[_Sample]:
    """Yields the solutions that end in the tree."""
    by_id = {node["node_id"]: node for node in nodes}
    for node in nodes:
        if node["verdict"] is not None:
            path = [by_id[at] for at in node["path"][1:]]
            yield _Sample(
                ids=tuple(token for step in path for token in step["token_ids"]),
                text="".join(step["step_text"] for step in path),
                nodes=path,
                logprob=_sum(step["logprob"] for step in path),
                verdict=node["verdict"],
                reason=node["verdict_reason"],
                n_samples=node["n_samples"],
            )


def _rollouts(nodes: Sequence[Node], rollouts: Sequence[Node], tally: Tally) -> Iterator[_Sample]:
    """Yields the policy's rollouts with the steps above them."""
    by_id = {node["node_id"]: node for node in nodes}
    below: dict[int, list[Node]] = {}
    for node in nodes[1:]:
        below.setdefault(node["parent_id"], []).append(node)
    for rollout in rollouts:
        if rollout["sampler_id"] != POLICY_SAMPLER:
            tally.left_out["rollouts by another sampler"] += 1
        elif rollout["token_ids"] is None:
            tally.left_out["rollouts whose call failed"] += 1
        else:
            above = [by_id[at] for at in by_id[rollout["node_id"]]["path"][1:]]
            ids = tuple(rollout["token_ids"])
            yield _Sample(
                ids=(*(token for step in above for token in step["token_ids"]), *ids),
                text="".join(step["step_text"] for step in above) + rollout["text"],
                nodes=[*above, *_passed(below, rollout["node_id"], ids)],
                logprob=_sum([*(step["logprob"] for step in above), rollout["logprob"]]),
                verdict=rollout["verdict"],
                reason=rollout["verdict_reason"],
                n_samples=1,
            )


def _passed(below: Mapping[int, Sequence[Node]], node_id: int, ids: Ids) -> Iterator[Node]:
    """Yields the nodes below one that a continuation passes; only identical ids are the same."""
    while ids:
        same = [
            child
            for child in below.get(node_id, ())
            if tuple(child["token_ids"]) == ids[: len(child["token_ids"])]
            and (child["verdict"] is None or len(child["token_ids"]) == len(ids))
            and child["token_ids"]
        ]
        if not same:
            return
        step = max(same, key=lambda child: len(child["token_ids"]))
        yield step
        node_id, ids = step["node_id"], ids[len(step["token_ids"]) :]


def _sum(logprobs: Iterable[float | None]) -> float | None:
    """Returns the sum; None where one is not known."""
    found = list(logprobs)
    known = [each for each in found if each is not None]
    return math.fsum(known) if len(known) == len(found) else None

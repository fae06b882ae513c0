"""Turns grown trees into rows: numbers nodes in pre-order and asks the counted critics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from treeward.critics.evidence import POLICY_SAMPLER, Evidence, outcome, strict_evidence
from treeward.critics.progress import progress_interval, prover_draws, prover_k, prover_value
from treeward.critics.tree_value import tree_values
from treeward.critics.value import interval, posterior_mean
from treeward.export import schema
from treeward.search.arithmetic import judge_steps
from treeward.search.intervals import Reals
from treeward.search.reader import Reader
from treeward.search.tree import NO_PARENT, ROOT, Tree
from treeward.search.verdicts import Verdict

Columns = dict[str, Sequence[Any] | NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Holds what is the same for all trees of a run."""

    reader: Reader
    search: str
    policy: str
    seed: int
    prover_k: int | None = None
    """K of the prover; None sets it for each tree by its root's value."""


def tree_tables(tree: Tree, tree_id: str, origin: Origin) -> dict[str, pa.Table]:
    """Returns one tree's rows of each table."""
    evidence = strict_evidence(tree, origin.reader.cut)
    columns = {
        "trees": _tree_columns(tree, tree_id, evidence, origin),
        "nodes": _node_columns(tree, tree_id, evidence, origin),
        "rollouts": _rollout_columns(tree, tree_id, origin.reader),
    }
    return {
        name: pa.Table.from_pydict(data, schema=schema.SCHEMAS[name])
        for name, data in columns.items()
    }


def _tree_columns(tree: Tree, tree_id: str, evidence: Evidence, origin: Origin) -> Columns:
    problem, nodes = tree.problem, tree.nodes
    failures = [
        failure
        for failure in (*nodes.failure, *tree.rollouts.failure, *nodes.score_failure)
        if failure
    ]
    verdicts = [outcome(tree, index).verdict for index in range(len(tree.rollouts.node))]
    own = [
        verdict
        for verdict, sampler in zip(verdicts, tree.rollouts.sampler_id, strict=True)
        if sampler == POLICY_SAMPLER
    ]
    ends = [judgement.verdict for judgement in nodes.judgement if judgement]
    n, right = int(evidence.n_rollouts[ROOT]), int(evidence.n_right[ROOT])
    anything = len(tree) > 1 or any(completion for completion in tree.rollouts.completion)
    status = "ok" if not failures else "incomplete" if anything else "failed"
    row = {
        "tree_id": tree_id,
        "problem_id": problem.id,
        "prompt": problem.prompt,
        "answer": problem.answer,
        "source": problem.source,
        "search": origin.search,
        "policy": origin.policy,
        "seed": origin.seed,
        "n_nodes": len(tree),
        "n_rollouts": len(verdicts),
        "n_right": verdicts.count(Verdict.RIGHT),
        "n_unknown": verdicts.count(Verdict.UNKNOWN),
        "policy_tokens": tree.policy_tokens,
        "fast_tokens": tree.fast_tokens,
        "prompt_tokens": tree.prompt_tokens,
        "pass_rate": right / n if n else None,
        "solved": _any_right([*own, *ends]),
        "best_node_id": best_node(tree),
        "status": status,
        "stopped": tree.stopped,
        "error_kind": failures[0].kind if failures else None,
        "error": failures[0].message if failures else None,
    }
    return {name: [value] for name, value in row.items()}


def _any_right(verdicts: Sequence[Verdict]) -> bool | None:
    """Returns whether any is right; None where nothing is known at all."""
    if Verdict.RIGHT in verdicts:
        return True
    return False if Verdict.WRONG in verdicts else None


def best_node(tree: Tree) -> int | None:
    """Returns the right end that the policy finds most likely, or None without any.

    Likely means: most samples on the way, as the smallest share of samples along the path; among
    equals the shorter path, then the older node.
    """
    ends = [node for node in range(len(tree)) if tree.terminal_value(node) == 1.0]
    priors = _priors(tree)

    def rank(node: int) -> tuple[float, int, int]:
        shares = [prior for at in tree.path(node) if (prior := priors[at]) is not None]
        return (-min(shares, default=1.0), tree.nodes.depth[node], node)

    return min(ends, key=rank, default=None)


def _node_columns(tree: Tree, tree_id: str, evidence: Evidence, origin: Origin) -> Columns:
    nodes, size = tree.nodes, len(tree)
    judgements = nodes.judgement
    failures = [a or b for a, b in zip(nodes.failure, nodes.score_failure, strict=True)]
    columns: Columns = {
        "tree_id": [tree_id] * size,
        "problem_id": [tree.problem.id] * size,
        "node_id": list(range(size)),
        "parent_id": [None if parent == NO_PARENT else parent for parent in nodes.parent],
        "depth": nodes.depth,
        "path": [tree.path(node) for node in range(size)],
        "n_children": [len(children) for children in nodes.children],
        "step_text": [origin.reader.text(step_ids) for step_ids in nodes.step_ids],
        "n_tokens": [len(step_ids) for step_ids in nodes.step_ids],
        "token_ids": [list(step_ids) for step_ids in nodes.step_ids],
        "logprob": nodes.logprob,
        "n_samples": nodes.n_samples,
        "prior": _priors(tree),
        "visits": nodes.visits,
        "q": [
            total / visits if visits else None
            for total, visits in zip(nodes.value_sum, nodes.visits, strict=True)
        ],
        "n_right": evidence.n_right,
        "n_rollouts": evidence.n_rollouts,
        "n_unknown": evidence.n_unknown,
        "n_no_answer": evidence.n_no_answer,
        "n_length": evidence.n_length,
        "n_right_last": evidence.right_last,
        "n_wrong_first": evidence.started_wrong,
        "fails_from": _fails_from(tree, evidence),
        "stop_rule": nodes.stop_rule,
        "value_critic": [scores.value if scores else None for scores in nodes.scores],
        "progress_critic": [scores.progress if scores else None for scores in nodes.scores],
        "outcome_critic": [scores.outcome if scores else None for scores in nodes.scores],
        "is_terminal": [judgement is not None for judgement in judgements],
        "answer": [judgement.answer if judgement else None for judgement in judgements],
        "verdict": [judgement.verdict.value if judgement else None for judgement in judgements],
        "verdict_reason": [
            judgement.reason.value if judgement else None for judgement in judgements
        ],
        "finish_reason": [finish.value if finish else None for finish in nodes.finish],
        "status": ["error" if failure else "ok" for failure in failures],
        "error_kind": [failure.kind if failure else None for failure in failures],
    }
    columns |= _places(tree) | _values(tree, evidence, origin.prover_k) | _truths(tree, origin)
    order = np.argsort(columns["pre"])
    return {name: [_plain(columns[name][index]) for index in order] for name in schema.NODES.names}


def _plain(value: Any) -> Any:
    """Returns a Python number for a numpy one, and None for NaN, which no table holds."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _priors(tree: Tree) -> list[float | None]:
    """Returns each node's share of the samples at its parent; None where there are none."""
    nodes = tree.nodes
    return [
        None
        if parent == NO_PARENT or not nodes.n_samples_below[parent]
        else nodes.n_samples[node] / nodes.n_samples_below[parent]
        for node, parent in enumerate(nodes.parent)
    ]


def _fails_from(tree: Tree, evidence: Evidence) -> list[int | None]:
    """Returns the first step on each path that has no success at or below it; None without one."""
    nodes, size = tree.nodes, len(tree)
    succeeds = [
        evidence.n_right[node] > 0 or tree.terminal_value(node) == 1 for node in range(size)
    ]
    for node in reversed(range(1, size)):
        succeeds[nodes.parent[node]] |= succeeds[node]
    first: list[int | None] = [None] * size
    for node in range(1, size):
        if not succeeds[node]:
            above = first[nodes.parent[node]]
            first[node] = node if above is None else above
    return first


def _places(tree: Tree) -> Columns:
    """Returns where each node stands in pre-order, and among its siblings.

    Siblings come by samples, most first, then by making.
    """
    nodes, size = tree.nodes, len(tree)
    sizes = [1] * size
    for node in reversed(range(1, size)):
        sizes[nodes.parent[node]] += sizes[node]
    pre, rank = [0] * size, [0] * size
    for node in range(size):
        place = pre[node] + 1
        for at, child in enumerate(
            sorted(nodes.children[node], key=lambda child: (-nodes.n_samples[child], child))
        ):
            pre[child], rank[child] = place, at
            place += sizes[child]
    ends = [first + size_below - 1 for first, size_below in zip(pre, sizes, strict=True)]
    return {"pre": pre, "post_end": ends, "child_rank": rank}


def _values(tree: Tree, evidence: Evidence, fixed_k: int | None) -> Columns:
    """Returns what the counted critics say; NaN where there is no evidence."""
    k = evidence.n_right.astype(float)
    n = evidence.n_rollouts.astype(float)
    exact = np.array([tree.terminal_value(node) for node in range(len(tree))], dtype=float)
    ends = np.array([tree.is_terminal(node) for node in range(len(tree))])
    low, high = interval(k, n)
    value = np.where(ends, exact, np.where(n > 0, posterior_mean(k, n), np.nan))
    from_tree = tree_values(tree, evidence)
    prover = fixed_k or prover_k(None if np.isnan(value[ROOT]) else float(value[ROOT]))
    return {
        "value": value,
        "value_low": np.where(ends, exact, np.where(n > 0, low, np.nan)),
        "value_high": np.where(ends, exact, np.where(n > 0, high, np.nan)),
        "value_tree": from_tree.value,
        "value_tree_low": from_tree.low,
        "value_tree_high": from_tree.high,
        "n_effective": np.where(np.isinf(from_tree.n_effective), np.nan, from_tree.n_effective),
        "prover_k": [prover] * len(tree),
        **_progress(tree, k, n, exact, value, prover),
    }


def _progress(
    tree: Tree, k: Reals, n: Reals, exact: Reals, value: Reals, prover: int | None
) -> Columns:
    """Returns the progress of each step with its interval; NaN where either end is unknown."""
    unknown = np.full(len(tree), np.nan)
    if prover is None:
        return {"progress": unknown, "progress_low": unknown, "progress_high": unknown}
    certain = ~np.isnan(exact)
    chance = np.where(certain, exact, np.where(np.isnan(value), np.nan, prover_value(k, n, prover)))
    draws = np.where(certain[:, None], exact[:, None], prover_draws(k, n, prover))
    parents = np.array(tree.nodes.parent)
    known = (parents != NO_PARENT) & ~np.isnan(chance) & ~np.isnan(chance[parents])
    progress, low, high = unknown.copy(), unknown.copy(), unknown.copy()
    progress[known] = chance[known] - chance[parents[known]]
    low[known], high[known] = progress_interval(draws[known], draws[parents[known]])
    return {"progress": progress, "progress_low": low, "progress_high": high}


def _truths(tree: Tree, origin: Origin) -> Columns:
    """Returns what the task itself says about each step; None where it cannot judge."""
    step: list[bool | None] = [None] * len(tree)
    prefix: list[bool | None] = [None] * len(tree)
    text = [origin.reader.text(step_ids) for step_ids in tree.nodes.step_ids]
    for node in range(1, len(tree)):
        truths = judge_steps(tree.problem, [text[at] for at in tree.path(node)[1:]])
        if truths is not None:
            step[node], prefix[node] = truths[-1]
    return {"oracle_step_correct": step, "oracle_prefix_correct": prefix}


def _rollout_columns(tree: Tree, tree_id: str, reader: Reader) -> Columns:
    columns: dict[str, list[Any]] = {name: [] for name in schema.ROLLOUTS.names}
    rollouts = tree.rollouts
    for index, node in enumerate(rollouts.node):
        completion = rollouts.completion[index]
        judgement = outcome(tree, index)
        sampler = rollouts.sampler_id[index]
        row = {
            "tree_id": tree_id,
            "node_id": node,
            "rollout_id": index,
            "sampler_id": sampler,
            "evidence_from": node if sampler == POLICY_SAMPLER else None,
            "text": reader.text(completion.token_ids) if completion else None,
            "n_tokens": len(completion.token_ids) if completion else None,
            "token_ids": list(completion.token_ids) if completion else None,
            "logprob": completion.logprob if completion else None,
            "answer": judgement.answer,
            "verdict": judgement.verdict.value,
            "verdict_reason": judgement.reason.value,
            "finish_reason": completion.finish.value if completion else None,
            "seed": completion.seed if completion else None,
        }
        for name, value in row.items():
            columns[name].append(value)
    return dict(columns)

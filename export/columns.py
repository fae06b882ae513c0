"""Turns grown trees into rows; many at once cost less than one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from treeward.critics.evidence import Evidence, outcome, strict_evidence
from treeward.export import schema
from treeward.export.node_columns import node_table, priors, to_table
from treeward.search.reader import Reader
from treeward.search.tree import POLICY_SAMPLER, ROOT, Tree
from treeward.search.verdicts import Verdict

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Holds what is the same for all trees of a run."""

    reader: Reader
    search: str
    policy: str
    seed: int
    prover_k: int | None = None
    """K of the prover; None sets it for each tree by its root's value."""
    as_is: bool = True
    """Whether the policy samples as its `logprob` says: at temperature 1, from all tokens."""


def tree_tables(tree: Tree, tree_id: str, origin: Origin) -> dict[str, pa.Table]:
    """Returns one tree's rows of each table."""
    return part_tables([tree], [tree_id], origin)


def part_tables(
    trees: Sequence[Tree], tree_ids: Sequence[str], origin: Origin
) -> dict[str, pa.Table]:
    """Returns the rows of some trees, at least one, of each table.

    A tree's rows do not depend on the trees beside it.
    """
    evidence = [strict_evidence(tree, origin.reader.cut) for tree in trees]
    together = list(zip(trees, tree_ids, strict=True))
    rows = [
        _tree_row(tree, tree_id, its, origin)
        for (tree, tree_id), its in zip(together, evidence, strict=True)
    ]
    rollouts = [_rollout_columns(tree, tree_id, origin.reader) for tree, tree_id in together]
    joined = {
        name: [value for columns in rollouts for value in columns[name]]
        for name in schema.ROLLOUTS.names
    }
    return {
        "trees": pa.Table.from_pylist(rows, schema=schema.TREES),
        "nodes": node_table(
            trees, tree_ids, evidence, origin.reader, origin.prover_k, as_is=origin.as_is
        ),
        "rollouts": to_table(joined, schema.ROLLOUTS),
    }


def _tree_row(tree: Tree, tree_id: str, evidence: Evidence, origin: Origin) -> Row:
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
    return {
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
    shares_of = priors(tree)

    def rank(node: int) -> tuple[float, int, int]:
        shares = [prior for at in tree.path(node) if (prior := shares_of[at]) is not None]
        return (-min(shares, default=1.0), tree.nodes.depth[node], node)

    return min(ends, key=rank, default=None)


def _rollout_columns(tree: Tree, tree_id: str, reader: Reader) -> dict[str, list[Any]]:
    rollouts = tree.rollouts
    drawn, n = rollouts.completion, len(rollouts.node)
    judgements = [outcome(tree, index) for index in range(n)]
    return {
        "tree_id": [tree_id] * n,
        "node_id": rollouts.node,
        "rollout_id": list(range(n)),
        "sampler_id": rollouts.sampler_id,
        "evidence_from": [
            node if sampler == POLICY_SAMPLER else None
            for node, sampler in zip(rollouts.node, rollouts.sampler_id, strict=True)
        ],
        "text": [reader.text(each.token_ids) if each else None for each in drawn],
        "n_tokens": [len(each.token_ids) if each else None for each in drawn],
        "token_ids": [each.token_ids if each else None for each in drawn],
        "logprob": [each.logprob if each else None for each in drawn],
        "answer": [judgement.answer for judgement in judgements],
        "verdict": [judgement.verdict for judgement in judgements],
        "verdict_reason": [judgement.reason for judgement in judgements],
        "finish_reason": [each.finish if each else None for each in drawn],
        "seed": [each.seed if each else None for each in drawn],
    }

"""The rows of `nodes`: all nodes of some trees, column by column, those of a tree in pre-order."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa

from treeward.critics.evidence import Evidence
from treeward.export import schema
from treeward.export.beyond import beyond_columns
from treeward.export.counted import counted_columns
from treeward.search.arithmetic import judge_steps
from treeward.search.critic import Scores
from treeward.search.reader import Reader
from treeward.search.tree import NO_PARENT, Nodes, Tree
from treeward.search.verdicts import Verdict

Columns = dict[str, Any]
"""Lists, numpy arrays in which NaN is null, or Arrow arrays, by name."""


def node_table(
    trees: Sequence[Tree],
    tree_ids: Sequence[str],
    evidence: Sequence[Evidence],
    reader: Reader,
    prover_k: int | None,
    *,
    as_is: bool,
) -> pa.Table:
    """Returns the rows of all nodes, tree by tree.

    Args:
        trees: Grown trees.
        tree_ids: The id of each.
        evidence: The strict evidence of each.
        reader: Reads steps.
        prover_k: K of the prover; None sets it for each tree by its root's value.
        as_is: Whether the policy samples as its `logprob` says.
    """
    texts = [[reader.text(step_ids) for step_ids in tree.nodes.step_ids] for tree in trees]
    places = [_places(tree) for tree in trees]
    columns: Columns = {
        "tree_id": _repeated(tree_ids, trees),
        "problem_id": _repeated([tree.problem.id for tree in trees], trees),
        "node_id": np.concatenate([np.arange(len(tree)) for tree in trees]),
        "path": _lists(chain.from_iterable(_paths(tree) for tree in trees)),
        "step_text": list(chain.from_iterable(texts)),
        "fails_from": _each(trees, evidence, _fails_from),
        **_grown(trees),
        **_ends(trees),
        **_truths(trees, texts),
        **beyond_columns(trees, reader.cut),
        **counted_columns(trees, evidence, prover_k, as_is=as_is),
    }
    columns |= {
        name: [value for place in places for value in place[at]]
        for at, name in enumerate(("pre", "post_end", "child_rank"))
    }
    columns |= {
        name: np.concatenate([getattr(each, name) for each in evidence]) for name in _EVIDENCE
    }
    table = to_table(columns, schema.NODES)
    sizes = [len(tree) for tree in trees]
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    order = np.empty(len(table), dtype=np.int64)
    order[first + np.array(columns["pre"])] = np.arange(len(table))
    return table.take(pa.array(order))


_EVIDENCE = ("n_right", "n_rollouts", "n_unknown", "n_no_answer", "n_length")
"""The columns that are strict evidence, by their names there."""


def to_table(columns: Columns, kinds: pa.Schema) -> pa.Table:
    """Returns columns as a table of a schema; NaN becomes null, and no table holds it."""
    arrays = [
        columns[field.name]
        if isinstance(columns[field.name], pa.Array)
        else pa.array(columns[field.name], field.type, from_pandas=True)
        for field in kinds
    ]
    return pa.Table.from_arrays(arrays, schema=kinds)


def _repeated(values: Sequence[str], trees: Sequence[Tree]) -> list[str]:
    """Returns a value of each tree for each of its nodes."""
    return [value for value, tree in zip(values, trees, strict=True) for _ in range(len(tree))]


def _lists(lists: Iterable[Sequence[int]]) -> pa.Array:
    """Returns lists of ids as an Arrow array."""
    lists = list(lists)
    ends = np.fromiter(accumulate(map(len, lists), initial=0), np.int32, len(lists) + 1)
    flat = np.fromiter(chain.from_iterable(lists), np.int32, int(ends[-1]))
    kind = schema.NODES.field("token_ids").type
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat), type=kind)


def _each(
    trees: Sequence[Tree],
    evidence: Sequence[Evidence],
    column: Callable[[Tree, Evidence], Sequence[Any]],
) -> list[Any]:
    return [value for tree, its in zip(trees, evidence, strict=True) for value in column(tree, its)]


def _grown(trees: Sequence[Tree]) -> Columns:
    """Returns what the search left in the trees."""
    nodes = [tree.nodes for tree in trees]

    def joined(column: Callable[[Nodes], Sequence[Any]]) -> list[Any]:
        return list(chain.from_iterable(column(each) for each in nodes))

    step_ids = joined(lambda each: each.step_ids)
    visits = np.array(joined(lambda each: each.visits))
    total = np.array(joined(lambda each: each.value_sum))
    failures = [
        grown or scored
        for grown, scored in zip(
            joined(lambda each: each.failure), joined(lambda each: each.score_failure), strict=True
        )
    ]
    parents = joined(lambda each: each.parent)
    return {
        "parent_id": [None if parent == NO_PARENT else parent for parent in parents],
        "depth": joined(lambda each: each.depth),
        "n_children": list(map(len, joined(lambda each: each.children))),
        "n_tokens": list(map(len, step_ids)),
        "token_ids": _lists(step_ids),
        "n_samples": joined(lambda each: each.n_samples),
        "creation": [creation.value for creation in joined(lambda each: each.creation)],
        "prior": [prior for tree in trees for prior in priors(tree)],
        "visits": visits,
        "q": np.divide(total, visits, out=np.full(len(total), np.nan), where=visits > 0),
        "stop_rule": joined(lambda each: each.stop_rule),
        "status": ["error" if failure else "ok" for failure in failures],
        "error_kind": [failure.kind if failure else None for failure in failures],
        **_scores(joined(lambda each: each.scores)),
    }


def _scores(scores: Sequence[Scores | None]) -> Columns:
    """Returns what critics said while the trees grew."""
    names = ("value_critic", "progress_critic", "outcome_critic")
    if not any(scores):
        return {name: pa.nulls(len(scores), pa.float64()) for name in names}
    said = [
        (each.value, each.progress, each.outcome) if each else (None, None, None) for each in scores
    ]
    return dict(zip(names, map(list, zip(*said, strict=True)), strict=True))


def _ends(trees: Sequence[Tree]) -> Columns:
    """Returns how steps ended, and what is known where a solution did."""
    judgements = [judgement for tree in trees for judgement in tree.nodes.judgement]
    return {
        "is_terminal": [judgement is not None for judgement in judgements],
        "answer": [judgement and judgement.answer for judgement in judgements],
        "verdict": [judgement and judgement.verdict for judgement in judgements],
        "verdict_reason": [judgement and judgement.reason for judgement in judgements],
        "finish_reason": [finish for tree in trees for finish in tree.nodes.finish],
    }


def priors(tree: Tree) -> list[float | None]:
    """Returns each node's share of the samples at its parent; None where there are none."""
    nodes = tree.nodes
    return [
        None
        if parent == NO_PARENT or not nodes.n_samples_below[parent]
        else nodes.n_samples[node] / nodes.n_samples_below[parent]
        for node, parent in enumerate(nodes.parent)
    ]


def _paths(tree: Tree) -> list[list[int]]:
    """Returns the nodes from the root to each node, both included."""
    paths: list[list[int]] = []
    for node, parent in enumerate(tree.nodes.parent):
        paths.append([node] if parent == NO_PARENT else [*paths[parent], node])
    return paths


def _fails_from(tree: Tree, evidence: Evidence) -> list[int | None]:
    """Returns the first step on each path that has no success at or below it; None without one."""
    nodes, size = tree.nodes, len(tree)
    succeeds = [
        right > 0 or (judgement is not None and judgement.verdict is Verdict.RIGHT)
        for right, judgement in zip(evidence.n_right.tolist(), nodes.judgement, strict=True)
    ]
    for node in reversed(range(1, size)):
        succeeds[nodes.parent[node]] |= succeeds[node]
    first: list[int | None] = [None] * size
    for node in range(1, size):
        if not succeeds[node]:
            above = first[nodes.parent[node]]
            first[node] = node if above is None else above
    return first


def _places(tree: Tree) -> tuple[list[int], list[int], list[int]]:
    """Returns each node's place in pre-order, the last place below it, and its rank as a child.

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
    return pre, ends, rank


def _truths(trees: Sequence[Tree], texts: Sequence[Sequence[str]]) -> Columns:
    """Returns what the task itself says about each step; None where it cannot judge."""
    step: list[bool | None] = []
    prefix: list[bool | None] = []
    for tree, text in zip(trees, texts, strict=True):
        first, children = len(step), tree.nodes.children
        step += [None] * len(tree)
        prefix += [None] * len(tree)
        for leaf in (node for node in range(1, len(tree)) if not children[node]):
            path = tree.path(leaf)[1:]
            truths = judge_steps(tree.problem, [text[node] for node in path])
            if truths is None:
                break
            for node, truth in zip(path, truths, strict=True):
                step[first + node], prefix[first + node] = truth
    return {"oracle_step_correct": step, "oracle_prefix_correct": prefix}

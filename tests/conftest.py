"""Fixtures that several test files share."""

import json
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from treeward.cli import main
from treeward.export.datasets_critic import COLUMNS as CRITIC_COLUMNS
from treeward.export.run_folder import Identity
from treeward.export.schema import SCHEMAS, TABLES
from treeward.search.models import NANO, resolve_model
from treeward.search.verdicts import VERDICT_OF, Reason

Tables = dict[str, pa.Table]
Row = dict[str, Any]


def _default(field: pa.Field) -> Any:
    """A value for a column that a test does not care about."""
    if field.nullable:
        return None
    if pa.types.is_list(field.type):
        return []
    return "" if pa.types.is_string(field.type) else pa.scalar(0).cast(field.type).as_py()


def _table(name: str, rows: list[Row]) -> pa.Table:
    defaults = {field.name: _default(field) for field in SCHEMAS[name]}
    assert all(row.keys() <= defaults.keys() for row in rows)
    return pa.Table.from_pylist([defaults | row for row in rows], schema=SCHEMAS[name])


def _nodes(tree: str, rng: random.Random) -> list[Row]:
    """A random tree; most inner nodes have a few children, some leaves end a solution."""
    parents: list[int | None] = [None]
    parents += [rng.randrange(max(0, n - 4), n) for n in range(1, rng.randrange(1, 25))]
    children = [[c for c, p in enumerate(parents) if p == n] for n in range(len(parents))]
    samples = [rng.randrange(1, 5) for _ in parents]
    paths: list[list[int]] = []
    rows: list[Row] = []
    for node, parent in enumerate(parents):
        paths.append([node] if parent is None else [*paths[parent], node])
        family = [] if parent is None else children[parent]
        ends = bool(node) and not children[node] and rng.random() < 0.7
        reason = rng.choice(list(Reason)) if ends else None
        rows.append(
            {"tree_id": tree, "problem_id": f"p-{tree}", "node_id": node, "parent_id": parent}
            | {"depth": len(paths[node]) - 1, "path": paths[node], "step_text": f"{tree}/{node}"}
            | {"child_rank": family.index(node) if family else 0, "n_samples": samples[node]}
            | {"prior": samples[node] / sum(samples[c] for c in family) if family else None}
            | {"n_children": len(children[node]), "n_tokens": 2, "token_ids": [node, 7]}
            | {"is_terminal": ends, "verdict_reason": reason, "status": "ok"}
            | {"verdict": VERDICT_OF[reason] if reason else None}
            | {"creation": "root" if parent is None else "sampled"}
            | {"n_taken": samples[node] + rng.randrange(3), "beyond": _beyond(rng)}
        )
    stack, pre = [0], 0
    while stack:
        node = stack.pop()
        size = sum(node in path for path in paths)
        rows[node] |= {"pre": pre, "post_end": pre + size - 1}
        pre += 1
        stack += reversed(children[node])
    return rows


def _beyond(rng: random.Random) -> list[Row]:
    """Random steps behind a node: some samples of two steps each."""
    return [
        {"parent": place - 1 if place % 2 else -1, "logprob": None, "n_taken": 1}
        | {"right": rng.random() < 0.5 if place % 2 else None}
        for place in range(2 * rng.randrange(3))
    ]


def _rollouts(tree: str, nodes: list[Row], rng: random.Random) -> list[Row]:
    """Random rollouts, counted on the nodes where they started."""
    rows: list[Row] = []
    for node in nodes:
        hard, n = rng.random() < 0.5, rng.choice([0, 4, 8, 12])
        for _ in range(0 if node["is_terminal"] else n):
            reason = rng.choice([Reason.MISMATCH, Reason.LENGTH] if hard else list(Reason))
            start = node["node_id"]
            rows.append(
                {"tree_id": tree, "node_id": start, "rollout_id": len(rows), "sampler_id": 0}
                | {"evidence_from": start, "n_tokens": 1, "token_ids": [3], "text": "x"}
                | {"verdict": VERDICT_OF[reason], "verdict_reason": reason}
            )
        own = [r for r in rows if r["node_id"] == node["node_id"]]
        right = sum(r["verdict"] == "right" for r in own)
        known = right + sum(r["verdict"] == "wrong" for r in own)
        node |= {"n_right": right, "n_rollouts": known, "n_unknown": len(own) - known}
        if known:
            value = (right + 0.5) / (known + 1)
            node |= {"value": value, "value_low": value / 2, "value_high": (1 + value) / 2}
    _mark_failures(nodes)
    return rows


def _mark_failures(nodes: list[Row]) -> None:
    """Sets `fails_from` by looking at every node below every step of every path."""

    def succeeds(step: int) -> bool:
        below = [node for node in nodes if step in node["path"]]
        return any(node["n_right"] > 0 or node["verdict"] == "right" for node in below)

    for node in nodes:
        failing = [step for step in node["path"][1:] if not succeeds(step)]
        node["fails_from"] = failing[0] if failing else None


class Ran(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


@pytest.fixture
def treeward(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs a command in this process."""

    def run(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def random_part() -> Callable[..., Tables]:
    """Makes the tables of a part: `random_part(seed, trees=("a", "b"))`; rows are shuffled.

    Tree `a` is of problem `p-a`; with the identity of a run it has the id that it has there.
    """

    def make(
        seed: int, trees: tuple[str, ...] = ("a", "b", "c"), identity: Identity | None = None
    ) -> Tables:
        rng = random.Random(seed)
        rows: dict[str, list[Row]] = {name: [] for name in TABLES}
        for tree in trees:
            nodes = _nodes(tree, rng)
            rollouts = _rollouts(tree, nodes, rng)
            root = nodes[0]
            rows["nodes"] += nodes
            rows["rollouts"] += rollouts
            rows["trees"].append(
                {"tree_id": tree, "problem_id": f"p-{tree}", "n_nodes": len(nodes), "status": "ok"}
                | {"n_rollouts": len(rollouts), "best_node_id": rng.randrange(len(nodes))}
                | {"policy_tokens": 2 * len(nodes) + len(rollouts)}
                | {"n_right": sum(row["verdict"] == "right" for row in rollouts)}
                | {"n_unknown": sum(row["verdict"] == "unknown" for row in rollouts)}
                | {"pass_rate": root["n_right"] / n if (n := root["n_rollouts"]) else None}
            )
        for name in TABLES:
            rng.shuffle(rows[name])
            if identity is not None:
                for row in rows[name]:
                    row["tree_id"] = identity.tree_id(f"p-{row['tree_id']}")
        return {name: _table(name, rows[name]) for name in TABLES}

    return make


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """Makes the operating system refuse to let a file grow beyond a size, as a full disk does."""

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limit


@pytest.fixture(scope="session")
def tiny_trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights that reads what `nano` reads, with 20 thousand parameters."""
    folder = tmp_path_factory.mktemp("trunk")
    nano = resolve_model(NANO, folder).path
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(nano / name, folder / name)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    small |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 96}
    # Dropout, so that a resume must also find its randomness again.
    others = {"attention_dropout": 0.1, "initializer_range": 0.1, "dtype": "float32"}
    config = json.loads((nano / "config.json").read_text()) | small | others
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def write_critic_rows() -> Callable[[Path, list[Row]], Path]:
    """Writes rows of a `critic` dataset: `write_critic_rows(path, rows)`.

    What a row leaves out is nothing known: no rollouts, no progress, no verdict, every step new.
    """
    schema = pa.schema([pa.field(c.name, c.kind, c.optional) for c in CRITIC_COLUMNS])

    def write(path: Path, rows: list[Row]) -> Path:
        whole = []
        for row in rows:
            n = len(row["steps"])
            known = {"id": "", "problem_id": row["problem"], "tree_id": row["problem"]}
            known |= {"problem_n_right": 0, "problem_n_rollouts": 0, "messages": None}
            known |= {"n_right": [0] * n, "n_rollouts": [0] * n, "progress": [None] * n}
            known |= {"verdict": [None] * n, "is_new": [True] * n, "node_ids": [*range(1, n + 1)]}
            whole.append(known | row)
        pq.write_table(pa.Table.from_pylist(whole, schema=schema), path)
        return path

    return write

"""Whatever fails at whichever change of the disk: nothing committed is lost, nothing is torn."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.fakes import SAMPLER, Exact
from tests.faulty_disk import NAMES, Died, Fault, FaultyDisk, on

from treeward.export import generate, part_writer
from treeward.export.columns import Origin
from treeward.export.journal import Journal, read_entries
from treeward.export.part_writer import PartWriter
from treeward.export.parts import committed_trees, write_part
from treeward.export.queries import connected
from treeward.export.run_folder import Identity, open_run_folder, writing
from treeward.export.verify import Level, verify_run
from treeward.search.errors import TreewardError
from treeward.search.forest import Forest
from treeward.search.mcts import mcts
from treeward.search.policy import PolicySampler, PolicySettings
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.reader import Reader
from treeward.search.scripted import ScriptedPolicy
from treeward.search.settings import SearchSettings

Tables = dict[str, pa.Table]
PROBLEMS = [Problem(id=f"p{n}", prompt=f"{n}", answer="1") for n in range(4)]
IDENTITY = Identity(settings={"run.seed": 0}, samplers=(SAMPLER,), versions={})
ORDER = {"trees": "tree_id", "nodes": "tree_id, pre", "rollouts": "tree_id, rollout_id"}
STEPS = [("a\n", 0.5), ("b\n", 0.5)]
ENDS = [("Answer: 1\n", 0.5), ("Answer: 0\n", 0.5)]


class InPlace(Executor):
    """Does at once what it is given, so that changes of the disk come in one order."""

    def submit(self, call: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(call(*args, **named))
        except (TreewardError, Died) as e:
            done.set_exception(e)
        return done


def script(_: str, text: str) -> list[tuple[str, float]]:
    return ENDS if text.count("\n") == 2 else STEPS


def tree_id_of(problem: Problem) -> str:
    return IDENTITY.tree_id(problem.id)


def grow(path: Path, problems: Sequence[Problem] = PROBLEMS, aside: Executor | None = None) -> None:
    """Does what `generate` does, with a policy that follows a script."""
    policy = ScriptedPolicy(script)
    reader = Reader(Template(name="letters"), policy.tokens)
    with writing(path, IDENTITY, problems) as run:
        done = committed_trees(run.path)
        left = [problem for problem in problems if tree_id_of(problem) not in done]
        journal = Journal(run.journal)
        for tree_id in journal.trees() & done.keys():
            journal.drop(tree_id)
        if not left:
            return
        growing = Forest(
            search=partial(mcts, settings=SearchSettings(simulations=2, rollouts=1, width=2)),
            samplers=[PolicySampler(policy=policy, settings=PolicySettings())],
            reader=reader,
            verifier=Exact(),
            recorder=journal,
            seed=0,
            tree_id=tree_id_of,
            quick=lambda _: True,
        )
        origin = Origin(reader=reader, search="mcts", policy="scripted", seed=0)
        writer = PartWriter(run, journal, tree_id_of, origin, aside or InPlace())
        asyncio.run(generate._grow(growing, writer, left, 3, None, None))


def tables(path: Path) -> Tables:
    with connected(open_run_folder(path)) as connection:
        return {
            name: connection.sql(f"SELECT * FROM {name} ORDER BY {order}").to_arrow_table()
            for name, order in ORDER.items()
        }


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Iterator[None]:
    """Makes a run of more than one part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_writer, "PART_NODES", 10)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, list[str]]:
    """The rows, and the changes that it takes to write them."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    with on(FaultyDisk()) as counted:
        grow(path)
    return tables(path), counted.made


@dataclass
class Checks:
    """Lets one change of a run go wrong, looks at what is left, and goes on."""

    truth: Tables
    """The rows of a run that nothing disturbed."""
    problems: Sequence[Problem] = tuple(PROBLEMS)
    seen: set[str] = field(default_factory=set)
    """What committed files held that were found sound: the same bytes need no second look."""

    def __call__(self, path: Path, number: int, fault: Fault) -> None:
        before: set[str] = set()

        def remember() -> None:
            before.update(committed_trees(path))

        with on(FaultyDisk(at=number, fault=fault, at_fault=remember)) as faulty:
            try:
                grow(path, self.problems)
            except (TreewardError, Died) as e:
                said = str(e)
            else:
                said = ""
        assert "\n" not in said
        assert len(faulty.made) > number
        assert before <= committed_trees(path).keys()
        if (path / "run.json").exists():
            self.look(path)
        grow(path, self.problems)
        self.look(path)
        assert committed_trees(path).keys() == {*map(tree_id_of, self.problems)}
        assert not any((path / ".staging").iterdir())
        assert not any((path / "journal").iterdir())

    def look(self, path: Path) -> None:
        """Requires that what is committed is sound, with the rows of an undisturbed run."""
        for file in (path / "journal").iterdir():
            read_entries(file)  # raises where a line is damaged
        digest = _committed_bytes(path)
        if digest in self.seen:
            return
        findings = verify_run(path)
        assert [finding for finding in findings if finding.level is Level.DAMAGE] == []
        for name, table in tables(path).items():
            kept = self.truth[name].filter(pc.is_in(self.truth[name]["tree_id"], _ids(path)))
            assert table.equals(kept)
        self.seen.add(digest)


def _committed_bytes(path: Path) -> str:
    """A hash of all files that say what is committed, and of their names."""
    digest = hashlib.sha256()
    files = [path / "run.json", path / "problems.parquet", *(path / "parts").rglob("*")]
    for file in sorted(each for each in files if each.is_file()):
        digest.update(str(file.relative_to(path)).encode() + b"\n")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _ids(path: Path) -> pa.Array:
    return pa.array([*committed_trees(path)], pa.string())


SAMPLE = 20
"""One in so many of the places where a fault can be is tried here; all by the benchmark."""


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_a_fault_at_any_change_loses_nothing_and_tears_nothing(
    tmp_path: Path, undisturbed: tuple[Tables, list[str]], fault: Fault
) -> None:
    truth, made = undisturbed
    places = [number for number, name in enumerate(made) if fault.can_be_at(name)]
    check = Checks(truth)
    for number in places[[*Fault].index(fault) % SAMPLE :: SAMPLE]:
        check(tmp_path / str(number), number, fault)


def test_the_faults_reach_every_kind_of_change(undisturbed: tuple[Tables, list[str]]) -> None:
    _, made = undisturbed
    assert {*made} == {*NAMES}
    assert made.count("rename") >= 2 + 2  # problems and run.json, manifests and parts


def test_a_commit_that_was_made_and_reported_as_failed_is_not_made_again(
    tmp_path: Path, random_part: Callable[..., Tables]
) -> None:
    rows = random_part(1, trees=("a", "b"))
    parts = tmp_path / "parts"
    made = _changes_of(tmp_path / "other", rows)
    assert made[-2:] == ["rename", "sync"]
    with on(FaultyDisk(at=len(made) - 1, fault=Fault.EIO)), pytest.raises(TreewardError):
        write_part(tmp_path, "w", rows, {})
    assert [path.name for path in parts.iterdir()] == ["w-000001"]
    more = random_part(1, trees=("a", "b", "c"))
    assert write_part(tmp_path, "w", rows, {}).name == "w-000001"
    assert write_part(tmp_path, "w", more, {}).name == "w-000002"
    assert {tree: part.name for tree, part in committed_trees(tmp_path).items()} == {
        "a": "w-000001",
        "b": "w-000001",
        "c": "w-000002",
    }


def _changes_of(path: Path, rows: Tables) -> list[str]:
    with on(FaultyDisk()) as counted:
        write_part(path, "w", rows, {})
    return counted.made

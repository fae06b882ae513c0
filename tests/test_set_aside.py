"""A damaged part is put away and named, its trees grow again, and the run is whole as before."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.test_store_faults import IDENTITY, grow, tables

from treeward.export import part_writer
from treeward.export.parts import committed_parts, committed_trees
from treeward.export.run_folder import open_run_folder, writing
from treeward.export.scores import score_run
from treeward.export.set_aside import set_aside
from treeward.export.verify import Level, verify_run
from treeward.search.critic import Prefix, Scores
from treeward.search.errors import TreewardError

Command = Callable[..., Any]
FILES = ("nodes.parquet", "trees.parquet", "rollouts.parquet", "manifest.json")


class Says:
    """A critic that says the same of everything."""

    @property
    def identity(self) -> dict[str, str | int]:
        return {"fingerprint": "same"}

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        said = Scores(0.5, None, None)
        return [[said] * (1 + len(prefix.steps)) for prefix in prefixes]


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_writer, "PART_NODES", 10)
        yield


@pytest.fixture
def run(tmp_path: Path) -> Path:
    grow(tmp_path / "run")
    assert len(committed_parts(tmp_path / "run")) > 1
    return tmp_path / "run"


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_part_is_put_away_and_its_trees_grow_again(
    run: Path, treeward: Command, name: str
) -> None:
    truth, part = tables(run), committed_parts(run)[0]
    damage(part / name)
    found = treeward("verify", run)
    assert found.code == 5
    assert str(part / name) in found.out
    mended = treeward("verify", run, "--set-aside")
    assert mended.code == 0
    assert f"{part}: set aside as {run / 'damaged' / part.name}" in mended.err
    assert str(run / "damaged" / part.name) in mended.out
    assert (run / "damaged" / part.name / name).is_file()
    assert 0 < len(committed_trees(run)) < truth["trees"].num_rows
    grow(run)
    assert tables(run) == truth
    assert {finding.level for finding in verify_run(run)} == {Level.INFO}


def test_a_second_part_of_the_same_name_is_kept_beside_the_first(run: Path) -> None:
    part = committed_parts(run)[-1]
    for _ in range(2):
        assert committed_parts(run)[-1] == part
        damage(part / "nodes.parquet")
        set_aside(run, verify_run(run))
        grow(run)
    names = {path.name for path in (run / "damaged").iterdir()}
    assert names == {part.name, f"{part.name}.2"}


def test_a_sound_run_stays_as_it_is(run: Path) -> None:
    truth = tables(run)
    assert set_aside(run, verify_run(run)) == []
    assert tables(run) == truth
    assert not (run / "damaged").exists()


def test_nothing_is_put_away_under_a_writer(run: Path) -> None:
    damage(committed_parts(run)[0] / "nodes.parquet")
    findings = verify_run(run)
    with (
        writing(run, IDENTITY, open_run_folder(run).problems()),
        pytest.raises(TreewardError, match="is writing to this run"),
    ):
        set_aside(run, findings)
    assert not (run / "damaged").exists()


def test_scores_of_trees_that_are_gone_go_with_them(run: Path) -> None:
    score_run(run, Says())
    assert verify_run(run) == ()
    damage(committed_parts(run)[0] / "nodes.parquet")
    moved = set_aside(run, verify_run(run))
    assert len(moved) == 2
    assert {finding.level for finding in verify_run(run)} == {Level.INFO}
    grow(run)
    score_run(run, Says())
    assert {finding.level for finding in verify_run(run)} == {Level.INFO}

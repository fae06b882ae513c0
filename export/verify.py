"""Checks a run: that every file holds what was written, and that the rows fit together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from treeward.export.durable import file_sha256
from treeward.export.invariants import COMPLETE, SCORE_LAWS, broken_laws
from treeward.export.journal import read_entries
from treeward.export.open_critic import name_of
from treeward.export.parts import (
    MANIFEST,
    FileRecord,
    committed_parts,
    parts_in,
    read_manifest,
    require_columns,
)
from treeward.export.problems_file import first_line
from treeward.export.run_folder import RunFolder, open_run_folder, problems_sha256
from treeward.export.schema import SCHEMAS, SORT_KEYS, TABLES
from treeward.export.score_store import CRITIC_FILE, TABLE, read_identity, score_sets
from treeward.search.errors import DamagedData


class Level(StrEnum):
    """How bad a finding is."""

    DAMAGE = "damage"
    """A file does not hold what was written to it, or rows contradict each other."""
    INFO = "info"
    """Something is left over that no reader looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Says what is wrong with one file."""

    level: Level
    file: Path
    message: str

    def __str__(self) -> str:
        """Returns one line."""
        return f"{self.level}: {self.file}: {self.message}"


def verify_run(path: Path) -> tuple[Finding, ...]:
    """Reads every byte of a run and returns what is wrong with it.

    Raises:
        BadInput: It is no run folder, or a newer version made it.
    """
    try:
        run = open_run_folder(path)
    except DamagedData as e:
        return (_damage(path / "run.json", str(e)),)
    sizes: dict[str, int] = {}
    parts = tuple(_parts(run, sizes))
    whole = all(finding.level is not Level.DAMAGE for finding in parts)
    scores = _scores(run, sizes if whole else None)
    return (*_problems(run), *parts, *scores, *_leftovers(run))


def require_sound(findings: tuple[Finding, ...]) -> None:
    """Ends the command where anything is damaged.

    Raises:
        DamagedData: Names the first damaged file.
    """
    damaged = [finding for finding in findings if finding.level is Level.DAMAGE]
    if damaged:
        others = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
        raise DamagedData(f"{damaged[0].file}: {damaged[0].message}{others}")


def _damage(file: Path, message: str) -> Finding:
    return Finding(level=Level.DAMAGE, file=file, message=message.removeprefix(f"{file}: "))


def _info(file: Path, message: str) -> Finding:
    return Finding(level=Level.INFO, file=file, message=message)


def _problems(run: RunFolder) -> Iterator[Finding]:
    path = run.problems_path
    if not path.is_file():
        yield _damage(path, "missing")
    elif file_sha256(path) != problems_sha256(run.path):
        yield _damage(path, "does not match its checksum in run.json")


def _parts(run: RunFolder, sizes: dict[str, int]) -> Iterator[Finding]:
    """Checks each part, that it is this run's, and that no tree and no problem is in two of them.

    Adds the number of nodes of each tree to `sizes`.
    """
    samplers = {sampler.sampler_id for sampler in run.identity.samplers}
    readable = not list(_problems(run))
    known = {problem.id for problem in run.problems()} if readable else None
    first_seen: dict[tuple[str, str], Path] = {}
    for part in committed_parts(run.path):
        tables: dict[str, pa.Table] = {}
        yield from _part_files(part, TABLES, tables)
        if len(tables) < len(TABLES):
            continue
        trees_of_part = tables["trees"].select(["tree_id", "n_nodes"]).to_pydict()
        sizes |= zip(*trees_of_part.values(), strict=True)
        for name, message in broken_laws(tables):
            yield _damage(part / f"{name}.parquet", message)
        for sampler in sorted(set(tables["rollouts"]["sampler_id"].to_pylist()) - samplers):
            yield _damage(part / "rollouts.parquet", f"sampler {sampler} is not in run.json")
        if not run.identity.has_critics and _has_scores(tables["nodes"]):
            yield _damage(part / "nodes.parquet", "has critics' scores and run.json no critics")
        trees = part / "trees.parquet"
        yield from _of_other_runs(run, trees, tables["trees"])
        for column in ("tree_id", "problem_id"):
            for value in tables["trees"][column].to_pylist():
                other = first_seen.setdefault((column, value), part)
                if other is not part:
                    yield _damage(trees, f"{column} {value} is in {other.name} too")
                if column == "problem_id" and known is not None and value not in known:
                    yield _damage(trees, f"problem {value} is not in problems.parquet")


def _of_other_runs(run: RunFolder, file: Path, trees: pa.Table) -> Iterator[Finding]:
    """Finds trees whose ids are not those that the settings in run.json give."""
    pairs = zip(trees["tree_id"].to_pylist(), trees["problem_id"].to_pylist(), strict=True)
    foreign = [pair for pair in pairs if pair[0] != run.identity.tree_id(pair[1])]
    if foreign:
        tree, problem = foreign[0]
        others = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        yield _damage(
            file,
            f"tree_id {tree} is not that of problem {problem} with the settings in run.json: "
            f"another run's{others}",
        )


def _has_scores(nodes: pa.Table) -> bool:
    names = ("value_critic", "progress_critic", "outcome_critic")
    return any(nodes[name].null_count < len(nodes) for name in names)


def _scores(run: RunFolder, sizes: dict[str, int] | None) -> Iterator[Finding]:
    """Checks what critics said later, and where the trees' sizes are known that all is there."""
    laws = SCORE_LAWS if sizes is not None else [law for law in SCORE_LAWS if law is not COMPLETE]
    counts = list((sizes or {}).items())
    columns = {"tree_id": [tree for tree, _ in counts], "n_nodes": [size for _, size in counts]}
    trees = pa.table(columns, schema=pa.schema([("tree_id", pa.string()), ("n_nodes", pa.int64())]))
    for place in score_sets(run.path):
        yield from _critic(place)
        first_seen: dict[str, Path] = {}
        for part in parts_in(place):
            tables: dict[str, pa.Table] = {}
            yield from _part_files(part, (TABLE,), tables)
            if TABLE not in tables:
                continue
            file = part / f"{TABLE}.parquet"
            for _, message in broken_laws({**tables, "sizes": trees}, laws):
                yield _damage(file, message)
            if set(tables[TABLE]["critic"].to_pylist()) - {place.name}:
                yield _damage(file, "holds the scores of another critic")
            for tree in tables[TABLE]["tree_id"].unique().to_pylist():
                other = first_seen.setdefault(tree, part)
                if other is not part:
                    yield _damage(file, f"tree_id {tree} is in {other.name} too")


def _critic(place: Path) -> Iterator[Finding]:
    """Checks what says which critic gave the scores in a folder."""
    path = place / CRITIC_FILE
    try:
        identity = read_identity(path.parent)
    except OSError:
        yield _damage(path, "missing")
        return
    except DamagedData as e:
        yield _damage(path, str(e))
        return
    if name_of(identity) != place.name:
        yield _damage(path, "says of another critic than its folder is named for")


def _part_files(part: Path, names: Sequence[str], tables: dict[str, pa.Table]) -> Iterator[Finding]:
    """Checks the files of a part one by one, and adds those that are sound to `tables`."""
    try:
        manifest = read_manifest(part)
    except DamagedData as e:
        yield _damage(part / MANIFEST, str(e))
        return
    for name in names:
        path = part / f"{name}.parquet"
        record = manifest.files.get(path.name)
        table = read_checked(path, name, record) if record else "not in the manifest"
        if isinstance(table, str):
            yield _damage(path, table)
            continue
        tables[name] = table
    expected = {MANIFEST, *manifest.files}
    for path in sorted(part.iterdir()):
        if path.name not in expected:
            yield _info(path, "not in the part's manifest; no reader looks at it")
    # The first table has a row for every tree, or more.
    first = tables.get(names[0])
    if first is not None and sorted(first["tree_id"].unique().to_pylist()) != [*manifest.trees]:
        yield _damage(part / MANIFEST, f"lists other trees than {names[0]}.parquet holds")


def read_checked(path: Path, name: str, record: FileRecord) -> pa.Table | str:
    """Returns a table whose file is sound, or what is wrong with the file."""
    if not path.is_file():
        return "missing"
    matches = file_sha256(path) == record.sha256
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (OSError, pa.ArrowException) as e:
        return f"cannot be read: {first_line(e)}"
    if not matches:
        return "does not match its checksum in the manifest"
    if table.num_rows != record.rows:
        return f"has {table.num_rows} rows and the manifest says {record.rows}"
    if not table.schema.equals(SCHEMAS[name]):
        require_columns(path, name)
        return f"has other columns than {name} have"
    keys = [(key, "ascending") for key in SORT_KEYS[name]]
    order = pc.sort_indices(table, sort_keys=keys)
    if not order.equals(pa.array(range(len(order)), pa.uint64())):
        return f"its rows are not sorted by {', '.join(SORT_KEYS[name])}"
    return table


def _leftovers(run: RunFolder) -> Iterator[Finding]:
    """Checks the journal and names what a dead writer left."""
    for path in sorted((run.path / ".staging").glob("*")):
        yield _info(path, "left by a writer that died or still writes; the next one clears it")
    for path in sorted((run.path / "damaged").glob("*")):
        yield _info(path, "was set aside; generate grows its trees again, score scores them")
    for path in sorted(run.journal.glob("*.jsonl")):
        try:
            replies, whole = read_entries(path)
        except DamagedData as e:
            yield _damage(path, str(e))
            continue
        torn = " and a line cut off, which never counted" if path.stat().st_size > whole else ""
        yield _info(path, f"{len(replies)} replies of an unfinished tree{torn}")

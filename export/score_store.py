"""Where the scores are that critics gave a run later, and what says which critic gave them.

    RUN/scores/<critic>/critic.json             what the critic's scores depend on
    RUN/scores/<critic>/<worker>-<sequence>/    scores.parquet and manifest.json, a part of its own

A critic is named by a hash of its identity, so that scores of two never mix. Scores are found by
tree and node; the parts of the run itself are never rewritten.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from treeward.export import disk
from treeward.export.durable import disk_errors, seal, unseal, write_file
from treeward.export.parts import commit, parts_in, trees_in
from treeward.export.run_folder import RunFolder
from treeward.export.schema import SCHEMA_VERSION

CRITIC_FILE = "critic.json"
TABLE = "scores"


def score_place(run: Path, critic: str) -> Path:
    """Returns the folder of a critic's scores, which need not exist."""
    return run / "scores" / critic


def score_sets(run: Path) -> list[Path]:
    """Returns the folders of the critics that have scored trees of a run, by name."""
    return [place for place in parts_in(run / "scores") if parts_in(place)]


def score_files(place: Path) -> list[Path]:
    """Returns the committed files of a critic's scores."""
    return [part / f"{TABLE}.parquet" for part in parts_in(place)]


def scored_trees(run: Path, critic: str) -> set[str]:
    """Returns the ids of the trees that a critic has scored."""
    return set(trees_in(score_place(run, critic)))


def failed_nodes(run: Path, critic: str) -> int:
    """Returns how many nodes a critic was asked about and has no scores for."""
    files = score_files(score_place(run, critic))
    kinds = (pq.read_table(file, columns=["error_kind"])["error_kind"] for file in files)
    return sum(len(kind) - kind.null_count for kind in kinds)


def write_scores(
    run: RunFolder, critic: str, identity: Mapping[str, str | int], table: pa.Table
) -> None:
    """Commits the scores of whole trees; they appear whole or not at all.

    Args:
        run: The run, open for writing.
        critic: The critic's name.
        identity: What its scores depend on; written down with the first scores.
        table: With the columns of `schema.SCORES`.

    Raises:
        BadInput: The folder cannot be written to.
        TreewardError: The disk is full or failed; what was there before is unharmed.
    """
    place = score_place(run.path, critic)
    with disk_errors(place, "cannot write the scores"):
        disk.make_folder(place)
        if not (place / CRITIC_FILE).exists():
            body = {"schema_version": SCHEMA_VERSION, "identity": dict(identity)}
            write_file(place / CRITIC_FILE, seal(body))
    commit(run.path, place, "main", {TABLE: table}, run.identity.versions)


def read_identity(place: Path) -> dict[str, str | int]:
    """Returns what the scores in a critic's folder depend on.

    Raises:
        OSError: The file that says so cannot be read.
        DamagedData: It is not what was written.
    """
    return dict(unseal(place / CRITIC_FILE, SCHEMA_VERSION)["identity"])

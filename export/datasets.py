"""Turns a run into a dataset: streams its problems, makes their rows, and writes them with a card.

The same run and settings give the same bytes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from treeward.export.ahead import ahead
from treeward.export.cards import Made
from treeward.export.dataset_folder import (
    DATA,
    check_replaceable,
    staged,
    write_splits,
)
from treeward.export.dataset_metadata import write_metadata
from treeward.export.dataset_spec import (
    Column,
    Dataset,
    ExportSettings,
    Format,
    Kind,
    Row,
    Tally,
    split_of,
)
from treeward.export.datasets_critic import critic
from treeward.export.datasets_preference import preference
from treeward.export.datasets_prm import prm
from treeward.export.datasets_rl import rl
from treeward.export.datasets_rlvr import rlvr
from treeward.export.datasets_sft import sft
from treeward.export.datasets_srl import srl
from treeward.export.formats.registry import shape_of
from treeward.export.formats.spec import Shape
from treeward.export.formats.write import reshape
from treeward.export.licences import licences_of
from treeward.export.overlap import Overlap, find_overlaps
from treeward.export.run_folder import RunFolder
from treeward.export.schema import SCHEMA_VERSION
from treeward.export.table_splits import write_table_splits
from treeward.export.tree_stream import stream
from treeward.export.tree_windows import windows
from treeward.search.errors import BadInput

__all__ = ["ExportReport", "ExportSettings", "Kind", "export_dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maker:
    """Says how one kind of dataset is made."""

    make: Callable[[RunFolder, ExportSettings, Tally], Dataset]
    reads: frozenset[str]
    """The settings that have a meaning for it, beside those that all have."""


_ALWAYS_READ = ("validation", "format", "licences", "test_sets")


_MAKERS = {
    Kind.PRM: _Maker(make=prm, reads=frozenset({"rule", "min_rollouts", "confidence", "template"})),
    Kind.SRL: _Maker(make=srl, reads=frozenset({"answer_step", "expert", "template"})),
    Kind.RLVR: _Maker(make=rlvr, reads=frozenset()),
    Kind.SFT: _Maker(make=sft, reads=frozenset({"expert", "template"})),
    Kind.CRITIC: _Maker(make=critic, reads=frozenset({"template"})),
    Kind.PREFERENCE: _Maker(make=preference, reads=frozenset({"margin", "template"})),
    Kind.RL: _Maker(make=rl, reads=frozenset({"template"})),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """Says what an export wrote and what it left out."""

    kind: Kind
    out: Path
    rows: Mapping[str, int]
    """By split."""

    kept: Mapping[str, int]
    """What went in: how many of what."""

    left_out: Mapping[str, int]
    """What did not: how many, by reason."""

    label_rule: str | None
    """None where the kind has no labels."""

    overlaps: tuple[Overlap, ...]
    """What the test sets that were named share with the run's problems."""

    def __str__(self) -> str:
        """Returns the report as lines for people."""
        rows = ", ".join(f"{count} rows in {split}" for split, count in self.rows.items())
        rule = [f"label rule {self.label_rule}"] if self.label_rule else []
        kept = [f"kept {count} {what}" for what, count in self.kept.items()]
        left_out = [f"left out {count} {why}" for why, count in self.left_out.items()]
        overlaps = [f"test set {overlap}" for overlap in self.overlaps]
        return "\n".join([f"{self.out}: {self.kind}, {rows}", *rule, *kept, *left_out, *overlaps])


def export_dataset(run: RunFolder, kind: Kind, out: Path, settings: ExportSettings) -> ExportReport:
    """Writes a dataset folder, whole or not at all; replaces a former export of the same kind.

    Args:
        run: What it is made of; a run under way gives what is committed.
        kind: Which dataset.
        out: The folder; new, empty, or a former export of this kind.
        settings: How it is made.

    Raises:
        BadInput: The place is taken, a setting has no meaning for the kind, or there are no rows.
        DamagedData: A file of the run is not what was written.
        TreewardError: The disk is full or failed.
    """
    place = out.resolve()
    shape = shape_of(kind, Format(settings.format)) if settings.format else None
    check_replaceable(place, kind, settings.format)
    _check_settings(kind, settings)
    licences_of(run, settings.licences)
    overlaps = find_overlaps(run.problems() if settings.test_sets else (), settings.test_sets)
    tally = Tally()
    make = shape.make if shape and shape.make else _MAKERS[kind].make
    dataset = make(run, settings, tally)
    columns = tuple(shape.columns(dataset.columns)) if shape else ()
    footer = {"treeward.kind": kind.value, "treeward.schema_version": str(SCHEMA_VERSION)}
    with staged(place, kind, settings.format) as folder:
        rows = _write(folder / DATA, run, dataset, settings, footer)
        if shape:
            dataset, rows = _in_format(folder, dataset, shape, columns, footer, tally)
        kept, left_out = dict(sorted(tally.kept.items())), dict(sorted(tally.left_out.items()))
        if not rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
            raise BadInput(f"{run.path}: nothing to export as {kind}: {reasons or 'no problems'}")
        files = sorted((folder / DATA).iterdir())
        made = Made(
            kind=kind,
            settings=settings,
            dataset=dataset,
            rows=rows,
            files={path.stem: f"{DATA}/{path.name}" for path in files},
            sizes={path.stem: path.stat().st_size for path in files},
            tally=tally,
            overlaps=overlaps,
        )
        write_metadata(folder, made, run)
    return ExportReport(
        kind=kind,
        out=out,
        rows=rows,
        kept=kept,
        left_out=left_out,
        label_rule=dataset.label_rule,
        overlaps=tuple(overlaps),
    )


def _in_format(
    folder: Path,
    dataset: Dataset,
    shape: Shape,
    columns: tuple[Column, ...],
    footer: Mapping[str, str],
    tally: Tally,
) -> tuple[Dataset, dict[str, int]]:
    """Puts a format's files in the place of ours; returns what they are, and rows by split."""
    rows = reshape(folder / DATA, columns, shape, footer, tally)
    for name, data in (shape.asides(rows) if shape.asides else {}).items():
        (folder / name).write_bytes(data)
    left = [column.name for column in dataset.columns if column.name not in shape.reads]
    says = [*dataset.says, shape.says]
    if left and not shape.make:
        says.append(
            "This format has no place for these columns of the kind: "
            + ", ".join(f"`{name}`" for name in left)
            + ". An export without a format has them, under the same `id`."
        )
    return replace(dataset, columns=columns, says=says), rows


def _check_settings(kind: Kind, settings: ExportSettings) -> None:
    """Refuses settings that would be read by nothing."""
    for field in fields(settings):
        unread = field.name not in {*_MAKERS[kind].reads, *_ALWAYS_READ}
        if unread and getattr(settings, field.name) != field.default:
            raise BadInput(f"{field.name} has no meaning for a {kind} export; leave it out")


def _write(
    folder: Path,
    run: RunFolder,
    dataset: Dataset,
    settings: ExportSettings,
    footer: Mapping[str, str],
) -> dict[str, int]:
    """Writes the splits and returns how many rows each has."""
    if dataset.tables is None:
        return write_splits(folder, dataset.schema, _rows(run, dataset, settings), footer)
    tables = map(dataset.tables, ahead(windows(run, dataset.node_columns)))
    problems = run.problems() if settings.validation else ()
    splits = {each.id: split_of(each.asked, settings.validation) for each in problems}
    return write_table_splits(folder, dataset.schema, tables, footer, splits)


def _rows(run: RunFolder, dataset: Dataset, settings: ExportSettings) -> Iterator[tuple[str, Row]]:
    """Yields every row with the name of its split."""
    assert dataset.rows is not None
    items = stream(run, dataset.node_columns)
    for item in dataset.around(items) if dataset.around else items:
        split = split_of(item.problem.asked, settings.validation)
        for row in dataset.rows(item):
            yield split, row

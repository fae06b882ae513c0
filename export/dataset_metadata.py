"""What a dataset's folder says of the data: the mark, the card, and Croissant."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from treeward import __version__
from treeward.export.cards import Made, make_card
from treeward.export.croissant import make_croissant
from treeward.export.dataset_folder import CARD, CROISSANT
from treeward.export.dataset_mark import MARK
from treeward.export.dataset_spec import ExportSettings, Kind, bare_template_of
from treeward.export.durable import seal
from treeward.export.run_folder import RunFolder, digest
from treeward.export.schema import SCHEMA_VERSION


def write_metadata(folder: Path, made: Made, run: RunFolder) -> None:
    """Writes all of it beside the finished data."""
    mark = {
        "schema_version": SCHEMA_VERSION,
        "kind": made.kind,
        "settings": _plain(made.settings),
        "label_rule": made.dataset.label_rule,
        "rows": dict(made.rows),
        "kept": dict(sorted(made.tally.kept.items())),
        "left_out": dict(sorted(made.tally.left_out.items())),
        "overlaps": [asdict(overlap) for overlap in made.overlaps],
        "run": dict(run.identity.settings),
        **_template(made, run),
        "treeward": __version__,
    }
    (folder / MARK).write_bytes(seal(mark))
    (folder / CARD).write_text(make_card(made, run), encoding="utf-8")
    (folder / CROISSANT).write_bytes(make_croissant(made, folder))


def _template(made: Made, run: RunFolder) -> Mapping[str, object]:
    """Returns what steps to predict were written in; other rows say it or are free of it."""
    if made.kind is not Kind.SRL:
        return {}
    template = bare_template_of(run, made.settings)
    return {"template": {"name": template.name, "fingerprint": digest(asdict(template))}}


def _plain(settings: ExportSettings) -> Mapping[str, object]:
    """Returns settings as the mark keeps them; of files only the names."""
    return {**asdict(settings), "test_sets": [path.name for path in settings.test_sets]}

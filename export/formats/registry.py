"""Which kinds each format can carry."""

from collections.abc import Mapping

from treeward.export.dataset_spec import Format, Kind
from treeward.export.formats import pairs, processbench, questions, solutions, stepwise
from treeward.export.formats.spec import Shape
from treeward.search.errors import BadInput

SHAPES: Mapping[Format, Mapping[Kind, Shape]] = {
    Format.TRL: {
        Kind.PRM: stepwise.TRL,
        Kind.RLVR: questions.TRL,
        Kind.SFT: solutions.TRL,
        Kind.PREFERENCE: pairs.TRL,
    },
    Format.OPENRLHF: {
        Kind.PRM: stepwise.OPENRLHF,
        Kind.RLVR: questions.OPENRLHF,
        Kind.SFT: solutions.OPENRLHF,
        Kind.PREFERENCE: pairs.OPENRLHF,
    },
    Format.QWEN_PRM: {Kind.PRM: stepwise.QWEN},
    Format.PROCESSBENCH: {Kind.PRM: processbench.PROCESSBENCH},
    Format.VERL: {
        Kind.RLVR: questions.VERL,
        Kind.SFT: solutions.VERL,
        Kind.PREFERENCE: pairs.VERL,
    },
    Format.LLAMAFACTORY: {Kind.SFT: solutions.LLAMAFACTORY, Kind.PREFERENCE: pairs.LLAMAFACTORY},
    Format.SWIFT: {
        Kind.RLVR: questions.SWIFT,
        Kind.SFT: solutions.SWIFT,
        Kind.PREFERENCE: pairs.SWIFT,
    },
}


def shape_of(kind: Kind, asked: Format) -> Shape:
    """Returns how a kind is written in a format.

    Raises:
        BadInput: The format cannot carry the kind.
    """
    shape = SHAPES[asked].get(kind)
    if shape is None:
        others = [form.value for form in Format if kind in SHAPES[form]]
        way_out = f"{kind} goes to {', '.join(others)}" if others else f"no format carries {kind}"
        raise BadInput(
            f"format {asked} carries {', '.join(SHAPES[asked])}, not {kind}; {way_out}; without "
            "--format it has our own columns"
        )
    return shape

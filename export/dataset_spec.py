"""What a dataset is made of: its kind, its settings, its columns, and what it left out."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa

from treeward.export.prompt_settings import with_steps_of
from treeward.export.run_folder import RunFolder, digest
from treeward.export.tree_stream import Item
from treeward.export.tree_windows import Window
from treeward.search.errors import BadInput
from treeward.search.models import default_template
from treeward.search.prompts import Template
from treeward.search.specs import nearest
from treeward.search.steps import Steps
from treeward.search.templates import TEMPLATES, load_template

Row = dict[str, Any]

TRAIN, VALIDATION = "train", "validation"

TEXT, COUNT, REAL, FLAG = pa.string(), pa.int32(), pa.float64(), pa.bool_()


def list_of(kind: pa.DataType, *, gaps: bool = False) -> pa.DataType:
    """Returns the type of a list; only with `gaps` may its elements be null."""
    return pa.list_(pa.field("element", kind, nullable=gaps))


def struct_of(**kinds: pa.DataType) -> pa.DataType:
    """Returns the type of a record whose fields are never null."""
    return pa.struct([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])


MESSAGES = list_of(struct_of(role=TEXT, content=TEXT))


class Kind(StrEnum):
    """The datasets that a run can be exported as."""

    PRM = "prm"
    """Steps with right or wrong, and the evidence: for process reward models."""
    SRL = "srl"
    """One expert step to predict from the steps before it."""
    RLVR = "rlvr"
    """Problems with answers that can be checked."""
    SFT = "sft"
    """Expert solutions to imitate."""
    CRITIC = "critic"
    """Steps with counts: for critics of value, progress and outcome."""
    PREFERENCE = "preference"
    """Two steps from the same prefix, one worth more than the other."""
    RL = "rl"
    """Sampled token ids with the advantages of their spans."""


class Format(StrEnum):
    """The consumers that a dataset can be written for."""

    TRL = "trl"
    """TRL's trainers; Axolotl reads the same columns."""
    OPENRLHF = "openrlhf"
    """OpenRLHF."""
    QWEN_PRM = "qwen-prm"
    """Chats with a mark after each step, as Qwen2.5-Math-PRM reads them."""
    PROCESSBENCH = "processbench"
    """Whole solutions with the index of the first wrong step."""
    VERL = "verl"
    """verl."""
    LLAMAFACTORY = "llamafactory"
    """LLaMA-Factory."""
    SWIFT = "swift"
    """ms-swift."""


class Expert(StrEnum):
    """Whose solutions count as an expert's."""

    REFERENCE = "reference"
    """The solutions that came with the problems."""
    TREE = "tree"
    """The best right solution that the search found."""
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """How a dataset is made of a run."""

    rule: str | None = None
    """The label rule (prm); None takes any_success."""

    min_rollouts: int | None = None
    """Rollouts without a success that make a prefix wrong (prm, any_success); None leaves it to
    the rule's text."""

    confidence: float | None = None
    """Probability from which a prefix is called right or wrong (prm, posterior); None leaves it to
    the rule's text."""

    expert: Expert | None = None
    """Whose solutions are taken (srl, sft); None takes the reference where given, else the tree."""

    answer_step: bool = False
    """Whether the step that gives the answer is a target too (srl): N rows for N steps."""

    validation: float = 0.0
    """Share of questions whose rows go to the split `validation`; in [0, 1)."""

    template: str | None = None
    """A prompt template's name or file (all but rlvr); None takes the run's by its name."""

    margin: float | None = None
    """How much more the chosen step must be worth than the rejected one (preference), in (0, 1];
    None takes .2."""

    test_sets: tuple[Path, ...] = ()
    """Files of problems that the run's are compared with; what overlaps is counted and kept."""

    licences: tuple[str, ...] = ()
    """What is known of licences, each `NAME=LICENCE`; see `licences_of`."""

    format: Format | None = None
    """The consumer whose format is written; None writes our own columns."""

    def __post_init__(self) -> None:
        """Checks what has no type to check it.

        Raises:
            BadInput: A field breaks its rule.
        """
        if self.expert not in (None, *Expert):
            raise BadInput(f"expert must be one of {', '.join(Expert)}, got {self.expert!r}")
        if self.margin is not None and not 0 < self.margin <= 1:
            raise BadInput(f"margin must be in (0, 1], got {self.margin!r}")
        if self.format not in (None, *Format):
            raise BadInput(f"format: no {self.format!r}; {nearest(str(self.format), [*Format])}")
        if not 0 <= self.validation < 1:
            raise BadInput(f"validation must be in [0, 1), got {self.validation!r}")


@dataclass(frozen=True, slots=True)
class Column:
    """Says what one column of a dataset holds."""

    name: str
    kind: pa.DataType
    says: str
    optional: bool = False
    """Whether it may be null."""


ID = Column("id", TEXT, "Hash of what the row is about; the same in every export that has the row.")
PROBLEM_ID = Column("problem_id", TEXT, "The problem in the run.")
CHAT = Column(
    "messages",
    MESSAGES,
    "The problem as the chat that ends with the question; null where it was plain text.",
    optional=True,
)


@dataclass(slots=True)
class Tally:
    """Counts what went in and what did not, in words for people."""

    kept: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Says how the rows of one dataset come from the items of a run."""

    columns: Sequence[Column]
    node_columns: Sequence[str]
    """What `rows` reads of the nodes."""

    rows: Callable[[Item], Iterator[Row]] | None = None
    """Makes a problem's rows, in an order that depends on the item alone; None where `tables`
    does."""

    tables: Callable[[Window], pa.Table] | None = None
    """Makes the rows of many problems at once, in the order of the problems."""

    around: Callable[[Iterator[Item]], Iterator[Item]] | None = None
    """Adds to the items what `rows` reads beside nodes; None where that is nothing."""

    says: Sequence[str]
    """How the rows are made and what not to take them for; paragraphs for the card."""

    label_rule: str | None = None

    @property
    def schema(self) -> pa.Schema:
        """Returns the columns as Arrow sees them."""
        return schema_of(self.columns)


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """Returns columns as Arrow sees them."""
    return pa.schema([pa.field(column.name, column.kind, column.optional) for column in columns])


def template_of(run: RunFolder, settings: ExportSettings) -> Template:
    """Returns the template that the policy's solutions are written in, with the run's steps.

    Raises:
        BadInput: It is none of ours and was not given, or cannot be read.
    """
    return with_steps_of(bare_template_of(run, settings), run.identity.settings)


def bare_template_of(run: RunFolder, settings: ExportSettings) -> Template:
    """Returns the same with the template's own steps."""
    about = run.identity.settings
    if settings.template is not None:
        path = Path(settings.template)
        return default_template(path) if path.is_dir() else load_template(str(path))
    name, written = about.get("prompt.template"), about.get("prompt.fingerprint")
    if name in TEMPLATES:
        ours, steps = TEMPLATES[str(name)], about.get("prompt.steps")
        # A callable that ends steps is in the fingerprint.
        by_callable = steps is not None and steps not in set(Steps)
        if by_callable or written in (None, digest(asdict(with_steps_of(ours, about)))):
            return ours
    raise BadInput(
        f"{run.path}: its template {name!r} is none of ours; give its .toml file with --template, "
        "or the folder of the policy whose own it is"
    )


def row_id(*about: object) -> str:
    """Returns 32 hex digits that stand for what a row is about."""
    text = json.dumps(about, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def split_of(asked: str, validation: float) -> str:
    """Returns the split of all rows of a problem; a larger share moves problems one way only.

    Args:
        asked: What the problem asks (`Problem.asked`); under two ids it is in one split.
        validation: Share of questions that go to the split `validation`.
    """
    digest = hashlib.blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    return VALIDATION if place < validation else TRAIN


def asked_of(item: Item, template: Template) -> list[Row]:
    """Returns a problem as the chat that the policy reads, or else as `messages_of`."""
    if not template.chat:
        return messages_of(item)
    return [turn._asdict() for turn in template.chat_messages(item.problem)]


def messages_of(item: Item) -> list[Row]:
    """Returns a problem as chat messages that end with the question."""
    given = item.problem.messages
    if given is None:
        return [{"role": "user", "content": item.problem.prompt}]
    return [turn._asdict() for turn in given]

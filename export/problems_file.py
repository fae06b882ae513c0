"""RUN/problems.parquet: the problems of a run, as read."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from treeward.export.durable import write_file
from treeward.export.schema import PROBLEMS, SCHEMA_VERSION
from treeward.search.errors import BadInput, DamagedData
from treeward.search.problem import Message, Problem


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Writes problems in their order; the file appears whole or not at all.

    Raises:
        BadInput: A problem holds text that is no Unicode.
        OSError: The disk refuses.
    """
    rows = [_row(problem) for problem in problems]
    try:
        table = pa.Table.from_pylist(rows, schema=PROBLEMS)
    except UnicodeEncodeError as e:
        raise BadInput(
            f"problems: {e.object[:60]!r} holds a lone surrogate, which no text file can keep; "
            "remove it"
        ) from e
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({"treeward.schema_version": str(SCHEMA_VERSION)}),
        sink,
        compression="zstd",
        write_page_index=True,
        write_page_checksum=True,
    )
    write_file(path, sink.getvalue().to_pybytes())


def read_problems(path: Path) -> tuple[Problem, ...]:
    """Reads back exactly what was written.

    Raises:
        DamagedData: The file is missing or not what was written.
    """
    table = _read(path)
    if not table.schema.equals(PROBLEMS):
        raise DamagedData(f"{path}: has other columns than problems have; restore it")
    return tuple(_problems(table))


def count_sources(path: Path) -> Counter[str]:
    """Returns how many problems come from each source.

    Raises:
        DamagedData: The file is missing or not what was written.
    """
    column = _read(path, ["source"])["source"]
    counts = column.value_counts()
    return Counter({str(each["values"]): int(each["counts"]) for each in counts.to_pylist()})


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(columns=columns)
    except (OSError, pa.ArrowException) as e:
        raise DamagedData(f"{path}: cannot be read: {first_line(e)}; restore it") from e


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message."""
    return str(error).partition("\n")[0]


def _row(problem: Problem) -> dict[str, object]:
    return {
        "problem_id": problem.id,
        "prompt": problem.prompt,
        "messages": problem.messages and [turn._asdict() for turn in problem.messages],
        "answer": problem.answer,
        "verifier": problem.verifier,
        "source": problem.source,
        "solution": problem.solution,
        "metadata": problem.metadata,
    }


def _problems(table: pa.Table) -> Iterator[Problem]:
    """Yields the rows of a table as problems; goes by columns, which takes half the time."""
    columns = (table[name].to_pylist() for name in PROBLEMS.names)
    for id_, prompt, turns, answer, verifier, source, steps, metadata in zip(*columns, strict=True):
        yield Problem(
            id=id_,
            prompt=prompt,
            messages=None if turns is None else tuple(Message(**turn) for turn in turns),
            answer=answer,
            verifier=verifier,
            source=source,
            solution=None if steps is None else tuple(steps),
            metadata=metadata,
        )

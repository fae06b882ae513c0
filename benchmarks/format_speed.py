"""Shows what a format costs after our own columns are written, and that its memory is bounded.

    python benchmarks/format_speed.py

Rows of `prm` with six steps, made up, are mapped to each format that carries the kind's rows.
Beside it, pyarrow writes the same rows of ours again, handed to it in memory. Processor time; the
resident set is that of this process, which only grows.
"""

import resource
import tempfile
import time
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from treeward.export.dataset_folder import ROW_GROUP, parquet_writer
from treeward.export.dataset_spec import Format, Kind, Tally
from treeward.export.formats.registry import SHAPES
from treeward.export.formats.write import reshape

BLOCK = 10_000


def block() -> pa.Table:
    """Returns rows of `prm`: their formats read no other columns."""
    rows = [
        {
            "id": f"{number:032x}",
            "prompt": f"Question: what is {number} + 2 + 3 + 4 + 5 + 6?",
            "completions": [f"Step {k}: {number + k} + {k} = {number + 2 * k}" for k in range(6)],
            "labels": [True] * 5 + [False],
            "label_mask": [True] * 6,
        }
        for number in range(BLOCK)
    ]
    return pa.Table.from_pylist(rows)


def write(path: Path, table: pa.Table, n_blocks: int) -> float:
    """Writes a table so often and returns the processor time."""
    start = time.process_time()
    with parquet_writer(path, table.schema) as writer:
        for _ in range(n_blocks):
            writer.write_table(table, row_group_size=ROW_GROUP)
    return time.process_time() - start


@click.command()
@click.option("--rows", default=200_000)
def main(rows: int) -> None:
    """Measures and prints."""
    table = block()
    for n_rows in (rows // 10, rows):
        for form in (Format.TRL, Format.OPENRLHF, Format.QWEN_PRM):
            with tempfile.TemporaryDirectory() as folder:
                data, shape = Path(folder), SHAPES[form][Kind.PRM]
                written = write(data / "train.parquet", table, n_rows // BLOCK)
                assert pq.read_metadata(data / "train.parquet").num_rows == n_rows
                start = time.process_time()
                reshape(data, tuple(shape.columns(())), shape, {}, Tally())
                spent = time.process_time() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(
                f"{n_rows:,} rows to {form:8}: {n_rows / spent:,.0f} a second, pyarrow "
                f"{n_rows / written:,.0f}, ratio {written / spent:.2f}; peak so far {peak} MB"
            )


if __name__ == "__main__":
    main()

"""Prints how much of what a run's rollouts sampled had to be computed.

    python benchmarks/shared_beginnings.py RUN

Rollouts from one node that have drawn the same tokens so far are computed once: what counts is how
many different beginnings they have.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder

SQL = "SELECT tree_id, node_id, token_ids FROM rollouts"


def main() -> None:
    """Counts and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    nodes: dict[tuple[str, int], list[tuple[int, ...]]] = defaultdict(list)
    for row in run_query(open_run_folder(parser.parse_args().run), SQL).to_pylist():
        nodes[row["tree_id"], row["node_id"]].append(tuple(row["token_ids"]))
    tokens = sum(len(ids) for drawn in nodes.values() for ids in drawn)
    beginnings = sum(
        len({ids[:end] for ids in drawn for end in range(len(ids))}) for drawn in nodes.values()
    )
    rollouts = sum(map(len, nodes.values()))
    print(
        f"{rollouts:,} rollouts from {len(nodes):,} nodes, {tokens:,} tokens, of which "
        f"{beginnings:,} ({beginnings / tokens:.2f}) follow different beginnings"
    )


if __name__ == "__main__":
    main()

"""Shows what storing costs beside growing trees, with a policy that costs next to nothing.

    python benchmarks/store_cost.py

A scripted policy and `mcts`, as in forest_memory.py. Processor time of the whole, and of it what
the journal, the columns of tables and the parts take. A real model makes the whole many times
larger and leaves the store's part as it is.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import click
import forest_memory as world

from treeward.export import part_writer
from treeward.export.journal import Journal

SPENT: defaultdict[str, float] = defaultdict(float)


def measured(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a call that counts its processor time."""

    def timed(*args: Any, **named: Any) -> Any:
        start = time.thread_time()
        try:
            return call(*args, **named)
        finally:
            SPENT[name] += time.thread_time() - start

    return timed


@click.command()
@click.option("--trees", default=400)
@click.option("--simulations", default=28)
def main(trees: int, simulations: int) -> None:
    """Measures and prints."""
    for name in ("known", "record", "drop"):
        setattr(Journal, name, measured("journal", getattr(Journal, name)))
    for name, what in (("part_tables", "columns"), ("write_part", "parts")):
        setattr(part_writer, name, measured(what, getattr(part_writer, name)))
    start = time.process_time()
    world.grow(world.problems_of(trees), simulations, lambda: None)
    whole = time.process_time() - start
    print(f"{trees} trees, {simulations} simulations: {whole / trees * 1000:.1f} ms a tree")
    for name, spent in sorted(SPENT.items(), key=itemgetter(1), reverse=True):
        print(f"{name:8} {spent / trees * 1000:6.2f} ms a tree, {spent / whole:.1%}")
    print(f"stored in {sum(SPENT.values()) / whole:.1%} of the time")


if __name__ == "__main__":
    main()

"""Counts the nodes a CPU second of TreeQuest's StandardMCTS; run by `engine_speed.py`.

    ENV/bin/python benchmarks/treequest_speed.py WIDTH NODES SECONDS

ENV has treequest==0.3.3. The generator is instant, its scores are random in [0, 1]. A measurement
that has not reached NODES within SECONDS says how far it got. Prints one JSON object.
"""

import json
import random
import sys
import time
from collections.abc import Iterator

from treequest import StandardMCTS

MODES = ("step", "step in place", "ask and tell")


def main() -> None:
    """Prints nodes, CPU seconds and nodes a CPU second of each mode."""
    width, nodes, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    found = {}
    for mode in MODES:
        began, made = time.process_time(), 0
        for made in grow(mode, width):
            if made == nodes or time.process_time() - began > seconds:
                break
        spent = time.process_time() - began
        found[mode] = {"nodes": made, "seconds": spent, "speed": made / spent}
    print(json.dumps(found))


def grow(mode: str, width: int) -> Iterator[int]:
    """Yields the number of nodes after each."""
    rng = random.Random(0)
    made = 0

    def generate(_: object) -> tuple[int, float]:
        return made, rng.random()

    search = StandardMCTS(samples_per_action=width)
    state = search.init_tree()
    while True:
        if mode == "ask and tell":
            state, trials = search.ask_batch(state, 1, ["a"])
            state = search.tell(state, trials[0].trial_id, generate(None))
        else:
            state = search.step(state, {"a": generate}, inplace=mode == "step in place")
        made += 1
        yield made


if __name__ == "__main__":
    main()

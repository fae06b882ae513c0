"""What fast rollouts by `nano-fast` add to few rollouts by `nano` in judging a node.

    python benchmarks/fast_rollouts.py

Every node of some trees gets 16 rollouts by the policy and 4 fast ones. What a search would think
of the node, (k + w k_fast) / (n + w n_fast), from the first n of the policy's rollouts and all fast
ones, is held against the share of right ones among the policy's last 8, which it has not seen.
w = 0 is the search without fast rollouts.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import open_run_folder

OWN, FAST, UNSEEN = 16, 4, 8
WEIGHTS = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)
SETTINGS = (
    f"search.rollouts={OWN}",
    "search.simulations=6",
    f"fast.rollouts={FAST}",
    "fast.policy=nano-fast",
)


def outcomes(problems: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns which rollouts from each node are right: the policy's, and fast ones."""
    plan = make_plan(Options(problems=problems, deterministic=False, assignments=SETTINGS))
    generate(plan, folder, concurrency=64)
    rows = run_query(
        open_run_folder(folder),
        "SELECT tree_id, node_id, sampler_id, verdict = 'right' AS is_right FROM rollouts "
        "ORDER BY tree_id, rollout_id",
    ).to_pylist()
    of_node: dict[tuple[str, int], tuple[list[bool], list[bool]]] = defaultdict(lambda: ([], []))
    for row in rows:
        of_node[row["tree_id"], row["node_id"]][row["sampler_id"]].append(row["is_right"])
    own, fast = zip(*of_node.values(), strict=True)
    return np.array(own, dtype=float), np.array(fast, dtype=float)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default="task:arithmetic?n=100&seed=5")
    with tempfile.TemporaryDirectory() as folder:
        own, fast = outcomes(parser.parse_args().problems, Path(folder) / "run")
    truth = own[:, -UNSEEN:].mean(1)
    print(f"{len(own)} nodes: right {own.mean():.3f} by the policy, {fast.mean():.3f} fast ones")
    alike = np.corrcoef(fast.mean(1), truth)[0, 1]
    print(f"correlation of {FAST} fast ones with the unseen: {alike:.3f}")
    print("mean squared error, noise of the unseen included, and correlation, by weight")
    print("n  " + "".join(f"{weight:>16}" for weight in WEIGHTS))
    for n in (1, 2, 4, 8):
        cells = []
        for weight in WEIGHTS:
            k = own[:, :n].sum(1) + weight * fast.sum(1)
            guess = k / (n + weight * FAST)
            error = ((guess - truth) ** 2).mean()
            cells.append(f"{error:8.4f} {np.corrcoef(guess, truth)[0, 1]:7.3f}")
        print(f"{n}  " + "".join(cells))


if __name__ == "__main__":
    main()

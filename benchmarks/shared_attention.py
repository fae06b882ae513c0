"""Times attention that reads shared positions once beside attention that reads every row by itself.

    python benchmarks/shared_attention.py [--length 240] [--dtype bfloat16]

A decoding pass of 64 rows of SmolLM2's and of nano's heads on one thread, of which some positions
are shared in groups of one size. Both sides take turns; the medians of their ratios are printed
with the least and the most, and whether `find_shared` would share. Outputs are compared before
anything is timed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product

import torch

from treeward.search.attention import Shared, grouped_attention
from treeward.search.shared_beginnings import find_shared

ROWS, LAYERS, CALLS, TURNS = 64, 16, 32, 7
SHAPES = {"SmolLM2-135M": (3, 3, 64), "nano": (4, 1, 32)}
"""Key heads, query heads a key head, and their width."""
NEAR = {"float32": 1e-5, "bfloat16": 0.03}
"""How far outputs, which are below 1, may be apart."""

Call = Callable[[int], torch.Tensor]


def sides(shape: tuple[int, int, int], length: int, shared: Shared) -> tuple[Call, Call]:
    """Returns attention of a layer without and with sharing."""
    key_heads, group, width = shape
    kv = torch.randn(LAYERS, 2, ROWS, key_heads, length, width)
    of_group = len(shared.members) // len(shared.leaders)
    for at, leader in enumerate(shared.leaders.tolist()):
        members = shared.members[at * of_group : (at + 1) * of_group]
        first = kv[:, :, leader, :, : shared.length].clone()
        kv[:, :, members, :, : shared.length] = first[:, :, None]
    query = torch.randn(ROWS, key_heads * group, 1, width)
    mask = torch.zeros(ROWS, 1, 1, length)

    def call(layer: int, shared: Shared | None) -> torch.Tensor:
        keys, values = kv[layer % LAYERS]
        module = torch.nn.Identity()
        return grouped_attention(
            module, query, keys, values, mask, scaling=width**-0.5, shared=shared
        )[0]

    return lambda layer: call(layer, None), lambda layer: call(layer, shared)


def seconds(call: Call) -> float:
    """Returns what a call takes, of some in a row."""
    began = time.perf_counter()
    for layer in range(CALLS):
        call(layer)
    return (time.perf_counter() - began) / CALLS


@torch.inference_mode()
def main() -> None:
    """Prints a line for each shape, number of shared positions and size of groups."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--length", type=int, default=240, help="Positions that a row reads.")
    parser.add_argument("--dtype", choices=sorted(NEAR), default="float32")
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_default_dtype(getattr(torch, a.dtype))
    torch.manual_seed(0)
    print(f"{'':14}{'shared':>7}{'groups':>8}{'alone, us':>11}{'ratio':>21}  shares")
    for name, length, groups in product(SHAPES, (64, 192), (1, 8, 16, 32)):
        key_heads, _, width = SHAPES[name]
        size = ROWS // groups
        starts = [tuple([row // size] * length) for row in range(ROWS)]
        shared = Shared(
            length=length,
            leaders=torch.arange(0, ROWS, size),
            members=torch.arange(ROWS),
            places=torch.arange(ROWS),
        )
        alone, together = sides(SHAPES[name], a.length, shared)
        torch.testing.assert_close(alone(0), together(0), rtol=0, atol=NEAR[a.dtype])
        turns = [(seconds(alone), seconds(together)) for _ in range(TURNS)]
        ratios = [after / before for before, after in turns]
        middle = statistics.median(before for before, _ in turns) * 1e6
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        pays = "yes" if find_shared(starts, key_heads * width) else "no"
        print(f"{name:14}{length:7}{groups:8}{middle:11,.0f}{spread:>21}  {pays}", flush=True)


if __name__ == "__main__":
    main()

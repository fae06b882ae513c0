"""Rows that start alike are read together where that pays, and what they attend to is the same."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from treeward.search import shared_beginnings
from treeward.search.attention import Shared, grouped_attention
from treeward.search.shared_beginnings import find_shared

starts = st.lists(
    st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple), min_size=1, max_size=12
)


def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every saved position pay, at every length."""
    for name, value in (("STEP", 1), ("SPLIT", 0), ("EACH", 0)):
        monkeypatch.setattr(shared_beginnings, name, value)


def saved_by(given_starts: list[tuple[int, ...]], length: int) -> float:
    """What sharing so many positions saves where parting the attention costs nothing."""
    sizes = Counter(ids[:length] for ids in given_starts)
    padded = max(sizes.values()) * len(sizes)
    return length * (len(given_starts) - 0.7 * len(sizes) - 0.23 * padded)


@given(starts)
def test_groups_are_rows_that_start_alike(given_starts: list[tuple[int, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        always(patch)
        shared = find_shared(given_starts, 1)
    saved = [saved_by(given_starts, at) for at in range(1, min(map(len, given_starts)) + 1)]
    if shared is None:
        assert max(saved) <= 0
        return
    assert saved[shared.length - 1] == max(saved) > 0
    widest = len(shared.members) // len(shared.leaders)
    for row, place in enumerate(shared.places.tolist()):
        assert shared.members[place] == row
        leader = shared.leaders[place // widest]
        assert given_starts[leader][: shared.length] == given_starts[row][: shared.length]


def test_the_length_that_saves_most_is_chosen() -> None:
    """64 positions for all 64 rows, or 192 for eight groups of eight, of 192 numbers each.

    The first saves 64 (64 - .7 - .23 * 64) * 192 = .6 million, less than parting costs; the second
    192 (64 - .7 * 8 - .23 * 64) * 192 = 1.6 million.
    """
    rows = [tuple([0] * 64 + [row // 8] * 128) for row in range(64)]
    shared = find_shared(rows, 192)
    assert shared is not None
    assert (shared.length, shared.leaders.tolist()) == (192, list(range(0, 64, 8)))
    assert find_shared([ids[:64] for ids in rows], 192) is None
    long = [tuple([0] * 192 + [row // 2] * 16) for row in range(64)]
    shared = find_shared(long, 192)
    assert shared is not None
    assert (shared.length, shared.leaders.tolist()) == (192, [0])
    assert find_shared([tuple([row] * 192) for row in range(64)], 192) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("groups", [[[0, 3, 4], [1], [2, 5]], [[0, 1, 2, 3, 4, 5]]])
def test_what_is_shared_changes_no_output(dtype: torch.dtype, groups: list[list[int]]) -> None:
    torch.manual_seed(0)
    rows, key_heads, group, keys, width, length = 6, 2, 3, 11, 8, 4
    query = torch.randn(rows, key_heads * group, 1, width).to(dtype)
    key, value = torch.randn(2, rows, key_heads, keys, width).to(dtype)
    for members in groups:
        for kept in (key, value):
            kept[members, :, :length] = kept[members[0], :, :length].clone()
    ends = torch.tensor([4, 10, 7, 5, 9, 6])
    mask = torch.zeros((rows, 1, 1, keys), dtype=dtype)
    hidden = torch.arange(keys) > ends[:, None]
    mask.masked_fill_(hidden[:, None, None], torch.finfo(dtype).min)
    order = {row: at for members in groups for at, row in enumerate(members)}
    widest = max(map(len, groups))
    of_group = {row: at for at, members in enumerate(groups) for row in members}
    shared = Shared(
        length=length,
        leaders=torch.tensor([members[0] for members in groups]),
        members=torch.tensor(
            [row for members in groups for row in (members + members[:1] * widest)[:widest]]
        ),
        places=torch.tensor([of_group[row] * widest + order[row] for row in range(rows)]),
    )
    module = torch.nn.Identity()
    alone, _ = grouped_attention(module, query, key, value, mask, scaling=0.7)
    together, _ = grouped_attention(module, query, key, value, mask, scaling=0.7, shared=shared)
    assert together.dtype == dtype
    assert together.shape == alone.shape == (rows, 1, key_heads * group, width)
    exact = 1e-6 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(together, alone, rtol=exact, atol=exact)

"""Lays out groups so that a forward pass reads a prompt once for several completions.

A group is one sequence: the prompt, then its completions one after the other. Every completion sees
the prompt and itself, and its positions go on from the prompt's. A completion's last token is read
by nobody, so it is a target only.

B  groups of a pass      T  places of a sequence      N  tokens of completions
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

_PROMPT, _PADDING = 0, -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Holds what is learned of one prompt."""

    prompt_ids: tuple[int, ...]
    """All that the completions go on from; at least one token."""

    completions: tuple[tuple[int, ...], ...]
    """The sampled ids; at least one token each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Holds some groups as tensors; tokens of completions in the order of groups and places."""

    input_ids_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    visible_B1TT: torch.Tensor
    """Whether a place (the third axis) sees another (the fourth)."""

    rows_N: torch.Tensor
    """The sequence that each token is in."""

    places_N: torch.Tensor
    """The place whose output predicts it."""

    targets_N: torch.Tensor
    """Its id."""

    def to(self, device: torch.device) -> "Layout":
        """Returns the same on another device."""
        return Layout(**{name: getattr(self, name).to(device) for name in self.__slots__})


def merge_repeats(groups: Sequence[Group]) -> tuple[list[Group], torch.Tensor]:
    """Returns groups without completions that repeat an earlier one, and where each token went.

    A policy that is sure of itself, or asked for short steps, often samples the same ids again:
    their log-probabilities are the same, and so is their way back.

    Returns:
        The groups; and for each token of the groups as given, in the order of groups and places,
        its number among the tokens of the groups that are returned, (N).
    """
    merged: list[Group] = []
    places: list[torch.Tensor] = []
    end = 0
    for group in groups:
        starts: dict[tuple[int, ...], int] = {}
        for ids in group.completions:
            if ids not in starts:
                starts[ids], end = end, end + len(ids)
            places.append(torch.arange(starts[ids], starts[ids] + len(ids)))
        merged.append(Group(prompt_ids=group.prompt_ids, completions=tuple(starts)))
    return merged, torch.cat(places)


def share_prompts(group: Group, width: int) -> list[Group]:
    """Splits a group into parts that are cheapest to read; the completions keep their order.

    A layer computes some 12 E^2 products for each of a sequence's T places and 2 E for each pair of
    them, the pairs that the mask hides too: T (6 E + T) in all, up to a factor. So few completions
    share a prompt that is short beside them, and many one that is long.

    Args:
        group: What is split.
        width: The model's, E.
    """
    n, prompt = len(group.completions), len(group.prompt_ids)
    longest = max(map(len, group.completions))

    def cost(size: int) -> int:
        places = prompt + size * longest
        return -(-n // size) * places * (6 * width + places)

    size = min(range(1, n + 1), key=cost)
    return [
        Group(prompt_ids=group.prompt_ids, completions=group.completions[start : start + size])
        for start in range(0, n, size)
    ]


def lay_out(groups: Sequence[Group]) -> Layout:
    """Returns groups as tensors, padded to the longest of them."""
    lines = [_Line(group) for group in groups]
    width = max(len(line.ids) for line in lines)
    ids, positions = (torch.zeros((len(lines), width), dtype=torch.long) for _ in range(2))
    segments = torch.full((len(lines), width), _PADDING)
    for row, line in enumerate(lines):
        ids[row, : len(line.ids)] = torch.tensor(line.ids)
        positions[row, : len(line.ids)] = torch.tensor(line.positions)
        segments[row, : len(line.ids)] = torch.tensor(line.segments)
    same = segments[:, :, None] == segments[:, None, :]
    visible = (same | (segments == _PROMPT)[:, None, :]).tril()
    sizes = torch.tensor([len(line.targets) for line in lines])
    return Layout(
        input_ids_BT=ids,
        position_ids_BT=positions,
        visible_B1TT=visible[:, None],
        rows_N=torch.arange(len(lines)).repeat_interleave(sizes),
        places_N=torch.tensor([place for line in lines for place in line.places]),
        targets_N=torch.tensor([target for line in lines for target in line.targets]),
    )


class _Line:
    """One group as lists."""

    def __init__(self, group: Group) -> None:
        end = len(group.prompt_ids)
        self.ids = list(group.prompt_ids)
        self.positions = list(range(end))
        self.segments = [_PROMPT] * end
        self.places: list[int] = []
        self.targets: list[int] = []
        for number, completion in enumerate(group.completions, start=1):
            start, read = len(self.ids), len(completion) - 1
            self.ids += completion[:-1]
            self.positions += range(end, end + read)
            self.segments += [number] * read
            self.places += [end - 1, *range(start, start + read)]
            self.targets += completion


def passes(n: int, size: int) -> Iterator[slice]:
    """Yields which of n groups go into each forward pass: `size` at a time, all of them for 0."""
    for start in range(0, n, size or n):
        yield slice(start, start + (size or n))

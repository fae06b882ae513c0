"""What rows of the view `nodes` say of first errors, read slowly, a step at a time."""

from typing import Any

from treeward.search.first_error import Beliefs
from treeward.search.intervals import Reals
from treeward.search.samples import Samples

Row = dict[str, Any]

ENDS = {"right": True, "wrong": False}


def beliefs(rows: list[Row], prior_G: Reals) -> tuple[Beliefs, list[int]]:
    """The beliefs about one tree, and the step of each of its rows."""
    samples = Samples()
    step_of: dict[int, int] = {}
    for row in rows:
        end, taken = ENDS.get(row["verdict"]), row["n_taken"]
        above = step_of.get(row["parent_id"])
        step_of[row["node_id"]] = (
            0
            if above is None
            else samples.step(above, (row["node_id"],), row["logprob"], taken=taken, end=end)
        )
    for row in rows:
        behind: list[int] = []
        for place, step in enumerate(row["beyond"]):
            at = step_of[row["node_id"]] if step["parent"] < 0 else behind[step["parent"]]
            key = (-place - 2,)
            taken, end = step["n_taken"], step["right"]
            behind.append(samples.step(at, key, step["logprob"], taken=taken, end=end))
    told = Beliefs(prior_G=prior_G, samples=samples)
    told.refresh(range(len(samples)))
    return told, [step_of[row["node_id"]] for row in rows]


def chances_of(rows: list[Row], prior_G: Reals) -> list[float]:
    """The probability that each row's prefix is right."""
    told, steps = beliefs(rows, prior_G)
    right = right_chances(told)
    return [right[step] for step in steps]


def right_chances(told: Beliefs) -> list[float]:
    """The probability that each step's prefix is right: that a path to it goes wrong nowhere."""
    return [
        float(told.first_error(path_to(told.samples.parent, step))[-1])
        for step in range(len(told.samples))
    ]


def path_to(parents: list[int], step: int) -> list[int]:
    path = [step]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    return path[::-1]

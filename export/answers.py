"""The answer that a search gives: which of a tree's solutions to believe, by no verdict.

Every way reads the rows of one tree, from the views `nodes` and `rollouts`; `FOUND` says which way
is a search's own. No verdict is read. But a search that knows the reference has looked: it takes
the verdict of an end for its worth. To measure how often the answer found is right, grow the trees
from problems without references.
"""

from collections.abc import Callable, Mapping, Sequence
from math import exp
from typing import Any

from treeward.critics.votes import elect
from treeward.search.settings import Algorithm
from treeward.search.tree import POLICY_SAMPLER, ROOT, Creation

Row = Mapping[str, Any]
Rows = Sequence[Row]
Way = Callable[[str, Rows, Rows], str | None]
"""Given a problem's verifier, a tree's nodes and its rollouts, an answer; None where it has none.

The verifier says which answers read alike.
"""


def _own(rollouts: Rows) -> list[Row]:
    """Returns those of the policy's own that have an answer; what others draw only steers."""
    return [
        row for row in rollouts if row["answer"] is not None and row["sampler_id"] == POLICY_SAMPLER
    ]


def majority(verifier: str, nodes: Rows, rollouts: Rows) -> str | None:
    """Returns the answer of most finished solutions; None where none has an answer.

    Rollouts from the bare problem have a vote each, and ends that were asked for step by step one
    for each sample. Where an end was cut from a rollout, its rollout has voted.
    """
    whole = [row for row in _own(rollouts) if row["node_id"] == ROOT]
    sampled = [end for end in _ends(nodes) if end["creation"] == Creation.SAMPLED]
    ballots = [(row["answer"], 1) for row in whole]
    return elect(verifier, ballots + [(end["answer"], end["n_samples"]) for end in sampled])


def weighted(verifier: str, nodes: Rows, rollouts: Rows) -> str | None:
    """Returns the answer with the most votes, weighted by what the search thinks of them.

    Ends have a vote of their `q` for each sample, and rollouts from below the root that of the node
    where they started. With what critics say in `q` it is the vote of a verifier (Li et al. 2023,
    DiVeRSe). Nodes whose `q` is unknown have no vote.
    """
    q = {row["node_id"]: row["q"] for row in nodes if row["q"] is not None}
    ballots = [(end["answer"], end["n_samples"] * end["q"]) for end in _known(nodes)]
    below = [row for row in _own(rollouts) if row["node_id"] != ROOT and row["node_id"] in q]
    return elect(verifier, ballots + [(row["answer"], q[row["node_id"]]) for row in below])


def likeliest(verifier: str, nodes: Rows, rollouts: Rows) -> str | None:
    """Returns the answer whose solutions the policy finds likeliest together, each counted once.

    A solution's probability, at temperature 1 and without top-p, is what its share among more and
    more such samples tends to, so this is their vote without the noise of how often each was drawn;
    and it does not matter where a search looked more often. Solutions with a step of unknown
    probability, and those of another sampler than the policy's own, have no vote.
    """
    steps = {row["node_id"]: row for row in nodes}
    said: dict[tuple[int, ...], tuple[float, str]] = {}
    drawn = [(end["path"], (), 0.0, end["answer"]) for end in _ends(nodes)]
    for row in _own(rollouts):
        if row["logprob"] is not None:
            path = steps[row["node_id"]]["path"]
            drawn.append((path, (*row["token_ids"],), row["logprob"], row["answer"]))
    for path, rest, logprob, answer in drawn:
        above = [steps[node] for node in path if node != ROOT]
        if all(step["logprob"] is not None for step in above):
            ids = (*(token for step in above for token in step["token_ids"]), *rest)
            total = logprob + sum(step["logprob"] for step in above)
            said.setdefault(ids, (total, answer))
    highest = max((logprob for logprob, _ in said.values()), default=0.0)
    return elect(verifier, [(answer, exp(total - highest)) for total, answer in said.values()])


def best(_: str, nodes: Rows, __: Rows) -> str | None:
    """Returns the answer of the end with the highest `q`; of equals, with more samples."""
    end = max(_known(nodes), key=lambda end: (end["q"], end["n_samples"]), default=None)
    return None if end is None else str(end["answer"])


def most_visited(_: str, nodes: Rows, __: Rows) -> str | None:
    """Returns the answer at the end of the way that was visited most, step by step.

    Ways that lead to no answer do not count. Of children with equal visits the better one is taken.
    """
    rows = {row["node_id"]: row for row in nodes}
    ends = _known(nodes)
    depth = 1
    while len(ends) > 1:
        steps = {end["path"][depth] for end in ends}
        step = max(steps, key=lambda node: (rows[node]["visits"], rows[node]["q"], -node))
        ends = [end for end in ends if end["path"][depth] == step]
        depth += 1
    return str(ends[0]["answer"]) if ends else None


def _ends(nodes: Rows) -> list[Row]:
    """Returns the nodes at which a solution ends with an answer, in order of making."""
    ends = [row for row in nodes if row["is_terminal"] and row["answer"] is not None]
    return sorted(ends, key=lambda row: row["node_id"])


def _known(nodes: Rows) -> list[Row]:
    """Returns the ends that are worth something to the search, or nothing, but known."""
    return [end for end in _ends(nodes) if end["q"] is not None]


FOUND: Mapping[Algorithm, Way] = {
    Algorithm.ROLLOUTS: majority,
    Algorithm.OMEGA: majority,
    Algorithm.GIVEN: majority,
    Algorithm.BEST_OF_N: best,
    Algorithm.BEAM: best,
    Algorithm.MCTS: weighted,
    Algorithm.ADAPTIVE: weighted,
}
"""The way of each search; `best_of_n` without critics ranks nothing: `majority` is its way then."""

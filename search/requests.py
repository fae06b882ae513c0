"""What a search may ask for, what comes back, and the seeds that make replies repeatable."""

import struct
from collections.abc import Generator, Sequence
from enum import StrEnum
from functools import cache
from hashlib import blake2b
from itertools import chain, groupby
from typing import NamedTuple, Protocol

from treeward.search.errors import BadInput
from treeward.search.replies import Reply
from treeward.search.tree import ROOT, Tree


class Kind(StrEnum):
    """What a request asks for."""

    SAMPLE = "sample"
    """Continuations to the end of a step."""
    ROLLOUT = "rollout"
    """Completions to the end of the solution."""
    SCORE = "score"
    """What critics say about some siblings; the policy is not asked."""
    LOGPROBS = "logprobs"
    """How likely the steps of a solution are that somebody else wrote; nothing is drawn."""


class Request(NamedTuple):
    """Asks for `n` continuations of a node's prefix, or what is said of steps that are there."""

    kind: Kind
    """To the end of a step, or of the solution, or nothing but scores or log-probabilities."""

    node: int
    """The node in its tree; of siblings the first, the others were made right after it."""

    prefix_ids: tuple[int, ...]
    """Token ids of the steps from the root to the node, or to the siblings' parent; without the
    prompt."""

    n: int
    """How many continuations, or siblings."""

    first: int
    """Index of the first among all of its kind at this node, so that 8 equal 4 and 4 more."""

    sampler_id: int = 0
    """Which sampler of the run draws them; 0 is the policy whose value is measured."""

    steps: tuple[tuple[int, ...], ...] = ()
    """Token ids of each sibling's step, or of a solution's; none where continuations are asked
    for."""


def ask(tree: Tree, node: int, kind: Kind, n: int, *, sampler_id: int = 0) -> Request:
    """Returns the request for `n` more continuations of a node; counts them as drawn."""
    place = (node, kind, sampler_id)
    first = tree.drawn.get(place, 0)
    tree.drawn[place] = first + n
    return Request(kind, node, tree.prefix_ids(node), n, first, sampler_id)


def ask_scores(tree: Tree, nodes: Sequence[int]) -> list[Request]:
    """Returns requests for the critics' scores of each node, in order.

    Siblings that were made one after the other, which share all but a step, are one request.
    """
    parents, steps = tree.nodes.parent, tree.nodes.step_ids

    def family(place: int) -> tuple[int, int]:
        return parents[nodes[place]], nodes[place] - place

    requests = []
    for _, places in groupby(range(len(nodes)), key=family):
        made = [nodes[place] for place in places]
        above = () if made[0] == ROOT else tree.prefix_ids(parents[made[0]])
        of_each = tuple([steps[node] for node in made])
        requests.append(Request(Kind.SCORE, made[0], above, len(made), 0, steps=of_each))
    return requests


def ask_logprobs(steps: tuple[tuple[int, ...], ...]) -> Request:
    """Returns the request for the log-probabilities of a solution's steps from the root on."""
    return Request(Kind.LOGPROBS, ROOT, (), 1, 0, steps=steps)


Growth = Generator[list[Request], list[Reply], None]
"""A search at work: yields batches of requests, receives their replies in the order asked.

Who replies may cut a batch of rollouts short, in place: then it replies to what it left there, and
is asked for the rest next.
"""


def rest_of(requests: Sequence[Request], asked: Sequence[Request]) -> list[Request]:
    """Returns what is left of a batch of which a beginning was asked; its last one perhaps in part.

    Args:
        requests: All.
        asked: The first of them, at least one.
    """
    *_, last = asked
    whole, *others = requests[len(asked) - 1 :]
    missing = whole.n - last.n
    part = [whole._replace(n=missing, first=whole.first + last.n)] if missing else []
    return [*part, *others]


class Search(Protocol):
    """Grows one tree. It sees only its own replies, so nothing else can change the tree."""

    def __call__(self, tree: Tree, /) -> Growth:
        """Returns the growth of a tree that holds its root only; modifies the tree."""
        ...


class Recorder(Protocol):
    """Remembers replies, so that a tree half grown can be grown again without asking."""

    def known(self, tree_id: str, key: str) -> Reply | None:
        """Returns the reply that was recorded when the tree was grown before, or None."""
        ...

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        """Keeps a reply; once this returns, the death of the process cannot lose it."""
        ...


def check_seed(name: str, seed: int) -> None:
    """Raises BadInput for what is no seed of a run; `name` is the setting's."""
    if not 0 <= seed < 2**63:
        raise BadInput(f"{name} must be at least 0 and below 2^63, got {seed!r:.40}")


def seeds_of(run_seed: int, problem_id: str, request: Request) -> tuple[int, ...]:
    """Returns 63 bits for each continuation that depend on what is drawn, never on when.

    Args:
        run_seed: The run's seed.
        problem_id: The problem's id.
        request: Where and how they are drawn.
    """
    name = problem_id.encode("utf-8", "surrogatepass")
    head = struct.pack("<qQ", run_seed, len(name)) + name
    head += f"{request.kind}:{request.sampler_id}:".encode()
    tail = b":" + _packed(request.prefix_ids)
    digests = [
        blake2b(b"%b%d%b" % (head, index, tail), digest_size=8).digest()
        for index in range(request.first, request.first + request.n)
    ]
    return tuple([word >> 1 for word in struct.unpack(f"<{request.n}Q", b"".join(digests))])


def request_key(request: Request) -> str:
    """Returns what identifies a request within its tree: kind, sampler, first, n and all ids."""
    ids, steps = request.prefix_ids, request.steps
    if steps:
        ids = (*map(len, steps), *ids, *chain.from_iterable(steps))
    place = blake2b(_packed(ids), digest_size=16).hexdigest()
    return f"{request.kind}:{request.sampler_id}:{request.first}:{request.n}:{place}"


def _packed(prefix_ids: tuple[int, ...]) -> bytes:
    return _layout(len(prefix_ids)).pack(*prefix_ids)


@cache
def _layout(length: int) -> struct.Struct:
    return struct.Struct(f"<{length}I")

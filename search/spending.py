"""Spends a budget of tokens over the trees of a run: by counts alone, in the order of the problems.

Trees grow in blocks, one after the other. A block may spend its share, by its number of problems,
of what the blocks before it left. Within a block nobody goes on alone: a tree waits as soon as
what it would ask next could take it beyond what it was granted. When all that are not done wait,
those whose labels are settled and those that look hopeless are done as they are, and half of what
is left is shared out among the others, by how many labels are uncertain. Nobody is granted more
than its next requests can take or, where that is more, what it has drawn so far: so it is looked at
again before it has drawn twice as much, however much there is. A tree whose share is less than its
next requests can take asks as many of their rollouts as fit, in their order, and for the others
later. Where not one fits (samples of steps are asked together, and count as one), it gets that
much, as long as there is: those first for which least was drawn, and among equals in the order of
the problems. What was granted and not drawn comes back. Trees for which nothing is left are done as
they are.

So all that decides is what the trees of the block have drawn when all of them wait. It does not
matter which reply came first, how many trees grow at once, or whether the replies come from a
recorder; and no more than the budget is ever spent.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from treeward.search.costs import least_tokens, most_tokens, within
from treeward.search.errors import BadInput
from treeward.search.forest import Forest, Plan, grow_tree, together
from treeward.search.policy import PolicySampler
from treeward.search.problem import Problem
from treeward.search.requests import Kind, Request
from treeward.search.settings import refuse_unread
from treeward.search.stopping import StopRule
from treeward.search.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """How a budget is spent; section `budget.`."""

    tokens: int | None = None
    """Tokens that the samplers may generate in the whole run, fast ones too; None for no budget."""

    block: int = 256
    """Problems whose trees are weighed against each other; so many are held at once."""

    settled: float = 0.25
    """A tree whose nodes all have intervals of at most this width is settled, and gets no more; in
    (0, 1)."""

    hopeless: int = 8
    """A tree without a right rollout is hopeless, and gets no more, when all its nodes have so many
    or more. With fewer, hopeless problems cost less and their values are known less well."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule, or is set and nothing would read it.
        """
        for name in ("tokens", "block", "hopeless"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"budget.{name} must be at least 1, got {value!r}")
        if not 0 < self.settled < 1:
            raise BadInput(f"budget.settled must be in (0, 1), got {self.settled!r}")
        if self.tokens is None:
            refuse_unread("budget", self, "--budget-tokens")


class Standing(StrEnum):
    """What more tokens would do for a tree; only those of the first kind are funded."""

    UNCERTAIN = "uncertain"
    """Its labels may still change."""
    SETTLED = "settled"
    """All its intervals are narrow."""
    HOPELESS = "hopeless"
    """Nothing that was drawn for it is right."""


class Need(NamedTuple):
    """Says what a tree needs, by its counts."""

    standing: Standing
    weight: int
    """Its part among uncertain trees; at least 1."""


class Claim(NamedTuple):
    """Says what a tree that waits asks for."""

    need: Need
    drawn: int
    """Tokens that were drawn for it."""
    most: int
    """Tokens that what it asks next can take, at most."""
    least: int
    """Tokens that the smallest part of it can take, at most."""


def allot(claims: Sequence[Claim], left: int) -> list[int]:
    """Returns what each tree may spend next; 0 for those that get nothing.

    Args:
        claims: In the order of the problems.
        left: What there is; not all of it is given away at once.
    """
    uncertain = [claim.need.standing is Standing.UNCERTAIN for claim in claims]
    weights = [claim.need.weight * open_ for claim, open_ in zip(claims, uncertain, strict=True)]
    grants = [0] * len(claims)
    unreserved = left
    for at, claim in sorted(enumerate(claims), key=lambda place: place[1].drawn):
        if weights[at]:
            share = left // 2 * weights[at] // sum(weights)
            share = max(min(share, max(claim.most, claim.drawn)), claim.least)
            fitting = (grant for grant in (share, claim.least) if grant <= unreserved)
            grants[at] = next(fitting, 0)
            unreserved -= grants[at]
    return grants


@dataclass(frozen=True, slots=True, kw_only=True)
class Funds:
    """Holds what there is to spend, and who says where it is needed."""

    tokens: int
    """What is left of the budget."""

    block: int
    """Problems whose trees are weighed against each other."""

    appraise: Callable[[Tree], Need]
    """Says what a tree needs; by the tree alone."""


async def grow_on_budget(
    forest: Forest, plan: Plan, funds: Funds, finished: Callable[[Sequence[Tree]], None]
) -> None:
    """Grows a tree for each problem, a block at a time, and spends no more than there is.

    Args:
        forest: What trees are grown with.
        plan: The problems from the first of a block on, and how many trees ask at once.
        funds: What there is to spend.
        finished: Receives the trees of each block, in the order of its problems.

    Raises:
        TreewardError: From the policy or from `finished`; a block half grown stays in the recorder.
    """
    problems, left = list(plan.problems), funds.tokens
    for first in range(0, len(problems), funds.block):
        block = problems[first : first + funds.block]
        share = left * len(block) // (len(problems) - first)
        trees = await _grow_block(forest, plan, funds, block, share)
        if trees is None:
            return
        left -= sum(map(drawn_for, trees))
        finished(trees)


async def _grow_block(
    forest: Forest, plan: Plan, funds: Funds, problems: Sequence[Problem], tokens: int
) -> list[Tree] | None:
    """Returns the trees of a block; None if the plan is stopped before all are done."""
    block = _Block(plan, forest.samplers, funds.appraise, tokens, running=len(problems))
    seats = asyncio.Semaphore(plan.concurrency)

    async def grow(index: int, problem: Problem) -> Tree | None:
        async with seats:
            plan.progress.in_flight += 1
            tree = await grow_tree(forest, plan, problem, partial(block.may_ask, index, seats))
            plan.progress.in_flight -= 1
        plan.progress.trees += tree is not None
        block.leave()
        return tree

    grown = await together(grow(index, problem) for index, problem in enumerate(problems))
    trees = [tree for tree in grown if tree is not None]
    return trees if len(trees) == len(problems) else None


class _Waiting(NamedTuple):
    """Holds a tree that waits, and where it is told what it may spend; 0 stops it."""

    tree: Tree
    requests: Sequence[Request]
    claim: Claim
    answer: asyncio.Future[int]


@dataclass(slots=True)
class _Block:
    """Holds what the trees of a block were granted, and which of them wait for more."""

    plan: Plan
    samplers: Sequence[PolicySampler]
    appraise: Callable[[Tree], Need]
    tokens: int
    running: int
    """Trees that neither wait nor are done."""
    granted: dict[int, int] = field(default_factory=dict)
    """All that each may have spent when it waits next."""
    trees: dict[int, Tree] = field(default_factory=dict)
    waiting: dict[int, _Waiting] = field(default_factory=dict)

    async def may_ask(
        self, index: int, seats: asyncio.Semaphore, tree: Tree, requests: list[Request]
    ) -> None:
        """Leaves in a batch what a tree may ask now; waits where tokens have to be shared out."""
        most = most_tokens(self.samplers, requests)
        if drawn_for(tree) + most <= self.granted.get(index, 0):
            return
        least = least_tokens(self.samplers, requests)
        claim = Claim(self.appraise(tree), drawn_for(tree), most, least)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.trees[index], self.waiting[index] = tree, _Waiting(tree, requests, claim, answer)
        self.plan.progress.in_flight -= 1
        seats.release()
        self.leave()
        grant = await answer
        await seats.acquire()
        self.plan.progress.in_flight += 1
        requests[:] = within(self.samplers, requests, grant) if grant else []

    def leave(self) -> None:
        """Counts a tree that waits now or is done; after the last, shares out what is left."""
        self.running -= 1
        if self.running == 0 and self.waiting:
            self._share_out()

    def _share_out(self) -> None:
        """Lets the trees go on that get something; where none does, all of them are done.

        Those that are not uncertain are done in any case.
        """
        left = self.tokens - sum(map(drawn_for, self.trees.values()))
        places = sorted(self.waiting)
        grants = allot([self.waiting[at].claim for at in places], left)
        if self.plan.stopping.is_set() or not any(grants):
            grants = [0] * len(grants)
        for at, grant in zip(places, grants, strict=True):
            standing = self.waiting[at].claim.need.standing
            if grant or standing is not Standing.UNCERTAIN or not any(grants):
                waiting = self.waiting.pop(at)
                self.granted[at] = drawn_for(waiting.tree) + grant
                self.running += 1
                if not grant:
                    _end(waiting)
                waiting.answer.set_result(grant)


def _end(waiting: _Waiting) -> None:
    """Notes on a tree that the budget ended it, and on its nodes which rollouts it never got."""
    waiting.tree.stopped = waiting.claim.need.standing
    for request in waiting.requests:
        if request.kind is Kind.ROLLOUT:
            waiting.tree.nodes.stop_rule[request.node] = StopRule.BUDGET


def drawn_for(tree: Tree) -> int:
    """Returns the tokens that samplers generated for a tree."""
    return tree.policy_tokens + tree.fast_tokens

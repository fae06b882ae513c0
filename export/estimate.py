"""What a run would take, before anything is loaded."""

from dataclasses import dataclass, replace

from treeward.export.plan import Plan
from treeward.search.algorithms import METHODS, Bounds
from treeward.search.tokens import load_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Holds a plan in numbers. Calls and tokens are upper bounds: searches end early."""

    n_problems: int
    policy: str
    template: str
    prompt: str
    """The first problem's prompt, in full."""

    n_prompt_tokens: int
    """Of that prompt."""

    max_nodes: int
    """Nodes a tree, at most; where whole solutions are cut, if these have no more than
    `search.max_depth` steps."""

    max_calls: int
    """Requests of the whole run, at most; with a budget every rollout may be one."""

    max_rollouts: int
    """Rollouts of the whole run, at most; fast ones are counted apart."""

    max_policy_tokens: int
    """Tokens that the policy generates in the whole run, at most."""

    fast_policy: str | None
    """What draws fast rollouts; None without any."""

    max_fast_rollouts: int
    """Fast rollouts of the whole run, at most."""

    max_fast_tokens: int
    """Their tokens, at most."""

    def __str__(self) -> str:
        """Returns the plan for a terminal."""
        fast = (
            f"\nfast rollouts by {self.fast_policy}: at most {self.max_fast_rollouts:,} with "
            f"{self.max_fast_tokens:,} tokens"
        )
        return (
            f"{self.n_problems} problems, policy {self.policy}, template {self.template}\n"
            f"at most {self.max_nodes} nodes a tree; in all at most {self.max_calls:,} requests, "
            f"{self.max_rollouts:,} rollouts and {self.max_policy_tokens:,} generated tokens"
            f"{fast if self.fast_policy else ''}\n"
            f"the first prompt ({self.n_prompt_tokens} tokens):\n{self.prompt}"
        )


def estimate(plan: Plan) -> Estimate:
    """Returns what a plan would take at most.

    Raises:
        BadInput: The policy cannot read the first problem.
    """
    reader = plan.reader(load_tokens(plan.model.path))
    ids = reader.prompt_ids(plan.problems[0])
    most = _bounds(plan)
    tokens = (
        most.samples * plan.sampling.max_step_tokens
        + most.rollouts * plan.sampling.max_rollout_tokens
    )
    count = len(plan.share)
    asked_a_node = (plan.critic is not None) + (plan.fast is not None)
    fast = count * most.nodes * plan.fast.rollouts.n if plan.fast else 0
    in_parts = 0 if plan.budget.tokens is None else count * most.rollouts + fast
    return Estimate(
        n_problems=count,
        policy=plan.model.name,
        template=plan.template.name,
        prompt=reader.text(ids),
        n_prompt_tokens=len(ids),
        max_nodes=most.nodes,
        max_calls=count * (most.calls + most.nodes * asked_a_node) + in_parts,
        max_rollouts=count * most.rollouts,
        max_policy_tokens=_within(plan.budget.tokens, count * tokens),
        fast_policy=plan.fast.model.name if plan.fast else None,
        max_fast_rollouts=fast,
        max_fast_tokens=_within(
            plan.budget.tokens, fast * plan.fast.rollouts.max_tokens if plan.fast else 0
        ),
    )


def _within(budget: int | None, tokens: int) -> int:
    """Returns how many of some tokens a budget has room for."""
    return tokens if budget is None else min(budget, tokens)


def _bounds(plan: Plan) -> Bounds:
    """Returns the most that a tree comes to; of what given solutions ask, the mean, rounded up."""
    method = METHODS[plan.search.algorithm]
    if not plan.solutions:
        return method.bounds(plan.search, plan.own)
    given = [plan.solutions[problem.id] for problem in plan.share]
    if not given:
        return Bounds(nodes=0, samples=0, rollouts=0, calls=0)
    lengths = [[len(steps) for steps in each] for each in given]
    longest = max(map(max, lengths))
    most = method.bounds(replace(plan.search, max_depth=longest), plan.own)
    count, trees = sum(map(len, lengths)), len(lengths)
    first = plan.own.rollouts
    looks = (most.rollouts - first) * count
    return Bounds(
        nodes=1 + max(map(sum, lengths)),
        samples=0,
        rollouts=first + -(-looks // trees),
        calls=1 + -(-(count + looks) // trees),
    )

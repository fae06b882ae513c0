"""A continuation under way: token by token, until its step or its solution ends.

It knows where steps end and what each is worth to the policy, the same for every backend.
"""

from dataclasses import dataclass, field

from treeward.search.policy import Ask, Draw
from treeward.search.requests import Kind
from treeward.search.steps import Budget, Finish, Stepper
from treeward.search.tokens import Tokens


@dataclass(slots=True, kw_only=True, eq=False)
class Continuation:
    """What was drawn so far."""

    kind: Kind
    stepper: Stepper
    ids: list[int] = field(default_factory=list)
    logprob: float = 0.0
    steps: list[float] = field(default_factory=lambda: [0.0])
    """The log-probability of each step, the one under way last."""

    @classmethod
    def of(cls, ask: Ask, tokens: Tokens) -> "Continuation":
        """Returns one that answers an ask and has no token yet."""
        budget = Budget(step=ask.settings.max_step_tokens, total=ask.room)
        stepper = Stepper.after(ask.prefix_ids, tokens, ask.rule, budget)
        return cls(kind=ask.kind, stepper=stepper)

    def add(self, token: int, logprob: float) -> Draw | None:
        """Adds a token; returns the draw if that completes it."""
        self.ids.append(token)
        self.logprob += logprob
        self.steps[-1] += logprob
        finish = self.stepper.feed(token)
        if finish is None:
            return None
        if finish is Finish.STEP and self.kind is Kind.ROLLOUT:
            self.steps.append(0.0)
            return None
        steps = tuple(self.steps) if len(self.steps) > 1 else ()
        return Draw(tuple(self.ids), self.logprob, finish, steps)

"""Stand-ins that several tests share: a verifier, a recorder, and the sampler of made-up runs."""

from treeward.export.run_folder import Sampler
from treeward.search.errors import TreewardError
from treeward.search.problem import Problem
from treeward.search.replies import Reply
from treeward.search.verdicts import Judgement, Reason

SAMPLER = Sampler(
    sampler_id=0,
    policy="nano",
    temperature=1.0,
    top_p=1.0,
    max_step_tokens=24,
    max_rollout_tokens=96,
    purpose="evidence",
)
"""The only sampler of a run whose trees nobody sampled."""


class Exact:
    """Answers are right where they are equal to the reference; without one nobody knows."""

    def judge(self, problem: Problem, answer: str | None) -> Judgement:
        if problem.answer is None:
            return Judgement(Reason.NO_REFERENCE, answer)
        if answer is None:
            return Judgement(Reason.NO_ANSWER)
        return Judgement(Reason.MATCH if answer == problem.answer else Reason.MISMATCH, answer)


class Crash(TreewardError):
    """Ends a run at once."""


class Memory:
    """A recorder in a dictionary; a run dies on it when it would keep more than its room."""

    def __init__(self, room: int = 10**9) -> None:
        self.kept: dict[tuple[str, str], Reply] = {}
        self.room = room

    def known(self, tree_id: str, key: str) -> Reply | None:
        return self.kept.get((tree_id, key))

    def record(self, tree_id: str, key: str, reply: Reply) -> None:
        before = self.kept.get((tree_id, key))
        assert before is None or before.n_came < reply.n_came, "a reply is asked for once"
        if len(self.kept) == self.room:
            raise Crash
        self.kept[tree_id, key] = reply

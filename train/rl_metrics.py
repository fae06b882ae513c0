"""What a step of reinforcement is told by: TRL's names, and the share of groups that teach."""

from collections.abc import Sequence

import numpy as np

from treeward.search.steps import Finish
from treeward.train.advantages import spread
from treeward.train.learning import Drawn
from treeward.train.output import Json


def describe(drawn: Sequence[Drawn], kept: Sequence[Drawn], reward_name: str) -> Json:
    """Returns means over all that was drawn for a step, kept or not.

    What nobody knows is in no mean; a name whose mean nothing is known of is left out.

    Args:
        drawn: All groups of the step.
        kept: Those that are learned from.
        reward_name: What the reward is called.
    """
    completions = [draw for group in drawn for draw in group.draws]
    lengths = [len(draw.token_ids) for draw in completions]
    ended = [len(d.token_ids) for d in completions if d.finish is not Finish.LENGTH]
    known = [[r for r in group.grades.rewards if r is not None] for group in drawn]
    rewards = [reward for group in known for reward in group]
    stds = [float(np.std(group, ddof=1)) for group in known if len(group) > 1]
    spreads = [spread(group.grades.rewards) for group in drawn]
    facts = {
        "groups/kept_share": len(kept) / len(drawn),
        "completions/mean_length": float(np.mean(lengths)),
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "completions/clipped_ratio": 1 - len(ended) / len(lengths),
        "completions/mean_terminated_length": _mean(ended),
        "completions/unknown_ratio": 1 - len(rewards) / len(completions),
        "frac_reward_zero_std": spreads.count(0.0) / len(spreads),
        "reward": _mean(rewards),
        "reward_std": _mean(stds),
        f"rewards/{reward_name}/mean": _mean(rewards),
        f"rewards/{reward_name}/std": float(np.std(rewards)) if rewards else None,
    }
    for name in sorted({name for group in drawn for name in group.grades.shares}):
        facts[name] = _mean([g.grades.shares[name] for g in drawn if name in g.grades.shares])
    return {name: value for name, value in facts.items() if value is not None}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None

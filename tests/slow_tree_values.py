"""Tree evidence, node by node in plain loops: the formulas of `critics/weighing.py`."""

import math
from dataclasses import dataclass

from treeward.critics.evidence import Evidence
from treeward.critics.tree_value import exact_values
from treeward.search.tree import Creation, Tree

NAN = math.nan
LIKELY = 0.1


@dataclass
class Step:
    p: float
    n: float
    """Samples."""
    r: float
    """Rollouts."""
    value: float
    variance: float
    lone: bool
    given: bool = False
    """Here whatever was drawn."""
    picked: bool = False
    """Here for an outcome."""
    settled: float = 0.0
    """What share of the solutions through it is known with their probabilities."""

    @property
    def g(self) -> float:
        return (2 * self.n + self.r) / (self.n + self.r)

    @property
    def h(self) -> float:
        return (4 * self.n + self.r) / (self.n + self.r)


def slow_tree_values(tree: Tree, evidence: Evidence, *, as_is: bool) -> list[tuple[float, float]]:
    """Returns the value of each node and the rollouts that would tell as much."""
    exact = exact_values(tree)
    found: dict[int, tuple[float, float, float, float]] = {}
    for node in reversed(range(len(tree))):
        if tree.is_terminal(node):
            certain = not math.isnan(exact[node])
            found[node] = (
                float(exact[node]),
                0.0 if certain else NAN,
                math.inf if certain else NAN,
                float(certain),
            )
        else:
            steps = steps_of(tree, evidence, node, found, as_is)
            found[node] = (*weighed(steps), sum(step.p * step.settled for step in steps))
    return [(found[node][0], found[node][2]) for node in range(len(tree))]


def steps_of(
    tree: Tree,
    evidence: Evidence,
    node: int,
    found: dict[int, tuple[float, float, float, float]],
    as_is: bool,
) -> list[Step]:
    nodes, steps = tree.nodes, []
    children = nodes.children[node]
    only_sampled = all(nodes.creation[child] is Creation.SAMPLED for child in children)
    for child in children:
        value, variance, _, settled = found[child]
        n = float(nodes.n_samples[child]) if only_sampled else 0.0
        r, entered = float(evidence.drawn[child]), float(evidence.entered[child])
        below = nodes.children[child]
        m = float(evidence.n_rollouts[child])
        if all(nodes.creation[each] is Creation.SAMPLED for each in below):
            m += 2 * sum(nodes.n_samples[each] for each in below)
        m /= (1 - min(settled, 1 - 1e-9)) ** 2
        chosen = nodes.creation[child] is Creation.CHOSEN
        if chosen:
            m = r - entered
        m = 0.0 if math.isnan(value) else m
        lone = False
        if entered and (settled < 1 - 1e-9 or (chosen and not tree.is_terminal(child))):
            k, d = float(evidence.entered_right[child]), m + entered
            known, spread = (m * value, m * m * variance) if m else (0.0, 0.0)
            value = (known + k) / d
            variance = (spread + entered * single(value, d)) / d**2
            lone = m == 0
            settled = 0.0 if chosen else settled
        logprob = nodes.logprob[child]
        p = NAN if logprob is None or not as_is else math.exp(min(logprob, 0.0))
        picked = chosen and not evidence.entered_before[child]
        given = picked or nodes.creation[child] is Creation.GIVEN
        steps.append(Step(p, n, r, value, variance, lone, given, picked, settled))
    by_step: dict[tuple[int, ...], list[tuple[float, bool]]] = {}
    for stray in evidence.strayed():
        if stray.node == node:
            p = NAN if stray.logprob is None or not as_is else math.exp(min(stray.logprob, 0.0))
            by_step.setdefault(stray.step_ids, []).append((p, stray.is_right))
    for rollouts in by_step.values():
        k = sum(right for _, right in rollouts)
        r = float(len(rollouts))
        steps.append(Step(rollouts[0][0], 0.0, r, k / r, NAN, True))
    return as_weighed(steps, [tree.is_terminal(child) for child in children])


def as_weighed(steps: list[Step], ends: list[bool]) -> list[Step]:
    guessed = any(math.isnan(step.value) for step in steps)
    unclear = guessed or any(math.isnan(step.p) for step in steps)
    for step, is_end in zip(steps, ends + [False] * len(steps), strict=False):
        if guessed:
            step.n = 0.0
        if unclear:
            step.p = 0.0
            step.given = step.picked = False
            step.lone |= is_end and step.n == 0 and step.r > 0
    return [step for step in steps if step.n + step.r > 0 or step.p > 0]


def weighed(steps: list[Step]) -> tuple[float, float, float]:
    big_n = sum(step.n + step.r for step in steps)
    if not big_n:
        return NAN, NAN, NAN
    unclear = all(step.p == 0 for step in steps)
    likely = sum(step.p for step in steps)
    left = max(1 - likely, 0.0)
    parts, tries = [], 0.0
    for step in steps:
        a = 0.0 if step.picked else LIKELY * step.p
        tries += a
        if step.n + step.r and not step.given:
            a += step.g * stands_for(step, big_n, unclear)
            tries += stands_for(step, big_n, unclear) * (step.g if unclear else 1.0)
        parts.append(a)
    total = sum(parts)
    told = sum(a * step.value for a, step in zip(parts, steps, strict=True))
    others = told / total if total else 0.5
    known = sum(step.p * step.value for step in steps)
    value = (known + left * others) / (likely + left)
    one = single(value, sum(2 * step.n + step.r for step in steps))
    b = share_between(steps, one)
    free = [step for step in steps if not step.given]
    if total:
        far = 2 * (LIKELY * sum(step.p for step in steps if not step.picked)) ** 2
        for step in free:
            if step.n + step.r:
                exact = step.settled > 1 - 1e-9 and not step.lone
                far += (1.0 if exact else b) * step.h * stands_for(step, big_n, unclear)
        same = 0.0 if unclear else sum(step.p * missed(step, big_n) for step in free)
        error = single(others, tries) * ((left / total) ** 2 * far + b * min(same, left**2))
    else:
        error = left**2 / 8
    alike = sum(step.p**2 for step in steps)
    for a, step in zip(parts, steps, strict=True):
        w = step.p + (left * a / total if total else 0.0)
        if step.lone:
            error += (1 - b * (1 - alike)) * one * w**2 / step.r
        else:
            error += w**2 * step.variance
    error /= (likely + left) ** 2
    if unclear and any(not step.lone for step in steps):
        return value, error, max(one / error - 2, 0.0) if error else math.inf
    return value, error, rollouts_for(value, error)


def missed(step: Step, n: float) -> float:
    """What it stands for of the steps that nobody drew, as a probability."""
    met = -math.expm1(n * math.log1p(-step.p)) if step.p < 1 else 1.0
    return step.p / met - step.p


def stands_for(step: Step, n: float, unclear: bool) -> float:
    return step.n + step.r if unclear else n * missed(step, n)


def share_between(steps: list[Step], one: float) -> float:
    children = [(step.n + step.r, step.value) for step in steps if not step.lone]
    d = sum(draws for draws, _ in children)
    centre = sum(draws * value for draws, value in children) / d if d else 0.0
    spread = sum(draws * (value - centre) ** 2 for draws, value in children)
    return min((spread + 0.5 * one) / max(d, 1.0) / one, 1.0)


def single(mean: float, draws: float) -> float:
    shrunk = (draws * mean + 0.5) / (draws + 1)
    return shrunk * (1 - shrunk)


def rollouts_for(value: float, variance: float) -> float:
    if variance == 0:
        return math.inf
    low, high = 1e-12, 1e24
    for _ in range(400):
        middle = math.sqrt(low * high)
        wide = single(value, middle) / middle > variance
        low, high = (middle, high) if wide else (low, middle)
    return low

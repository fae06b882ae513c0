"""How good a policy is on some problems: pass@k, majority vote, and what its solutions cost.

A sample that nobody can judge is missing: it is counted, and leaves every denominator. So that no
policy gains by answers that cannot be decided, pass@k is also there with these as wrong ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from treeward.critics.progress import pass_at_k
from treeward.search.errors import BadInput
from treeward.train.estimates import Estimate, difference, mean, share


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings:
    """What is asked of the policy."""

    samples: int = 8
    """Solutions a problem."""

    ks: tuple[int, ...] = ()
    """The k of pass@k; none takes 1, 2, 4, 8, ... up to `samples`."""

    seed: int = 0
    """Seeds what is sampled."""

    concurrency: int = 128
    """Problems asked at once. Changes speed only, in deterministic mode."""

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            BadInput: A field breaks its rule.
        """
        for name in ("samples", "concurrency"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} must be at least 1, got {getattr(self, name)!r}")
        for k in self.ks:
            if not 1 <= k <= self.samples:
                raise BadInput(
                    f"k must be from 1 to the samples of a problem, which are {self.samples}, "
                    f"got {k!r}; raise --samples"
                )

    @property
    def ks_used(self) -> tuple[int, ...]:
        """Returns the k of pass@k, smallest first, each once."""
        powers = (1 << n for n in range(self.samples.bit_length()))
        return tuple(sorted(set(self.ks or powers)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemResult:
    """Says how one problem went."""

    problem_id: str
    prompt: str

    n: int
    """Samples whose verdict is known."""

    n_right: int
    """Right ones among them."""

    n_no_answer: int
    """Those among the known that ended without an answer: wrong."""

    n_length: int
    """Those among the known that ran out of their token budget: wrong."""

    n_unknown: int
    """Samples whose verdict is not known; not among `n`."""

    n_undecided: int
    """Those among the unknown that gave an answer which the checker could not decide."""

    majority_answers: tuple[str, ...] | None
    """The answers with most votes, several in a tie; None where no verdict is known."""

    majority_right: float | None
    """The chance that one of them, drawn by lot, is right; None where no verdict is known."""

    mean_tokens: float | None
    """Tokens of a solution; None where the call failed."""

    error: str | None
    """Why the policy could not be asked; None where it could."""

    def trials(self, *, at_least: bool = False) -> int:
        """Returns the samples that count; with `at_least` undecided answers do, as wrong ones."""
        return self.n + at_least * self.n_undecided

    def pass_at(self, k: int, *, at_least: bool = False) -> float | None:
        """Returns the chance that one of k samples is right; None where fewer than k count."""
        n = self.trials(at_least=at_least)
        return pass_at_k(n, self.n_right, k) if n >= k else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Says how a policy did."""

    pass_at: Mapping[int, Estimate]
    """By k, the chance that one of k samples is right."""

    pass_at_least: Mapping[int, Estimate]
    """The same where answers that could not be decided count as wrong."""

    majority: Estimate
    """The chance that the vote of all samples is right; ties are settled by lot."""

    tokens: Estimate
    """Tokens of a solution."""

    no_answer: Estimate
    """Share of solutions without an answer, among those whose verdict is known."""

    length: Estimate
    """Share of solutions that ran out of tokens, among those whose verdict is known."""

    unknown: Estimate
    """Share of samples whose verdict is not known."""

    n_problems: int
    n_unknown_problems: int
    """Problems with no known verdict at all: they are in no estimate of what is right."""

    n_failed_problems: int
    """Those among them that the policy could not be asked."""

    samples: int
    """Solutions asked for, a problem."""

    problems: tuple[ProblemResult, ...]
    """In the order given."""


def summarise(results: Sequence[ProblemResult], settings: EvalSettings) -> Evaluation:
    """Returns the estimates over problems, each over those that know something of it."""
    known = [result for result in results if result.n]
    asked = settings.samples * len(results)
    trials = sum(result.n for result in known)
    return Evaluation(
        pass_at={k: _pass_at(results, k) for k in settings.ks_used},
        pass_at_least={k: _pass_at(results, k, at_least=True) for k in settings.ks_used},
        majority=share(_known(result.majority_right for result in known), len(known)),
        tokens=mean(_known(result.mean_tokens for result in results)),
        no_answer=share([result.n_no_answer / result.n for result in known], trials),
        length=share([result.n_length / result.n for result in known], trials),
        unknown=share([result.n_unknown / settings.samples for result in results], asked),
        n_problems=len(results),
        n_unknown_problems=len(results) - len(known),
        n_failed_problems=sum(result.error is not None for result in results),
        samples=settings.samples,
        problems=tuple(results),
    )


def _pass_at(results: Sequence[ProblemResult], k: int, *, at_least: bool = False) -> Estimate:
    """Returns pass@k; the samples of a problem hold n // k independent tries at k."""
    trials = sum(result.trials(at_least=at_least) // k for result in results)
    return share(_known(result.pass_at(k, at_least=at_least) for result in results), trials)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Says what changed between two evaluations on the same problems."""

    before: Estimate
    """pass@k of the first, over the problems compared."""

    after: Estimate
    """pass@k of the second, over the problems compared."""

    gain: Estimate
    """after - before, in pairs by problem."""

    gain_at_least: Estimate
    """The same where answers that could not be decided count as wrong."""

    n_left_out: int
    """Problems of which one of the two knows too little."""

    @property
    def settled(self) -> bool:
        """Returns whether the intervals of both gains leave out 0, on the same side."""
        sides = [
            (each.low > 0) - (each.high < 0)
            for each in (self.gain, self.gain_at_least)
            if each.low is not None and each.high is not None
        ]
        return len(sides) == 2 and sides[0] == sides[1] != 0


def compare(before: Evaluation, after: Evaluation, k: int = 1) -> Comparison:
    """Compares two evaluations problem by problem.

    Raises:
        BadInput: They are not of the same problems in the same order.
    """
    ids = [[result.problem_id for result in each.problems] for each in (before, after)]
    if ids[0] != ids[1]:
        raise BadInput(
            f"evaluations of {len(ids[0])} and {len(ids[1])} problems that are not the same cannot "
            "be compared; evaluate both on the same problems"
        )
    kept = _known_to_both(before, after, k)
    return Comparison(
        before=_pass_at(kept[0], k),
        after=_pass_at(kept[1], k),
        gain=difference(*(_known(result.pass_at(k) for result in side) for side in kept)),
        gain_at_least=difference(
            *(
                _known(result.pass_at(k, at_least=True) for result in side)
                for side in _known_to_both(before, after, k, at_least=True)
            )
        ),
        n_left_out=len(before.problems) - len(kept[0]),
    )


def _known_to_both(
    before: Evaluation, after: Evaluation, k: int, *, at_least: bool = False
) -> tuple[list[ProblemResult], list[ProblemResult]]:
    """Returns the results of the problems of which both sides have k samples that count."""
    pairs = [
        (b, a)
        for b, a in zip(before.problems, after.problems, strict=True)
        if min(b.trials(at_least=at_least), a.trials(at_least=at_least)) >= k
    ]
    return [b for b, _ in pairs], [a for _, a in pairs]

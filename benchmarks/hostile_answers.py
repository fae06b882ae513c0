r"""Judges answers made to hang, exhaust or hijack a checker, and prints how long that took.

    python benchmarks/hostile_answers.py [--fuzz 200] [--seed 0]

The other side is math-verify called directly: its own limit is 5 seconds and needs the main thread;
`9^{9^9}`, `10^{10^{10}}` and `\sum_{n=1}^{10^{9}} n^n` each take all of it, and the outcome is
False, as it is for a wrong answer.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator

import click

from treeward.critics.math_worker import CPU_SECONDS
from treeward.critics.verifier import BUILT_IN, AnswerVerifier
from treeward.search.problem import Problem

LISTED = {
    "power tower": "9^{9^9}",
    "power tower of tens": "10^{10^{10}}",
    "long sum": r"\sum_{n=1}^{10^{9}} n^n",
    "forty parentheses": "(" * 40 + "12" + ")" * 40,
    "100 kB of digits": "7" * 100_000,
    "code": '__import__("os").getpid()',
    "code in LaTeX": r"\text{__import__('os')}",
    "NUL": "12\x00",
    "escape sequence": "\x1b[2J\x1b]0;title\x07" + "12",
    "right-to-left marks": "\u202e21\u202c\u200f",
    "lone surrogate": "\udc8012",
    "empty": "",
    "only marks": "\u200e\u200f ",
    "factorials": "((9!)!)!",
    "large factorial": "99999999!",
    "binomial": r"\binom{10^{9}}{5 \cdot 10^{8}}",
    "tower without braces": "9^9^9^9",
    "tower of groups": "((9^{99})^{99})^{99}",
    "tower in Python": "9**9**9",
    "exponent behind a command": r"2^\frac{9999999999}{1}",
    "scientific notation": "1e999999999",
    "expansion": "(a+b+c+d+e+f)^{99}",
    "product of sums": "".join(
        f"({a}+{b})" for a, b in zip("abcdefghijklmno", "pqrstuvwxyzABCD", strict=True)
    ),
    "bars": "|x" * 60,
    "integral": r"\int_0^{1} e^{e^{x^{x}}} dx",
    "nested fractions": r"\frac{1}{1+" * 40 + "1" + "}" * 40,
    "unclosed": "{" * 200,
    "100 kB of spaces": " " * 100_000 + "12",
    "100 kB of signs": "-" * 100_000 + "12",
    "100 kB of words": "banana 1 " * 11_000,
    "division by zero": r"\frac{1}{0}",
    "dollars": "$" * 5_000,
}

_ATOMS = r"1 2 7 12 99 1000 0.5 x y n e i pi \pi \infty 10^{9} 99! \text{m} % ..."
_BINARY = r"+ - * / ^ ** = < , | \cdot \times \div \le \cup"
_WRAPS = (
    r"(@) [@] {@} |@| -@ @! \sqrt{@} \frac{@}{@} @^{@} \binom{@}{@} \sin(@) \log_{@}(@) f(@) "
    r"\left(@\right) \begin{pmatrix}@\\@\end{pmatrix} \overline{@} \boxed{@} @_{@}"
)
_NOISE = (
    "\x00\x1b\u202e\u200f\udc80\ufeff\u0661\u00b2{}[]()^_\\$%&#~'\"`0123456789abcxyz+-*/=<>|!,.; "
)


def _expression(rng: random.Random, depth: int) -> str:
    """Returns a random expression, mostly well formed."""
    if depth == 0 or rng.random() < 0.15:
        return rng.choice(_ATOMS.split())
    if rng.random() < 0.5:
        left, right = (_expression(rng, depth - 1) for _ in range(2))
        return f"{left}{rng.choice(_BINARY.split())}{right}"
    before, *rest = rng.choice(_WRAPS.split()).split("@")
    return before + "".join(_expression(rng, depth - 1) + after for after in rest)


def fuzzed(count: int, seed: int) -> Iterator[str]:
    """Yields random answers: expressions, damaged and repeated expressions, noise."""
    rng = random.Random(seed)
    for _ in range(count):
        text = _expression(rng, rng.randint(1, 6))
        kind = rng.random()
        if kind < 0.25:
            places = sorted(rng.sample(range(len(text) + 1), k=min(3, len(text))))
            for place in reversed(places):
                text = text[:place] + rng.choice(_NOISE) + text[place + rng.randint(0, 2) :]
        elif kind < 0.35:
            text *= rng.choice([2, 7, 50])
        elif kind < 0.45:
            text = "".join(rng.choices(_NOISE, k=rng.choice([5, 50, 250, 5_000])))
        yield text


def hostile(fuzz: int, seed: int) -> Iterator[tuple[str, str]]:
    """Yields the name and text of every hostile answer, the listed ones first."""
    yield from LISTED.items()
    yield from ((f"fuzz {index}", text) for index, text in enumerate(fuzzed(fuzz, seed)))


def measure(verifier: AnswerVerifier, name: str, cases: list[tuple[str, str]]) -> float:
    """Judges every answer with one verifier, prints a line and returns the longest time."""
    problem = Problem(id="hostile", prompt="", answer="12", verifier=name)
    times = []
    reasons: Counter[str] = Counter()
    for label, answer in cases:
        start = time.perf_counter()
        reason = verifier.judge(problem, answer).reason
        times.append((time.perf_counter() - start, label))
        reasons[reason] += 1
    times.sort()
    slowest, label = times[-1]
    counts = "".join(
        f"{reasons[reason]:>{len(reason) + 2}}"
        for reason in ("match", "mismatch", "no_answer", "checker_limit")
    )
    by_time = sum(seconds > CPU_SECONDS for seconds, _ in times)
    click.echo(
        f"{name:8}{counts}{by_time:9}{times[len(times) // 2][0]:9.4f}{slowest:9.4f}  {label}"
    )
    return slowest


@click.command()
@click.option("--fuzz", default=200, show_default=True, help="Random answers besides the list.")
@click.option("--seed", default=0, show_default=True, help="Of the random answers.")
def main(fuzz: int, seed: int) -> None:
    """Judges every hostile answer with every verifier and prints a table."""
    cases = list(hostile(fuzz, seed))
    click.echo(f"{len(cases)} answers against the reference 12; by time: stopped by the clock")
    click.echo(
        "verifier  match  mismatch  no_answer  checker_limit  by time  median  slowest  (seconds)"
    )
    with AnswerVerifier() as verifier:
        slowest = max(measure(verifier, name, cases) for name in BUILT_IN)
    if slowest >= 2:
        raise SystemExit("an answer took 2 seconds or more")


if __name__ == "__main__":
    main()

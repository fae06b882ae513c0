"""The last chapter of the demo: a policy learns from the trees, and problems it never saw judge."""

from pathlib import Path

from rich.console import Console

from treeward.export.plan import Options, make_plan
from treeward.search.models import NANO
from treeward.train.evaluation import Comparison, EvalSettings, Evaluation, compare
from treeward.train.evaluator import SECTIONS, evaluate_plan
from treeward.train.rlvr import RlvrSettings, train_rlvr

HELD_OUT = "task:arithmetic?n=150&seed=4052"

EVALUATION = EvalSettings(samples=4, ks=(1,))

SETTINGS = RlvrSettings(steps=15, learning_rate=2e-5, log_every=5)


def train_a_little(data: Path, run: Path, out: Path, console: Console) -> None:
    """Trains the embedded model on verdicts and trees, and says what changed.

    Args:
        data: The `rlvr` dataset.
        run: The run with its trees.
        out: Gets the trained model; done again, it goes on where it was.
        console: Where the story is told.
    """
    console.print(
        f"{SETTINGS.steps} steps of reinforcement from verified answers (RLVR): the model solves "
        "problems of the run anew, right answers are reinforced, and where the trees know how much "
        "a step gained or lost, that step is praised or blamed for it.",
        highlight=False,
    )
    before = _accuracy(NANO)
    trained = train_rlvr(
        data, _folder(), out, SETTINGS, trees=run, resume=True, progress=lambda line: None
    )
    if trained.ended is not None:
        console.print(f"It ended early: {trained.ended}.", highlight=False)
    console.print(describe(compare(before, _accuracy(str(out)))), highlight=False)


def _folder() -> Path:
    return make_plan(Options(problems=HELD_OUT, policy=NANO, limit=1)).model.path


def _accuracy(model: str) -> Evaluation:
    options = Options(problems=HELD_OUT, policy=model, deterministic=True)
    return evaluate_plan(make_plan(options, SECTIONS), EVALUATION)


def describe(found: Comparison) -> str:
    """Returns what a comparison says in words, and no more than it says."""
    gain = found.gain
    if gain.value is None or gain.low is None or gain.high is None:
        return "Too little is known to compare the model before and after."
    line = (
        f"Right in one try, before and after: {found.before.value:.3f} and "
        f"{found.after.value:.3f} ({gain.value:+.3f}, {100 * gain.level:.0f} % interval "
        f"{gain.low:+.3f} to {gain.high:+.3f}) on {gain.n_problems} problems never seen before."
    )
    if not found.settled:
        return f"{line}\nSo short a training made no difference that this many problems can tell."
    return f"{line}\nThe model is {'better' if gain.value > 0 else 'worse'} for it."

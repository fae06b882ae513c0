"""The last chapter of the demo: a policy learns what it could not do, and fresh problems judge."""

from pathlib import Path

from rich.console import Console

from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.queries import run_query
from treeward.export.run_folder import RunFolder, open_run_folder
from treeward.search.models import NANO
from treeward.train.evaluation import Comparison, EvalSettings, Evaluation, compare
from treeward.train.evaluator import SECTIONS, evaluate_plan
from treeward.train.srl import SrlSettings, train_srl

PROBLEMS = "task:arithmetic?n=64&seed=31&steps=7"
HELD_OUT = "task:arithmetic?n=150&seed=4052&steps=7"

TRIES = ("search.width=8", "search.max_depth=1", "search.rollouts=1")
"""Solutions a problem, and nothing from the steps between."""

EVALUATION = EvalSettings(samples=4, ks=(1,))

SETTINGS = SrlSettings(steps=20, learning_rate=3e-4, prompts_per_step=16)


def train_a_little(out: Path, console: Console) -> None:
    """Trains the embedded model on single steps, and says what changed.

    Args:
        out: Gets the tries, the dataset and the trained model; done again, it goes on.
        console: Where the story is told.
    """
    tries = _try(out / "tries")
    export_dataset(tries, Kind.SRL, out / "srl", ExportSettings(answer_step=True))
    console.print(_silence(tries), highlight=False)
    console.print(
        f"So it learns from steps, by {SETTINGS.steps} steps of SRL: it writes one step, and is "
        "rewarded for how much that is like the expert's.",
        highlight=False,
    )
    before = _accuracy(NANO)
    model = make_plan(Options(problems=HELD_OUT, policy=NANO, limit=1)).model.path
    trained = train_srl(
        out / "srl", model, out / "model", SETTINGS, resume=True, progress=lambda line: None
    )
    if trained.ended is not None:
        console.print(f"It ended early: {trained.ended}.", highlight=False)
    console.print(describe(compare(before, _accuracy(str(trained.out)))), highlight=False)


def _try(out: Path) -> RunFolder:
    """Returns a run in which the embedded model tried every problem 8 times."""
    options = Options(problems=PROBLEMS, algorithm="rollouts", assignments=TRIES)
    generate(make_plan(options), out, concurrency=64)
    return open_run_folder(out)


def _silence(tries: RunFolder) -> str:
    """Says how little outcomes say of problems that are never solved."""
    sql = "SELECT count(*) AS n, count(*) FILTER (WHERE pass_rate = 0) AS silent FROM trees"
    (row,) = run_query(tries, sql).to_pylist()
    return (
        "The model has learned chains of up to 6 operations, and of longer ones it leaves an "
        f"operation out. {row['silent']} of {row['n']} problems with 7 it solved in none of 8 "
        "tries: there a reward for the answer is silent."
    )


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
        if gain.low <= 0 <= gain.high:
            return f"{line}\nThat is no difference that this many problems can tell."
        return (
            f"{line}\nIt may come from answers that could not be decided: with these as wrong ones "
            f"the difference is {found.gain_at_least}."
        )
    return f"{line}\nThe model is {'better' if gain.value > 0 else 'worse'} for it."

"""Where outcomes are silent: training on problems that the policy never solves in 8 tries.

    python benchmarks/hard_problems.py

Chains longer than any that the embedded model was trained on, of which it solved none in 8 samples,
for training and held out. From the same weights: reinforcement from outcomes (RLVR), fine-tuning on
the reference solutions (SFT), reinforcement from single steps of them (SRL, with the step that
gives the answer; the same where only texts are compared, so that an answer can be like the step
that it skips; and SRL N-1, without that step), and SRL followed by RLVR, each for as many tokens:
sampled ones, or, for SFT, learned ones. Prints the share of groups with a signal, accuracy on
held-out problems with intervals by problem over all seeds, and how often a drawn step answers where
the expert goes on or goes on where the expert answers, in the first step and the last.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from treeward.export.dataset_spec import ExportSettings, Kind
from treeward.export.datasets import export_dataset
from treeward.export.generate import generate
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.export.run_folder import open_run_folder
from treeward.search.models import resolve_model
from treeward.train.estimates import share
from treeward.train.evaluation import EvalSettings, Evaluation
from treeward.train.evaluator import evaluate_plan
from treeward.train.optim import Schedule
from treeward.train.rlvr import RlvrSettings, train_rlvr
from treeward.train.sft import train_sft
from treeward.train.sft_settings import SftSettings
from treeward.train.srl import SrlSettings, train_srl

NANO = resolve_model("nano", Path("unused")).path
CHEAPEST = ("search.width=1", "search.rollouts=1")
"""A run that only carries the problems: what is learned are their reference solutions."""

SFT_BATCH = 16
Train = Callable[[Path, Path, int], None]
"""Trains from a model folder to an output folder with a seed."""


def main() -> None:
    """Prints a table of methods."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", default="8..9", help="operations of a chain")
    parser.add_argument("--problems", type=int, default=300, help="candidates, each side")
    parser.add_argument("--budget", type=int, default=300_000, help="tokens of a training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=8, help="solutions a held-out problem")
    parser.add_argument("--rlvr-rate", type=float, default=3e-4)
    parser.add_argument("--srl-rate", type=float, default=5e-4)
    parser.add_argument(
        "--srl-steps", type=int, help="SRL's rate falls to 0 over so many; constant where left out"
    )
    parser.add_argument("--sft-rate", type=float, default=1e-3)
    parser.add_argument("--only", nargs="*", help="methods; all where left out")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        training = hard_problems(base / "training.jsonl", a, seed=101)
        held_out = hard_problems(base / "held_out.jsonl", a, seed=102)
        data = datasets(training, base)
        print(f"{'method':>14}  groups with a signal   pass@1                  pass@8")
        before = [evaluate(NANO, held_out, a, seed) for seed in range(a.seeds)]
        print(f"{'base':>14}  {'':21}  {over_seeds(before)}", flush=True)
        for name, train in methods(data, a).items():
            if a.only is not None and name not in a.only:
                continue
            outs = [base / f"{name}-{seed}".replace(" ", "-") for seed in range(a.seeds)]
            for seed, out in enumerate(outs):
                train(NANO, out, seed)
            after = [evaluate(out, held_out, a, seed) for seed, out in enumerate(outs)]
            print(f"{name:>14}  {signal(outs)}  {over_seeds(after)}{wrong_ends(outs)}", flush=True)


def hard_problems(path: Path, a: argparse.Namespace, seed: int) -> Path:
    """Writes those candidates that the embedded model solved in none of 8 samples."""
    source = f"task:arithmetic?n={a.problems}&seed={seed}&steps={a.steps}"
    found = evaluate(NANO, source, a, seed=1000, samples=8)
    hard = {result.problem_id for result in found.problems if result.n_right == 0}
    problems = [p for p in make_plan(Options(problems=source)).problems if p.id in hard]
    rows = (
        {"id": p.id, "prompt": p.prompt, "answer": p.answer, "solution": list(p.solution or ())}
        | {"verifier": p.verifier}
        for p in problems
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"{path.stem}: {len(problems)} of {a.problems} problems with none right of 8")
    return path


def datasets(problems: Path, base: Path) -> dict[str, Path]:
    """Exports what the methods learn from; `published` is `srl` as in the paper."""
    options = Options(
        problems=str(problems), policy="nano", algorithm="rollouts", assignments=CHEAPEST
    )
    generate(make_plan(options), base / "run", concurrency=64)
    run = open_run_folder(base / "run")
    wanted = {
        "srl": (Kind.SRL, ExportSettings(answer_step=True)),
        "published": (Kind.SRL, ExportSettings()),
        "sft": (Kind.SFT, ExportSettings()),
        "rlvr": (Kind.RLVR, ExportSettings()),
    }
    for name, (kind, settings) in wanted.items():
        export_dataset(run, kind, base / name, settings)
    return {name: base / name for name in wanted}


def evaluate(
    model: Path, problems: Path | str, a: argparse.Namespace, seed: int, samples: int | None = None
) -> Evaluation:
    """Returns how a model does; its samples depend on the seed."""
    options = Options(problems=str(problems), policy=str(model), deterministic=False)
    return evaluate_plan(make_plan(options), EvalSettings(samples=samples or a.samples, seed=seed))


def methods(data: dict[str, Path], a: argparse.Namespace) -> dict[str, Train]:
    """Returns the methods by name, all with the same budget."""
    common: dict[str, Any] = {
        "steps": 10**6,
        "schedule": Schedule.CONSTANT,
        "max_refills": 10**6,
        "save_every": 10**6,
        "log_every": 1,
        "threads": 1,
    }

    def rlvr(model: Path, out: Path, seed: int, share_of_budget: float = 1.0) -> None:
        budget = round(a.budget * share_of_budget)
        settings = RlvrSettings(**common, learning_rate=a.rlvr_rate, seed=seed, token_budget=budget)
        train_rlvr(data["rlvr"], model, out, settings, trees=None, resume=False, progress=ignore)

    def srl(
        model: Path,
        out: Path,
        seed: int,
        share_of_budget: float = 1.0,
        rows: str = "srl",
        match_ends: bool | None = None,
    ) -> None:
        pace = common
        if a.srl_steps is not None:
            steps = round(a.srl_steps * share_of_budget)
            pace = common | {"steps": steps, "schedule": Schedule.LINEAR}
        settings = SrlSettings(
            **pace,
            learning_rate=a.srl_rate,
            seed=seed,
            token_budget=round(a.budget * share_of_budget),
            prompts_per_step=16,
            match_ends=match_ends,
        )
        train_srl(data[rows], model, out, settings, resume=False, progress=ignore)

    def srl_then_rlvr(model: Path, out: Path, seed: int) -> None:
        srl(model, out.with_name(out.name + "-srl"), seed, 0.5)
        rlvr(out.with_name(out.name + "-srl"), out, seed, 0.5)

    def sft(model: Path, out: Path, seed: int) -> None:
        settings = SftSettings(
            steps=max(1, round(a.budget / (SFT_BATCH * 256))),
            batch_size=SFT_BATCH,
            learning_rate=a.sft_rate,
            schedule=Schedule.CONSTANT,
            save_every=10**6,
            seed=seed,
            threads=1,
        )
        train_sft(data["sft"], model, out, settings, resume=False, progress=ignore)

    return {
        "RLVR": rlvr,
        "SFT": sft,
        "SRL N-1": partial(srl, rows="published"),
        "SRL, texts": partial(srl, match_ends=False),
        "SRL": srl,
        "SRL then RLVR": srl_then_rlvr,
    }


def ignore(_: dict[str, Any]) -> None:
    """Shows nobody."""


def signal(outs: Sequence[Path]) -> str:
    """Returns the share of groups with a signal: in the first step, and over the whole training."""
    runs = [shares for out in outs if (shares := metric(out, "groups/kept_share"))]
    first, whole = [shares[0] for shares in runs], [np.mean(shares) for shares in runs]
    return f"{np.mean(first):.3f}, mean {np.mean(whole):.3f}    " if first else f"{'':21}"


def wrong_ends(outs: Sequence[Path]) -> str:
    """Returns the share of drawn steps with the wrong end in the first and last step, by seed."""
    shares = [found for out in outs if (found := metric(out, "completions/wrong_end_ratio"))]
    texts = ", ".join(f"{found[0]:.3f} to {found[-1]:.3f}" for found in shares)
    return f"  wrong ends: {texts}" if texts else ""


def metric(out: Path, name: str) -> list[float]:
    """Returns what a training logged under a name, step by step."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


def over_seeds(evaluations: Sequence[Evaluation]) -> str:
    """Returns pass@1 and pass@8 of the mean over seeds, and pass@1 of each seed."""
    texts = []
    for k in (1, min(8, evaluations[0].samples)):
        by_problem = [
            float(np.mean([pass_k for pass_k in column if pass_k is not None]))
            for column in zip(
                *([p.pass_at(k) for p in e.problems] for e in evaluations), strict=True
            )
        ]
        trials = len(by_problem) * (evaluations[0].samples // k)
        texts.append(f"{share(by_problem, trials)!s:<22}")
    each = ", ".join(f"{e.pass_at[1].value:.3f}" for e in evaluations)
    return f"{texts[0]}  {texts[1]}  (pass@1 by seed: {each})"


if __name__ == "__main__":
    main()

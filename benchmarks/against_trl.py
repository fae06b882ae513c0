"""Sets the RLVR trainer beside TRL's GRPOTrainer: rewards, tokens a second, peak memory.

    python benchmarks/against_trl.py --trl-python ENV/bin/python --out runs/against-trl

nano is so small that the libraries are most of its memory. The same of a model that people have:

    TERMS='min_terms=2&max_terms=2&min_digits=1&max_digits=1'
    python benchmarks/against_trl.py --trl-python ENV/bin/python --out runs/against-trl-smollm2 \
        --model smollm2-135m-instruct --problems "gym:chain_sum?n=80&seed=1&$TERMS" \
        --fresh "gym:chain_sum?n=20&seed=2&$TERMS" --prompts 1 --length 32 --learning-rate 1e-5

ENV is an environment of its own with trl==1.16.0 and the torch of constraints.txt. Both train in
float32 on one CPU thread, one process after the other: the same problems, 8 prompts of 8
completions, up to 96 tokens each, the loss (dapo, rewards scaled by group, epsilon 0.2 and 0.28, no
KL), AdamW without decay at a constant rate, gradients clipped at 1, and passes of the same number
of groups. The problems are those that the model solves in 20 (--least-rate) to 80 % of its tries.
Ours does not draw anew where a group has no spread, as TRL does not (train.refill=false).

What differs: TRL passes groups without spread through the model, counts their tokens in the loss's
denominator and steps where no group has a spread; ours leaves them out. TRL's completions end one
token later, with the end token after the answer line. All that TRL passes through the model counts
as learned; of ours only what has an advantage. Speeds are per token; rewards are shown by step, by
sampled tokens and on fresh problems.

A training that is done is not done again: --out keeps what each came to, of the same arguments. To
measure other code, take another --out.

Speeds are medians over steps, without the first. CPU seconds are steadier than wall seconds where
others use the machine.
"""

import argparse
import bisect
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from treeward.search.models import cache_root, resolve_model
from treeward.search.problem import Problem
from treeward.search.prompts import Template
from treeward.search.templates import TEMPLATES
from treeward.search.tokens import load_tokens

HERE = Path(__file__).parent
GROUP = 8
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one training came to."""

    side: str
    steps: list[dict[str, float]]
    """One a step: reward, sampled and learned tokens, seconds, cpu_seconds."""
    peak_mb: float
    fresh: float
    """Share of solutions to fresh problems that are right, of the trained model."""

    def speeds(self, clock: str) -> list[float]:
        """Returns sampled and learned tokens a second, for every step but the first."""
        return [(step["sampled"] + step["learned"]) / step[clock] for step in self.steps[1:]]

    def rewards(self, start: int, end: int) -> float | None:
        """Returns the mean reward of some steps; None of no steps."""
        rewards = [step["reward"] for step in self.steps[start:end]]
        return statistics.mean(rewards) if rewards else None

    def reward_by(self, tokens: float) -> float | None:
        """Returns the mean reward of the five steps before that many tokens were sampled."""
        sampled = list(itertools.accumulate(step["sampled"] for step in self.steps))
        end = max(1, bisect.bisect_right(sampled, tokens))
        return self.rewards(max(0, end - 5), end)


def run(command: list[str]) -> float:
    """Runs a command to its end; returns the most memory that it held, in MB.

    The kernel counts what the parent held when it started the child, so this program stays small.
    """
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:3])} ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def treeward(*arguments: str) -> None:
    """Runs a command of ours."""
    run([sys.executable, "-m", "treeward.cli", *arguments])


def template_of(a: argparse.Namespace) -> Template:
    """Returns the prompt template of both sides."""
    if a.template is not None:
        return TEMPLATES[a.template]
    return resolve_model(a.model, cache_root(os.environ)).default_template


def sample(a: argparse.Namespace, problems: str, model: str, out: Path, width: int) -> None:
    """Draws some solutions to each problem from a model, or from one that was trained from it."""
    treeward(
        *("generate", problems, f"--out={out}", f"--policy={model}", "--search=rollouts"),
        *("--set=search.max_depth=1", f"--set=search.width={width}"),
        f"--set=prompt.template={template_of(a).name}",
    )


def make_data(a: argparse.Namespace) -> list[dict[str, str]]:
    """Writes the dataset of problems that are neither easy nor hopeless; returns them for TRL."""
    found, data = a.out / "rlvr", a.out / "data" / "train.parquet"
    if not data.exists():
        sample(a, a.problems, a.model, a.out / "run", 16)
        treeward("export", str(a.out / "run"), "rlvr", f"--out={found}")
        table = pq.read_table(found / "data" / "train.parquet")
        rate = table["pass_rate"]
        data.parent.mkdir(exist_ok=True)
        fit = pc.and_(pc.greater_equal(rate, a.least_rate), pc.less_equal(rate, 0.8))
        pq.write_table(table.filter(fit), data)
    template = template_of(a)
    tokens = load_tokens(resolve_model(a.model, cache_root(os.environ)).path)
    problems = []
    for row in pq.read_table(data, columns=["prompt", "answer"]).to_pylist():
        problem = Problem(id="asked", prompt=row["prompt"][0]["content"])
        text = tokens.text_of(template.render(problem, tokens))
        mark = template.rule.answer_mark
        problems.append({"prompt": text, "answer": row["answer"], "mark": mark})
    return problems


def treeward_job(a: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Returns what our side is told; everything else is its default."""
    settings = {
        "steps": a.steps,
        "seed": seed,
        "learning_rate": a.learning_rate,
        "schedule": "constant",
        "prompts_per_step": a.prompts,
        "group_size": GROUP,
        "max_completion_length": a.length,
        "gradient_checkpointing": "true" if a.gradient_checkpointing else "false",
        "micro_batch_size": a.groups_a_pass,
        "log_every": 1,
        "refill": "false",
        "template": template_of(a).name,
    }
    assignments = [f"train.{name}={value}" for name, value in settings.items()]
    return {"data": str(a.out / "data"), "assignments": assignments}


def trl_job(a: argparse.Namespace, seed: int, problems: list[dict[str, str]]) -> dict[str, Any]:
    """Returns what TRL's side is told, in words of GRPOConfig."""
    settings = {
        "max_steps": a.steps,
        "seed": seed,
        "learning_rate": a.learning_rate,
        "lr_scheduler_type": "constant",
        "num_generations": GROUP,
        "per_device_train_batch_size": GROUP * a.groups_a_pass,
        "gradient_accumulation_steps": a.prompts // a.groups_a_pass,
        "max_completion_length": a.length,
        "temperature": 1.0,
        "loss_type": "dapo",
        "scale_rewards": "group",
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "beta": 0.0,
        "weight_decay": 0.0,
        "adam_beta2": 0.999,
        "max_grad_norm": 1.0,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": a.gradient_checkpointing,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    # After worked examples a model goes on with another one, which a blank line parts.
    stop = "\n\n" if template_of(a).examples else None
    return {"problems": problems, "settings": settings, "stop": stop}


def train(a: argparse.Namespace, side: str, seed: int, problems: list[dict[str, str]]) -> Outcome:
    """Trains one side in a process of its own and asks the model for fresh problems' answers."""
    folder = a.out / f"{side}-{seed}"
    model, steps = folder / "model", folder / "steps.jsonl"
    job_file, done = folder / "job.json", folder / "done.json"
    ours = side == "treeward"
    job = treeward_job(a, seed) if ours else trl_job(a, seed, problems)
    start = resolve_model(a.model, cache_root(os.environ)).path
    job |= {"model": str(start), "out": str(model), "steps": str(steps), "fresh": a.fresh}
    if done.exists():
        found = json.loads(done.read_text())
        if found["job"] == job:
            return Outcome(**found["outcome"])
        sys.exit(f"{folder}: trained with other settings; give --out a new folder")
    shutil.rmtree(folder, ignore_errors=True)  # what was cut off
    folder.mkdir()
    job_file.write_text(json.dumps(job))
    program = [sys.executable, "treeward_rlvr.py"] if ours else [a.trl_python, "trl_grpo.py"]
    peak = run([program[0], str(HERE / program[1]), str(job_file)])
    lines = [json.loads(line) for line in steps.read_text().splitlines()]
    fresh = solved(a, model, folder / "fresh")
    outcome = Outcome(side=side, steps=lines, peak_mb=peak, fresh=fresh)
    done.write_text(json.dumps({"job": job, "outcome": asdict(outcome)}))
    return outcome


def solved(a: argparse.Namespace, model: Path, out: Path) -> float:
    """Returns the share of solutions to fresh problems that are right."""
    sample(a, a.fresh, str(model), out, 8)
    command = [sys.executable, "-m", "treeward.cli", "query", str(out), "--json"]
    sql = "SELECT avg(pass_rate) AS solved FROM trees"
    rows = json.loads(subprocess.check_output([*command, sql], env=os.environ | ENVIRONMENT))
    return float(rows[0]["solved"])


def spread(of_seeds: list[float | None]) -> str:
    """Returns the mean of the seeds that went so far, their standard deviation and their number."""
    values = [value for value in of_seeds if value is not None]
    if not values:
        return "none went so far"
    deviation = f" sd {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    some = f" of {len(values)}" if len(values) < len(of_seeds) else ""
    return f"{statistics.mean(values):.3f}{deviation}{some}"


def describe(a: argparse.Namespace, outcomes: dict[str, list[Outcome]]) -> list[str]:
    """Returns both sides beside each other, as lines."""
    lines = [f"{'':26}{'treeward':>20}{'trl':>20}"]

    def row(name: str, *cells: str) -> None:
        ours, theirs, *ratio = cells
        lines.append(f"{name:26}{ours:>20}{theirs:>20}  {''.join(ratio)}".rstrip())

    for start in range(0, a.steps, 10):
        end = min(start + 10, a.steps)
        parts = [spread([o.rewards(start, end) for o in side]) for side in outcomes.values()]
        row(f"reward, steps {start + 1} to {end}", *parts)
    least = min(
        sum(step["sampled"] for step in o.steps) for o in itertools.chain(*outcomes.values())
    )
    for part in (0.25, 0.5, 0.75, 1.0):
        parts = [spread([o.reward_by(part * least) for o in side]) for side in outcomes.values()]
        row(f"reward at {part * least:,.0f} tokens", *parts)
    parts = [spread([o.fresh for o in side]) for side in outcomes.values()]
    row("solves of fresh problems", *parts)
    for name, clock in (("second", "seconds"), ("CPU second", "cpu_seconds")):
        speeds = [
            statistics.median(speed for outcome in side for speed in outcome.speeds(clock))
            for side in outcomes.values()
        ]
        row(f"tokens a {name}", *(f"{s:,.0f}" for s in speeds), f"{speeds[0] / speeds[1]:.2f} x")
    peaks = [max(outcome.peak_mb for outcome in side) for side in outcomes.values()]
    row("peak memory, MB", *(f"{peak:,.0f}" for peak in peaks), f"{peaks[0] / peaks[1]:.2f} x")
    return lines


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trl-python", required=True, help="The interpreter of TRL's environment.")
    parser.add_argument("--out", type=Path, default=Path("runs/against-trl"))
    parser.add_argument("--model", default="nano")
    parser.add_argument("--template", choices=list(TEMPLATES), help="None takes the model's own.")
    parser.add_argument("--problems", default="task:arithmetic?n=300&seed=7")
    parser.add_argument("--fresh", default="task:arithmetic?n=100&seed=8")
    parser.add_argument("--least-rate", type=float, default=0.2, help="Of what the model solves.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--prompts", type=int, default=8, help="Groups a step.")
    parser.add_argument("--length", type=int, default=96, help="Tokens of a completion, at most.")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--groups-a-pass", type=int, default=1, help="1, 2, 4 or 8.")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    problems = make_data(a)
    outcomes: dict[str, list[Outcome]] = {"treeward": [], "trl": []}
    for seed in range(a.seeds):
        # Whoever goes first has the calmer or the busier machine: take turns.
        for side in sorted(outcomes, reverse=bool(seed % 2)):
            outcome = train(a, side, seed, problems)
            outcomes[side].append(outcome)
            print(
                f"seed {seed}, {side}: {len(outcome.steps)} steps, "
                f"{outcome.rewards(-10, len(outcome.steps)):.3f} right in the last ten, "
                f"{outcome.fresh:.3f} of fresh problems, {outcome.peak_mb:.0f} MB",
                file=sys.stderr,
            )
    print(f"{len(problems)} problems, {a.seeds} seeds, {a.groups_a_pass} groups a pass")
    print("\n".join(describe(a, outcomes)))


if __name__ == "__main__":
    main()

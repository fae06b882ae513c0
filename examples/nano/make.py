"""Makes the embedded model: tokenizer, data, training. About eight minutes on one core.

    python examples/nano/make.py --out runs/nano

Nothing is downloaded. `measure.py` then measures the model and writes its card.

`--long 30` makes another model of the same size, for benchmarks: it solves chains of 12 to 16 steps
modulo 30 (`task:arithmetic?steps=12..16&mod=30&numbers=0..29`), where multiplying makes different
numbers equal, so that an error may cease to matter. `--long 11` does so modulo 11, where it never
does and a wrong solution comes right again by another error alone. With `--steps 1750` the latter
is right in about a third of its tries.

`--fast` makes `nano-fast`, a smaller model that learns the same, for fast rollouts.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from treeward.search.arithmetic import make_problems
from treeward.search.problem import Problem
from treeward.search.templates import load_template
from treeward.train.optim import Schedule
from treeward.train.settings import Dtype
from treeward.train.sft import train_sft
from treeward.train.sft_settings import SftSettings

CHARACTERS = "\n 0123456789+-*/=A"
LONG_CHARACTERS = CHARACTERS + "mod"
END = "<end>"
TRAIN_SEED = 1_000_003
TRAIN_PROBLEMS = 120_000

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "initializer_range": 0.05,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": None,
    "dtype": "bfloat16",
    "treeward_template": "nano",
}

SETTINGS = SftSettings(
    steps=1450,
    batch_size=8,
    sequence_length=256,
    learning_rate=3e-3,
    warmup_steps=100,
    schedule=Schedule.COSINE,
    weight_decay=0.01,
    adam_beta2=0.99,
    seed=7,
    save_every=200,
    log_every=25,
    save_dtype=Dtype.BFLOAT16,
    threads=1,
)
LONG = (11, 30)
LONG_STEPS = 3000
FAST_STEPS = 5000
FAST_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def write_blank(folder: Path, characters: str, sizes: Mapping[str, object]) -> None:
    """Writes a model folder without weights: a tokenizer of characters, and the sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {"<unknown>": 0, END: 1}
    vocabulary |= {char: index for index, char in enumerate(characters, start=len(vocabulary))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<unknown>", END])
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"eos_token_id": vocabulary[END], "pad_token_id": vocabulary[END]}
    write_json(folder / "config.json", CONFIG | sizes | ends | {"vocab_size": len(vocabulary)})
    write_json(folder / "generation_config.json", ends)
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END}
    write_json(folder / "tokenizer_config.json", names | {"unk_token": "<unknown>"})


def write_json(path: Path, data: dict[str, object]) -> None:
    """Writes one JSON document."""
    path.write_text(json.dumps(data, indent=2) + "\n")


def training_problems() -> list[Problem]:
    """Returns the problems it learns from: 1 to 6 steps, most of them 4 to 6."""
    few = make_problems(n=TRAIN_PROBLEMS // 4, seed=TRAIN_SEED, steps=(1, 6))
    return few + make_problems(n=TRAIN_PROBLEMS - len(few), seed=TRAIN_SEED + 1)


def long_problems(mod: int) -> list[Problem]:
    """Returns long chains of results taken modulo a number, and some shorter ones to begin with."""
    numbers = (0, mod - 1)
    few = make_problems(n=20_000, seed=TRAIN_SEED, steps=(1, 16), numbers=numbers, mod=mod)
    return few + make_problems(
        n=60_000, seed=TRAIN_SEED + 1, steps=(12, 16), numbers=numbers, mod=mod
    )


def write_data(path: Path, problems: list[Problem]) -> None:
    """Writes worked solutions."""
    template = load_template("nano")
    columns: dict[str, list[str]] = {"prompt": [], "completion": []}
    for problem in problems:
        assert problem.solution is not None
        assert problem.answer is not None
        columns["prompt"].append(template.plain_text(problem))
        steps = template.solution_steps(problem.solution, problem.answer)
        columns["completion"].append("".join(steps))
    pq.write_table(pa.table(columns), path)


def main() -> None:
    """Makes the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--seed", type=int, default=SETTINGS.seed, help="of weights and order")
    parser.add_argument("--resume", action="store_true", help="go on with a training cut short")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--long", type=int, choices=LONG, help="long chains modulo this instead")
    kind.add_argument("--fast", action="store_true", help="a smaller model of the same chains")
    parser.add_argument("--steps", type=int, help="of training; few make a weaker model")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not arguments.resume:
        characters = LONG_CHARACTERS if arguments.long else CHARACTERS
        write_blank(out / "blank", characters, FAST_CONFIG if arguments.fast else {})
        problems = long_problems(arguments.long) if arguments.long else training_problems()
        write_data(out / "train.parquet", problems)
    steps = FAST_STEPS if arguments.fast else LONG_STEPS if arguments.long else SETTINGS.steps
    if arguments.steps is not None:
        steps = arguments.steps
    train_sft(
        out / "train.parquet",
        out / "blank",
        out / "model",
        replace(SETTINGS, steps=steps, seed=arguments.seed),
        resume=arguments.resume,
        progress=lambda line: print(json.dumps(line), flush=True),
    )


if __name__ == "__main__":
    main()

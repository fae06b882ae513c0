import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import treeward
from treeward.critics.learned import LearnedCritic, load_critics, passes
from treeward.export.open_critic import critic_name, open_critic
from treeward.export.options import Options
from treeward.export.plan import make_plan
from treeward.search.critic import Critic, Prefix, Scores
from treeward.search.errors import BadInput, DamagedData, TreewardError
from treeward.search.problem import Problem
from treeward.train.critic_settings import CriticSettings
from treeward.train.critics import train_critics

WriteRows = Callable[[Path, list[dict[str, Any]]], Path]


def prefix(prompt: str, *steps: str) -> Prefix:
    return Prefix(Problem(id=prompt, prompt=prompt), steps)


LONG = prefix("2 *2 +1 +6", "2*2=4", "4+1=5", "5+6=11", "A11")
PREFIXES = [LONG, prefix("7 -3"), prefix("1 +1", "1+1=2", "A2"), prefix("9 +90 -4", "9+90=99")]


@pytest.fixture(scope="session")
def folder(
    tiny_trunk: Path, write_critic_rows: WriteRows, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Critics of all three kinds whose heads are drawn, so that no score is like another."""
    root = tmp_path_factory.mktemp("critics")
    rows = [
        {"problem": f"{a} +1", "steps": [f"{a}+1={a + 1}", f"A{a + 1}"], "n_right": [1, 0]}
        | {"n_rollouts": [2, 0], "progress": [0.1, None], "verdict": [None, "right"]}
        for a in range(9)
    ]
    settings = CriticSettings(steps=1, validation=0.5, threads=1)
    data = write_critic_rows(root / "data.parquet", rows)
    out = root / "out"
    train_critics(data, tiny_trunk, out, settings, resume=False, progress=lambda _: None)
    weights = load_file(out / "heads.safetensors")
    torch.manual_seed(0)
    save_file({name: torch.randn_like(w) / 4 for name, w in weights.items()}, out / "new")
    replace_heads(out, (out / "new").read_bytes())
    (out / "new").unlink()
    return out


def replace_heads(folder: Path, weights: bytes) -> None:
    import hashlib

    (folder / "heads.safetensors").write_bytes(weights)
    edit(folder, heads_sha256=hashlib.sha256(weights).hexdigest())


def edit(folder: Path, **changes: Any) -> None:
    about = json.loads((folder / "critics.json").read_text()) | changes
    (folder / "critics.json").write_text(json.dumps(about))


@pytest.fixture
def critics(folder: Path) -> LearnedCritic:
    return load_critics(folder, threads=1)


def table(scores: list[Scores]) -> np.ndarray[Any, np.dtype[np.float64]]:
    rows = [dataclasses.astuple(entry) for entry in scores]
    return np.array(rows, dtype=np.float64)


def test_a_critic_scores_the_problem_and_every_step(critics: LearnedCritic) -> None:
    critic: Critic = critics
    for asked, scores in zip(PREFIXES, critic.score(PREFIXES), strict=True):
        root, *steps = scores
        assert len(steps) == len(asked.steps)
        assert root.value is not None
        assert (root.progress, root.outcome) == (None, None)
        values = table(steps).reshape(-1, 3)
        assert np.isfinite(values).all()
        assert (values[:, [0, 2]] > 0).all()
        assert (values[:, [0, 2]] < 1).all()
        assert (np.abs(values[:, 1]) < 1).all()
    assert critic.score([]) == []


def test_one_pass_says_what_step_by_step_says(critics: LearnedCritic) -> None:
    whole = table(critics.score([LONG])[0])
    assert len({*whole[:, 0].round(6)}) == 5
    for n in range(5):
        apart = table(critics.score([Prefix(LONG.problem, LONG.steps[:n])])[0])
        np.testing.assert_allclose(apart, whole[: n + 1], atol=1e-6)


def test_companions_and_order_make_no_difference(critics: LearnedCritic) -> None:
    together = critics.score(PREFIXES)
    turned = critics.score(PREFIXES[::-1])[::-1]
    for asked, one, other in zip(PREFIXES, together, turned, strict=True):
        (single,) = critics.score([asked])
        np.testing.assert_allclose(table(one), table(single), atol=1e-6)
        np.testing.assert_allclose(table(one), table(other), atol=1e-6)


def test_alone_not_a_bit_depends_on_companions(folder: Path) -> None:
    critics = load_critics(folder, alone=True)
    before = torch.get_num_threads()
    assert critics.score([*PREFIXES, *PREFIXES[::-1]])[:4] == critics.score(PREFIXES)
    assert [critics.score([asked])[0] for asked in PREFIXES] == critics.score(PREFIXES)
    assert torch.get_num_threads() == before


def test_critics_are_the_same_by_their_folder_and_as_an_object(folder: Path) -> None:
    loaded = load_critics(folder)
    assert open_critic(loaded) is loaded
    given, named = open_critic(loaded, alone=True), open_critic(folder, alone=True)
    assert critic_name(given) == critic_name(named) != critic_name(loaded)
    assert given.score(PREFIXES) == named.score(PREFIXES)


def test_a_delimiter_at_the_end_makes_no_difference(critics: LearnedCritic) -> None:
    marked = Prefix(LONG.problem, tuple(step + "\n" for step in LONG.steps))
    assert critics.read(marked) == critics.read(LONG)
    reading = critics.read(LONG)
    # One token a character; each end is a line's.
    lines = [LONG.problem.prompt, *LONG.steps]
    assert list(reading.ends) == list(np.cumsum([len(line) + 1 for line in lines]) - 1)
    assert len(reading.ids) == reading.ends[-1] + 1


def test_what_the_model_cannot_read_is_an_error(critics: LearnedCritic) -> None:
    long = Prefix(LONG.problem, ("2*2=4",) * 20)
    with pytest.raises(BadInput, match="20 steps need 131 tokens and the critics' model reads 96"):
        critics.score([LONG, long])
    with pytest.raises(BadInput, match=r"1 steps hold what .* cannot read, after '1 .1.*2 '"):
        critics.score([prefix("1 +1", "2 ?")])
    with pytest.raises(BadInput, match="cannot read"):
        critics.score([prefix("what?")])


def test_heads_that_were_not_trained_say_nothing(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "c")
    edit(tmp_path / "c", trained=["outcome"])
    root, *steps = load_critics(tmp_path / "c").score([LONG])[0]
    assert root == Scores(None, None, None)
    assert all(s.value is None and s.progress is None and s.outcome is not None for s in steps)


@pytest.mark.parametrize(
    ("search", "trained", "settings", "refused"),
    [
        ("mcts", ["outcome"], ("search.rollouts=0",), True),
        ("mcts", ["outcome"], ("search.rollouts=0", "search.critic_outcome=1"), False),
        ("mcts", ["outcome"], ("search.rollouts=2",), False),
        ("best_of_n", ["outcome"], (), False),
        ("best_of_n", ["progress"], ("search.critic_progress=0",), True),
    ],
)
def test_a_search_by_critics_alone_needs_a_head_that_counts(
    folder: Path,
    tmp_path: Path,
    search: str,
    trained: list[str],
    settings: tuple[str, ...],
    refused: bool,
) -> None:
    critics = shutil.copytree(folder, tmp_path / "c")
    edit(critics, trained=trained)
    options = Options(
        problems="task:arithmetic?n=1", algorithm=search, critics=critics, assignments=settings
    )
    if refused:
        with pytest.raises(BadInput, match=f"critics learned {trained[0]}, of which nothing count"):
            make_plan(options)
    else:
        assert make_plan(options).critic is not None


class Untaught:
    """Critics of one's own that say that they learned nothing."""

    trained: frozenset[str] = frozenset()
    identity: ClassVar[dict[str, str | int]] = {"critic": "untaught"}

    def score(self, prefixes: Sequence[Prefix]) -> list[list[Scores]]:
        nothing = Scores(value=None, progress=None, outcome=None)
        return [[nothing] * (1 + len(prefix.steps)) for prefix in prefixes]


@pytest.mark.parametrize("rollouts", [0, 2])
def test_critics_that_learned_nothing_steer_no_search(rollouts: int) -> None:
    options = Options(
        problems="task:arithmetic?n=1",
        critics=Untaught(),
        assignments=(f"search.rollouts={rollouts}",),
    )
    with pytest.raises(BadInput, match=r"^the critics learned nothing, .* leave them out$"):
        make_plan(options)


def test_the_identity_names_whatever_decides(folder: Path, tmp_path: Path) -> None:
    base = treeward.load_critics(folder)
    assert base.identity == treeward.load_critics(str(folder)).identity
    alone = load_critics(folder, alone=True).identity
    assert alone["mode"] == "alone"
    assert alone["threads"] == 1
    shutil.copytree(folder, tmp_path / "c")
    weights = load_file(tmp_path / "c" / "heads.safetensors")
    weights["value.bias"][0] += 1
    save_file(weights, tmp_path / "new")
    replace_heads(tmp_path / "c", (tmp_path / "new").read_bytes())
    assert load_critics(tmp_path / "c").identity["fingerprint"] != base.identity["fingerprint"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 64
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], type[TreewardError], str]] = {
    "no critics": (lambda f: (f / "critics.json").unlink(), BadInput, "no critics.json; `treeward"),
    "no JSON": (lambda f: cut(f / "critics.json"), DamagedData, "critics.json: not what was"),
    "newer": (lambda f: edit(f, schema_version=2), BadInput, "schema_version 2 .*update treeward"),
    "head": (lambda f: edit(f, trained=["mood"]), DamagedData, "critics.json: not what was"),
    "untaught": (lambda f: edit(f, trained=[]), BadInput, "learned nothing; train them on more"),
    "template": (lambda f: edit(f, template={"chat": 1}), DamagedData, "critics.json: not what"),
    "no heads": (lambda f: (f / "heads.safetensors").unlink(), DamagedData, "heads.safetensors"),
    "cut heads": (lambda f: cut(f / "heads.safetensors"), DamagedData, "heads.safetensors: not"),
    "spoilt": (lambda f: spoil(f / "heads.safetensors"), DamagedData, "heads.safetensors: not"),
    "no trunk": (lambda f: (f / "model.safetensors").unlink(), BadInput, r"no model\.safetensors"),
    "cut trunk": (lambda f: cut(f / "model.safetensors"), BadInput, "no whole safetensors file"),
}


@pytest.mark.parametrize(("damage", "kind", "message"), DAMAGES.values(), ids=list(DAMAGES))
def test_folders_that_hold_no_critics_are_named(
    damage: Callable[[Path], object],
    kind: type[TreewardError],
    message: str,
    folder: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(folder, tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(kind, match=message) as caught:
        load_critics(tmp_path / "c")
    assert "\n" not in str(caught.value)


def test_passes_hold_like_lengths_and_little_padding() -> None:
    lengths = [5, 1, 9, 5, 2, 30, 1]
    batches = list(passes(lengths, room=12))
    assert sorted(place for batch in batches for place in batch) == list(range(7))
    assert [[lengths[place] for place in batch] for batch in batches] == [
        [1, 1, 2],
        [5, 5],
        [9],
        [30],
    ]
    assert list(passes(lengths, room=0)) == [[1], [6], [4], [0], [3], [2], [5]]

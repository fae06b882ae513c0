"""The bytes of ids, put together, are the text that the model's own tokenizer decodes."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from treeward.search.errors import BadInput
from treeward.search.problem import Message
from treeward.search.tokens import Tokens, byte_tokens, load_tokens

TEXTS = [
    "the cat sat on the mat",
    "naïve café — 12+30=42",
    "日本語のテキスト",
    "\n\n  two\tlines\n",
]


def byte_level() -> Tokenizer:
    """A small byte-level BPE tokenizer; many of its tokens end inside a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.add_tokens([AddedToken("<é think>", normalized=False)])
    return tokenizer


def metaspace() -> Tokenizer:
    """A tokenizer in sentencepiece's manner: a mark for spaces, bytes for what it lacks."""
    words = [
        "<unk>",
        "</s>",
        "▁",
        *"abcdefgh123+=",
        "▁a",
        "bc",
        *(f"<0x{n:02X}>" for n in range(256)),
    ]
    model = models.BPE(
        {word: place for place, word in enumerate(words)},
        [("▁", "a"), ("b", "c")],
        unk_token="<unk>",
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def characters() -> Tokenizer:
    vocabulary = {"<unk>": 0, "<end>": 1, "a": 2, "b": 3, "\n": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def folder_with(place: Path, tokenizer: Tokenizer, **config: object) -> Path:
    tokenizer.save(str(place / "tokenizer.json"))
    (place / "config.json").write_text(json.dumps(config))
    return place


def loaded(tokenizer: Tokenizer, tmp: Path, **config: object) -> Tokens:
    return load_tokens(folder_with(tmp, tokenizer, **config))


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokens]:
    tokenizer = byte_level()
    return tokenizer, loaded(tokenizer, tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Tokens]:
    tokenizer = metaspace()
    return tokenizer, loaded(tokenizer, tmp_path_factory.mktemp("sentencepiece"))


@given(text=st.text())
def test_byte_level_ids_stand_for_the_text(bpe: tuple[Tokenizer, Tokens], text: str) -> None:
    tokens = bpe[1]
    assert tokens.bytes_of(tokens.encode(text)) == text.encode()


@given(ids=st.lists(st.integers(0, 299)))
def test_any_byte_level_ids_decode_alike(bpe: tuple[Tokenizer, Tokens], ids: list[int]) -> None:
    tokenizer, tokens = bpe
    assert tokens.text_of(ids) == tokenizer.decode(ids)


def test_some_tokens_end_inside_a_character(bpe: tuple[Tokenizer, Tokens]) -> None:
    tokens = bpe[1]
    ids = tokens.encode("☃")
    assert len(ids) > 1
    assert tokens.text_of(ids) == "☃"
    assert tokens.text_of(ids[:1]) == "\N{REPLACEMENT CHARACTER}"


def test_added_tokens_stand_for_their_own_text(bpe: tuple[Tokenizer, Tokens]) -> None:
    tokens = bpe[1]
    assert tokens.text_of(tokens.encode("a<é think>b<|end|>c")) == "a<é think>bc"


@given(text=st.text())
def test_byte_fallback_and_space_marks(sentencepiece: tuple[Tokenizer, Tokens], text: str) -> None:
    tokenizer, tokens = sentencepiece
    ids = tokens.encode(text.replace("▁", ""))
    assert tokens.text_of(ids) == tokenizer.decode(ids)


def test_ids_beyond_the_tokenizer_stand_for_nothing(tmp_path: Path) -> None:
    tokens = loaded(characters(), tmp_path, vocab_size=16)
    assert len(tokens.pieces) == 16
    assert tokens.text_of([2, 11, 3, 15]) == "ab"


def test_end_ids_come_from_both_files_and_carry_no_text(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, characters(), eos_token_id=[1, 4])
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    tokens = load_tokens(folder)
    assert tokens.eos_ids == {1, 3, 4}
    assert tokens.text_of([2, 1, 2, 3, 4]) == "aa"


def test_the_unknown_id_is_what_unreadable_characters_map_to(tmp_path: Path) -> None:
    tokens = loaded(characters(), tmp_path)
    assert tokens.encode("aé") == [2, tokens.unknown_id]
    unigram = Tokenizer(models.Unigram([("a", -1.0), ("?", -9.0)], unk_id=1))
    tokens = loaded(unigram, tmp_path)
    assert tokens.encode("aé") == [0, tokens.unknown_id]


def test_the_chat_template_is_the_models_own(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, characters(), model_type="llama")
    assert load_tokens(folder).render_chat is None
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}>"
        "{% endif %}"
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    render = load_tokens(folder).render_chat
    assert render is not None
    assert render([Message("user", "hi")]) == "[user]hi>"
    with pytest.raises(BadInput, match="refuses the messages: no system"):
        render([Message("system", "hi")])


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tokenizer.json", "{", "no JSON"),
        ("tokenizer.json", "{}", "no tokenizer"),
        ("tokenizer.json", "[]", "must hold a JSON object"),
        ("config.json", "{", "no JSON"),
        ("generation_config.json", "nan?", "no JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    folder_with(tmp_path, characters())
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=rf"{name}: {complaint}"):
        load_tokens(tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no tokenizer\.json"):
        load_tokens(tmp_path)


@given(st.text())
def test_byte_tokens_read_every_text(text: str) -> None:
    tokens = byte_tokens()
    assert tokens.text_of(tokens.encode(text)) == text
    assert tokens.text_of([*tokens.encode_prompt(text), *tokens.eos_ids]) == text

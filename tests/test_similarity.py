from difflib import SequenceMatcher
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeward.critics import similarity as module
from treeward.critics.similarity import MAX_UNITS, Similarity, similarity, units

CHARACTERS, WORDS, NUMBERS = Similarity.CHARACTERS, Similarity.WORDS, Similarity.NUMBERS


@pytest.mark.parametrize(
    ("written", "expert", "by", "expected"),
    [
        # 7 characters each; all but the last match: 2 * 6 / 14.
        ("12*3=35", "12*3=36", CHARACTERS, 12 / 14),
        # Of three numbers two match: 2 * 2 / 6.
        ("12*3=35", "12*3=36", NUMBERS, 2 / 3),
        ("12 * 3 is 36.", "12*3=36", NUMBERS, 1.0),
        ("nothing", "12*3=36", NUMBERS, 0.0),
        ("", "12*3=36", CHARACTERS, 0.0),
        # "so" and "is" of 3 and 4 words: 2 * 2 / 7.
        ("so it is", "so that is all", WORDS, 4 / 7),
        ("  12*3=36 \n", "12*3=36", CHARACTERS, 1.0),
    ],
)
def test_values_by_hand(written: str, expert: str, by: Similarity, expected: float) -> None:
    assert similarity(written, expert, by) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("62 -13=49", ["62", "13", "49"]),
        ("62 - 13 = 49", ["62", "13", "49"]),
        ("(3) -2 is -1", ["3", "2", "-1"]),
        ("x = \N{MINUS SIGN}5, 3\N{MINUS SIGN}5", ["-5", "3", "5"]),
        ("62-13=49", ["62", "13", "49"]),
        ("(3)-2", ["3", "2"]),
        ("x-2", ["2"]),
        ("1.50 and .5, 2.", ["1.50", "5", "2"]),
        ("1,000", ["1", "000"]),
        ("\N{ARABIC-INDIC DIGIT THREE}", []),
    ],
)
def test_numbers_are_found(text: str, numbers: list[str]) -> None:
    assert units(text, NUMBERS) == numbers


@pytest.mark.parametrize("length", [199, 200, 201, 400])
def test_nothing_changes_at_200_characters(length: int) -> None:
    """difflib's own default drops frequent characters from 200 on: the last line shows the trap."""
    expert = ("abcdefghij" * 40)[:length]
    written = "x" + expert[1:]
    assert similarity(written, expert, CHARACTERS) == pytest.approx(1 - 1 / length)
    junked = SequenceMatcher(None, written, expert).ratio()
    assert (junked < 0.1) == (length >= 200)


def test_the_order_of_the_arguments_is_fixed() -> None:
    """Ratcliff and Obershelp's matching depends on it: 'tide' finds 'd' or 'id' first."""
    assert similarity("tide", "diet", CHARACTERS) == pytest.approx(2 / 8)
    assert similarity("diet", "tide", CHARACTERS) == pytest.approx(4 / 8)


def test_only_the_beginning_of_a_long_step_is_compared() -> None:
    expert = "1 " * 10 + "2"
    assert similarity("3 " * MAX_UNITS + expert, expert, NUMBERS) == 0.0


RICH = "these three eleven geese were seen here between the green beeches "


@pytest.mark.parametrize(
    ("written", "expert", "by"),
    [
        ("e" * MAX_UNITS, RICH * 15, CHARACTERS),
        ("ab" * 1000, "aab" * 600, CHARACTERS),
        ("7 " * 1400, "7 6 " * 1200, NUMBERS),
        ("e" * MAX_UNITS, "e" * 4000, CHARACTERS),
    ],
)
def test_steps_that_repeat_themselves_do_not_hold_up_a_training(
    written: str, expert: str, by: Similarity
) -> None:
    """Without a bound each matches in part, after half a minute and more."""
    assert 0 <= similarity(written, expert, by) < 0.1


def test_what_no_work_is_left_for_matches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of our units costs 1, and 1 more for each like it in the expert's step.

    'abXab' with 'abYab' costs 5 + 4 * 2 and finds one 'ab'; what is right of it, 3 + 2 * 2.
    """
    values = []
    for work in (12, 13, 19, 20):
        monkeypatch.setattr(module, "MAX_WORK", work)
        values.append(similarity("abXab", "abYab", CHARACTERS))
    assert values == [0.0, 0.4, 0.4, 0.8]


@given(st.text("ab e1", max_size=150), st.text("ab e1", min_size=1, max_size=150))
def test_ordinary_steps_match_as_difflib_does(written: str, expert: str) -> None:
    if expert.strip():
        plain = SequenceMatcher(None, written.strip(), expert.strip(), autojunk=False)
        assert similarity(written, expert, CHARACTERS) == plain.ratio()


def test_long_prose_matches_as_difflib_does() -> None:
    text = (Path(__file__).parents[1] / "docs" / "labels.md").read_text(encoding="utf-8")
    ours, theirs = text[:1500].strip(), text[1500:3000].strip()
    plain = SequenceMatcher(None, ours, theirs, autojunk=False)
    assert similarity(ours, theirs, CHARACTERS) == plain.ratio()


@given(st.text(max_size=40), st.text(min_size=1, max_size=40).filter(str.strip))
def test_it_is_a_share_and_whole_for_the_same(written: str, expert: str) -> None:
    assert 0.0 <= similarity(written, expert, CHARACTERS) <= 1.0
    assert similarity(expert, expert, CHARACTERS) == 1.0


def test_a_step_like_the_experts_is_all_like_it_however_it_repeats_itself() -> None:
    assert similarity("e" * 3000, "e" * 3000, Similarity.CHARACTERS) == 1.0

"""The journal gives back exactly what was recorded, or says that it cannot."""

import json
import math
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeward.export.journal import Journal, decode_entry, encode_entry, read_entries
from treeward.search.critic import Scores
from treeward.search.errors import DamagedData, TreewardError
from treeward.search.replies import Completion, Failure, Reply
from treeward.search.steps import Finish
from treeward.search.verdicts import Judgement, Reason

Limit = Callable[[int], AbstractContextManager[None]]

# Lone surrogates, and two of them that escaped would be read back as one letter.
text = st.text(st.characters(exclude_categories=[]))
judgements = st.builds(Judgement, st.sampled_from(Reason), st.none() | text)
completions = st.builds(
    Completion,
    token_ids=st.lists(st.integers(0, 2**32 - 1), max_size=5).map(tuple),
    logprob=st.floats(allow_nan=False),
    finish=st.sampled_from(Finish),
    seed=st.integers(0, 2**63 - 1),
    judgement=st.none() | judgements,
    step_logprobs=st.lists(st.floats(allow_nan=False), max_size=3).map(tuple),
)
units = st.none() | st.floats(-1, 1)
failures = st.builds(Failure, text, text)
opinions = st.builds(Scores, units, units, units) | failures
replies = st.builds(Reply, scores=st.lists(opinions, max_size=3).map(tuple)) | st.builds(
    Reply, st.lists(completions, max_size=3).map(tuple), st.none() | failures
)


def reply(n: int) -> Reply:
    draw = Completion(token_ids=(n, n + 1), logprob=-0.1 * n, finish=Finish.STEP, seed=n)
    return Reply((draw,))


@given(key=text, given_reply=replies)
def test_an_entry_reads_back_exactly(key: str, given_reply: Reply) -> None:
    line = encode_entry(key, given_reply)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_entry(line[:-1]) == (key, given_reply)


def test_a_line_is_json_with_its_numbers_packed_and_says_nothing_of_scores_not_asked_for() -> None:
    numbers = b64encode(struct.pack("<dQII", -0.1, 1, 1, 2))
    body = (
        b'{"key":"k","reply":{"completions":[{"drawn":"%b","finish":"step","judgement":null}],'
        b'"failure":null}'
    ) % numbers
    assert encode_entry("k", reply(1)) == body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def test_scores_that_older_code_kept_are_no_damage() -> None:
    """They stand under keys that nobody asks for any more."""
    body = b'{"key":"k","reply":{"completions":[],"failure":null,"scores":[0.5,null,null]}'
    assert decode_entry(body + b',"crc":"%08x"}' % zlib.crc32(body)) == ("k", Reply())


def test_surrogates_that_could_pair_up_stay_apart() -> None:
    given_reply = Reply((), Failure("\ud83d\ude00", "\U0001f600"))
    assert decode_entry(encode_entry("k", given_reply)[:-1])[1] == given_reply


def test_a_log_probability_that_is_no_number_stays_one() -> None:
    draw = Completion((), math.nan, Finish.END, 0, None, (-0.5, math.nan))
    (read,) = decode_entry(encode_entry("k", Reply((draw,)))[:-1])[1].completions
    assert math.isnan(read.logprob)
    assert read.step_logprobs[0] == -0.5
    assert math.isnan(read.step_logprobs[1])


def test_what_was_recorded_without_the_log_probabilities_of_steps_can_be_read() -> None:
    line = encode_entry("k", Reply((Completion((7,), -1.0, Finish.END, 3, None, (-0.5, -0.5)),)))
    body = re.sub(rb',"steps":"[^"]*"', b"", line.rpartition(b',"crc"')[0])
    assert b"steps" in line
    assert b"steps" not in body
    old = body + b',"crc":"%08x"}' % zlib.crc32(body)
    assert decode_entry(old) == ("k", Reply((Completion((7,), -1.0, Finish.END, 3),)))


@given(place=st.integers(min_value=0), bit=st.integers(0, 7), given_reply=replies)
def test_no_flipped_bit_goes_unnoticed(place: int, bit: int, given_reply: Reply) -> None:
    line = bytearray(encode_entry("key", given_reply)[:-1])
    line[place % len(line)] ^= 1 << bit
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_entry(bytes(line))


def test_another_journal_knows_what_was_recorded(tmp_path: Path) -> None:
    first = Journal(tmp_path, sync=True)
    assert first.known("tree", "a") is None
    first.record("tree", "a", reply(1))
    first.record("tree", "b", reply(2))
    first.record("other", "a", reply(3))
    second = Journal(tmp_path)
    assert second.trees() == {"tree", "other"}
    known = [second.known("tree", "a"), second.known("tree", "b"), second.known("other", "a")]
    assert known == [reply(1), reply(2), reply(3)]
    assert second.known("tree", "c") is None
    assert first.known("tree", "a") is None, "who asked knows the reply"
    assert (first.n_used, second.n_used) == (0, 3)


def test_a_dropped_tree_is_forgotten_and_may_start_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.record("tree", "a", reply(1))
    journal.drop("tree")
    journal.drop("never-seen")
    assert (journal.trees(), journal.known("tree", "a")) == (set(), None)
    journal.record("tree", "a", reply(2))
    assert Journal(tmp_path).known("tree", "a") == reply(2)


def test_a_line_cut_off_anywhere_never_existed(tmp_path: Path) -> None:
    path = tmp_path / "tree.jsonl"
    whole, torn = encode_entry("a", reply(1)), encode_entry("b", reply(2))
    for cut in range(len(torn)):
        path.write_bytes(whole + torn[:cut])
        journal = Journal(tmp_path)
        assert journal.known("tree", "a") == reply(1)
        assert journal.known("tree", "b") is None
        journal.record("tree", "b", reply(3))
        assert read_entries(path) == ({"a": reply(1), "b": reply(3)}, path.stat().st_size)


@pytest.mark.parametrize("drawn", ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAA", "A", "?", None, 5])
def test_numbers_that_are_none_are_damage_even_where_the_checksum_fits(
    drawn: object, tmp_path: Path
) -> None:
    completion = json.dumps({"drawn": drawn, "finish": "step", "judgement": None})
    body = f'{{"key":"k","reply":{{"completions":[{completion}],"failure":null}}'.encode()
    (tmp_path / "tree.jsonl").write_bytes(body + b',"crc":"%08x"}\n' % zlib.crc32(body))
    with pytest.raises(DamagedData, match=r"tree\.jsonl:1: damaged"):
        Journal(tmp_path).known("tree", "k")


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tree.jsonl"
    lines = [encode_entry(key, reply(1)) for key in "abc"]
    lines[1] = lines[1].replace(b"step", b"stop")
    path.write_bytes(b"".join(lines))
    with pytest.raises(DamagedData, match=r"tree\.jsonl:2: damaged"):
        Journal(tmp_path).known("tree", "a")


def test_a_reply_that_the_disk_refuses_leaves_the_journal_as_it_was(
    file_size_limit: Limit, tmp_path: Path
) -> None:
    journal = Journal(tmp_path)
    journal.record("tree", "a", reply(1))
    path = tmp_path / "tree.jsonl"
    before = path.read_bytes()
    # The limit lets a part of the next line through: the write is short, then refused.
    with file_size_limit(len(before) + 20), pytest.raises(TreewardError) as refused:
        journal.record("tree", "b", reply(2))
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == before
    assert journal.known("tree", "b") is None
    journal.record("tree", "b", reply(2))
    assert Journal(tmp_path).known("tree", "b") == reply(2)


_WRITER = """
import sys
from pathlib import Path
from treeward.export.journal import Journal
from treeward.search.replies import Failure, Reply
journal = Journal(Path(sys.argv[1]))
for number in range(10**9):
    journal.record("tree", str(number), Reply((), Failure("kind", "m" * 5000)))
    print(number, flush=True)
"""


def test_what_was_recorded_survives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        seen = [writer.stdout.readline() for _ in range(50)]
        assert writer.poll() is None
        os.kill(writer.pid, signal.SIGKILL)
    journal = Journal(tmp_path)
    assert all(journal.known("tree", line.strip()) is not None for line in seen)
    assert journal.n_used == 50


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted there")
def test_more_trees_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files stay open: with seven trees in turn every reply finds its file closed again."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (12, 12))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Journal(tmp_path) as journal:
        for n in range(4):
            for tree in range(7):
                journal.record(f"tree{tree}", str(n), reply(n * tree))
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 3
        journal.drop("tree6")
        assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    again = Journal(tmp_path)
    assert [again.known(f"tree{tree}", str(n)) for tree in range(6) for n in range(4)] == [
        reply(n * tree) for tree in range(6) for n in range(4)
    ]
    assert again.trees() == {f"tree{tree}" for tree in range(6)}

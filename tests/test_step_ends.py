"""Every step rule cuts as it samples, in time that grows with the text and no faster."""

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treeward.search.errors import BadInput
from treeward.search.step_ends import CustomEnd, StepEnd
from treeward.search.steps import Budget, Finish, Stepper, StepRule, Steps, cut, with_steps
from treeward.search.tokens import Tokens, byte_tokens

BYTES = byte_tokens()
UNLIMITED = 10**9
SPELT = "a|ab| x|5|.|!?|. |) |\n|\n\n| \n\nb|$|$x$|<<|>>|A:|A|\nA:|:1\n|<thi|nk>|<think>|</think>"
PIECES = (*(piece.encode() for piece in SPELT.split("|")), b"\xe3\x80", b"\x82", b"\xc3\xa9")
EOS = len(PIECES)


def no_text(text: str) -> list[int]:
    raise AssertionError(f"nothing encodes {text!r} here")


TOKENS = Tokens(
    pieces=(*PIECES, b""), eos_ids=frozenset({EOS}), encode=no_text, encode_prompt=no_text
)
TWO_A = CustomEnd("two a", lambda text: text.count("a") >= 2)
ENDS = [
    {"ends": StepEnd.DELIMITER},
    {"ends": StepEnd.FORMULA},
    {"ends": StepEnd.SENTENCE},
    {"ends": StepEnd.TOKENS, "step_tokens": 3},
    {"ends": TWO_A},
    {"ends": StepEnd.DELIMITER, "think": True},
    {"ends": StepEnd.FORMULA, "think": True},
]
ids_of = st.lists(st.integers(0, len(PIECES)), max_size=40)
rules = st.builds(
    lambda ends, delimiter, answer_ends: StepRule(
        **ends, delimiter=delimiter, answer_mark="A:", answer_ends=answer_ends
    ),
    st.sampled_from(ENDS),
    st.sampled_from(["\n", "\n\n"]),
    st.booleans(),
)


def finishes(
    ids: list[int], rule: StepRule, before: list[int] | None = None
) -> list[tuple[int, Finish]]:
    """The finishes behind some whole steps with the number of ids read, up to the end."""
    limits = Budget(step=UNLIMITED, total=UNLIMITED)
    stepper = Stepper.after(before or [], TOKENS, rule, limits)
    found = []
    for place, token in enumerate(ids, start=1):
        finish = stepper.feed(token)
        if finish is not None:
            found.append((place, finish))
        if finish is Finish.END:
            break
    return found


def by_definition(ids: list[int], rule: StepRule) -> Iterator[tuple[int, Finish]]:
    """The same, from the whole text of each step at each token."""
    delimiter, mark = rule.delimiter.encode(), rule.answer_mark.encode()
    line = step = b""
    length = 0
    for place, token in enumerate(ids, start=1):
        step += TOKENS.pieces[token]
        length += 1
        thinks = rule.think and step.lstrip().startswith(b"<think>")
        said = step.partition(b"</think>")[2] if thinks else step
        done, _, rest = (said if thinks else line + said).rpartition(delimiter)
        if token == EOS or (rule.answer_ends and mark in done):
            yield place, Finish.END
            return
        if is_step(said, length, rule):
            yield place, Finish.STEP
            line, step, length = rest, b"", 0


def is_step(said: bytes, length: int, rule: StepRule) -> bool:
    delimiter = rule.delimiter.encode()
    if isinstance(rule.ends, CustomEnd):
        return said.decode("utf-8", "ignore").count("a") >= 2
    if rule.ends is StepEnd.TOKENS:
        return length == rule.step_tokens
    if rule.ends is StepEnd.SENTENCE:
        said = said.lstrip()
        # A number may go on behind its point, an abbreviation behind its first letter.
        whole = rb"[^\s.!?][.!?][\"')\]]{0,2}\s|\n|\xe3\x80\x82"
        at_once = rb"([A-Za-z\x80-\xff]{2}|[)\]}\"'$%])[.!?]\Z"
        return bool(re.search(whole, said) or re.search(at_once, said))
    parts = said.split(delimiter)[:-1]
    if rule.ends is StepEnd.FORMULA:
        return any(re.search(rb"\$.*?\$|<<[^<>\n]*>>", part) for part in parts)
    return bool(parts)


@given(ids_of, rules)
def test_steps_end_where_their_definition_says(ids: list[int], rule: StepRule) -> None:
    assert finishes(ids, rule) == list(by_definition(ids, rule))


@given(ids_of, rules)
def test_steps_put_together_are_the_ids(ids: list[int], rule: StepRule) -> None:
    steps = cut(ids, TOKENS, rule)
    assert [token for step in steps for token in step] == ids
    assert all(steps)


@given(ids_of, rules)
@example([17, 21, 8, 8], StepRule(answer_mark="A:", answer_ends=False, think=True))
def test_sampling_from_a_node_goes_on_as_the_rollout_did(ids: list[int], rule: StepRule) -> None:
    found = finishes(ids, rule)
    ends = [place for place, _ in found]
    read = ends[-1] if ends else 0
    starts = [0, *ends][: len(ends)]
    steps = [tuple(ids[start:end]) for start, end in zip(starts, ends, strict=True)]
    assert cut(ids[:read], TOKENS, rule) == steps
    for place, end in enumerate(ends[:-1]):
        later = [(end + at, finish) for at, finish in finishes(ids[end:], rule, ids[:end])]
        assert later == found[place + 1 :]
        assert cut(ids[end:read], TOKENS, rule) == steps[place + 1 :]


@given(ids_of, st.sampled_from(ENDS[:5]), st.sampled_from(["\n", "\n\n"]))
def test_where_a_solution_ends_does_not_depend_on_what_a_step_is(
    ids: list[int], ends: dict[str, StepEnd], delimiter: str
) -> None:
    def end_of(rule: StepRule) -> list[int]:
        return [place for place, finish in finishes(ids, rule) if finish is Finish.END]

    plain = StepRule(delimiter=delimiter, answer_mark="A:")
    other = StepRule(
        delimiter=delimiter,
        answer_mark="A:",
        **ends,  # type: ignore[arg-type]  # ends and step_tokens
    )
    assert end_of(other) == end_of(plain)


def steps_of(text: str, steps: Steps, step_tokens: int | None = None) -> list[str]:
    """A text cut into steps, with a byte a token."""
    rule = with_steps(StepRule(), steps, step_tokens)
    return [BYTES.text_of(step) for step in cut(text.encode(), BYTES, rule)]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (Steps.LINE, ["So $x$ is\n", "\n", "two.\n", "\n", "It is 3.5 now. Yes!\n", "\n", "End"]),
        (Steps.PARAGRAPH, ["So $x$ is\n\n", "two.\n\n", "It is 3.5 now. Yes!\n\n", "End"]),
        (Steps.FORMULA, ["So $x$ is\n\n", "two.\n\nIt is 3.5 now. Yes!\n\nEnd"]),
        (Steps.SENTENCE, ["So $x$ is\n", "\ntwo.", "\n\nIt is 3.5 now.", " Yes!", "\n\nEnd"]),
    ],
)
def test_a_text_in_steps(steps: Steps, expected: list[str]) -> None:
    assert steps_of("So $x$ is\n\ntwo.\n\nIt is 3.5 now. Yes!\n\nEnd", steps) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs $3.50. Then more.", ["It costs $3.50. ", "Then more."]),
        ("1. Add x. 2. Go", ["1. ", "Add x. ", "2. ", "Go"]),
        ("(See it.) Now \u3002 x", ["(See it.", ") Now \u3002", " x"]),
        ("wait... what?! no", ["wait.", ".. what?", "! no"]),
        ("  \n \n  Hm", ["  \n \n  Hm"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert steps_of(text, Steps.SENTENCE) == expected


def test_so_many_tokens_are_a_step_and_the_rest_is_one() -> None:
    assert steps_of("abcdefgh", Steps.TOKENS, 3) == ["abc", "def", "gh"]
    # An answer may begin in one step and end in the next: the solution ends there.
    rule = StepRule(ends=StepEnd.TOKENS, step_tokens=5, answer_mark="A")
    stepper = Stepper(BYTES, rule, Budget(step=5, total=99))
    found = [stepper.feed(token) for token in b"A 123\n"]
    assert found == [None] * 4 + [Finish.STEP, Finish.END]


def test_a_formula_counts_where_it_stands_whole_before_the_delimiter() -> None:
    text = "a $x\n\ny$ b\n\n<<1+2=3>> c\n\nd <<\n\n>> $ e\n\nf"
    assert steps_of(text, Steps.FORMULA) == [text[: text.index("d")], text[text.index("d") :]]


@pytest.mark.parametrize("steps", [*Steps])
@pytest.mark.parametrize("part", ["$", "<<", "<<a\n\n", "\n", " ", "...", '.")]' * 3])
def test_hostile_text_costs_no_more_than_its_length(steps: Steps, part: str) -> None:
    """A hundred times this would be the cost of looking at everything anew at each token."""
    text = part * (100_000 // len(part))
    started = time.process_time()
    cut(text.encode(), BYTES, with_steps(StepRule(), steps, 10**6 if steps == "tokens" else None))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"ends": StepEnd.TOKENS}, "rule.step_tokens=None does not go with rule.ends=tokens"),
        ({"step_tokens": 5}, "rule.step_tokens=5 does not go with rule.ends=delimiter"),
        ({"ends": StepEnd.TOKENS, "step_tokens": 0}, "rule.step_tokens must be at least 1, got 0"),
        ({"ends": StepEnd.SENTENCE, "think": True}, "rule.think=true needs steps that a delimiter"),
        ({"ends": TWO_A, "think": True}, "got rule.ends=custom:two a"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, StepEnd], says: str) -> None:
    with pytest.raises(BadInput, match=re.escape(says)):
        StepRule(**fields)  # type: ignore[arg-type]  # the fields of a rule


@pytest.mark.parametrize("fields", ENDS)
def test_a_server_may_stop_only_at_a_text_that_always_ends_a_step(
    fields: dict[str, StepEnd],
) -> None:
    stops = fields == {"ends": StepEnd.DELIMITER}
    assert StepRule(**fields).stop_text == ("\n" if stops else None)  # type: ignore[arg-type]  # as above

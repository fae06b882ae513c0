"""What a template writes, it reads back; what it cannot write is refused in one line."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from treeward.search.errors import BadInput
from treeward.search.problem import Message, Problem
from treeward.search.prompts import Example, Template
from treeward.search.steps import Budget, Finish, Stepper, StepRule, cut
from treeward.search.templates import TEMPLATES, load_template
from treeward.search.tokens import byte_tokens

TOKENS = byte_tokens()
names = st.sampled_from(sorted(TEMPLATES))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.from_regex(r"-?[0-9]{1,6}(\.[0-9]{1,3})?", fullmatch=True)


def problem(prompt: str, *, messages: tuple[Message, ...] | None = None) -> Problem:
    return Problem(id="p", prompt=prompt, messages=messages)


def is_balanced(text: str) -> bool:
    """Whether every brace closes one that is open."""
    depth = 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return False
    return depth == 0


@given(names, st.lists(texts, max_size=4), texts.map(str.strip))
def test_the_answer_written_is_the_answer_read(name: str, steps: list[str], answer: str) -> None:
    template = TEMPLATES[name]
    assume(answer and "\n" not in answer and is_balanced(answer))
    assume(template.rule.answer_mark not in answer)
    assert template.answer_in("".join(template.solution_steps(steps, answer))) == answer


@example("chat", ["a\n", "\nb", "c\n\n\n\nd"], "1\n\n2\n")
@given(names, st.lists(texts, max_size=4), texts)
def test_every_step_written_is_one_step(name: str, steps: list[str], answer: str) -> None:
    template = TEMPLATES[name]
    written = template.solution_steps(steps, answer)
    assert len(written) == len(steps) + 1
    ids = TOKENS.encode("".join(written))
    assert [TOKENS.text_of(step) for step in cut(ids, TOKENS, template.rule)] == written


@given(names, st.lists(numbers, max_size=4), numbers)
def test_a_solution_written_ends_with_its_answer(name: str, steps: list[str], answer: str) -> None:
    template = TEMPLATES[name]
    ids = TOKENS.encode("".join(template.solution_steps(steps, answer)))
    stepper = Stepper(TOKENS, template.rule, Budget(step=10**6, total=10**6))
    finishes = [finish for token in ids if (finish := stepper.feed(token))]
    last = Finish.END if template.rule.answer_ends else Finish.STEP
    assert finishes == [Finish.STEP] * len(steps) + [last]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}", "5"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{a{b}{c{d}}}}", "a{b}{c{d}}"),
        (r"\boxed{5", None),
        (r"\boxed{}", None),
        ("no box", None),
    ],
)
def test_boxed_answers(text: str, answer: str | None) -> None:
    assert TEMPLATES["chat"].answer_in(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: 5\n", "5"),
        ("Answer:5", "5"),
        ("Step 1: x\nAnswer: 1\nAnswer: 2  \nmore", "2"),
        ("Answer:   \n7", None),
        ("5", None),
    ],
)
def test_answers_on_a_line(text: str, answer: str | None) -> None:
    assert TEMPLATES["steps"].answer_in(text) == answer


def test_few_shot_prompts_are_put_together_from_the_examples() -> None:
    template = Template(
        name="t",
        system="Sums.\n",
        question="Q: {prompt}\n",
        step="{k}) {step}",
        examples=(Example(question="1+1", steps=("1+1=2", "{k}"), answer="2"),),
    )
    text = template.text(problem("{prompt} 3"), TOKENS)
    assert text == "Sums.\nQ: 1+1\n1) 1+1=2\n2) {k}\nAnswer: 2\n\nQ: {prompt} 3\n"
    assert template.render(problem("{prompt} 3"), TOKENS) == tuple(text.encode())


def test_chats_hold_system_text_examples_and_the_question() -> None:
    seen: list[Sequence[Message]] = []

    def render_chat(messages: Sequence[Message]) -> str:
        seen.append(messages)
        return "rendered"

    def encode_prompt(text: str) -> list[int]:
        raise AssertionError("the chat template writes special tokens itself")

    tokens = replace(TOKENS, render_chat=render_chat, encode_prompt=encode_prompt)
    example = Example(question="1+1", steps=("1+1=2",), answer="2")
    template = replace(TEMPLATES["chat"], system="Think.", examples=(example,))
    asked = problem("now", messages=(Message("user", "before"), Message("user", "now")))
    assert template.render(asked, tokens) == tuple(b"rendered")
    assert list(seen[0]) == [
        Message("system", "Think."),
        Message("user", "1+1"),
        Message("assistant", "1+1=2\n\nThe answer is \\boxed{2}.\n\n"),
        Message("user", "before"),
        Message("user", "now"),
    ]


def test_a_chat_has_one_system_message() -> None:
    given = (Message("system", "In French."), Message("user", "now"))
    asked = problem("now", messages=given)
    both = replace(TEMPLATES["chat"], system="Think.").chat_messages(asked)
    assert both == [Message("system", "Think.\n\nIn French."), Message("user", "now")]
    assert replace(TEMPLATES["chat"], system="").chat_messages(asked) == list(given)


def test_text_holds_a_whole_chat_written_as_the_examples_are() -> None:
    template = Template(
        name="t",
        system="Sums.\n",
        question="Q: {prompt}\n",
        examples=(Example(question="1+1", steps=("1+1=2",), answer="2"),),
    )
    alone = problem("now", messages=(Message("user", "now"),))
    assert template.text(alone, TOKENS) == template.text(problem("now"), TOKENS)
    chat = (
        Message("system", "In French."),
        Message("user", "before"),
        Message("assistant", "Answer: 3"),
        Message("user", "now"),
    )
    assert template.text(problem("now", messages=chat), TOKENS) == (
        "Sums.\nIn French.\nQ: 1+1\n1+1=2\nAnswer: 2\n\nQ: before\nAnswer: 3\n\nQ: now\n"
    )


def test_a_chat_template_needs_a_chat_model() -> None:
    with pytest.raises(BadInput, match=r"no chat template; set prompt\.template=steps"):
        TEMPLATES["chat"].render(problem("hi"), TOKENS)


def test_unreadable_characters_are_refused_by_name() -> None:
    def encode(text: str) -> list[int]:
        return [ord(char) if char.isascii() else 0 for char in text]

    tokens = replace(TOKENS, encode=encode, encode_prompt=encode, unknown_id=0)
    assert TEMPLATES["nano"].render(problem("1 +1"), tokens) == tuple(b"1 +1\n")
    with pytest.raises(BadInput, match=r"cannot read 'äé' in '1é\+ä1'; choose another --policy"):
        TEMPLATES["nano"].render(problem("1é+ä1"), tokens)


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(BadInput, match="no tokens"):
        Template(name="t", question="{prompt}").render(problem(""), TOKENS)


WHOLE = """
chat = true
system = "Be brief."
question = "{prompt}?"
step = "- {step}"
answer = "= {answer}"
gap = ""
max_step_tokens = 7
[rule]
delimiter = ";"
answer_mark = "="
answer_ends = false
[[examples]]
question = "1+1"
steps = ["two"]
answer = "2"
"""


@pytest.fixture
def template_file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_template_file_holds_the_fields_of_a_template(
    template_file: Callable[[str], str],
) -> None:
    assert load_template(template_file(WHOLE)) == Template(
        name="mine",
        chat=True,
        system="Be brief.",
        examples=(Example(question="1+1", steps=("two",), answer="2"),),
        question="{prompt}?",
        step="- {step}",
        answer="= {answer}",
        gap="",
        max_step_tokens=7,
        rule=StepRule(delimiter=";", answer_mark="=", answer_ends=False),
    )
    assert load_template(template_file("")) == Template(name="mine")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("system = 1 2", "line 1"),
        ("sistem = 'x'", "unknown field 'sistem'; did you mean 'system'?"),
        ("question = 3", "question must be a str, got 3"),
        ("chat = 1", "chat must be a bool, got 1"),
        ("rule = 'x'", "rule must be a dict, got 'x'"),
        ("rule = {delimeter = ';'}", "unknown field 'rule.delimeter'; did you mean 'delimiter'?"),
        ("rule = {delimiter = ''}", "rule.delimiter must not be empty"),
        ("examples = ['x']", "examples[0] must be a table"),
        ("examples = [{question = 'x'}]", "examples[0] must have question, answer and steps"),
        (
            "examples = [{question = 'x', answer = 'x', steps = [1]}]",
            "examples[0] must have question, answer and steps",
        ),
        ("examples = [{question = 'x', answer = 'x', steps = 'ab'}]", "must be a list, got 'ab'"),
        ("question = 'hi'", "question must contain {prompt}"),
        ("step = '{k}'", "step must contain {step}"),
        ("step = 'Answer: {step}'", "step must not contain the answer's mark 'Answer:'"),
        ("answer = 'Answer: '", "answer must contain {answer}"),
        ("answer = 'It is {answer}'", "answer must contain the answer's mark 'Answer:'"),
        ("max_step_tokens = 0", "max_step_tokens must be at least 1"),
    ],
)
def test_a_bad_template_file_is_refused_in_one_line(
    template_file: Callable[[str], str], text: str, complaint: str
) -> None:
    path = template_file(text)
    with pytest.raises(BadInput) as raised:
        load_template(path)
    message = str(raised.value)
    assert complaint in message
    assert message.startswith(f"prompt.template: {path}: ")
    assert "\n" not in message


def test_a_template_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no template 'step'; one of nano, steps"):
        load_template("step")
    with pytest.raises(BadInput, match="No such file"):
        load_template(str(tmp_path / "none.toml"))

"""Prompt templates as data: how a problem is put, how a solution is written, where it ends.

A template is used in three places that must agree: rendering a prompt, writing down an expert's
solution for training, and reading the answer out of a sampled one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from treeward.search.errors import BadInput, UnreadablePrompt
from treeward.search.problem import Message, Problem
from treeward.search.steps import StepRule, without_thoughts
from treeward.search.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Holds one worked example of a few-shot prompt."""

    question: str
    steps: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Says how problems are put to a policy and how its solutions are read."""

    name: str

    chat: bool = False
    """Whether the model's own chat template wraps the prompt."""

    system: str = ""
    """Goes before everything else; the system message of a chat."""

    examples: tuple[Example, ...] = ()
    """Worked examples: earlier turns of a chat, or text before the question."""

    question: str = "{prompt}\n"
    """How a question is put; `{prompt}` stands for it."""

    step: str = "{step}"
    """How an expert's step is written; `{k}` counts from 1, `{step}` stands for its text."""

    answer: str = "Answer: {answer}"
    """How an expert's answer is written, as a step of its own."""

    gap: str = "\n"
    """Goes after each worked example."""

    rule: StepRule = field(default_factory=StepRule)
    """Where steps and solutions end."""

    max_step_tokens: int = 128
    """What `policy.max_step_tokens` is unless set."""

    max_rollout_tokens: int = 512
    """What `policy.max_rollout_tokens` is unless set."""

    def __post_init__(self) -> None:
        """Checks that what is written can be read again.

        Raises:
            BadInput: A field breaks its rule.
        """
        mark = self.rule.answer_mark
        rules = (
            ("question", "{prompt}" in self.question, "contain {prompt}"),
            ("step", "{step}" in self.step, "contain {step}"),
            ("step", mark not in self.step, f"not contain the answer's mark {mark!r}"),
            ("answer", "{answer}" in self.answer, "contain {answer}"),
            ("answer", mark in self.answer, f"contain the answer's mark {mark!r}"),
            ("max_step_tokens", self.max_step_tokens >= 1, "be at least 1"),
            ("max_rollout_tokens", self.max_rollout_tokens >= 1, "be at least 1"),
        )
        for name, holds, demand in rules:
            if not holds:
                raise BadInput(f"template {self.name!r}: {name} must {demand}")

    def solution_steps(self, steps: Sequence[str], answer: str) -> list[str]:
        """Returns an expert's solution as the policy would write it, delimiters included.

        Delimiters within a step or the answer become spaces, so that one step stays one step.
        """
        lines = [
            self.step.replace("{k}", str(k)).replace("{step}", self._in_one(step))
            for k, step in enumerate(steps, start=1)
        ]
        lines.append(self.answer.replace("{answer}", self._in_one(answer)))
        return [line + self.rule.delimiter for line in lines]

    def _in_one(self, text: str) -> str:
        return " ".join(text.split(self.rule.delimiter)).strip()

    def render(self, problem: Problem, tokens: Tokens) -> tuple[int, ...]:
        """Returns the token ids of a problem's prompt.

        Raises:
            UnreadablePrompt: The policy cannot read the prompt.
            BadInput: It has no chat template where one is needed.
        """
        text = self.text(problem, tokens)
        # A chat template writes the special tokens itself.
        ids = tuple(tokens.encode(text) if self.chat else tokens.encode_prompt(text))
        if tokens.unknown_id is not None and tokens.unknown_id in ids:
            readable = {piece.decode("utf-8", "ignore") for piece in tokens.pieces}
            strange = sorted({char for char in text if char not in readable})
            raise UnreadablePrompt(
                f"problem {problem.id}: this policy cannot read {''.join(strange)[:20]!r} in "
                f"{problem.prompt[:60]!r}; choose another --policy"
            )
        if not ids:
            raise UnreadablePrompt(f"problem {problem.id}: its prompt has no tokens")
        return ids

    def text(self, problem: Problem, tokens: Tokens) -> str:
        """Returns a problem's prompt as the text that is tokenised."""
        if self.chat:
            if tokens.render_chat is None:
                raise BadInput(
                    f"template {self.name!r} is for chat models and this policy has no chat "
                    "template; set prompt.template=steps"
                )
            try:
                return tokens.render_chat(self.chat_messages(problem))
            except BadInput as e:
                raise UnreadablePrompt(f"problem {problem.id}: {e}") from e
        return self.plain_text(problem)

    def plain_text(self, problem: Problem) -> str:
        """Returns a problem's prompt as text where no chat template wraps it.

        A chat's system message goes where the template's is, earlier turns follow the examples and
        are written as these are.
        """
        system, before, asked = _chat(problem)
        shots = [
            self._asked(example.question)
            + "".join(self.solution_steps(example.steps, example.answer))
            + self.gap
            for example in self.examples
        ]
        turns = [
            self._asked(turn.content)
            if turn.role == "user"
            else turn.content + self.rule.delimiter + self.gap
            for turn in before
        ]
        given = system and system + self.rule.delimiter
        return self.system + given + "".join(shots + turns) + self._asked(asked)

    def chat_messages(self, problem: Problem) -> list[Message]:
        """Returns a problem as chat messages: one of the system, worked examples, the question."""
        system, before, asked = _chat(problem)
        # Chat templates read one system message, the first.
        both = "\n\n".join(filter(None, (self.system, system)))
        messages = [Message("system", both)] if both else []
        for example in self.examples:
            solution = "".join(self.solution_steps(example.steps, example.answer))
            messages.append(Message("user", self._asked(example.question)))
            messages.append(Message("assistant", solution))
        return [*messages, *before, Message("user", self._asked(asked))]

    def _asked(self, prompt: str) -> str:
        return self.question.replace("{prompt}", prompt)

    def answer_in(self, text: str) -> str | None:
        """Returns what a solution gives as its answer, or None where it gives none.

        The last mark counts. A mark that opens a brace ends where that brace closes; any other
        ends with its line.
        """
        text = without_thoughts(text) if self.rule.think else text
        start = text.rfind(self.rule.answer_mark)
        if start < 0:
            return None
        rest = text[start + len(self.rule.answer_mark) :]
        if self.rule.answer_mark.endswith("{"):
            return _until_closing_brace(rest)
        return rest.split("\n", 1)[0].strip() or None


def _chat(problem: Problem) -> tuple[str, Sequence[Message], str]:
    """Returns what the system says in a problem's chat, its earlier turns, and the question."""
    *before, last = problem.messages or (Message("user", problem.prompt),)
    if before and before[0].role == "system":
        return before[0].content, before[1:], last.content
    return "", before, last.content


def _until_closing_brace(text: str) -> str | None:
    """Returns the text before the brace that closes the one just opened, or None."""
    depth = 1
    for place, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:place].strip() or None
    return None

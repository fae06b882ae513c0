"""What is said to a server that continues token ids, and what it may say back.

The protocol is `/v1/completions` as vLLM's server has it: token ids in `prompt`, and a stream of
events that bring token ids (`return_token_ids`), their log-probabilities and the count so far
(`continuous_usage_stats`). A server's word is never taken for more than it is: every event is
checked against what was asked and against the tokens before it, and where a continuation ends is
decided here, on token ids.
"""

import json
from dataclasses import dataclass
from operator import index
from typing import Any

from treeward.search.continuation import Continuation
from treeward.search.policy import Ask, Draw, LogprobAsk
from treeward.search.requests import Kind
from treeward.search.tokens import Tokens

DONE = "[DONE]"
"""The data of a stream's last event."""

ALIVE = "http_429"
"""The kind of the one fault that shows a server in good health."""

_OVERLOADED = frozenset({429, 503})
_PASSING = frozenset({408, 425, 429})
_ROUNDING = 1e-3
_NOTHING = -9999.0
"""What servers write for a log-probability of minus infinity, which JSON does not have."""

PLAIN: dict[str, Any] = {
    "n": 1,
    "stream": True,
    "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    "logprobs": 0,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What every call says. What is left out a server takes from the model's generation_config."""


class Fault(Exception):
    """Says why one attempt at a call gave nothing."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        passing: bool = True,
        overloaded: bool = False,
        retry_after: float | None = None,
    ) -> None:
        """Takes what is known.

        Args:
            kind: What it is counted as.
            message: One line.
            passing: Whether another attempt may succeed.
            overloaded: Whether the server had too much to do.
            retry_after: Seconds that the server wants to be left alone; None where it does not say.
        """
        # What a server says may hold half a letter, which no file takes.
        message = message.encode("utf-8", "replace").decode()
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.passing = passing
        self.overloaded = overloaded
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Holds what one event of a stream brings."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of the ids, in nats."""

    prompt_ids: tuple[int, ...] | None
    """What the server read as the prompt; None in events after the first."""

    n_prompt: int
    """Tokens of the prompt, by the server's count."""

    n_completion: int
    """Tokens of the completion up to here, by the server's count."""

    finish_reason: str | None
    """Why the server stopped; None while it goes on, and after it has told."""


def body_of(model: str, ask: Ask, seed: int, tokens: Tokens) -> dict[str, Any]:
    """Returns the call for one continuation.

    The stop string only spares tokens after a step's end: `Reading` decides where that is.
    """
    to_step = ask.kind is Kind.SAMPLE
    stop = ask.rule.stop_text
    return PLAIN | {
        "model": model,
        "prompt": [*ask.prompt_ids, *ask.prefix_ids],
        "max_tokens": ask.most,
        "temperature": ask.settings.temperature,
        "top_p": ask.settings.top_p,
        "seed": seed,
        "stop": [stop] if to_step and stop is not None else [],
        "stop_token_ids": sorted(tokens.eos_ids),
    }


def logprob_body(model: str, ask: LogprobAsk) -> dict[str, Any]:
    """Returns the call that tells how likely given tokens are; the token it draws is dropped."""
    return {
        "model": model,
        "prompt": [*ask.prompt_ids, *ask.ids],
        "prompt_logprobs": 0,
        "max_tokens": 1,
        "n": 1,
        "stream": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def read_logprobs(text: str, ask: LogprobAsk) -> list[float]:
    """Returns what the reply to such a call says of each id.

    Raises:
        Fault: It reports an error, tells of other ids, or does not tell.
    """
    data = _load(text)
    if data.get("error") is not None:
        raise _reported(data["error"])
    ids = ask.prompt_ids + ask.ids
    try:
        (choice,) = data["choices"]
        if choice.get("prompt_logprobs") is None:
            message = "does not tell the log-probabilities of tokens that are given"
            raise Fault("bad_reply", message, passing=False)
        read = tuple(map(index, choice["prompt_token_ids"]))
        told = zip(ids, choice["prompt_logprobs"], strict=True)
        start = len(ask.prompt_ids)
        logprobs = [float(of[str(token)]["logprob"]) for token, of in [*told][start:]]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as e:
        raise Fault("bad_reply", f"a reply without what it must hold ({e!r}): {_cut(text)}") from e
    if read != ids:
        raise Fault("bad_reply", "told of other token ids than were sent")
    if not all(map(_is_logprob, logprobs)):
        raise Fault("bad_reply", f"not a log-probability for each token: {_cut(text)}")
    return logprobs


class Reading:
    """Follows the stream of one continuation and ends it where the backends in process would."""

    def __init__(self, ask: Ask, tokens: Tokens) -> None:
        """Starts at the first token."""
        self._ask = ask
        self._tokens = tokens
        self._prompt = ask.prompt_ids + ask.prefix_ids
        self._drawn = Continuation.of(ask, tokens)
        self._seen = 0
        self.draw: Draw | None = None
        """The continuation; None until it is complete."""

    def feed(self, event: Event) -> None:
        """Takes an event; tokens after the end are dropped.

        Raises:
            Fault: It does not go on from the events before, or ends what is not complete.
        """
        self._check(event)
        for token, logprob in zip(event.token_ids, event.logprobs, strict=True):
            if self.draw is None:
                self.draw = self._add(token, logprob)
        if event.finish_reason is not None and self.draw is None:
            raise Fault(
                "bad_reply",
                f"ended ({event.finish_reason}) after {self._seen} tokens, where no "
                f"{self._ask.kind.value} ends",
            )

    def _check(self, event: Event) -> None:
        self._seen += len(event.token_ids)
        if event.prompt_ids is not None and event.prompt_ids != self._prompt:
            raise Fault("bad_reply", "went on from other token ids than were sent")
        if event.n_prompt != len(self._prompt):
            raise Fault(
                "bad_reply", f"read {event.n_prompt} prompt tokens of {len(self._prompt)} sent"
            )
        if event.n_completion != self._seen:
            raise Fault(
                "bad_reply", f"counted {event.n_completion} tokens where {self._seen} have come"
            )

    def _add(self, token: int, logprob: float) -> Draw | None:
        if not 0 <= token < len(self._tokens.pieces):
            raise Fault("bad_reply", f"drew token {token}, which the tokenizer does not have")
        return self._drawn.add(token, logprob)


def read_event(text: str) -> Event:
    """Returns what the data of an event says.

    Raises:
        Fault: It reports an error, or is no such event.
    """
    data = _load(text)
    if "error" in data:
        raise _reported(data["error"])
    try:
        usage = data["usage"]
        n_prompt, n_completion = index(usage["prompt_tokens"]), index(usage["completion_tokens"])
        if not data["choices"]:
            return Event(
                token_ids=(),
                logprobs=(),
                prompt_ids=None,
                n_prompt=n_prompt,
                n_completion=n_completion,
                finish_reason=None,
            )
        (choice,) = data["choices"]
        token_ids = tuple(map(index, choice["token_ids"]))
        logprobs = tuple(map(float, choice["logprobs"]["token_logprobs"])) if token_ids else ()
        prompt_ids = choice.get("prompt_token_ids")
        event = Event(
            token_ids=token_ids,
            logprobs=logprobs,
            prompt_ids=None if prompt_ids is None else tuple(map(index, prompt_ids)),
            n_prompt=n_prompt,
            n_completion=n_completion,
            finish_reason=choice.get("finish_reason"),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise Fault("bad_reply", f"an event without what it must hold ({e!r}): {_cut(text)}") from e
    if len(logprobs) != len(token_ids) or not all(map(_is_logprob, logprobs)):
        raise Fault("bad_reply", f"not a log-probability for each token: {_cut(text)}")
    return event


def _load(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise Fault("bad_reply", f"an event that is no JSON: {_cut(text)}") from e
    if not isinstance(data, dict):
        raise Fault("bad_reply", f"an event that is no JSON object: {_cut(text)}")
    return data


def _is_logprob(value: float) -> bool:
    return _NOTHING < value < _ROUNDING


def _reported(error: Any) -> Fault:
    """Returns the fault for an error that a server reports after it has begun to reply."""
    details = error if isinstance(error, dict) else {"message": error}
    code = details.get("code")
    return fault_of_status(code if isinstance(code, int) else 500, str(details.get("message")))


def fault_of_status(status: int, text: str, retry_after: float | None = None) -> Fault:
    """Returns the fault for a reply that is no success.

    Args:
        status: The HTTP status.
        text: What came with it: a message, or JSON that holds one.
        retry_after: See `Fault`.
    """
    return Fault(
        f"http_{status}",
        f"status {status}: {_message(text)}",
        passing=status >= 500 or status in _PASSING,
        overloaded=status in _OVERLOADED,
        retry_after=retry_after,
    )


def _message(text: str) -> str:
    """Returns the first line of what an error says."""
    try:
        data = json.loads(text)
        text = str(data["error"]["message"])
    except (KeyError, TypeError, ValueError, RecursionError):
        pass  # Proxies say it in words.
    return _cut(next(iter(text.strip().splitlines()), "without a word"))


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."

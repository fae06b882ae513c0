"""Decodes asks with vLLM, one of its requests for each continuation; knows nothing of threads.

Each step of vLLM adds a token to every request that it runs, and requests join between steps. The
tokens are fed to the same `Stepper` that cuts everywhere else, and a request that it ends is taken
out before the next step: no text is decoded, no stop string is needed, and nothing is sampled
beyond a step's end. (Where vLLM schedules ahead of its results, as it does on GPUs, one token more
has been computed by then; it is dropped.)

vLLM is handed twice as many continuations as it runs at once, so that it always has others at hand.
The rest wait here: preparing thousands of requests would hold all steps up for as long.
"""

import itertools
from collections import deque
from typing import Any, Protocol

from treeward.search.errors import BadInput, CallFailed
from treeward.search.jobs import Job, LogprobJob, Row
from treeward.search.tokens import Tokens

_AHEAD = 2
"""Continuations handed over for each that vLLM runs at once."""
_LEAST, _MOST = 0.01, 2.0
"""Temperatures: vLLM raises what is below to the least, and refuses what is above the most."""


def refuse_temperature(name: str, temperature: float) -> BadInput | None:
    """Returns why vLLM does not sample at a temperature; None where it does.

    Args:
        name: The setting's.
        temperature: Its value.
    """
    if _LEAST <= temperature <= _MOST:
        return None
    return BadInput(f"{name} must be from {_LEAST} to {_MOST} with vLLM, got {temperature!r}")


class Llm(Protocol):
    """What is used of `vllm.v1.engine.llm_engine.LLMEngine`."""

    def add_request(self, request_id: str, prompt: Any, params: Any) -> str:
        """Takes a request; returns vLLM's own name for it."""
        ...

    def step(self) -> list[Any]:
        """Returns what each request has gained."""
        ...

    def abort_request(self, request_ids: list[str]) -> None:
        """Takes requests out."""
        ...

    def reset_prefix_cache(self) -> bool:
        """Forgets all keys and values."""
        ...


class VllmEngine:
    """Serves asks in ticks. Not thread-safe: one thread calls `add` and `tick`."""

    def __init__(self, llm: Llm, tokens: Tokens, max_positions: int, slots: int) -> None:
        """Takes an engine that schedules requests and does not detokenise.

        Args:
            llm: Runs in this process.
            tokens: What its token ids stand for.
            max_positions: Tokens that its context holds.
            slots: Continuations that it runs at once.
        """
        self._llm = llm
        self._tokens = tokens
        self._max_positions = max_positions
        self._most = _AHEAD * slots
        self._waiting: deque[Row] = deque()
        self._rows: dict[str, Row] = {}
        self._given: dict[str, LogprobJob] = {}
        self._names = map(str, itertools.count())
        self.steps = 0
        """How often the model has been run."""
        self.prompt_tokens = 0
        """Tokens of the prompts and prefixes of all continuations that have begun."""
        self.cached_tokens = 0
        """How many of these vLLM found in its prefix cache."""

    @property
    def busy(self) -> bool:
        """Returns whether anything is under way."""
        return bool(self._rows or self._waiting or self._given)

    @property
    def read_tokens(self) -> int:
        """Returns how many tokens of prompts and prefixes have been computed."""
        return self.prompt_tokens - self.cached_tokens

    def add(self, job: Job | LogprobJob) -> None:
        """Takes a job; its continuations share what vLLM's prefix cache holds of its prefix."""
        if isinstance(job, LogprobJob):
            if job.fits(self._max_positions - 1):  # vLLM draws a token
                self._read(job)
            return
        refusal = refuse_temperature("policy.temperature", job.ask.settings.temperature)
        if refusal is not None:
            job.done(refusal)
        elif job.is_work(self._max_positions):
            self._waiting += job.start(self._tokens)

    def _read(self, job: LogprobJob) -> None:
        """Has vLLM say what it thinks of a prompt; the token that it draws behind it is dropped."""
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        params = SamplingParams(
            max_tokens=1,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        name = next(self._names)
        self._given[name] = job
        self._llm.add_request(name, tokens_input(list(job.ids)), params)

    def _hand_over(self) -> None:
        from vllm.inputs import tokens_input

        while self._waiting and len(self._rows) < self._most:
            row, name = self._waiting.popleft(), next(self._names)
            self._rows[name] = row
            self._llm.add_request(name, tokens_input(list(row.job.ids)), _sampling_params(row))

    def tick(self) -> None:
        """Adds a token to every continuation that vLLM runs."""
        self._hand_over()
        self.steps += 1
        ended = []
        for output in self._llm.step():
            if output.request_id in self._given:
                job = self._given.pop(output.request_id)
                said = [*zip(job.ids, output.prompt_logprobs, strict=True)]
                start = len(job.ask.prompt_ids)  # vLLM says nothing of the first token
                job.tell([of[token].logprob for token, of in said[start:]])
                continue
            row = self._rows[output.request_id]
            if not row.ids:
                self.prompt_tokens += len(output.prompt_token_ids)
                self.cached_tokens += output.num_cached_tokens or 0
            if not _extend(row, output.outputs[0]):
                del self._rows[output.request_id]
                if not output.finished:
                    ended.append(output.request_id)
            elif output.finished:
                del self._rows[output.request_id]
                reason = output.outputs[0].finish_reason
                row.fail(CallFailed("engine", f"vLLM ended a continuation early: {reason}"))
        self._llm.abort_request(ended)

    def clear(self) -> None:
        """Forgets all that is under way, and prefixes, of which a step that failed left some bare.

        vLLM lists the blocks of a prefix in its cache before it computes them.
        """
        self._llm.abort_request([*self._rows, *self._given])
        self._rows.clear()
        self._given.clear()
        self._waiting.clear()
        self._llm.reset_prefix_cache()


def _extend(row: Row, gained: Any) -> bool:
    """Adds what a continuation has gained; returns whether it goes on."""
    gains = zip(gained.token_ids, gained.logprobs, strict=True)
    return all(row.extend(token, logprobs[token].logprob) for token, logprobs in gains)


def _sampling_params(row: Row) -> Any:
    """Returns how vLLM samples a continuation."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    settings = row.job.ask.settings
    return SamplingParams(
        temperature=settings.temperature,
        top_p=settings.top_p,
        seed=row.seed,
        max_tokens=row.job.ask.most,
        # End tokens end a continuation where its stepper says so.
        ignore_eos=True,
        logprobs=0,  # the sampled token's alone
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,  # nobody else has these, and a deep copy takes long
    )

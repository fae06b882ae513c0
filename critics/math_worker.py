"""Asks math-verify whether two expressions are equal, in processes that can be killed.

A child process imports math-verify once and forks for every question. So a question meets the same
fresh state whatever was asked before it, and the kernel ends its process when processor time, wall
time or memory runs out, at no cost to the next. The child runs this file as a script, which is why
nothing of ours is imported here; it ends when its pipe closes, that is, with its parent, however
that ends.

Only math-verify's LaTeX grammar is used: its other extractor hands text to `eval`.
"""

import contextlib
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

CPU_SECONDS = 1.0
"""Processor time a question may take."""

WALL_SECONDS = 1.6
"""Wall time a question may take, however little of it the machine gives."""

MEMORY_BYTES = 2**30
"""Address space a question may take, the imports included."""

_BACKSTOP_SECONDS = 1.9
"""When the child itself is given up; it answers within `WALL_SECONDS` unless it is gone."""

_START_SECONDS = 60.0
_RECURSION = 5_000
_ANSWERS = {b"equal\n": True, b"unequal\n": False}
_EXIT_CODES = {10: b"equal\n", 11: b"unequal\n"}
_WARM_UP = (
    r"\frac{1}{2}+x^{2}-\sqrt{3x}",
    r"2\pi(x-1.5)\cdot y",
    "((((1))))",
    r"\{1,2\}",
    "x=[0,1)",
    "-3!",
    "the answer",
    r"\sin(x)",
    "x_1<2",
    "n^2+1",
)
"""What parsing and comparing these brings into memory is there in every fork."""


class MathWorker:
    """Holds the child process. Safe to use from any thread; questions take turns."""

    def __init__(self) -> None:
        """Starts the child and waits until it is ready, so that no question pays for the imports.

        Raises:
            RuntimeError: The child did not get ready.
        """
        self._lock = threading.Lock()
        self._remembered = lru_cache(maxsize=2**16)(self._ask)
        self._child = _start()

    @property
    def pid(self) -> int:
        """Returns the child's process id."""
        return self._child.pid

    def equal(self, reference: str, answer: str) -> bool | None:
        """Returns whether two LaTeX expressions are equal; None where a limit was hit.

        The order matters: relations and sets are read with the reference in mind. The same
        question is asked once, so that equal answers have equal verdicts.
        """
        return self._remembered(reference, answer)

    def close(self) -> None:
        """Ends the child; a later question starts a new one."""
        with self._lock:
            _end(self._child)

    def _ask(self, reference: str, answer: str) -> bool | None:
        question = json.dumps([reference, answer]).encode() + b"\n"
        with self._lock:
            if self._child.poll() is not None:
                _end(self._child)
                self._child = _start()
            stdin = self._child.stdin
            assert stdin is not None
            line = None
            try:
                with contextlib.suppress(BrokenPipeError):
                    stdin.write(question)
                    line = _read_line(self._child, _BACKSTOP_SECONDS)
            finally:
                if line is None:  # a late reply must not answer the next question
                    _end(self._child)
            return _ANSWERS.get(line or b"")


def _start() -> subprocess.Popen[bytes]:
    """Returns a child that is ready; a session of its own keeps the terminal's Ctrl-C away."""
    child = subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        start_new_session=True,
    )
    if _read_line(child, _START_SECONDS) != b"ready\n":
        _end(child)
        raise RuntimeError(
            f"the math checker did not start; {sys.executable} -c 'import math_verify' may say why"
        )
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills a child and whatever it forked, and closes its pipes; harmless if repeated."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def _read_line(child: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """Returns the child's next line, or None if it ends or the time is over."""
    assert child.stdout is not None
    deadline = time.monotonic() + seconds
    poll = select.poll()
    poll.register(child.stdout, select.POLLIN)
    line = b""
    while not line.endswith(b"\n"):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        chunk = os.read(child.stdout.fileno(), 64)
        if not chunk:
            return None
        line += chunk
    return line


def serve() -> None:
    """Answers questions from stdin on stdout until stdin closes; the child's whole life."""
    replies = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    logging.disable(logging.CRITICAL)
    sys.setrecursionlimit(_RECURSION)
    for text in _WARM_UP:
        _compare(text, "xy+7")
    os.write(replies, b"ready\n")
    for question in sys.stdin.buffer:
        reference, answer = json.loads(question)
        pid = os.fork()
        if pid == 0:
            _answer_and_exit(reference, answer)
        _, status = os.waitpid(pid, 0)
        os.write(replies, _EXIT_CODES.get(os.waitstatus_to_exitcode(status), b"limit\n"))


def _answer_and_exit(reference: str, answer: str) -> None:
    """Ends this process with the exit code of the answer, or in any other way at a limit."""
    code = 1
    try:
        _limit_this_process()
        equal = _compare(reference, answer)
        if equal is not None:
            code = 10 if equal else 11
        if code == 11 and _peak_bytes() > MEMORY_BYTES // 2:
            code = 1
    finally:
        os._exit(code)


def _limit_this_process() -> None:
    """Has the kernel end this process at its limits, whatever it is doing then."""
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WALL_SECONDS)


def _peak_bytes() -> int:
    """Returns the most memory this process held: near the limit, math-verify may have met it.

    It swallows MemoryError and calls the answers unequal.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _compare(reference: str, answer: str) -> bool | None:
    """Returns whether two expressions are equal; None if the reference is no expression.

    An answer that is no expression is unequal.
    """
    from math_verify import (  # type: ignore[import-untyped]  # ships no types
        LatexExtractionConfig,
        parse,
        verify,
    )

    config = [LatexExtractionConfig(boxed_match_priority=-1)]
    gold, pred = (
        parse(f"$ {text} $", config, parsing_timeout=None, raise_on_error=True)
        for text in (reference, answer)
    )
    if all(isinstance(found, str) for found in gold):
        return None
    return bool(verify(gold, pred, timeout_seconds=None, raise_on_error=True))


if __name__ == "__main__":
    serve()

"""One query in a process of its own, which ends at a time and at a size.

DuckDB can be told both limits and keeps neither everywhere: `SELECT repeat('x', 4000000000)` takes
what it takes, and no interrupt reaches it. A process can be limited by the operating system, and
killed.

The process reads what to run from its standard input, writes one byte when the database is open
and then the result; what went wrong is one line on its standard error.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from treeward.search.errors import BadInput, DamagedData, TreewardError

_READY = b"."
_START_SECONDS = 120.0
"""Time to open the database of a large run, before the limit on the query begins."""

_CHUNK = 1 << 16
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_ERRORS = {error.exit_code: error for error in (BadInput, DamagedData, TreewardError)}


class Sink(Protocol):
    """Takes bytes, as a file does."""

    def write(self, data: bytes, /) -> object:
        """Writes some bytes."""

    def flush(self) -> object:
        """Writes what waits."""


def memory_bytes(text: str) -> int:
    """Returns a size such as `4GB` in bytes.

    Raises:
        BadInput: It is no such size, or less than the 200MB that a query needs.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT]B)", text.strip().upper())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 200 * _UNITS["MB"]:
        raise BadInput(f"memory must be a size of at least 200MB such as 4GB, got {text!r}")
    return size


def query_in_process(
    run: Path, sql: str, form: str, out: Sink, *, timeout: float, memory: str
) -> None:
    """Writes the result of one statement that reads a run.

    Args:
        run: The run folder.
        sql: The statement.
        form: One of the forms of `rendering.write_table`.
        out: Where to.
        timeout: Seconds until the first row; above 0.
        memory: What the query may take, such as `4GB`.

    Raises:
        BadInput: The statement is refused or fails, or a limit is none.
        DamagedData: A file of the run is not what was written.
        TreewardError: The query was stopped at one of its limits.
    """
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise BadInput(
            f"timeout must be a number of seconds above 0 and at most {threading.TIMEOUT_MAX:.0f}, "
            f"got {timeout!r}"
        )
    job = {"run": str(run), "sql": sql, "form": form, "memory": memory_bytes(memory)}
    job |= {"seconds": timeout}
    command = [sys.executable, "-P", "-m", "treeward.export.query_process"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            with suppress(BrokenPipeError):
                # A child that did not start says why at its end.
                child.stdin.write(json.dumps(job).encode())
                child.stdin.close()
            source = child.stdout
            _within(_START_SECONDS, child, "opening the run took too long", lambda: source.read(1))
            late = f"stopped after {timeout:g} s; ask for less, or give more time with --timeout"
            block = _within(timeout, child, late, lambda: source.read(_CHUNK))
            while block:
                out.write(block)
                block = source.read(_CHUNK)
            out.flush()
            said = child.stderr.read().decode("utf-8", "replace")
        finally:
            child.kill()
    _require_success(child.returncode, said, memory)


def _within(
    seconds: float, child: subprocess.Popen[bytes], late: str, read: Callable[[], bytes]
) -> bytes:
    """Returns what a child writes next; kills it where that takes too long."""
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        block = read()
    finally:
        timer.cancel()
    if killed.is_set():
        raise TreewardError(f"query: {late}")
    return block


def _require_success(code: int, said: str, memory: str) -> None:
    """Raises what a child that failed said of it."""
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    if code > 0:
        if not lines and "cannot allocate memory" in said:
            raise TreewardError(f"query: the database ended; {_more(memory)}")
        message = lines[-1].removeprefix("error: ") if lines else f"query: failed: {said[-200:]!r}"
        raise _ERRORS.get(code, TreewardError)(message)
    if code < 0:
        name = signal.Signals(-code).name
        raise TreewardError(f"query: the database ended with {name}; {_more(memory)}")


def _more(memory: str) -> str:
    return f"most likely it needs more than {memory}: ask for less, or give more with --memory"


def _answer(job: dict[str, str | int | float]) -> None:
    """Runs the query that this process was started for."""
    from treeward.export.queries import connected, run_statement
    from treeward.export.rendering import write_table
    from treeward.export.run_folder import open_run_folder

    run, memory = open_run_folder(Path(str(job["run"]))), int(job["memory"])
    out = sys.stdout.buffer
    with connected(run, memory_limit=f"{memory // 1000}KB") as connection:
        _limit(memory, float(job["seconds"]))
        out.write(_READY)
        out.flush()
        write_table(run_statement(run, connection, str(job["sql"])), str(job["form"]), out)


def _limit(memory: int, seconds: float) -> None:
    """Limits what this process may take from now on.

    The limit on CPU time is for a child whose parent died, which nobody would kill.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        taken = int(statm.read_text().split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, taken + memory)
    _lower(resource.RLIMIT_CPU, int(seconds * (os.cpu_count() or 1)) + 60)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(what: int, size: int) -> None:
    """Sets a limit of this process; one that is lower already stays, since few may raise it."""
    hard = resource.getrlimit(what)[1]
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(what, (size, size))


def main() -> None:
    """Answers one query and ends the process."""
    code = 0
    try:
        _answer(json.loads(sys.stdin.buffer.read()))
    except TreewardError as e:
        code, message = e.exit_code, str(e)
    except MemoryError:
        code, message = (
            1,
            "query: needs more memory; ask for less, or raise the limit with --memory",
        )
    except BrokenPipeError:
        # Whoever asked is gone.
        code, message = 1, "query: nobody reads the result"
    else:
        message = ""
    if code:
        sys.stderr.write("error: " + " ".join(message.split()) + "\n")
        sys.stderr.flush()
    # Without tearing down the database, which may have died in the middle of something.
    os._exit(code)


if __name__ == "__main__":
    main()

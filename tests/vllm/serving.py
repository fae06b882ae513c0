"""vLLM's own API server on loopback: started, looked at, and taken away."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 300.0
"""For a start, on cores that others use too."""

_ARGUMENTS = {
    "--host": "127.0.0.1",
    "--dtype": "float32",
    "--max-model-len": "512",
    "--max-num-seqs": "64",
    "--block-size": "32",
    "--kv-cache-memory-bytes": str(1 << 28),
}
# A prompt of which a step reads a part only cannot have a seed on a CPU.
_FLAGS = ("--enforce-eager", "--no-enable-chunked-prefill")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server process with a group of its own, which its workers are in too."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def send(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)

    def healthy(self) -> bool:
        """Whether it can be asked; fails where the process has ended."""
        assert self.process.poll() is None, self.log.read_text()[-5000:]
        try:
            with urllib.request.urlopen(f"{self.root}/health", timeout=10) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False

    def prompt_tokens(self) -> int:
        """Tokens of all prompts that it has read or found in its cache."""
        with urllib.request.urlopen(f"{self.root}/metrics", timeout=60) as response:
            text = response.read().decode()
        (count,) = re.findall(r"^vllm:prompt_tokens_total\{.*\} (\S+)$", text, re.MULTILINE)
        return int(float(count))


@contextmanager
def serving(model: Path, logs: Path, n: int) -> Iterator[list[Server]]:
    """Starts servers of one model and waits until all can be asked; ends them in any case."""
    servers: list[Server] = []
    try:
        servers.extend(_start(model, logs) for _ in range(n))
        deadline = time.monotonic() + _SECONDS
        while not all(server.healthy() for server in servers):
            assert time.monotonic() < deadline, servers[0].log.read_text()[-5000:]
            time.sleep(0.5)
        yield servers
    finally:
        _end(servers)


def _start(model: Path, logs: Path) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_FLAGS]
    for name, value in {"--model": str(model), "--port": str(port), **_ARGUMENTS}.items():
        command += [name, value]
    log = logs / f"{port}.log"
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    return Server(port=port, process=process, log=log)


def _end(servers: Sequence[Server]) -> None:
    for server in servers:
        # The group outlives its leader, and a process that is stopped heeds this signal alone.
        try:
            server.send(signal.SIGKILL)
        except ProcessLookupError:
            continue
        server.process.wait()

"""A server of completions on loopback that replies, or fails to, as a test says."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
Token = tuple[int, float]
"""An id and its log-probability."""

Model = Callable[[tuple[int, ...], int], Iterable[Token]]
"""Given a prompt and a seed, all that the model would ever say."""


@dataclass
class Wire:
    """What a reply is written to."""

    writer: asyncio.StreamWriter
    reader: asyncio.StreamReader

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def plain(
        self, status: int, text: str = "", kind: str = "application/json", **headers: str
    ) -> None:
        lines = [f"HTTP/1.1 {status} x", f"content-type: {kind}", f"content-length: {len(text)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.raw("\r\n".join([*lines, "", text]).encode())

    async def begin(self) -> None:
        head = "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked"
        await self.raw(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())

    async def chunk(self, text: str) -> None:
        await self.raw(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    async def event(self, event: Event | str) -> None:
        text = event if isinstance(event, str) else json.dumps(event)
        await self.chunk(f"data: {text}\n\n")

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def break_off(self) -> None:
        self.writer.transport.abort()

    async def stream(self, events: Iterable[Event]) -> None:
        await self.begin()
        for event in events:
            await self.event(event)
        await self.event("[DONE]")
        await self.end()

    async def until_left(self) -> None:
        """Returns when the client has closed the connection."""
        await self.reader.read()


Reply = Callable[[Event, Wire], Awaitable[None]]
"""Given a call's body, writes the reply."""


def chunk_of(
    body: Event, before: int, drawn: list[Token], reason: str | None, best: float | None = None
) -> Event:
    """An event with some tokens, as vLLM writes it."""
    choice: Event = {"index": 0, "text": "", "finish_reason": reason}
    choice["token_ids"] = [token for token, _ in drawn]
    choice["logprobs"] = {"token_logprobs": [logprob for _, logprob in drawn]}
    if best is not None:
        choice["logprobs"]["top_logprobs"] = [{"token_id:0": best} for _ in drawn]
    if before == 0:
        choice["prompt_token_ids"] = body["prompt"]
    return {"choices": [choice], "usage": usage_of(body, before + len(drawn))}


def usage_of(body: Event, n: int) -> Event:
    return {"prompt_tokens": len(body["prompt"]), "completion_tokens": n}


def events_of(body: Event, model: Model, *, at_once: int = 1) -> Iterator[Event]:
    """The events of a sound reply; tokens are bytes."""
    drawn: list[Token] = []
    sent = 0
    for drawn_token in model(tuple(body["prompt"]), body["seed"]):
        drawn.append(drawn_token)
        text = bytes(token for token, _ in drawn if token < 256).decode("utf-8", "replace")
        stopped = drawn_token[0] in body["stop_token_ids"] or any(s in text for s in body["stop"])
        long = len(drawn) == body["max_tokens"]
        reason = "stop" if stopped else "length" if long else None
        if reason or len(drawn) - sent == at_once:
            yield chunk_of(body, sent, drawn[sent:], reason)
            sent = len(drawn)
        if reason:
            break
    yield {"choices": [], "usage": usage_of(body, sent)}


def sound(model: Model, *, at_once: int = 1) -> Reply:
    """Replies as a sound server does."""

    async def reply(body: Event, wire: Wire) -> None:
        await wire.stream(events_of(body, model, at_once=at_once))

    return reply


@dataclass
class FakeServer:
    """Serves in a thread of its own; counts what it is asked."""

    reply: Reply
    card: Event = field(default_factory=lambda: {"id": "m", "root": "/m", "max_model_len": 4096})
    encode: Callable[[str], list[int]] | None = None
    """What `/tokenize` says; None where there is none."""
    busy: dict[str, int] = field(default_factory=dict)
    """How often a path is answered with 503 before anything else."""
    url: str = ""
    bodies: list[Event] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(writer, reader)
        try:
            async for path, body in _requests(reader):
                if self.busy.get(path, 0) > 0:
                    self.busy[path] -= 1
                    await wire.plain(503, "busy", retry_after="0")
                elif path == "/v1/models":
                    await wire.plain(200, json.dumps({"data": [self.card]}))
                elif path == "/tokenize" and self.encode is not None:
                    await wire.plain(200, json.dumps({"tokens": self.encode(body["prompt"])}))
                elif path == "/v1/completions":
                    await self._complete(body, wire)
                else:
                    await wire.plain(404)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _complete(self, body: Event, wire: Wire) -> None:
        self.bodies.append(body)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.reply(body, wire)
        finally:
            self.in_flight -= 1

    async def run(self, ready: Callable[[], None], stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready()
        await stop.wait()
        server.close()


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, Event]]:
    """Yields the path and body of each request on a connection."""
    while True:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except asyncio.IncompleteReadError:
            return
        lengths = [line.split(":")[1] for line in head if line.lower().startswith("content-length")]
        text = await reader.readexactly(int(lengths[0])) if lengths else b"{}"
        yield head[0].split()[1], json.loads(text)


@contextmanager
def serving(*servers: FakeServer) -> Iterator[None]:
    """Runs servers while the test talks to them."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = threading.Semaphore(0)

    async def main() -> None:
        running = [asyncio.create_task(each.run(ready.release, stop)) for each in servers]
        await asyncio.gather(*running)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        for _ in servers:
            assert ready.acquire(timeout=10)
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=10)
        loop.close()

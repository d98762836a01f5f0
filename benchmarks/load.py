"""A load generator that costs less than what it measures: prebuilt bytes over raw connections.

It runs as a process of its own (`python -m benchmarks.load`), reads one JSON task on standard
input and prints one JSON result:

    {"measure": "ttft", "targets": {NAME: PORT}, "rounds": N}
        one streamed request at a time, to each target in turn, the order rotating with each round,
        so that whatever the machine does in that minute it does to all of them. Result: per target
        the milliseconds from the request's last byte to the first *word* of the answer.
    {"measure": "rate", "port": PORT, "stream": BOOL, "concurrency": N, "seconds": S, "warmup": S}
        a closed loop on N keep-alive connections. Result: answers a second.

Before measuring, one answer of each target is read to its end and must hold all its words: a
gateway that is quick because it answers with an error is a failure, not a result.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop

from benchmarks.stub import CHUNKS, MODEL, WORD

MARK = WORD.encode()
LAST_CHUNK = b"\r\n0\r\n\r\n"


class LoadError(Exception):
    """An answer that is not what was asked for; the text shows its beginning."""


def request(port: int, *, stream: bool) -> bytes:
    """One chat request, as bytes."""
    body = json.dumps(
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Say sixty-four words, please."}],
            "stream": stream,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        "authorization: Bearer none\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time; `on_done` hears of each whole answer."""

    def __init__(self, on_done: Callable[[Connection], None]) -> None:
        self.on_done = on_done
        self.kept: list[bytes] | None = None
        """The answer's bytes, where somebody wants to read them."""
        self.first_word_at = 0.0
        self.error = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.fail(f"the connection was closed: {error}")

    def send(self, message: bytes) -> None:
        """Send a request; its answer begins from nothing."""
        self.in_head = True
        self.head = b""
        self.tail = b""
        self.missing = -1
        self.first_word_at = 0.0
        self.transport.write(message)  # type: ignore[attr-defined]

    def fail(self, error: str) -> None:
        self.error = self.error or error
        self.on_done(self)

    def data_received(self, data: bytes) -> None:
        if self.kept is not None:
            self.kept.append(data)
        if not self.first_word_at and MARK in self.tail + data:
            self.first_word_at = time.perf_counter()
        self.tail = (self.tail + data)[-len(LAST_CHUNK) :]
        if self.in_head:
            self.head += data
            end = self.head.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            if b" 200 " not in self.head[:16]:
                self.fail(self.head[:300].decode(errors="replace"))
                return
            self.in_head = False
            data = self.head[end:]
            self.missing = announced(self.head[:end])
        if self.missing >= 0:
            self.missing -= len(data)
            done = self.missing <= 0
        else:
            done = self.tail == LAST_CHUNK
        if done:
            self.on_done(self)


def announced(head: bytes) -> int:
    """The Content-Length of an answer, -1 when it comes in chunks."""
    lower = head.lower()
    start = lower.find(b"content-length:")
    if start < 0:
        return -1
    return int(lower[start + 15 : lower.index(b"\r\n", start)])


async def connect(port: int, on_done: Callable[[Connection], None]) -> Connection:
    """A connection to a server on loopback."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(on_done), "127.0.0.1", port)
    return connection


class Single:
    """A connection used by one coroutine. Raises LoadError for a bad answer."""

    @classmethod
    async def open(cls, port: int) -> Single:
        single = cls()
        single.done = asyncio.get_running_loop().create_future()
        single.connection = await connect(port, single._finish)
        return single

    done: asyncio.Future[None]
    connection: Connection

    def _finish(self, _: Connection) -> None:
        if not self.done.done():
            self.done.set_result(None)

    async def first_word_s(self, message: bytes) -> float:
        """Seconds to the first word; returns when the answer is whole."""
        self.done = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        self.connection.send(message)
        await self.done
        if self.connection.error:
            raise LoadError(self.connection.error)
        return self.connection.first_word_at - started

    async def words(self, message: bytes) -> int:
        """How many words the whole answer holds."""
        self.connection.kept = []
        await self.first_word_s(message)
        answer = b"".join(self.connection.kept)
        self.connection.kept = None
        return answer.count(MARK)

    def close(self) -> None:
        self.connection.transport.close()


async def check(port: int, *, stream: bool) -> None:
    """Raises LoadError unless an answer of this server is whole."""
    single = await Single.open(port)
    words = await single.words(request(port, stream=stream))
    single.close()
    if words != CHUNKS:
        raise LoadError(f"port {port} answered {words} of {CHUNKS} words (stream: {stream})")


async def measure_ttft(targets: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """Milliseconds to the first word, per target, one at a time and in turn."""
    names = list(targets)
    lines: dict[str, tuple[Single, bytes]] = {}
    for name, port in targets.items():
        await check(port, stream=True)
        lines[name] = (await Single.open(port), request(port, stream=True))
    took: dict[str, list[float]] = {name: [] for name in names}
    warmup = max(20, rounds // 10)
    for turn in range(warmup + rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            single, message = lines[name]
            first_s = await single.first_word_s(message)
            if turn >= warmup:
                took[name].append(first_s * 1e3)
    for single, _ in lines.values():
        single.close()
    return took


async def measure_rate(
    port: int, *, stream: bool, concurrency: int, seconds: float, warmup: float
) -> dict[str, float]:
    """Answers a second in a closed loop, after a warm-up."""
    await check(port, stream=stream)
    loop = asyncio.get_running_loop()
    message = request(port, stream=stream)
    failed: asyncio.Future[None] = loop.create_future()
    answers = 0

    def next_one(connection: Connection) -> None:
        nonlocal answers
        if connection.error:
            if not failed.done():
                failed.set_exception(LoadError(connection.error))
            return
        answers += 1
        connection.send(message)

    connections = [await connect(port, next_one) for _ in range(concurrency)]
    for connection in connections:
        connection.send(message)
    await asyncio.wait([failed], timeout=warmup)
    began, answers = time.perf_counter(), 0
    print("measuring", file=sys.stderr, flush=True)
    await asyncio.wait([failed], timeout=seconds)
    took_s, counted = time.perf_counter() - began, answers
    print("measured", file=sys.stderr, flush=True)
    if failed.done():
        failed.result()
    failed.cancel()
    for connection in connections:
        connection.on_done = lambda _: None
        connection.transport.close()
    return {"per_s": counted / took_s, "answers": counted, "seconds": took_s}


async def run(task: dict[str, Any]) -> Any:
    """Do one task."""
    measure = {"ttft": measure_ttft, "rate": measure_rate}[task.pop("measure")]
    return await measure(**task)  # type: ignore[operator]


def main() -> int:
    try:
        result = uvloop.run(run(json.load(sys.stdin)))
    except (LoadError, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A gateway that answers by script, and what its tests say through a bare socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from meshd.api.limits import DEFAULT, HttpLimits
from meshd.api.server import HttpServer
from meshd.core.ports import Answer, AnswerHead, Batch, RequestFailed, TrustRefused
from protocol.jobs import Failure, Finish, Job, TextDelta

DONE = Finish("stop", 5, 2, cached_tokens=1)
HELLO: Sequence[Batch] = ([TextDelta("Hel"), TextDelta("lo")], [DONE])
USER = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "tiny", "messages": USER}

MODEL = {
    "id": "org/tiny:q4",
    "created": 1_700_000_000,
    "nodes": ["attic"],
    "context_length": 2048,
    "capabilities": ["chat", "vision"],
    "quantisation": "Q4_K_M",
    "aliases": ["tiny"],
    "warm": True,
    "emulated": False,
    "second_hand": False,
}


class Scripted:
    """A gateway whose every answer is `batches`; a None among them waits until let go."""

    def __init__(self, batches: Sequence[Batch | None] = HELLO, refusal: Failure | None = None):
        self.batches = batches
        self.refusal = refusal
        self.late_refusal: Failure | None = None
        self.jobs: list[Job] = []
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.waiting = asyncio.Event()
        self.closed = asyncio.Event()
        self.slow_submit = False
        self.node_name = "attic"
        self.emulated = False

    async def submit(self, job: Job) -> Answer:
        self.jobs.append(job)
        self.asked.set()
        head = AnswerHead(
            job.request_id, self.node_name, "ab" * 16, job.model, 1, "only", 7, 3, self.emulated
        )
        if self.refusal is not None:
            raise RequestFailed(self.refusal, head)
        if self.slow_submit:
            try:
                await self.go.wait()
            finally:
                self.closed.set()
        if self.late_refusal is not None:
            raise RequestFailed(self.late_refusal, head)
        return Answer(head, self._events())

    async def _events(self):
        try:
            for batch in self.batches:
                if batch is None:
                    self.waiting.set()
                    await self.go.wait()
                else:
                    yield batch
        finally:
            self.closed.set()

    def models(self) -> Sequence[dict[str, Any]]:
        return [MODEL]

    def status(self) -> dict[str, Any]:
        return {"node": "attic"}

    def members(self) -> dict[str, Any]:
        return {"self": "ab" * 16, "members": []}

    def explain(self, job: Job) -> dict[str, Any]:
        self.jobs.append(job)
        return {"model": job.model, "kind": job.kind}


class Desk:
    """A trust desk that lets anybody in, or refuses everything with `refusal`."""

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.asked: list[tuple[Any, ...]] = []
        self.open: list[dict[str, Any]] = []
        self.go = asyncio.Event()
        self.go.set()

    def _ask(self, *question: Any) -> None:
        self.asked.append(question)
        if self.refusal:
            raise TrustRefused(self.refusal)

    async def invite(self, *, token: bool) -> dict[str, Any]:
        self._ask("invite", token)
        kind, text = ("token", "meshd-join-abc") if token else ("code", "1234 5678")
        self.open = [{"kind": kind, "expires_s": 119.5, "tries_left": 5}]
        return {kind: text, "expires_s": 120.0, "door": 8790}

    def invitations(self) -> dict[str, Any]:
        self._ask("invitations")
        return {"door": 8790 if self.open else None, "invitations": self.open}

    async def withdraw(self) -> None:
        self._ask("withdraw")
        self.open = []

    async def join(self, code: str, at: str | None) -> dict[str, Any]:
        self._ask("join", code, at)
        await self.go.wait()
        return {"mesh": "0f0f0f0f", "sponsors": ["attic"]}

    async def revoke(self, node: str) -> dict[str, Any]:
        self._ask("revoke", node)
        return {"node": node, "told": ["desk"], "silent": ["shed"], "epoch": 1}


@asynccontextmanager
async def serving(
    gateway: Any, limits: HttpLimits = DEFAULT, **options: Any
) -> AsyncIterator[HttpServer]:
    """A server on a free port of loopback, closed at the end."""
    server = HttpServer(gateway, port=0, limits=limits, **options)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


class Line:
    """One connection to a server, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    def send(self, head: str, body: bytes = b"", *, host: str = "localhost") -> None:
        """A request; `head` is its first line and any headers, one to a line."""
        first, *more = head.splitlines()
        length = [f"content-length: {len(body)}"] if body else []
        lines = [f"{first} HTTP/1.1", f"host: {host}", *more, *length]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the next answer."""
        raw = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = raw.strip().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        return int(first.split()[1]), {name.lower(): value for name, value in pairs}

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer, whole, which has a content-length."""
        status, headers = await self.head()
        return status, headers, await self.reader.readexactly(int(headers["content-length"]))

    async def error(self) -> tuple[int, dict[str, Any]]:
        """Status and error object of the next answer."""
        status, _, body = await self.reply()
        return status, json.loads(body)["error"]

    async def chunks(self) -> bytes:
        """The rest of a chunked body, put together."""
        whole = b""
        while size := int(await self.reader.readline(), 16):
            whole += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return whole


@asynccontextmanager
async def line(server: HttpServer) -> AsyncIterator[Line]:
    """A connection to `server`, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.transport.abort()


def post(path: str = "/v1/chat/completions") -> str:
    return f"POST {path}\ncontent-type: application/json"


def chat(**fields: Any) -> bytes:
    """A chat body with further fields."""
    return json.dumps(CHAT | fields).encode()


def events(stream: bytes) -> list[Any]:
    """The payloads of a stream of server-sent events, `[DONE]` as text."""
    lines = [part.removeprefix(b"data: ") for part in stream.split(b"\n\n")]
    assert lines.pop() == b""
    return ["[DONE]" if part == b"[DONE]" else json.loads(part) for part in lines]

"""A server that gives scripted bytes, and an engine that has adopted it, on real sockets."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

from meshd.engine.upstream import UpstreamEngine
from protocol.jobs import Job

MODELS = json.dumps({"data": [{"id": "m"}, {"id": "n", "aliases": ["also-n"]}]}).encode()
CHUNK = b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'
END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
PLAIN = b'{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}'
JOB = Job("r", "chat", "m", messages=({"role": "user", "content": "q"},), stream=True)


def reply(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK", extra=b""):
    """One whole HTTP answer."""
    head = b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n"
    return head % (status, kind, len(body), extra) + body


EVENTS = b"text/event-stream"
LISTING = reply(MODELS)
STREAMED = reply(CHUNK + END, EVENTS)


class Script:
    """A server that gives scripted bytes: one reply for each POST, whatever it asks."""

    def __init__(self) -> None:
        self.listing = LISTING
        self.replies: list[bytes] = []
        self.closes_after_reply = False
        self.connections = 0
        self.posts: list[bytes] = []
        self.heads: list[bytes] = []
        self.gone = asyncio.Event()
        self.url = ""

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                writer.write(self._answer(head, body))
                await writer.drain()
                if self.closes_after_reply and head.startswith(b"POST"):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()

    def _answer(self, head: bytes, body: bytes) -> bytes:
        self.heads.append(head)
        if head.startswith(b"GET"):
            return (
                self.listing
                if head.startswith(b"GET /v1/models ")
                else reply(b"", status=b"404 No")
            )
        self.posts.append(body)
        return self.replies.pop(0)


@asynccontextmanager
async def adopted(script: Script, **options):
    """An engine that has adopted the scripted server."""
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    engine = UpstreamEngine(script.url, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()
        server.close()
        await asyncio.sleep(0)

"""An OpenAI-compatible server that costs almost nothing, for gateways to stand in front of.

`python -m benchmarks.stub [--port N]` prints its port and serves until killed. It offers one model,
`stub`; every answer is the same prebuilt bytes: one JSON object, or 64 content chunks back to back
in a single write, which is the hardest stream a gateway can be given (a real engine spreads them
over seconds). No token is computed, so what is measured in front of it is the gateway alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import uvloop

MODEL = "stub"
WORD = "lorem"
CHUNKS = 64
HEADER_MAX_BYTES = 64 * 1024
"""A request head longer than this is not one of ours; the connection is closed."""

BASE: dict[str, Any] = {"id": "chatcmpl-stub", "created": 1, "model": MODEL}
USAGE = {"prompt_tokens": 8, "completion_tokens": CHUNKS, "total_tokens": 8 + CHUNKS}


def response(body: bytes, content_type: str) -> bytes:
    """A whole HTTP answer with a Content-Length."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def packed(value: Any) -> bytes:
    """JSON without spaces, as servers write it."""
    return json.dumps(value, separators=(",", ":")).encode()


def plain_answer() -> bytes:
    """The answer to a request without `stream`."""
    message = {"role": "assistant", "content": " ".join([WORD] * CHUNKS), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = {**BASE, "object": "chat.completion", "choices": [choice], "usage": USAGE}
    return response(packed(body), "application/json")


def stream_answer(*, with_usage: bool) -> bytes:
    """The answer to a request with `stream`: each event an HTTP chunk of its own."""
    base = {**BASE, "object": "chat.completion.chunk"}

    def event(delta: dict[str, str], finish: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: " + packed({**base, "choices": [choice]}) + b"\n\n"

    events = [event({"role": "assistant", "content": ""}, None)]
    events += [event({"content": f"{WORD}{number} "}, None) for number in range(CHUNKS)]
    events.append(event({}, "stop"))
    if with_usage:
        events.append(b"data: " + packed({**base, "choices": [], "usage": USAGE}) + b"\n\n")
    events.append(b"data: [DONE]\n\n")
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    return head + b"".join(b"%x\r\n%s\r\n" % (len(data), data) for data in events) + b"0\r\n\r\n"


PLAIN = plain_answer()
STREAM = stream_answer(with_usage=False)
STREAM_WITH_USAGE = stream_answer(with_usage=True)
MODELS = response(
    packed({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "stub"}]}),
    "application/json",
)


class StubProtocol(asyncio.Protocol):
    """One keep-alive connection. Understands exactly what HTTP clients send to such a server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        received = self.received + data
        while True:
            end = received.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(received) > HEADER_MAX_BYTES:
                    self.transport.close()
                break
            whole = end + body_length(received[:end])
            if len(received) < whole:
                break
            self.answer(received[:end], received[end:whole])
            received = received[whole:]
        self.received = received

    def answer(self, head: bytes, body: bytes) -> None:
        """Write the prebuilt bytes that this request asks for."""
        write = self.transport.write  # type: ignore[attr-defined]
        if head.startswith(b"GET"):
            write(MODELS)
        elif b'"stream":true' in body or b'"stream": true' in body:
            write(STREAM_WITH_USAGE if b"include_usage" in body else STREAM)
        else:
            write(PLAIN)


def body_length(head: bytes) -> int:
    """The Content-Length of a request, 0 without one."""
    name = b"content-length:"
    start = head.lower().find(name)
    if start < 0:
        return 0
    start += len(name)
    return int(head[start : head.index(b"\r\n", start)])


async def serve(port: int) -> None:
    """Print the port and serve until killed."""
    server = await asyncio.get_running_loop().create_server(StubProtocol, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()

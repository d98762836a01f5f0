"""A link that is slow: what is large waits, what is small does not wait behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from .conftest import World, events_of, job, member_of

RATE_BYTES_PER_S = 8_000_000
BODY_BYTES = 4_000_000
"""Half a second of the link."""

BUFFER_BYTES = 32 * 1024
"""Of the link itself: less than what is measured."""


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float) -> None:
    """Pass bytes on, no faster than `rate` per second."""
    with closing(writer):
        while data := await reader.read(BUFFER_BYTES):
            await asyncio.sleep(len(data) / rate)
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def slow_link(port: int) -> AsyncIterator[int]:
    """The port of a link to `port` that is slow on the way there."""
    ways: set[asyncio.Task[None]] = set()

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for way in (carry(reader, back, RATE_BYTES_PER_S), carry(there, writer, 1e12)):
            ways.add(asyncio.create_task(way))

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    async with await asyncio.start_server(join, sock=listener, limit=BUFFER_BYTES):
        yield listener.getsockname()[1]
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await asyncio.sleep(0.01)  # the loop closes them in its next turns


async def test_a_small_request_overtakes_a_large_one_on_a_slow_link(world: World) -> None:
    """Most of the large one is still to be sent, not in buffers that nobody can overtake in."""
    async with world.relay() as server, world.relay() as asker, slow_link(server.port) as port:
        there = member_of(server._identity, port)
        order: list[str] = []

        async def ask(request_id: str, text: str) -> None:
            await events_of(asker.generate(there, job(request_id, text)))
            order.append(request_id)

        await ask("first", "hello")
        large = asyncio.create_task(ask("large", "x" * BODY_BYTES))
        await asyncio.sleep(0.1)  # all of it would have left this node's hands by now
        await ask("small", "hello")
        await large
    assert order == ["first", "small", "large"]

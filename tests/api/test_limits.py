"""Every limit holds, and a client that leaves or dawdles frees what it held."""

import asyncio
from dataclasses import replace

import pytest

from meshd.api.limits import BODY_MAX_BYTES, DEFAULT
from protocol.jobs import TextDelta
from tests.api.scripted import DONE, MODEL, Scripted, chat, events, line, post, serving

PATIENCE_S = 5.0
"""Longest wait for what must happen at once; the test fails after it."""


async def test_a_body_that_says_it_is_too_large_is_not_read(server):
    """The answer is there before the body."""
    async with line(server) as client:
        client.send(f"{post()}\ncontent-length: {BODY_MAX_BYTES + 1}")
        status, error = await client.error()
    assert status == 413
    assert "16 MiB" in error["message"]


async def test_a_body_that_turns_out_too_large_is_cut_off(server):
    """Chunked, so nothing was said in front; reading stops at the limit."""
    async with line(server) as client:
        client.send(f"{post()}\ntransfer-encoding: chunked")
        piece = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
        for _ in range(17):
            client.writer.write(piece)
        assert (await client.error())[0] == 413


async def test_a_body_of_just_the_limit_is_read(server):
    """The bound itself is inside."""
    frame = chat(user="")
    body = frame.replace(b'"user": ""', b'"user": "%b"' % (b"x" * (BODY_MAX_BYTES - len(frame))))
    assert len(body) == BODY_MAX_BYTES
    async with line(server) as client:
        client.send(post(), body)
        assert (await client.reply())[0] == 200


async def test_a_body_that_does_not_come_is_given_up(gateway):
    """A slow sender holds a connection for a bounded time."""
    limits = replace(DEFAULT, body_s=0.05, linger_s=0.05)
    async with serving(gateway, limits) as server, line(server) as client:
        client.send(f"{post()}\ncontent-length: 100")
        assert (await client.error())[0] == 408
        assert await client.reader.read() == b""


async def test_headers_that_do_not_end_are_given_up(gateway):
    """So is one who never finishes asking."""
    limits = replace(DEFAULT, keepalive_s=0.05)
    async with serving(gateway, limits) as server, line(server) as client:
        client.writer.write(b"GET /health HTTP/1.1\r\nhost: local")
        assert await client.reader.read() == b""


async def test_a_client_that_leaves_while_waiting_cancels_its_job(gateway, server):
    """Before any event: nothing could be written that would notice."""
    gateway.slow_submit = True
    async with line(server) as client:
        client.send(post(), chat())
        await asyncio.wait_for(gateway.asked.wait(), PATIENCE_S)
    await asyncio.wait_for(gateway.closed.wait(), PATIENCE_S)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_between_events_cancels_its_job(gateway, server, stream):
    """While the next token is being waited for, in either mode."""
    gateway.batches = [[TextDelta("a")], None, [DONE]]
    async with line(server) as client:
        client.send(post(), chat(stream=stream))
        await asyncio.wait_for(gateway.waiting.wait(), PATIENCE_S)
    await asyncio.wait_for(gateway.closed.wait(), PATIENCE_S)


async def test_a_client_that_stops_reading_is_given_up(gateway):
    """Its slot goes to somebody else."""
    gateway.batches = [[TextDelta("x" * 2**20)]] * 64
    limits = replace(DEFAULT, stall_s=0.05)
    async with serving(gateway, limits) as server, line(server) as client:
        client.writer.transport.pause_reading()
        client.send(post(), chat(stream=True))
        await asyncio.wait_for(gateway.closed.wait(), PATIENCE_S)


LARGE = 2**18
ASKED = 40


class Large(Scripted):
    """Has a quarter of a megabyte to say about its models, and counts how often it did."""

    said = 0

    def models(self):
        self.said += 1
        return [MODEL | {"id": "x" * LARGE}]


async def test_who_asks_on_and_never_reads_is_cut_off_before_all_answers_are_kept_for_it():
    """Each may be large, and there is no end to asking."""
    gateway = Large()
    limits = replace(DEFAULT, stall_s=0.05)
    async with serving(gateway, limits) as server, line(server) as client:
        client.writer.transport.pause_reading()
        for _ in range(ASKED):
            client.send("GET /v1/models")
        await asyncio.wait_for(lost(client), PATIENCE_S)
    assert 0 < gateway.said < ASKED


async def lost(client):
    """Until the server has hung up: only then it takes no more."""
    while not client.writer.transport.is_closing():
        client.writer.write(b" ")
        await asyncio.sleep(0.01)


async def test_who_asks_on_before_it_reads_gets_every_answer():
    """Pipelining is slow at worst, never lossy."""
    gateway = Large()
    async with serving(gateway) as server, line(server) as client:
        for _ in range(ASKED):
            client.send("GET /v1/models")
        sizes = [len((await client.reply())[2]) for _ in range(ASKED)]
    assert min(sizes) > LARGE
    assert gateway.said == ASKED


async def test_a_slow_reader_gets_everything(gateway, server):
    """Backpressure reaches the events, and no byte is lost."""
    gateway.batches = [*[[TextDelta("x" * 2**16)]] * 64, [DONE]]
    async with line(server) as client:
        client.send(post(), chat(stream=True))
        await client.head()
        chunks = events(await client.chunks())
    assert sum(len(part["choices"][0]["delta"].get("content", "")) for part in chunks[:-1]) == 2**22
    assert chunks[-1] == "[DONE]"


async def test_a_hundred_streams_run_at_once(gateway, server):
    """All open together, each whole."""
    gateway.batches = [[TextDelta("a")], None, [TextDelta("b")], [DONE]]

    async def ask():
        async with line(server) as client:
            client.send(post(), chat(stream=True))
            head = await client.head()
            await client.reader.readuntil(b'"content":"a"')
            begun.release()
            await client.reader.readuntil(b"data: [DONE]")
            return head[0]

    begun = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask()) for _ in range(100)]
        for _ in tasks:
            await begun.acquire()
        gateway.go.set()
    assert {task.result() for task in tasks} == {200}

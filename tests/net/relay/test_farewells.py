"""What is said, heard and refused around the end of a connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
import zmq

from meshd.core.ports import Batch, EventStream
from meshd.net.trust import Identity
from protocol.codec import encode_job
from protocol.jobs import Job, TextDelta
from protocol.messages import JobEvents, JobOpen

from .conftest import DONE, World, events_of, job, member_of, new_identity, stream_of, until
from .raw import RawEnd, dealer, router


def ask(raw: RawEnd, request_id: str) -> None:
    """Open a request that fits into one frame."""
    packed = encode_job(replace(job(request_id), hops=1))
    raw.socket.send(raw.frame(JobOpen(request_id, len(packed), 32, packed)))


async def test_a_node_that_was_shut_out_is_not_answered_on_a_connection_that_it_kept(
    world: World, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """A handshake is judged once; a revoked node that hangs on to it gets no answer all the same,
    and an honest one goes on where it was."""
    served: list[tuple[str, str]] = []

    def answer(sender: str, arrived: Job) -> EventStream:
        served.append((sender, arrived.request_id))
        return stream_of((DONE,))

    async with world.relay(answer) as server:
        own = server._identity
        me, eve, ben = Identity(own.node_id, own.public_key, b""), new_identity(), new_identity()
        world.admitted |= {eve.public_key, ben.public_key}
        ends = [dealer(context, each, me, server.port) for each in (eve, ben)]
        for raw in ends:
            ask(raw, "before")
            assert isinstance(await raw.message(), JobEvents)
        world.admitted.discard(eve.public_key)
        for each in (eve, ben):
            server.shut_out(each.node_id)
        for raw in ends:
            ask(raw, "after")
        assert isinstance(await ends[1].message(), JobEvents)
        await until(lambda: server.counters()["relay_sender_mismatch"] == 1)
        assert (ben.node_id, "after") in served
        assert (eve.node_id, "after") not in served
        for raw in ends:
            raw.socket.close(0)


async def test_nobody_takes_over_the_session_of_another(world: World) -> None:
    """A connection that chose its routing id is not answered. Else the next member to choose the
    same, after the first had gone, spoke in the first one's name: its session was still known."""
    served: list[str] = []

    def answer(sender: str, _: Job) -> EventStream:
        served.append(sender)
        return stream_of((DONE,))

    async with world.relay(answer) as server:
        own = server._identity
        me, ben, eve = Identity(own.node_id, own.public_key, b""), new_identity(), new_identity()
        world.admitted |= {ben.public_key, eve.public_key}
        for count, each in enumerate((ben, eve), 1):
            raw = dealer(world.context, each, me, server.port, routing_id=b"kitchen")
            raw.identity, raw.sequence = ben, 10 * count
            ask(raw, f"r-{count}")
            await until(lambda count=count: server.counters()["relay_frames_in"] == count)  # type: ignore[misc]
            raw.socket.close(0)
            await asyncio.sleep(0.05)
        assert server.counters()["relay_sender_mismatch"] == 2
        assert served == []


async def test_strangers_that_come_and_go_cost_those_at_work_next_to_nothing(world: World) -> None:
    """The end of any connection has everybody with an open request tried, but of many ends at once
    that is done once, and once more a little later."""

    async def waiting() -> AsyncGenerator[Batch, None]:
        await asyncio.Event().wait()
        yield (DONE,)

    them = new_identity()
    async with world.relay() as asker, world.relay(lambda *_: waiting(), identity=them) as server:
        task = asyncio.create_task(anext(asker.generate(member_of(them, server.port), job())))
        await until(lambda: server.stats.answering == 1)
        doors = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]
        before = server.counters()["relay_frames_out"]
        for _, door in doors:
            door.close()
        await until(lambda: server.counters()["relay_frames_out"] > before)
        await asyncio.sleep(0.15)
        assert server.counters()["relay_frames_out"] - before < 10
        task.cancel()


@pytest.mark.parametrize("late_s", [0.0, 0.02])
async def test_the_end_of_an_answer_is_heard_although_its_connection_has_ended(
    world: World, late_s: float
) -> None:
    """Also where this node's loop comes so late that it finds both at once."""
    unguarded: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    async with world.relay() as asker:
        for _ in range(5):
            them = new_identity()
            raw, port = router(unguarded, them)
            answer = asyncio.create_task(events_of(asker.generate(member_of(them, port), job())))
            route, _ = await raw.parts()
            first, last = (TextDelta("a"),), (TextDelta("b"), DONE)
            raw.socket.send_multipart([route, raw.frame(JobEvents("r-1", 0, first))])
            await asyncio.sleep(0.01)
            raw.socket.send_multipart([route, raw.frame(JobEvents("r-1", 1, last))])
            time.sleep(0.002)  # noqa: ASYNC251 - the loop of the asker is held up
            raw.socket.close(1_000)
            time.sleep(late_s)  # noqa: ASYNC251
            assert await answer == [*first, *last]
    unguarded.destroy(linger=0)


async def test_a_peer_is_not_silent_while_a_large_body_is_on_its_way_there(world: World) -> None:
    """A question waits behind the body, however quick the peer is to answer it."""
    async with world.relay(lambda _sender, _job: forever()) as server, world.relay() as asker:
        there = member_of(server._identity, server.port)
        for text, patience in (("small", False), ("x" * 8_000_000, True)):
            reading = asyncio.create_task(events_of(asker.generate(there, job(text[:9], text))))
            await until(lambda: server.stats.answering > 0)
            await asyncio.sleep(0.1)
            assert (asker.silent_s(there) < 0.05) is patience
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await until(lambda: server.stats.answering == 0)


async def forever() -> EventStream:
    """An answer that says nothing."""
    await asyncio.Event().wait()
    yield (DONE,)

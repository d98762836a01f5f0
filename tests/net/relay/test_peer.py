"""The asking side against a peer that is driven by hand, and with time that is given."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import zmq

from meshd.core.membership.member import Member
from meshd.net.relay import flow
from meshd.net.relay.client import Client
from meshd.net.relay.peer import (
    ASKS_PER_PEER_MAX,
    CONNECT_TIMEOUT_S,
    IDLE_CLOSE_S,
    PONG_TIMEOUT_S,
    SILENCE_S,
)
from meshd.net.relay.sockets import Context, Counters
from protocol import limits
from protocol.jobs import Event, Failure, Finish, TextDelta
from protocol.messages import (
    Cancel,
    Credit,
    Endpoint,
    JobEvents,
    JobOpen,
    LoadProbed,
    RelayMessage,
    RelayPing,
    RelayPong,
)

from .conftest import DONE, MESH, events_of, failure_of, job, member_of, new_identity, until
from .raw import RawEnd, counted, router

WORD = (TextDelta("a"),)


class Bench:
    """A client of ours, a peer by hand, and the connection between them."""

    def __init__(self, client: Client, counters: Counters, raw: RawEnd, member: Member) -> None:
        self.client = client
        self.counters = counters
        self.raw = raw
        self.member = member
        self.route = b""
        self.asked: asyncio.Task[list[Event]] | None = None

    async def ask(self, request_id: str = "r-1") -> asyncio.Task[list[Event]]:
        """Open a request; returns when the peer has it."""
        stream = self.client.generate(self.member, job(request_id))
        task = asyncio.create_task(events_of(stream))
        self.route, _ = await self.raw.parts()
        return task

    def say(self, message: RelayMessage, **lies: object) -> None:
        """Send the client a message."""
        self.raw.socket.send_multipart([self.route, self.raw.frame(message, **lies)])

    async def settle(self) -> None:
        """Returns when the client has handled all that was said."""
        peer = self.client.peers[self.member.node_id]
        self.say(RelayPing(99))
        while await self.raw.message() != RelayPong(99):
            pass
        assert peer.connected


@pytest.fixture
async def bench(context: Context) -> AsyncIterator[Bench]:
    """See Bench."""
    us, them = new_identity(), new_identity()
    raw, port = router(context, them)
    counters = Counters()
    client = Client(us, flow.Seal(MESH, us.node_id, 1), context, counters)
    yield Bench(client, counters, raw, member_of(them, port))
    client.close()
    raw.socket.close(0)


async def test_lies_in_the_envelope_are_counted_and_ignored(bench: Bench) -> None:
    """Another sender, mesh, boot or an old number changes nothing; the answer goes on."""
    task = await bench.ask()
    bench.say(JobEvents("r-1", 0, WORD))
    for lie in (
        {"sender": new_identity().node_id},
        {"mesh": "other"},
        {"boot_id": 8},
        {"sequence": 0},
    ):
        bench.say(JobEvents("r-1", 1, (TextDelta("lie"),)), **lie)
    bench.say(JobEvents("r-1", 1, (DONE,)))
    assert await task == [*WORD, DONE]
    assert counted(bench.counters) == {"sender_mismatch": 1, "foreign_mesh": 1, "replayed": 2}


async def test_what_was_said_before_the_end_of_a_connection_is_heard_first(bench: Bench) -> None:
    """The news of the end may be read before the words that came before it."""
    task = await bench.ask()
    bench.say(JobEvents("r-1", 0, (*WORD, DONE)))
    time.sleep(0.05)  # noqa: ASYNC251 - until it is here, and the loop has not looked
    bench.client.peers[bench.member.node_id]._on_event(int(zmq.EVENT_DISCONNECTED))
    assert await task == [*WORD, DONE]


async def test_garbage_is_counted_and_ignored(bench: Bench) -> None:
    """Noise, a second part, an unknown message and one that only askers send change nothing."""
    task = await bench.ask()
    bench.raw.socket.send_multipart([bench.route, b"\x00\xff noise"])
    bench.raw.socket.send_multipart([bench.route, b"one", b"two"])
    unknown = bench.raw.frame(RelayPing(1)).replace(b"\x25\x91\x01", b"\x3f\x91\x01")
    bench.raw.socket.send_multipart([bench.route, unknown])
    bench.say(JobOpen("r-1", 1, 1, b"x"))
    bench.say(JobEvents("other", 0, WORD))
    bench.say(JobEvents("r-1", 0, (DONE,)))
    assert await task == [DONE]
    expected = {"malformed": 2, "unknown": 1, "misplaced": 1, "late": 1}
    assert counted(bench.counters) == expected


async def test_a_gap_ends_the_answer_as_unreachable(bench: Bench) -> None:
    """An answer with a hole is a failure, after what had come in order, and is cancelled."""
    task = await bench.ask()
    bench.say(JobEvents("r-1", 0, WORD))
    bench.say(JobEvents("r-1", 2, (DONE,)))
    events = await task
    assert events[0] == WORD[0]
    assert failure_of(events).code == "unreachable"
    assert await bench.raw.message() == Cancel("r-1")
    assert bench.counters.broken == 1


async def test_a_peer_cannot_send_beyond_its_credit(bench: Bench) -> None:
    """A flood ends the request, so that it cannot fill the memory."""
    stream = bench.client.generate(bench.member, job())
    first = asyncio.create_task(anext(stream))
    bench.route, _ = await bench.raw.parts()
    bench.say(JobEvents("r-1", 0, WORD))
    await first
    for index in range(1, limits.RELAY_CREDIT_FRAMES + 1):
        bench.say(JobEvents("r-1", index, WORD))
    await until(lambda: bench.counters.broken == 1)
    events = await events_of(stream)
    assert len(events) == limits.RELAY_CREDIT_FRAMES
    assert failure_of(events).code == "unreachable"


async def test_nothing_after_the_end_is_read(bench: Bench) -> None:
    """Events behind the last one, in its frame or later, are dropped."""
    task = await bench.ask()
    bench.say(JobEvents("r-1", 0, (DONE, TextDelta("more"))))
    bench.say(JobEvents("r-1", 1, (TextDelta("more"),)))
    assert await task == [DONE]
    await bench.settle()
    assert counted(bench.counters) == {"late": 1}


async def test_credit_returns_for_frames_this_version_cannot_read(bench: Bench) -> None:
    """Frames whose events are all unknown still count, so the answer does not stall."""
    task = await bench.ask()
    half = limits.RELAY_CREDIT_FRAMES // 2
    for index in range(half):
        bench.say(JobEvents("r-1", index, ()))
    assert await bench.raw.message() == Credit("r-1", half)
    bench.say(JobEvents("r-1", half, (DONE,)))
    assert await task == [DONE]


async def test_silence_is_asked_about_and_then_believed(bench: Bench) -> None:
    """After SILENCE_S a ping; without a pong within PONG_TIMEOUT_S the request fails, and the peer
    counts as lost."""
    task = await bench.ask()
    now = asyncio.get_running_loop().time()
    bench.client.watch(now + SILENCE_S - 0.5)
    bench.client.watch(now + SILENCE_S + 0.5)
    assert isinstance(await bench.raw.message(), RelayPing)
    bench.client.watch(now + SILENCE_S + PONG_TIMEOUT_S)
    assert not task.done()
    bench.client.watch(now + SILENCE_S + PONG_TIMEOUT_S + 1)
    assert failure_of(await task).code == "unreachable"
    assert (bench.client.peers, bench.counters.lost_peers) == ({}, 1)


async def test_a_pong_ends_the_suspicion(bench: Bench) -> None:
    """A peer that answers pings keeps its requests, however long its prefill; nothing is late."""
    task = await bench.ask()
    now = asyncio.get_running_loop().time()
    bench.client.watch(now + SILENCE_S + 0.5)
    ping = await bench.raw.message()
    bench.say(RelayPong(ping.nonce))
    await bench.settle()
    bench.client.watch(now + SILENCE_S + PONG_TIMEOUT_S + 1)
    assert not task.done()
    bench.say(JobEvents("r-1", 0, (DONE,)))
    assert await task == [DONE]
    assert counted(bench.counters) == {}


async def test_a_body_on_its_way_buys_patience(bench: Bench) -> None:
    """A ping behind 10 MB on a slow link is given the time that the link needs."""
    stream = bench.client.generate(bench.member, job(text="x" * 10_000_000))
    task = asyncio.create_task(events_of(stream))
    await bench.raw.parts()
    now = asyncio.get_running_loop().time()
    bench.client.watch(now + SILENCE_S + 0.5)
    bench.client.watch(now + 7.5)
    assert not task.done()
    bench.client.watch(now + 8 + PONG_TIMEOUT_S + 1)
    assert failure_of(await task).code == "unreachable"


async def test_a_connection_that_is_not_made_in_time_is_given_up(bench: Bench) -> None:
    """A listener that accepts and says nothing costs CONNECT_TIMEOUT_S; who was never a peer is not
    counted as a lost one."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        member = member_of(new_identity(), mute.getsockname()[1])
        task = asyncio.create_task(events_of(bench.client.generate(member, job())))
        await until(lambda: member.node_id in bench.client.peers)
        bench.client.watch(asyncio.get_running_loop().time() + CONNECT_TIMEOUT_S + 1)
        assert failure_of(await task).code == "unreachable"
    assert bench.counters.lost_peers == 0


async def test_an_idle_connection_is_closed(bench: Bench) -> None:
    """Warm for IDLE_CLOSE_S after its last request, and then gone."""
    task = await bench.ask()
    bench.say(JobEvents("r-1", 0, (DONE,)))
    await task
    now = asyncio.get_running_loop().time()
    bench.client.watch(now + IDLE_CLOSE_S - 1)
    assert len(bench.client.peers) == 1
    bench.client.watch(now + IDLE_CLOSE_S + 1)
    assert bench.client.peers == {}


async def test_the_requests_on_one_peer_are_bounded(bench: Bench) -> None:
    """One more than the peer would take is refused here, and may go elsewhere."""
    streams = [
        bench.client.generate(bench.member, job(f"r-{index}"))
        for index in range(ASKS_PER_PEER_MAX + 1)
    ]
    tasks = [asyncio.create_task(events_of(stream)) for stream in streams]
    failure = failure_of(await tasks[-1])
    assert (failure.code, failure.elsewhere) == ("overloaded", True)
    bench.client.close()
    ends = await asyncio.gather(*tasks)
    assert {failure_of(events).code for events in ends[:-1]} == {"unreachable"}


async def test_bodies_waiting_for_a_slow_peer_are_bounded(bench: Bench) -> None:
    """A peer that takes nothing holds no more than the outbox allows of this node's memory."""
    size = limits.JOB_MAX_BYTES - 10_000
    streams = [
        bench.client.generate(bench.member, job(f"r-{index}", "x" * size)) for index in range(5)
    ]
    tasks = [asyncio.create_task(events_of(stream)) for stream in streams]
    failure = failure_of(await tasks[-1])
    assert (failure.code, failure.elsewhere) == ("overloaded", True)
    bench.client.close()
    await asyncio.gather(*tasks)


async def test_a_peer_that_moved_is_asked_at_its_new_address(bench: Bench) -> None:
    """A connection that was never made does not tie the member to its old address."""
    with_old = member_of(bench.raw.identity, 9)
    old = bench.client.peer(with_old)
    assert bench.client.peer(with_old) is old
    task = await bench.ask()
    bench.say(JobEvents("r-1", 0, (Finish("stop", 1, 1),)))
    await task
    assert bench.client.peers[bench.member.node_id] is not old
    assert bench.client.peer(with_old).endpoint == bench.member.address


async def test_an_address_that_cannot_be_dialled_is_a_failure(bench: Bench) -> None:
    """What libzmq refuses to connect to ends in a Failure, and leaves no socket behind."""
    endpoint = Endpoint("not an address", 1, 1)
    odd = replace(bench.member, address=endpoint)
    events = await events_of(bench.client.generate(odd, job()))
    assert isinstance(events[-1], Failure)
    assert bench.client.peers == {}


async def test_an_answer_of_another_kind_is_no_answer(bench: Bench) -> None:
    """A pong with the number of a load probe is counted; the probe goes on to wait."""
    peer = bench.client.peer(bench.member)
    asked = asyncio.create_task(peer.probe("m", 5))
    bench.route, _ = await bench.raw.parts()
    bench.say(RelayPong(1))
    await until(lambda: bench.counters.late == 1)
    bench.say(LoadProbed(1, None))
    assert await asked is None

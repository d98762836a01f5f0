"""The answering side against an asker that is driven by hand, and with time that is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
import zmq

from meshd.core.ports import Batch, EventStream
from meshd.net.gatekeeper import Gatekeeper, guard
from meshd.net.relay import flow
from meshd.net.relay.duties import Duties
from meshd.net.relay.server import FIRST_EVENTS, LEASE_S, OPEN_MAX, Server
from meshd.net.relay.sessions import SESSION_IDLE_S, SESSIONS_MAX
from meshd.net.relay.sockets import Context, Counters, new_socket
from meshd.net.trust import Identity
from protocol import limits
from protocol.codec import encode_job
from protocol.jobs import Failure, Job, TextDelta
from protocol.messages import Cancel, Credit, JobChunk, JobEvents, JobOpen, RelayPing, RelayPong

from .conftest import DONE, MESH, job, new_identity, stream_of, until
from .raw import RawEnd, counted, dealer

BIG = 3 * limits.RELAY_CHUNK_BYTES


class Bench:
    """A server of ours whose engine is the test's, and an asker by hand."""

    def __init__(self, context: Context, gatekeeper: Gatekeeper) -> None:
        self.context = context
        self.counters = Counters()
        self.identity = new_identity()
        self.admits = True
        self.open: list[Job] = []
        self.freed = 0
        socket = new_socket(context, zmq.ROUTER, "127.0.0.1")
        socket.set(zmq.ROUTER_MANDATORY, 1)
        gatekeeper.policy(b"relay test", lambda _key: self.admits)
        guard(socket, b"relay test", self.identity.secret_key)
        self.port = socket.bind_to_random_port("tcp://127.0.0.1")
        seal = flow.Seal(MESH, self.identity.node_id, 1)
        self.server = Server(
            socket, seal, Duties(self.answer), self.counters, lambda _key: self.admits
        )
        self.gatekeeper = gatekeeper
        self.askers: list[RawEnd] = []
        self.raw = self.asker()

    def asker(self, server: Identity | None = None) -> RawEnd:
        """One more asker, of a node of its own; it takes `server` for the other end."""
        made = dealer(self.context, new_identity(), server or self.identity, self.port)
        self.askers.append(made)
        return made

    async def close(self) -> None:
        """Close every socket."""
        for raw in self.askers:
            raw.socket.close(0)
        await self.server.close()

    def answer(self, _sender: str, arrived: Job) -> EventStream:
        """`burst` answers at once, `endless` for ever, everything else waits."""
        self.open.append(arrived)
        burst = (*[TextDelta("x")] * 10, DONE)
        answers = {"burst": lambda: stream_of(burst), "endless": self._endless}
        return answers.get(arrived.model, self._waiting)()

    async def _waiting(self) -> AsyncGenerator[Batch, None]:
        try:
            await asyncio.Event().wait()
            yield (DONE,)
        finally:
            self.freed += 1

    async def _endless(self) -> AsyncGenerator[Batch, None]:
        while True:
            yield (TextDelta("x" * 20_000),)

    def say(self, message: Any, **lies: Any) -> None:
        """Send the server a message."""
        self.raw.socket.send(self.raw.frame(message, **lies))

    def ask(self, request_id: str, model: str = "waits", credit: int = 32) -> None:
        """Open a request that fits into one frame."""
        packed = encode_job(Job(request_id, "chat", model, hops=1))
        self.say(JobOpen(request_id, len(packed), credit, packed))

    async def settle(self) -> None:
        """Returns when the server has handled all that was said."""
        self.say(RelayPing(99))
        while await self.raw.message() != RelayPong(99):
            pass

    async def still(self) -> None:
        """Returns once nothing has been sent for 100 ms."""
        sent = -1
        while sent != self.counters.frames_out:
            sent = self.counters.frames_out
            await asyncio.sleep(0.1)


@pytest.fixture
async def bench(context: Context, gatekeeper: Gatekeeper) -> AsyncIterator[Bench]:
    """See Bench."""
    made = Bench(context, gatekeeper)
    yield made
    await made.close()


async def failure_after(bench: Bench) -> Failure:
    """The failure in the next event frame, which is the first of its request."""
    message = await bench.raw.message()
    assert isinstance(message, JobEvents)
    assert message.index == 0
    (failure,) = message.events
    assert isinstance(failure, Failure)
    return failure


async def test_lies_in_the_envelope_are_counted_and_ignored(bench: Bench) -> None:
    """Nobody can speak for another node, mesh or boot, nor say the same thing twice."""
    await bench.settle()
    for lie in (
        {"sender": new_identity().node_id},
        {"mesh": "other"},
        {"boot_id": 8},
        {"sequence": 0},
    ):
        packed = encode_job(job())
        bench.say(JobOpen("lie", len(packed), 1, packed), **lie)
    await bench.settle()
    assert bench.open == []
    assert counted(bench.counters) == {"sender_mismatch": 1, "foreign_mesh": 1, "replayed": 2}


async def test_garbage_is_counted_and_ignored(bench: Bench) -> None:
    """Noise, extra parts, unknown messages and those of the other side change nothing."""
    bench.raw.socket.send(b"noise")
    bench.raw.socket.send_multipart([b"one", b"two"])
    bench.raw.socket.send(bench.raw.frame(RelayPing(1)).replace(b"\x25\x91\x01", b"\x3f\x91\x01"))
    bench.say(JobEvents("r", 0, (DONE,)))
    bench.say(RelayPong(5))
    bench.say(Credit("nobody", 1))
    bench.say(Cancel("nobody"))
    bench.say(JobChunk("nobody", 1, b"x"))
    await bench.settle()
    expected = {"malformed": 2, "unknown": 1, "misplaced": 1, "late": 3}
    assert counted(bench.counters) == expected


async def test_a_key_that_is_not_admitted_cannot_connect(bench: Bench) -> None:
    """The handshake fails, and no frame of it is ever seen."""
    await bench.settle()
    before = bench.counters.frames_in
    bench.admits = False
    stranger = bench.asker()
    await until(lambda: bench.gatekeeper.refused["key refused"] > 0)
    with pytest.raises(zmq.Again):
        stranger.socket.send(stranger.frame(RelayPing(1)), zmq.NOBLOCK)
    assert bench.counters.frames_in == before


async def test_an_asker_with_the_wrong_server_key_cannot_connect(bench: Bench) -> None:
    """Whoever does not know the node's key does not reach it."""
    lost = bench.asker(new_identity())
    await bench.settle()
    await asyncio.sleep(0.1)
    with pytest.raises(zmq.Again):
        lost.socket.send(lost.frame(RelayPing(1)), zmq.NOBLOCK)


async def test_a_request_is_opened_only_once(bench: Bench) -> None:
    """A second JobOpen of an id that is open, or being received, is counted and ignored."""
    bench.ask("r-1")
    bench.ask("r-1")
    bench.say(JobOpen("r-2", BIG, 1, b"x"))
    bench.say(JobOpen("r-2", BIG, 1, b"x"))
    await bench.settle()
    assert len(bench.open) == 1
    assert counted(bench.counters) == {"duplicate": 2}


async def test_two_askers_may_use_the_same_request_id(bench: Bench) -> None:
    """An id belongs to its connection: one asker's Cancel does not touch another's request."""
    other = bench.asker()
    bench.ask("r-1")
    await bench.settle()
    packed = encode_job(Job("r-1", "chat", "waits", hops=1))
    other.socket.send(other.frame(JobOpen("r-1", len(packed), 1, packed)))
    await until(lambda: len(bench.open) == 2)
    other.socket.send(other.frame(Cancel("r-1")))
    await until(lambda: len(bench.server.tasks) == 1)
    assert bench.freed == 1


async def test_credit_is_not_overdrawn(bench: Bench) -> None:
    """As many event frames as were granted, and more when more is granted."""
    bench.ask("r-1", "endless", credit=2)
    assert [(await bench.raw.message()).index for _ in range(2)] == [0, 1]
    await bench.settle()
    bench.say(Credit("r-1", 3))
    assert [(await bench.raw.message()).index for _ in range(3)] == [2, 3, 4]
    await bench.settle()


@pytest.mark.parametrize(("stream", "frames"), [(True, [FIRST_EVENTS, 7]), (False, [11])])
async def test_the_first_word_of_a_stream_goes_ahead(
    bench: Bench, stream: bool, frames: list[int]
) -> None:
    """A long first batch is cut for somebody who reads along, and for nobody else."""
    packed = encode_job(Job("r-1", "chat", "burst", stream=stream, hops=1))
    bench.say(JobOpen("r-1", len(packed), 32, packed))
    assert [len((await bench.raw.message()).events) for _ in frames] == frames
    await until(lambda: not bench.server.tasks)


async def test_a_job_that_hopped_twice_is_refused(bench: Bench) -> None:
    """No chain of forwards, whatever a peer says."""
    packed = encode_job(job("r-1", hops=2))
    bench.say(JobOpen("r-1", len(packed), 1, packed))
    assert (await failure_after(bench)).code == "bad_request"
    assert bench.open == []


@pytest.mark.parametrize(
    "messages",
    [
        [JobOpen("r-1", 3, 1, b"abc")],
        [JobOpen("r-1", 2, 1, b"abc")],
        [JobOpen("r-1", 9, 1, b"abc"), JobChunk("r-1", 2, b"def")],
        [JobOpen("r-1", 5, 1, b"abc"), JobChunk("r-1", 1, b"def")],
        [JobOpen("r-1", 9, 1, b"abc"), JobChunk("r-1", 1, b"")],
        [JobOpen("r-1", len(encode_job(job("r-2"))), 1, encode_job(job("r-2")))],
    ],
    ids=["not a job", "too long at once", "a gap", "too long in all", "an empty piece", "foreign"],
)
async def test_a_damaged_body_is_refused(bench: Bench, messages: list[Any]) -> None:
    """The asker is told, nothing is run, and nothing stays promised to it."""
    for message in messages:
        bench.say(message)
    failure = await failure_after(bench)
    assert (failure.code, failure.elsewhere) == ("bad_request", False)
    assert bench.open == []
    assert bench.server.assemblies.reserved_bytes == 0


async def test_open_requests_are_bounded(bench: Bench) -> None:
    """One more than OPEN_MAX is overloaded and may go elsewhere; the others go on."""
    for index in range(OPEN_MAX):
        bench.ask(f"r-{index}")
    await bench.settle()
    bench.ask("one more")
    failure = await failure_after(bench)
    assert (failure.code, failure.elsewhere) == ("overloaded", True)
    packed = encode_job(Job("large", "chat", "waits", prompt="x" * BIG, hops=1))
    step = limits.RELAY_CHUNK_BYTES
    for message in flow.body_messages("large", packed, 1):
        bench.say(message)
    assert (await failure_after(bench)).code == "overloaded"
    assert len(packed) > step
    assert len(bench.server.tasks) == OPEN_MAX


async def test_bodies_being_received_are_bounded(bench: Bench) -> None:
    """What is promised to half-sent bodies stays within ASSEMBLY_MAX_BYTES."""
    most = flow.ASSEMBLY_MAX_BYTES // limits.JOB_MAX_BYTES
    for index in range(most):
        bench.say(JobOpen(f"r-{index}", limits.JOB_MAX_BYTES, 1, b"x"))
    bench.say(JobOpen("one more", limits.JOB_MAX_BYTES, 1, b"x"))
    failure = await failure_after(bench)
    assert (failure.code, failure.elsewhere) == ("overloaded", True)
    assert bench.server.assemblies.reserved_bytes == flow.ASSEMBLY_MAX_BYTES


async def test_a_body_that_stays_away_is_given_up(bench: Bench) -> None:
    """After ASSEMBLY_TIMEOUT_S the memory is free again, and the asker is told."""
    bench.say(JobOpen("r-1", BIG, 1, b"x"))
    await bench.settle()
    now = asyncio.get_running_loop().time()
    bench.server.watch(now + flow.ASSEMBLY_TIMEOUT_S - 1)
    assert bench.server.assemblies.reserved_bytes == BIG
    bench.server.watch(now + flow.ASSEMBLY_TIMEOUT_S + 1)
    assert bench.server.assemblies.reserved_bytes == 0
    assert (await failure_after(bench)).code == "timeout"


async def test_a_body_can_be_cancelled(bench: Bench) -> None:
    """A Cancel before the last piece frees the memory; pieces that follow are late."""
    bench.say(JobOpen("r-1", BIG, 1, b"x"))
    bench.say(Cancel("r-1"))
    bench.say(JobChunk("r-1", 1, b"x"))
    await bench.settle()
    assert bench.server.assemblies.reserved_bytes == 0
    assert counted(bench.counters) == {"late": 1}


async def test_a_silent_asker_loses_its_lease(bench: Bench) -> None:
    """Requests of an asker that shows no sign of life for LEASE_S are freed; should it only have
    slept, it finds a word that lets it ask again."""
    bench.ask("r-1")
    await bench.settle()
    now = asyncio.get_running_loop().time()
    bench.server.watch(now + LEASE_S - 1)
    assert len(bench.server.tasks) == 1
    bench.server.watch(now + LEASE_S + 1)
    await until(lambda: bench.freed == 1)
    assert not bench.server.tasks
    assert counted(bench.counters) == {"expired": 1}
    silence = await failure_after(bench)
    assert (silence.code, silence.elsewhere) == ("unreachable", True)


async def test_a_node_that_was_away_itself_takes_nobody_for_gone(bench: Bench) -> None:
    """What its askers said meanwhile is not read yet, or just was, and lasts no longer for it."""
    bench.ask("r-1")
    await bench.settle()
    now = asyncio.get_running_loop().time()
    bench.server.watch(now, 30_000.0)
    bench.server.watch(now + LEASE_S + 1, LEASE_S)
    assert len(bench.server.tasks) == 1
    bench.server.watch(now + 2 * LEASE_S + 1)
    assert bench.counters.expired == 1


async def test_an_asker_that_hangs_up_is_freed_at_once(bench: Bench) -> None:
    """The end of the connection ends its requests, even when there is nothing to send."""
    bench.ask("r-1")
    bench.say(JobOpen("r-2", BIG, 1, b"x"))
    await bench.settle()
    bench.raw.socket.close(0)
    async with asyncio.timeout(0.2):
        await until(lambda: bench.freed == 1)
    assert bench.server.sessions == {}
    assert bench.server.assemblies.reserved_bytes == 0


async def test_an_answer_to_nobody_ends(bench: Bench) -> None:
    """A stream whose reader is gone is closed by its next frame."""
    bench.ask("r-1", "endless", credit=60_000)
    await bench.raw.message()
    bench.raw.socket.close(0)
    await until(lambda: not bench.server.tasks)


async def test_an_asker_that_does_not_read_holds_bounded_memory(bench: Bench) -> None:
    """Frames for it wait in a bounded queue, its engine pauses, and others are served."""
    other = bench.asker()
    bench.ask("r-1", "endless", credit=65_535)
    await until(lambda: any(s.waiting for s in bench.server.sessions.values()))
    await bench.still()
    before = bench.counters.frames_out
    for _ in range(flow.OUTBOX_MAX_NOTES + 10):
        bench.say(RelayPing(1))
        await asyncio.sleep(0)
    await until(lambda: bench.counters.dropped >= 10)
    (session,) = bench.server.sessions.values()
    assert len(session.waiting) == flow.OUTBOX_MAX_NOTES
    assert bench.counters.frames_out == before
    other.socket.send(other.frame(RelayPing(5)))
    assert await other.message() == RelayPong(5)
    for _ in range(before + flow.OUTBOX_MAX_NOTES + 100):
        await bench.raw.message()


async def test_idle_connections_are_forgotten_and_learned_again(bench: Bench) -> None:
    """What is remembered of an idle asker goes after SESSION_IDLE_S; it may still ask, and what it
    is sent goes on in number, or it would take the answer for a replay."""
    inspection = flow.Inspection(MESH, bench.identity.node_id)
    for nonce in (1, 2):
        bench.say(RelayPing(nonce))
        assert inspection.message(*await bench.raw.parts()) == RelayPong(nonce)
        bench.server.watch(asyncio.get_running_loop().time() + SESSION_IDLE_S + 1)
        assert bench.server.sessions == {}


async def test_remembered_connections_are_bounded(bench: Bench) -> None:
    """The longest silent one makes room for a new one."""
    await bench.settle()
    (session,) = bench.server.sessions.values()
    for index in range(SESSIONS_MAX - 1):
        route = index.to_bytes(4, "big")
        bench.server.sessions[route] = type(session)(
            route, session.node_id, session.inspection, session.heard + 1 + index
        )
    other = bench.asker()
    other.socket.send(other.frame(RelayPing(5)))
    assert await other.message() == RelayPong(5)
    assert len(bench.server.sessions) == SESSIONS_MAX
    assert session.route not in bench.server.sessions

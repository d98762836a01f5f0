"""The asking side: one connection per peer, kept warm, and the requests that are open on it.

A peer can stop answering in three ways, and each is noticed by what it leaves behind:

- its process ends: the connection closes, the monitor says so within a millisecond or two, and all
  its requests fail at once, to be carried on elsewhere;
- it cannot be reached: the connection is refused, or not made in time;
- it is silent (a stalled loop, a pulled cable): after SILENCE_S without a frame while a request is
  open it is pinged, and what does not answer within PONG_TIMEOUT_S is given up.

Whatever went wrong, the connection is closed and a later request makes a new one; nothing is ever
queued for a peer that is not there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import zmq

from meshd.core.membership.member import Member
from meshd.net.relay import flow
from meshd.net.relay.ask import Ask
from meshd.net.relay.refusals import overloaded, unreachable
from meshd.net.relay.sockets import (
    EVERY_FATE,
    NOBLOCK,
    POLLIN,
    Context,
    Counters,
    LoopSocket,
    Monitor,
    new_socket,
    tcp_address,
)
from meshd.net.trust import Identity
from protocol import limits
from protocol.errors import ProtocolError, UnknownMessageError
from protocol.jobs import Failure
from protocol.load import ModelLoad
from protocol.messages import (
    Cancel,
    Credit,
    Endpoint,
    JobEvents,
    LoadProbe,
    LoadProbed,
    RelayMessage,
    RelayPing,
    RelayPong,
)
from protocol.trust import TrustRecord, TrustSync, TrustSynced

SILENCE_S = 2.0
"""No frame from or to a peer with an open request for this long: ping it. A prefill on a slow
machine takes longer, so silence alone proves nothing."""

PONG_TIMEOUT_S = 2.0
"""A loop that cannot answer a ping in two seconds will not stream either."""

UPLOAD_FLOOR_BYTES_PER_S = 1_250_000
"""A ping waits behind the body before it: 10 Mbit/s is the slowest link that is waited for."""

CONNECT_TIMEOUT_S = 3.0
"""From the first frame wanted to the end of the handshake; a LAN needs 5 ms."""

IDLE_CLOSE_S = 300.0
"""A connection without requests is kept warm this long; a new one costs about 2 ms."""

ASKS_PER_PEER_MAX = 256
"""Requests open on one peer: as many as it would take from everybody."""

BODIES_PER_TURN_MAX = 8
"""Body frames sent before the loop gets to do something else: half a MiB, about half a ms."""

SEND_HWM_FRAMES = 16
SEND_BUFFER_BYTES = 256 * 1024
"""What ZeroMQ and the kernel hold of what was sent to a peer, 1.25 MiB of a body together: a ping,
a credit or a small request waits behind it, for a quarter of a second at 40 Mbit/s. As large as
libzmq and Linux would have them, 16 MiB fit in, and 8 MB held a stream up for 1.3 s."""

FAREWELLS = {
    int(zmq.EVENT_DISCONNECTED): "the connection closed",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "it does not accept this node's key",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "it does not speak this protocol",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "the encrypted handshake failed",
    int(zmq.EVENT_CLOSED): "no connection can be made to {} (behind a firewall?)",
    int(zmq.EVENT_CONNECT_RETRIED): "no connection can be made to {} (behind a firewall?)",
}

A = TypeVar("A", RelayPong, TrustSynced, LoadProbed)


@dataclass(slots=True)
class Clocks:
    """When things last happened on one connection (loop time, s)."""

    opened: float
    heard: float
    sent: float
    used: float
    patient_until: float
    """Until then the bodies already sent may still be under way."""
    pinged: float | None = None
    """When the ping that nobody answered yet was sent."""


class Peer:
    """The connection to one peer. Made by the first request; ends for good with `lose`."""

    def __init__(
        self,
        member: Member,
        endpoint: Endpoint,
        *,
        context: Context,
        identity: Identity,
        seal: flow.Seal,
        counters: Counters,
        on_lost: Callable[[Peer], None],
    ) -> None:
        self.node_id = member.node_id
        self.name = member.name
        self.endpoint = endpoint
        self.connected = False
        self.asks: dict[str, Ask] = {}
        self._questions: dict[int, tuple[type[RelayMessage], asyncio.Future[Any]]] = {}
        self._nonce = 0
        self._seal = seal
        self._inspection = flow.Inspection(seal.mesh, member.node_id)
        self._counters = counters
        self._on_lost = on_lost
        self._outbox = flow.Outbox()
        self._held: bytes | None = None
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self.clocks = Clocks(now, now, now, now, now)
        socket = new_socket(context, zmq.DEALER, endpoint.host)
        socket.set(zmq.SNDHWM, SEND_HWM_FRAMES)
        socket.set(zmq.SNDBUF, SEND_BUFFER_BYTES)
        socket.set(zmq.IMMEDIATE, 0)  # or libzmq would drop what came just before a connection ends
        socket.set(zmq.CURVE_SERVERKEY, bytes.fromhex(member.public_key))
        socket.set(zmq.CURVE_PUBLICKEY, identity.public_key)
        socket.set(zmq.CURVE_SECRETKEY, identity.secret_key)
        self._monitor = Monitor(socket, EVERY_FATE, self._on_event)
        self._socket = LoopSocket(socket, self._receive, self._flush)
        try:
            socket.connect(tcp_address(endpoint))
        except (zmq.ZMQError, ValueError):
            self._monitor.close()
            self._socket.close()
            raise

    # What the relay asks of a peer

    def ask(self, request_id: str, packed: bytes) -> Ask:
        """Open a request. Raises Refused."""
        if request_id in self.asks:
            raise flow.Refused(
                Failure(
                    "bad_request",
                    f"request id {request_id!r} is already in use; ids are unique per attempt",
                    elsewhere=False,
                )
            )
        if len(self.asks) >= ASKS_PER_PEER_MAX:
            raise flow.Refused(
                overloaded(f"{len(self.asks)} requests already wait for {self.name}")
            )
        messages = flow.body_messages(request_id, packed, limits.RELAY_CREDIT_FRAMES)
        self._outbox.body(request_id, self._frames(messages), len(packed))
        self.clocks.patient_until = (
            max(self._loop.time(), self.clocks.patient_until)
            + len(packed) / UPLOAD_FLOOR_BYTES_PER_S
        )
        ask = self.asks[request_id] = Ask(request_id)
        self._send_waiting()
        return ask

    def grant(self, ask: Ask, frames: int) -> None:
        """The reader took event frames: allow as many more."""
        self._note(Credit(ask.request_id, frames))

    def close_ask(self, ask: Ask) -> None:
        """The reader is done. Cancels what has not ended."""
        self.clocks.used = self._loop.time()
        if self.asks.pop(ask.request_id, None) is None:
            return
        self._outbox.drop(ask.request_id)
        if not ask.intake.ended:
            self._note(Cancel(ask.request_id))

    async def ping(self, timeout_s: float) -> float:
        """Round trip through the peer's relay, in seconds. Raises TimeoutError."""
        started = time.perf_counter()  # the loop's clock has steps of a millisecond on uvloop
        await self._answer_to(RelayPing, RelayPong, timeout_s)
        return time.perf_counter() - started

    async def sync(self, state: TrustRecord, timeout_s: float) -> TrustRecord:
        """What the peer trusts, having been told what this node does. Raises TimeoutError."""
        answer = await self._answer_to(
            lambda nonce: TrustSync(nonce, state), TrustSynced, timeout_s
        )
        return answer.state

    async def probe(self, model_id: str, timeout_s: float) -> ModelLoad | None:
        """How a model does there now; None when it is not offered. Raises TimeoutError."""
        answer = await self._answer_to(
            lambda nonce: LoadProbe(nonce, model_id), LoadProbed, timeout_s
        )
        return answer.load

    def nudge(self) -> None:
        """Ask for a sign of life, and wait for nothing."""
        self._put(RelayPing)

    @property
    def silent_s(self) -> float:
        """Seconds since the last frame from the peer, or since a body of ours that a question would
        have waited behind must have left."""
        clocks = self.clocks
        return max(0.0, self._loop.time() - max(clocks.heard, clocks.patient_until))

    def watch(self, now: float) -> None:
        """Notice silence; called a few times a second."""
        clocks = self.clocks
        if not self.connected:
            if now - clocks.opened > CONNECT_TIMEOUT_S:
                self.lose("it did not answer in time")
        elif not self.asks:
            if now - clocks.used > IDLE_CLOSE_S:
                self.close()
        elif clocks.pinged is None:
            if now - min(clocks.heard, clocks.sent) > SILENCE_S:
                clocks.pinged = clocks.sent = now
                self._put(RelayPing)
        elif now - max(clocks.pinged, clocks.patient_until) > PONG_TIMEOUT_S:
            self.lose("it stopped answering")

    def lose(self, cause: str) -> None:
        """Give the peer up: every open request fails at once, and the connection is closed."""
        if self._socket.closed:
            return
        self._counters.lost_peers += self.connected
        self._end(cause)

    def close(self) -> None:
        """End the connection because nobody needs it."""
        self._end("this node closed the connection")

    # What happens on the socket

    def _end(self, cause: str) -> None:
        if self._socket.closed:
            return
        self._monitor.close()
        self._socket.close()
        self._on_lost(self)
        failure = unreachable(self.name, cause)
        asks, self.asks = self.asks, {}
        for ask in asks.values():
            ask.fail(failure)
        for _, answer in self._questions.values():
            if not answer.done():
                answer.set_exception(TimeoutError(failure.message))

    def _on_event(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected = True
            self.clocks.heard = self._loop.time()
            self._send_waiting()
        elif (cause := FAREWELLS.get(event)) is not None:
            self._hear_out()
            self.lose(cause.format(tcp_address(self.endpoint)))

    def _hear_out(self) -> None:
        """What it said before it went may not have been read: a loop that comes late would lose
        the end of an answer that is here."""
        socket = self._socket
        while not socket.closed and int(socket.socket.get(zmq.EVENTS)) & POLLIN:
            self._receive()

    def _receive(self) -> None:
        socket = self._socket.socket
        frame = socket.recv(NOBLOCK)
        if socket.get(zmq.RCVMORE):
            socket.recv_multipart(NOBLOCK)
            self._counters.malformed += 1
            return
        self._counters.frames_in += 1
        self._counters.bytes_in += len(frame)
        try:
            message = self._inspection.message(frame)
        except UnknownMessageError:
            self._counters.unknown += 1
        except ProtocolError:
            self._counters.malformed += 1
        except flow.Rejected as rejected:
            self._counters.reject(rejected.reason)
        else:
            self.clocks.heard = self._loop.time()
            self.clocks.pinged = None
            self._handle(message)

    def _handle(self, message: RelayMessage) -> None:
        match message:
            case JobEvents():
                self._take_in(message)
            case RelayPong(nonce) | TrustSynced(nonce) | LoadProbed(nonce):
                self._answered(nonce, message)
            case RelayPing(nonce):
                self._note(RelayPong(nonce))
            case _:
                self._counters.misplaced += 1

    def _take_in(self, message: JobEvents) -> None:
        ask = self.asks.get(message.request_id)
        if ask is None or ask.intake.ended:
            self._counters.late += 1
            return
        try:
            ask.intake.accept(message.index, message.events)
        except flow.FlowError as error:
            self._counters.broken += 1
            self._note(Cancel(ask.request_id))
            ask.fail(unreachable(self.name, str(error)))
        else:
            ask.wake()

    async def _answer_to(
        self, question: Callable[[int], RelayMessage], kind: type[A], timeout_s: float
    ) -> A:
        self.clocks.used = self._loop.time()
        answer: asyncio.Future[A] = self._loop.create_future()
        nonce = self._put(question)
        if self._socket.closed:
            raise TimeoutError(unreachable(self.name, "the connection closed").message)
        self._questions[nonce] = kind, answer
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            self._questions.pop(nonce, None)

    def _answered(self, nonce: int, message: RelayMessage) -> None:
        kind, answer = self._questions.get(nonce, (RelayPong, None))  # a ping alone wants no more
        if kind is not type(message):
            self._counters.late += 1
        elif answer is not None and not answer.done():
            answer.set_result(message)

    def _put(self, question: Callable[[int], RelayMessage]) -> int:
        self._nonce += 1
        self._note(question(self._nonce))
        return self._nonce

    # Sending

    def _frames(self, messages: Iterator[RelayMessage]) -> Iterator[bytes]:
        return map(self._seal.frame, messages)

    def _note(self, message: RelayMessage) -> None:
        if self._socket.closed:
            return
        if not self._outbox.note(self._seal.frame(message)):
            self._counters.dropped += 1
            self.lose("it does not read what it is sent")
            return
        self._send_waiting()

    def _send_waiting(self) -> None:
        if self._flush():
            self._socket.want_out()
        else:
            self._socket.kick()

    def _flush(self) -> bool:
        if not self.connected:
            return True
        for _ in range(BODIES_PER_TURN_MAX):
            frame = self._held or self._outbox.next()
            if frame is None:
                return False
            try:
                self._socket.socket.send(frame, NOBLOCK)
            except zmq.Again:
                self._held = frame
                return True
            self._held = None
            self._counters.frames_out += 1
            self._counters.bytes_out += len(frame)
            self.clocks.sent = self._loop.time()
        self._socket.kick()
        return True

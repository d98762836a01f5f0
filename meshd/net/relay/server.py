"""The answering side: one listening socket, and the requests that others have open on it.

Each connection is a `Session`, known by the routing id that libzmq gave it and by the public key
that its handshake has proven. Routing ids are libzmq's own, and who has chosen one is not answered,
so nobody can take over another's session, and an answer leaves only where its question came in.

A request holds one slot of OPEN_MAX, and is freed by whatever comes first: its last event, a
Cancel, the end of the connection (a send that finds nobody; when any connection closes, all with
open requests are tried at once), or its lease, when the asker has shown no sign of life for
LEASE_S. So a slot never stays with a machine that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import zmq

from meshd.core.ports import ENDINGS
from meshd.net.relay import flow
from meshd.net.relay.duties import Duties
from meshd.net.relay.refusals import damaged, gave_up, not_heard, overloaded, too_slow
from meshd.net.relay.sessions import SESSION_IDLE_S, SESSIONS_MAX, Inbound, Session, job_in, key_of
from meshd.net.relay.sockets import ENDS_OF_CONNECTIONS, NOBLOCK, Counters, LoopSocket, Monitor
from meshd.net.trust import node_id_of
from protocol.errors import ProtocolError, UnknownMessageError
from protocol.jobs import Event, Failure, Job
from protocol.messages import (
    Cancel,
    Credit,
    JobChunk,
    JobEvents,
    JobOpen,
    LoadProbe,
    LoadProbed,
    RelayMessage,
    RelayPing,
    RelayPong,
)
from protocol.trust import TrustSync, TrustSynced

OPEN_MAX = 256
"""Requests from others open at once: many more than any engine has slots, few enough to hold."""

LEASE_S = 8.0
"""An asker shows itself every 2 s while it has requests open: four chances."""

FIRST_EVENTS = 4
"""Events in the first frame of a stream, at most: the first word does not wait until a long batch
behind it is encoded (64 events take 0.4 ms on both sides together)."""

SECOND_LOOK_S = 0.05
"""After a connection closed, its pipe may take a moment to go; then everybody is tried again. Not
more often either: connections that strangers open and close would be felt by all at work."""

ROUTE_MORE = NOBLOCK | int(zmq.SNDMORE)


class Server:
    """The listening socket, bound and guarded by its caller; starts on the running loop."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        seal: flow.Seal,
        duties: Duties,
        counters: Counters,
        admit: Callable[[bytes], bool],
    ) -> None:
        self.sessions: dict[bytes, Session] = {}
        self.assemblies: flow.Assemblies[tuple[bytes, str]] = flow.Assemblies()
        self.tasks: set[asyncio.Task[None]] = set()
        self._seal = seal
        self._duties = duties
        self._counters = counters
        self._admit = admit
        self._blocked: set[bytes] = set()
        self._loop = asyncio.get_running_loop()
        self._second_look: asyncio.TimerHandle | None = None
        self._ended = False
        self._monitor = Monitor(socket, ENDS_OF_CONNECTIONS, self._on_event)
        self._socket = LoopSocket(socket, self._receive, self._flush_blocked)

    async def close(self) -> None:
        """Free every slot and stop listening. Idempotent."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._second_look is not None:
            self._second_look.cancel()
        self._monitor.close()
        self._socket.close()

    def watch(self, now: float, away_s: float = 0.0) -> None:
        """Free what its asker left behind. For `away_s` this node did not run, and read nothing."""
        for session in list(self.sessions.values()):
            session.heard = min(now, session.heard + away_s)
            silent_s = now - session.heard
            if session.open and silent_s > LEASE_S:
                self._expire(session)
            elif not session.open and silent_s > SESSION_IDLE_S:
                self._forget(session)
        for route, request_id in self.assemblies.overdue(now):
            self.assemblies.drop((route, request_id))
            late = too_slow(flow.ASSEMBLY_TIMEOUT_S)
            self._refuse(self.sessions.get(route), request_id, late)

    # Frames in

    def _receive(self) -> None:
        socket = self._socket.socket
        route = socket.recv(NOBLOCK)
        session = self.sessions.get(route)
        if session is None:
            part = socket.recv(NOBLOCK, copy=False)
            session = self._meet(route, part)
            frame = part.bytes
        else:
            frame = socket.recv(NOBLOCK)
        if socket.get(zmq.RCVMORE):
            socket.recv_multipart(NOBLOCK)
            self._counters.malformed += 1
            return
        self._counters.frames_in += 1
        self._counters.bytes_in += len(frame)
        if session is None:
            self._counters.sender_mismatch += 1
            return
        try:
            message = session.inspection.message(frame)
        except UnknownMessageError:
            self._counters.unknown += 1
        except ProtocolError:
            self._counters.malformed += 1
        except flow.Rejected as rejected:
            self._counters.reject(rejected.reason)
        else:
            session.heard = self._loop.time()
            self._handle(session, message)

    def _meet(self, route: bytes, part: zmq.Frame) -> Session | None:
        """The session of a new connection, or of one that was shut out or forgotten; None for one
        that has proven no key or chosen a routing id, or that of somebody who may not connect any
        more: a connection outlives the word that ended it, because ZAP judges handshakes and not
        frames."""
        key = key_of(route, part)
        if key is None or not self._admit(key):
            return None
        if len(self.sessions) >= SESSIONS_MAX:
            idle = [session for session in self.sessions.values() if not session.open]
            self._forget(min(idle, key=lambda session: session.heard))
        node_id = node_id_of(key)
        session = Session(
            route, node_id, flow.Inspection(self._seal.mesh, node_id), self._loop.time()
        )
        self.sessions[route] = session
        return session

    def _handle(self, session: Session, message: RelayMessage) -> None:
        match message:
            case Credit(request_id, frames):
                inbound = session.open.get(request_id)
                if inbound is None:
                    self._counters.late += 1
                else:
                    inbound.credit = min(inbound.credit + frames, flow.CREDIT_MAX)
                    inbound.more.set()
            case JobOpen():
                self._on_open(session, message)
            case JobChunk():
                self._on_chunk(session, message)
            case Cancel(request_id):
                self._on_cancel(session, request_id)
            case RelayPing(nonce):
                self._note(session, RelayPong(nonce))
            case LoadProbe(nonce, model_id):
                self._note(session, LoadProbed(nonce, self._duties.load_of(model_id)))
            case TrustSync():
                self._own(self._compare(session, message))
            case RelayPong():
                pass  # the answer to a second look: `heard` is all it is for
            case _:
                self._counters.misplaced += 1

    def _on_open(self, session: Session, message: JobOpen) -> None:
        key = (session.route, message.request_id)
        if message.request_id in session.open or key in self.assemblies.waiting:
            self._counters.duplicate += 1
            return
        try:
            packed = self.assemblies.open(key, message, self._loop.time())
            if packed is not None:
                self._begin(session, message, packed)
        except flow.Refused as refused:
            self._refuse(session, message.request_id, refused.failure)
        except flow.FlowError as error:
            self._counters.broken += 1
            self._refuse(session, message.request_id, damaged(str(error)))

    def _on_chunk(self, session: Session, message: JobChunk) -> None:
        try:
            whole = self.assemblies.add((session.route, message.request_id), message)
            if whole is not None:
                self._begin(session, *whole)
        except KeyError:
            self._counters.late += 1
        except flow.Refused as refused:
            self._refuse(session, message.request_id, refused.failure)
        except flow.FlowError as error:
            self._counters.broken += 1
            self._refuse(session, message.request_id, damaged(str(error)))

    def _on_cancel(self, session: Session, request_id: str) -> None:
        inbound = session.open.pop(request_id, None)
        if inbound is not None and inbound.task is not None:
            self._counters.cancelled += 1
            inbound.task.cancel()
        elif not self.assemblies.drop((session.route, request_id)):
            self._counters.late += 1

    # Answering

    def _begin(self, session: Session, opened: JobOpen, packed: bytes) -> None:
        """Start to answer a request that is here whole. Raises Refused."""
        if len(self.tasks) >= OPEN_MAX:
            raise flow.Refused(
                overloaded(f"this node already answers {OPEN_MAX} requests of other nodes")
            )
        job = job_in(opened.request_id, packed)
        inbound = session.open[opened.request_id] = Inbound(opened.request_id, opened.credit)
        inbound.task = self._own(self._serve(session, inbound, job))

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _compare(self, session: Session, asked: TrustSync) -> None:
        """Tell a member what this node trusts; at most OPEN_MAX of these and of requests."""
        if len(self.tasks) > OPEN_MAX:
            return
        state = await self._duties.on_trust(session.node_id, asked.state)
        if state is not None and session.route in self.sessions:
            self._note(session, TrustSynced(asked.nonce, state))

    def shut_out(self, node_id: str | None) -> None:
        """End what a node has open, or with None everybody; their next frame is judged anew."""
        for session in list(self.sessions.values()):
            if node_id in {None, session.node_id}:
                self._forget(session)

    async def _serve(self, session: Session, inbound: Inbound, job: Job) -> None:
        """Own one request from its first event to its last."""
        failure: Failure | None = gave_up("its engine ended without saying how")
        try:
            stream = self._duties.answer(session.node_id, job)
            try:
                async for batch in stream:
                    events = cast("tuple[Event, ...]", tuple(batch))  # an engine makes no Note
                    if job.stream and not inbound.index:
                        await self._send_events(session, inbound, events[:FIRST_EVENTS])
                        events = events[FIRST_EVENTS:]
                    await self._send_events(session, inbound, events)
                    if isinstance(batch[-1], ENDINGS):
                        failure = None
                        await anext(stream, None)  # to run out costs less than to be closed
                        break
            finally:
                await stream.aclose()
        except ProtocolError as error:
            failure = gave_up(f"the answer cannot cross between nodes: {error.detail}")
        except Exception as error:  # noqa: BLE001
            # An engine that breaks its contract costs its own request, with a word to the person
            # who waits: the kind of error only, because its text may hold a prompt.
            failure = gave_up(f"its engine raised {type(error).__name__}")
        try:
            if failure is not None:
                await self._send_events(session, inbound, (failure,))
            self._counters.served += 1
        finally:
            if session.open.get(inbound.request_id) is inbound:
                del session.open[inbound.request_id]

    async def _send_events(
        self, session: Session, inbound: Inbound, events: tuple[Event, ...]
    ) -> None:
        """Waits for credit and for room. Raises ProtocolError for events out of bounds."""

        def frame(part: tuple[Event, ...]) -> bytes:
            return self._seal.frame(JobEvents(inbound.request_id, inbound.index, part))

        parts = flow.Parts(events)
        while parts:
            while not inbound.credit:
                inbound.more.clear()
                await inbound.more.wait()
            while session.waiting:
                await session.room.wait()
            self._send(session, parts.next(frame))
            inbound.credit -= 1
            inbound.index += 1

    def _refuse(self, session: Session | None, request_id: str, failure: Failure) -> None:
        self._counters.refused += 1
        if session is not None:
            self._note(session, JobEvents(request_id, 0, (failure,)))

    # Frames out

    def _note(self, session: Session, message: RelayMessage) -> None:
        self._send(session, self._seal.frame(message))

    def _send(self, session: Session, frame: bytes) -> None:
        """Send or queue. An asker that reads nothing loses frames, pongs too, and gives up."""
        if session.waiting:
            if len(session.waiting) < flow.OUTBOX_MAX_NOTES:
                session.waiting.append(frame)
            else:
                self._counters.dropped += 1
        elif self._sent(session, frame) is False:
            session.waiting.append(frame)
            session.room.clear()
            self._blocked.add(session.route)
            self._socket.want_out()
        else:
            self._socket.kick()

    def _sent(self, session: Session, frame: bytes) -> bool | None:
        """Whether the frame left; None when nobody is there any more, and the session is over."""
        socket = self._socket.socket
        try:
            socket.send(session.route, ROUTE_MORE)
            socket.send(frame, NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError:
            self._counters.expired += len(session.open)
            self._forget(session)
            return None
        self._counters.frames_out += 1
        self._counters.bytes_out += len(frame)
        return True

    def _flush_blocked(self) -> bool:
        for route in list(self._blocked):
            session = self.sessions.get(route)
            while session is not None and session.waiting:
                if not self._sent(session, session.waiting[0]):
                    break
                session.waiting.popleft()
            if session is None or not session.waiting:
                self._blocked.discard(route)
            if session is not None and not session.waiting:
                session.room.set()
        return bool(self._blocked)

    # The end of a connection

    def _on_event(self, event: int) -> None:
        if event == zmq.EVENT_DISCONNECTED:
            self._ended = True
            if self._second_look is None:
                self._look_twice()

    def _look_twice(self) -> None:
        self._look()
        again, self._ended = self._ended, False
        later = self._loop.call_later
        self._second_look = later(SECOND_LOOK_S, self._look_twice) if again else None

    def _look(self) -> None:
        """Whoever has requests open is sent a ping; a send to nobody ends the session."""
        for session in list(self.sessions.values()):
            if session.open:
                self._note(session, RelayPing(0))

    def _forget(self, session: Session) -> None:
        self.sessions.pop(session.route, None)
        session.waiting.clear()
        self._free(session)

    def _expire(self, session: Session) -> None:
        """Its asker seems gone, and is told all the same: if it only slept, it would wait on."""
        silence = not_heard(LEASE_S)
        for inbound in list(session.open.values()):
            self._note(session, JobEvents(inbound.request_id, inbound.index, (silence,)))
        self._counters.expired += len(session.open)
        self._free(session)

    def _free(self, session: Session) -> None:
        for request_id in [key for route, key in self.assemblies.waiting if route == session.route]:
            self.assemblies.drop((session.route, request_id))
        inbounds, session.open = session.open, {}
        for inbound in inbounds.values():
            if inbound.task is not None:
                inbound.task.cancel()

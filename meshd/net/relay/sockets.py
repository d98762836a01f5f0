"""ZeroMQ sockets on an asyncio loop, without zmq.asyncio (which costs several times more a frame).

A ZeroMQ socket shows the loop one file descriptor. It becomes readable when *something* changed
inside the socket, and reading or sending through the socket may swallow that signal. Hence the
two rules of `LoopSocket`: a turn does not end before EVENTS says that nothing is left to do, and
whoever sends outside a turn asks for one (`kick`). A turn is bounded, so that one busy peer cannot
keep the loop from everybody else.

The options are the same on both sides: CURVE always, little queueing inside ZeroMQ (a request that
cannot be sent now should go to another node, not into a queue), TCP's own means against connections
that lead nowhere (`halfopen` says why not ZeroMQ's), and no lingering at the end.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import cast

import zmq

from meshd.address import is_address
from meshd.net.gatekeeper import CURVE_OVERHEAD_BYTES
from meshd.net.halfopen import end_half_open
from protocol import limits
from protocol.messages import Endpoint

Context = zmq.Context[zmq.Socket[bytes]]

HWM_FRAMES = 128
"""Frames ZeroMQ may hold per connection and direction: the event frames of four requests that have
used all their credit, or 8 MiB of a body."""

HANDSHAKE_IVL_MS = 3_000
"""A peer that accepts and then says nothing is given up after this."""

CONNECT_TIMEOUT_MS = 2_000
"""A LAN answers a SYN in milliseconds or not at all; two retransmissions fit."""

LINGER_MS = 100
"""Time for a last Cancel to leave when a connection is closed."""

BACKLOG = 256
"""Connections that may wait for accept: more nodes than a mesh is designed for."""

TURN_FRAMES_MAX = 64
"""Frames handled before the loop gets to do something else: about 2 ms of work."""

RETRY_S = 0.01
"""A blocked send is tried again after this even without a signal: a ROUTER cannot say which of its
connections has room again, and a signal may have been swallowed by another send."""

ENDS_OF_CONNECTIONS = int(zmq.EVENT_DISCONNECTED)
EVERY_FATE = ENDS_OF_CONNECTIONS | int(
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_CLOSED
    | zmq.EVENT_CONNECT_RETRIED
)
MONITOR_EVENTS_MAX = 10_000
"""Monitor events that may wait for the loop. When they are full, libzmq's I/O thread waits, so
this is more than any network does to us in one turn of the loop."""

MONITOR_MESSAGE = struct.Struct("=Hi")
MONITOR_NUMBERS = count()

# Plain integers: arithmetic on Python's enum flags costs a microsecond, and these meet every frame.
EVENTS = int(zmq.EVENTS)
POLLIN = int(zmq.POLLIN)
NOBLOCK = int(zmq.NOBLOCK)


@dataclass(slots=True)
class Counters:
    """What passed, and what was ignored and why. They only grow."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    malformed: int = 0
    """Bytes that are no frame of this version."""
    unknown: int = 0
    """Messages that this version does not know."""
    sender_mismatch: int = 0
    """Frames whose sender is not the one that the connection's key proves, or may not connect."""
    foreign_mesh: int = 0
    replayed: int = 0
    """Frames of another boot, or not newer than the last."""
    misplaced: int = 0
    """Messages that only the other side may send."""
    duplicate: int = 0
    """Requests whose id is already in use."""
    late: int = 0
    """Frames about requests that are over; normal after a cancel."""
    broken: int = 0
    """Requests ended because the other side broke the rules of the flow."""
    dropped: int = 0
    """Frames lost because the other side does not read."""
    refused: int = 0
    """Forwarded requests turned away."""
    served: int = 0
    """Forwarded requests answered to their end here."""
    cancelled: int = 0
    """Forwarded requests that the asker gave up."""
    expired: int = 0
    """Forwarded requests freed because their asker vanished."""
    lost_peers: int = 0
    """Connections to peers that broke; not attempts that never became one."""

    def reject(self, reason: str) -> None:
        """Count a frame that `flow.Inspection` rejected."""
        setattr(self, reason, getattr(self, reason) + 1)


def tcp_address(endpoint: Endpoint) -> str:
    """Where a member's relay listens, as ZeroMQ writes it. Raises ValueError for a name: libzmq
    looks names up in the thread that moves all frames of this node, which may take ten seconds."""
    if not is_address(endpoint.host):
        raise ValueError(f"{endpoint.host!r} is no address")
    return f"tcp://{bracketed(endpoint.host)}:{endpoint.relay_port}"


def bracketed(host: str) -> str:
    """An IPv6 address in brackets, anything else as it is."""
    return f"[{host}]" if ":" in host else host


def new_socket(context: Context, kind: int, host: str) -> zmq.Socket[bytes]:
    """A socket with the relay's options; keys are the caller's."""
    socket = context.socket(kind)
    socket.set(zmq.LINGER, LINGER_MS)
    socket.set(zmq.SNDHWM, HWM_FRAMES)
    socket.set(zmq.RCVHWM, HWM_FRAMES)
    socket.set(zmq.IMMEDIATE, 1)
    socket.set(zmq.MAXMSGSIZE, limits.RELAY_FRAME_MAX_BYTES + CURVE_OVERHEAD_BYTES)
    end_half_open(socket)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_IVL_MS)
    socket.set(zmq.CONNECT_TIMEOUT, CONNECT_TIMEOUT_MS)
    socket.set(zmq.BACKLOG, BACKLOG)
    socket.set(zmq.IPV6, int(":" in host))
    return socket


class LoopSocket:
    """A socket driven by the running loop.

    `on_readable` takes one message, with NOBLOCK. `on_writable` sends what it can and returns
    whether something is left; when it stopped of its own accord, it calls `kick` itself.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_readable: Callable[[], None],
        on_writable: Callable[[], bool],
    ) -> None:
        self.socket = socket
        self.closed = False
        self._on_readable = on_readable
        self._on_writable = on_writable
        self._loop = asyncio.get_running_loop()
        self._fd = cast(int, socket.get(zmq.FD))
        self._kicked = False
        self._wants_out = False
        self._retry: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._fd, self._turn)
        self.kick()

    def kick(self) -> None:
        """Ask for a turn soon: after a send, which may have swallowed a signal."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._kicked_turn)

    def want_out(self) -> None:
        """Call `on_writable` in each turn until it has nothing left."""
        self._wants_out = True
        self.kick()

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Idempotent; nothing is called afterwards."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._fd)
        if self._retry is not None:
            self._retry.cancel()
        self.socket.close(linger_ms)

    def _kicked_turn(self) -> None:
        self._kicked = False
        if not self.closed:
            self._turn()

    def _retry_turn(self) -> None:
        self._retry = None
        self._turn()

    def _turn(self) -> None:
        try:
            self._work()
        except Exception:
            # The signal for what still waits is spent: without another turn, a fault in handling
            # one frame would leave this socket deaf to everybody's.
            if not self.closed and self._retry is None:
                self._retry = self._loop.call_later(RETRY_S, self._retry_turn)
            raise

    def _work(self) -> None:
        get = cast(Callable[[int], int], self.socket.get)
        for _ in range(TURN_FRAMES_MAX):
            if not get(EVENTS) & POLLIN:
                break
            self._on_readable()
            if self.closed:
                return
        else:
            self.kick()
        if self._wants_out:
            self._wants_out = self._on_writable()
            if self.closed:
                return
            if not self._wants_out or get(EVENTS) & POLLIN:
                self.kick()
            elif not self._kicked and self._retry is None:
                self._retry = self._loop.call_later(RETRY_S, self._retry_turn)


class Monitor:
    """Reports what happens to a socket's connections, as libzmq event numbers."""

    def __init__(
        self, watched: zmq.Socket[bytes], events: int, on_event: Callable[[int], None]
    ) -> None:
        self._watched = watched
        self._on_event = on_event
        pair: zmq.Socket[bytes] = watched.context.socket(zmq.PAIR)
        pair.set(zmq.RCVHWM, MONITOR_EVENTS_MAX)
        address = f"inproc://relay-monitor-{next(MONITOR_NUMBERS)}"
        watched.monitor(address, events)
        pair.connect(address)
        self._pair = LoopSocket(pair, self._read, lambda: False)

    def close(self) -> None:
        """Before the watched socket is closed. Idempotent.

        The order matters: libzmq holds the monitor's lock while it writes to the pair, for ever
        when the pair is gone, and taking the watched socket apart needs that lock.
        """
        if not self._pair.closed:
            self._watched.disable_monitor()
            self._pair.close(0)

    def _read(self) -> None:
        head = self._pair.socket.recv_multipart(NOBLOCK)[0]
        self._on_event(MONITOR_MESSAGE.unpack(head)[0])

"""Frames between daemons: the port, and its ZeroMQ implementation.

One ROUTER listens; one DEALER per link dials (`dial` has the rules of a single link). A frame that
arrives is handed up only with a proven sender, whichever way it came:

- through the listening socket, the CURVE handshake proved the sender's node key, and ZAP attached
  it to the connection. Its hash must be the routing id that the connection claims;
- back over a link that this node dialled, the frame brings a voucher (see `trust`).

What cannot go out now is dropped and counted, never queued behind a slow peer: control frames are
worthless when late. Everything here belongs to one thread, except `wake()`, which any thread may
call to end a `poll()` early.

A stranger on the port (a scanner, a node of another mesh, random bytes) costs one accepted
connection for HANDSHAKE_WAIT_S and raises a counter; nothing it sends reaches Python.

The twin in `loopback` moves the same frames without sockets; both pass the same suite.
"""

from __future__ import annotations

import errno
import math
import socket
from collections import Counter, OrderedDict
from collections.abc import Mapping
from random import Random
from time import monotonic
from typing import Protocol

import zmq
from zmq.utils.monitor import parse_monitor_message

from meshd.address import parse_host_port
from meshd.net import gatekeeper
from meshd.net.dial import LinkDown, LinkUp, OutgoingLink, Shape
from meshd.net.ears import Ears
from meshd.net.halfopen import end_half_open
from meshd.net.port import BindError, MeshPort
from meshd.net.trust import Identity, MeshKey, TrustError, node_id_of, vouch, vouched_sender
from protocol import limits
from protocol.frozen import frozen

__all__ = ["Arrived", "BindError", "Happening", "Transport", "ZmqTransport"]

DOMAIN = b"control"
"""The ZAP domain of the control sockets."""

HIGH_WATER_FRAMES = 64
"""Frames queued towards, or from, one peer: 64 x 64 KiB bounds it at 4 MiB, and a healthy peer
never has more than a handful."""

LINGER_MS = 300
"""How long a closed link may still flush: enough for a goodbye, too short to be noticed."""

HANDSHAKE_WAIT_S = 3.0
"""CURVE takes two round trips and 1 ms of arithmetic; a busy Pi answers within one second."""

LINKS_MAX = 256
"""Outgoing links at once. Each takes five file descriptors and three ZeroMQ sockets."""

CALLERS_MAX = limits.MEMBERS_MAX
"""Nodes that connected to us and may be answered the same way."""

DRAIN_MAX = 256
"""Frames taken from one socket per turn, so that a flood cannot keep the loop from its timers."""

COUNTERS = (
    "accepted", "admitted", "knocks", "strangers", "frames_out", "bytes_out", "frames_in",
    "bytes_in", "dropped_full", "dropped_unreachable", "sender_unproven", "links", "links_refused",
)  # fmt: skip
"""`strangers` are accepted connections that have not shown the mesh key (yet); `knocks` are the
bare connections with which a peer tells a closed port from a lost network; `links` are those that
are dialled now. All others are totals."""


@frozen
class Arrived:
    """A frame from `sender`, which is proven. `link` is the link it came over, None when it came
    through the listening socket."""

    sender: str
    frame: bytes
    link: str | None


Happening = Arrived | LinkUp | LinkDown


class Transport(Protocol):
    """Moves frames to and from proven senders. One thread owns it; only `wake` is for others."""

    @property
    def port(self) -> int:
        """The port listened on, 0 before `listen`."""
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """Totals since the start; every one of COUNTERS is present."""
        ...

    def listen(self) -> None:
        """Open the mesh port. Raises BindError."""

    def dial(self, link: str) -> None:
        """Keep a connection to `link` (`host:port`) open from now on. Each success gives LinkUp,
        each end and each failed attempt LinkDown. Idempotent, but for a pause that it ends."""

    def hangup(self, link: str) -> None:
        """Close a link and forget it. Idempotent; gives no LinkDown."""

    def send(self, node_id: str | None, link: str | None, frame: bytes) -> bool:
        """Over `link` when it is up, else over the connection that `node_id` opened to us.
        Never waits. False when the frame was dropped."""
        ...

    def retry(self) -> None:
        """Try every broken link again now, because the network may have changed."""

    def rekey(self, mesh_key: MeshKey) -> None:
        """Admit the holders of another mesh key, on the same port, and nobody else from now on.
        Every link that is up ends (LinkDown) and is dialled anew with that key."""

    def poll(self, timeout_s: float) -> list[Happening]:
        """What has happened since the last call; waits up to `timeout_s` for the first thing."""
        ...

    def wake(self) -> None:
        """End a `poll` that is waiting. Any thread may call it."""

    def close(self) -> None:
        """Close everything. Idempotent."""


class ZmqTransport:
    """The transport over ZeroMQ. The context needs a running Gatekeeper, or nobody is admitted."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        identity: Identity,
        mesh_key: MeshKey,
        *,
        bind_host: str,
        bind_port: int,
        rng: Random,
    ) -> None:
        self._context = context
        self._identity = identity
        self._mesh_key = mesh_key
        self._host = bind_host
        self._wanted_port = bind_port
        self._rng = rng
        self._open: MeshPort | None = None
        self._router: zmq.Socket[bytes] | None = None
        self._strangers: zmq.Socket[bytes] | None = None
        self._links: dict[str, OutgoingLink] = {}
        self._news: list[LinkDown] = []
        self._callers: OrderedDict[str, bytes] = OrderedDict()
        self._counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._ears = Ears()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._ears.register(self._wake_in.fileno())

    @property
    def port(self) -> int:
        return self._open.number if self._open is not None else 0

    @property
    def counters(self) -> Mapping[str, int]:
        seen = self._counters
        strangers = seen["accepted"] - seen["admitted"] - seen["knocks"]
        return {**seen, "strangers": max(0, strangers), "links": len(self._links)}

    def listen(self) -> None:
        assert self._open is None
        self._open = MeshPort(self._host, self._wanted_port)
        self._admit()

    def dial(self, link: str) -> None:
        if link in self._links:
            self._links[link].retry(monotonic())
            return
        try:
            address = parse_host_port(link)
        except ValueError:
            address = None
        if address is None or len(self._links) >= LINKS_MAX:
            self._counters["links_refused"] += 1
            if len(self._news) < LINKS_MAX:
                self._news.append(LinkDown(link, "unreachable"))
                self.wake()
            return
        shape = Shape(self._context, self._identity, self._mesh_key.server_public, shape_control)
        outgoing = OutgoingLink(
            link, address, shape, ears=self._ears, rng=self._rng, wake=self.wake
        )
        outgoing.begin(monotonic())
        self._links[link] = outgoing

    def hangup(self, link: str) -> None:
        outgoing = self._links.pop(link, None)
        if outgoing is not None:
            outgoing.close()

    def send(self, node_id: str | None, link: str | None, frame: bytes) -> bool:
        outgoing = self._links.get(link) if link is not None else None
        caller = node_id or ""
        try:
            if outgoing is not None and outgoing.up:
                outgoing.send(frame)
            elif caller in self._callers and self._router is not None:
                voucher = vouch(frame, self._identity, self._callers[caller])
                parts = [bytes.fromhex(caller), frame, voucher]
                self._ears.touch(self._router)
                self._router.send_multipart(parts, zmq.NOBLOCK)
            else:
                self._counters["dropped_unreachable"] += 1
                return False
        except zmq.Again:
            self._counters["dropped_full"] += 1
            return False
        except (zmq.ZMQError, TrustError):
            # EHOSTUNREACH: the caller's connection has ended, and with it this way back.
            self._callers.pop(caller, None)
            self._counters["dropped_unreachable"] += 1
            return False
        self._counters["frames_out"] += 1
        self._counters["bytes_out"] += len(frame)
        return True

    def retry(self) -> None:
        for link in self._links.values():
            link.retry(monotonic())

    def rekey(self, mesh_key: MeshKey) -> None:
        self._mesh_key = mesh_key
        self._callers.clear()
        if self._router is not None:
            self._dismiss()
            self._admit()
        for link, outgoing in list(self._links.items()):
            if outgoing.up:
                self._news.append(LinkDown(link, "eof"))
            self.hangup(link)
            self.dial(link)
            self._links[link].settle(monotonic())

    def poll(self, timeout_s: float) -> list[Happening]:
        now = monotonic()
        due = min((link.due for link in self._links.values()), default=now + timeout_s)
        wait_s = max(0.0, min(timeout_s, due - now))
        ready = self._ears.poll(math.ceil(wait_s * 1_000))
        happenings: list[Happening] = [*self._news]
        self._news.clear()
        if self._wake_in.fileno() in ready:
            drain_wakes(self._wake_in)
        if self._router in ready:
            self._receive(happenings)
        if self._strangers in ready:
            self._count_strangers()
        now = monotonic()
        for link in list(self._links.values()):
            if link.stirred(ready):
                self._receive_over(link, happenings)
            event = link.step(now, ready)
            if event is not None:
                happenings.append(event)
        return happenings

    def wake(self) -> None:
        try:
            self._wake_out.send(b"\0")
        except BlockingIOError:
            pass  # full of wakes already
        except OSError:
            pass  # closed: nobody is waiting any more

    def close(self) -> None:
        for link in list(self._links):
            self.hangup(link)
        self._dismiss()
        if self._open is not None:
            self._open.close()
        self._wake_in.close()
        self._wake_out.close()

    def _admit(self) -> None:
        """Put a ROUTER with the present mesh key behind the open port."""
        assert self._open is not None
        secret = self._mesh_key.server_secret
        router = self._open.router(self._context, shape_control, DOMAIN, secret)
        self._strangers = router.get_monitor_socket(MONITORED)
        self._router = router
        self._ears.register(router)
        self._ears.register(self._strangers)

    def _dismiss(self) -> None:
        """Let the ROUTER go, with every connection it accepted. Idempotent."""
        if self._router is not None and self._strangers is not None:
            self._ears.unregister(self._router)
            self._ears.unregister(self._strangers)
            self._router.disable_monitor()
            self._strangers.close(linger=0)
            self._router.close(linger=LINGER_MS)
            self._router = self._strangers = None

    def _receive(self, happenings: list[Happening]) -> None:
        assert self._router is not None
        for _ in range(DRAIN_MAX):
            try:
                parts = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            key = gatekeeper.proven_key(parts[-1])
            sender = "" if key is None else node_id_of(key)
            if key is None or len(parts) != 2 or parts[0].bytes.hex() != sender:
                self._counters["sender_unproven"] += 1
                continue
            self._callers[sender] = key
            self._callers.move_to_end(sender)
            if len(self._callers) > CALLERS_MAX:
                self._callers.popitem(last=False)
            self._arrived(sender, parts[1].bytes, None, happenings)

    def _receive_over(self, link: OutgoingLink, happenings: list[Happening]) -> None:
        for parts in link.drain(DRAIN_MAX):
            sender = None
            if len(parts) == 2:
                sender = vouched_sender(parts[0], parts[1], self._identity)
            if sender is None:
                self._counters["sender_unproven"] += 1
            else:
                self._arrived(sender, parts[0], link.name, happenings)

    def _arrived(
        self, sender: str, frame: bytes, link: str | None, happenings: list[Happening]
    ) -> None:
        self._counters["frames_in"] += 1
        self._counters["bytes_in"] += len(frame)
        happenings.append(Arrived(sender, frame, link))

    def _count_strangers(self) -> None:
        assert self._strangers is not None
        for _ in range(DRAIN_MAX):
            try:
                event = parse_monitor_message(self._strangers.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._counters["accepted"] += 1
            elif event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._counters["admitted"] += 1
            elif event["value"] in {errno.EPIPE, errno.ECONNRESET}:
                self._counters["knocks"] += 1


MONITORED = (
    zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


def shape_control(socket: zmq.Socket[bytes]) -> None:
    """The options that every control socket has, whichever end it is."""
    socket.set(zmq.SNDHWM, HIGH_WATER_FRAMES)
    socket.set(zmq.RCVHWM, HIGH_WATER_FRAMES)
    socket.set(zmq.LINGER, LINGER_MS)
    socket.set(zmq.IMMEDIATE, 1)
    socket.set(zmq.MAXMSGSIZE, limits.CONTROL_FRAME_MAX_BYTES + gatekeeper.CURVE_OVERHEAD_BYTES)
    socket.set(zmq.HANDSHAKE_IVL, int(HANDSHAKE_WAIT_S * 1_000))
    end_half_open(socket)


def drain_wakes(wakes: socket.socket) -> None:
    """Take in every wake that is waiting, so that the next poll waits again."""
    try:
        while wakes.recv(4_096):
            pass
    except BlockingIOError:
        pass

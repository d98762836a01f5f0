"""The transport without sockets: a whole network in one process.

Frames cross as real bytes, through the same limits and queues as over ZeroMQ, and every rule of
the port holds: links must be dialled, a port that nobody listens on refuses, a node with another
mesh key fails the handshake, a full queue drops. What differs is only what memory cannot have:
delay, loss and lies. Senders are proven by construction.

Ports belong to a `Network`; two of them never meet. Hosts are ignored: a link is known by its
port alone.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections import Counter
from collections.abc import Mapping

from meshd.address import parse_host_port
from meshd.net.dial import LinkDown, LinkUp
from meshd.net.transport import COUNTERS, HIGH_WATER_FRAMES, Arrived, BindError, Happening
from meshd.net.trust import Identity, MeshKey
from protocol import limits

FIRST_PORT = 10_000
"""Where ports are handed out from when a transport asks for any."""

WAITING_MAX = 4 * HIGH_WATER_FRAMES
"""Happenings beyond which frames are dropped: what four flooding peers get over ZeroMQ. What
becomes of links is never dropped; there are few of those."""

FRAME_MAX_BYTES = limits.CONTROL_FRAME_MAX_BYTES


class Network:
    """Who listens where. Its lock is held by whoever opens, dials or closes, so that those never
    overlap, whatever threads the transports live in."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.transports: set[LoopbackTransport] = set()
        self.ports: dict[int, LoopbackTransport] = {}
        self.free = itertools.count(FIRST_PORT)


class LoopbackTransport:
    """The transport in memory. See `transport.Transport` for what each method owes."""

    def __init__(
        self, network: Network, identity: Identity, mesh_key: MeshKey, bind_port: int = 0
    ) -> None:
        self._network = network
        self._identity = identity
        self._mesh_key = mesh_key
        self._wanted_port = bind_port
        self._port = 0
        self._links: dict[str, LoopbackTransport | None] = {}
        self._callers: dict[str, tuple[LoopbackTransport, str]] = {}
        self._waiting: queue.SimpleQueue[Happening | None] = queue.SimpleQueue()
        self._counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))

    @property
    def port(self) -> int:
        return self._port

    @property
    def counters(self) -> Mapping[str, int]:
        return {**self._counters, "links": len(self._links)}

    @property
    def node_id(self) -> str:
        """Who this is: what a socket would have proven."""
        return self._identity.node_id

    def listen(self) -> None:
        with self._network.lock:
            port = self._wanted_port or next(self._network.free)
            if port in self._network.ports:
                raise BindError(f"cannot listen for the mesh on loopback:{port}: it is taken")
            self._port = port
            self._network.ports[port] = self
            for other in list(self._network.transports):
                other.redial(port)

    def dial(self, link: str) -> None:
        with self._network.lock:
            if link in self._links:
                return
            try:
                parse_host_port(link)
            except ValueError:
                self._counters["links_refused"] += 1
                self._waiting.put(LinkDown(link, "unreachable"))
                return
            self._network.transports.add(self)
            self._links[link] = None
            self._connect(link)

    def redial(self, port: int) -> None:
        """Somebody began to listen on a port: connect the links that wait for it."""
        for link, other in list(self._links.items()):
            if other is None and parse_host_port(link)[1] == port:
                self._connect(link)

    def hangup(self, link: str) -> None:
        with self._network.lock:
            other = self._links.pop(link, None)
            if other is not None:
                other.caller_gone(self.node_id)

    def send(self, node_id: str | None, link: str | None, frame: bytes) -> bool:
        direct = self._links.get(link) if link is not None else None
        caller = self._callers.get(node_id) if node_id is not None else None
        if direct is not None:
            sent = direct.deliver(Arrived(self.node_id, frame, None))
        elif caller is not None:
            sent = caller[0].deliver(Arrived(self.node_id, frame, caller[1]))
        else:
            self._counters["dropped_unreachable"] += 1
            return False
        if not sent:
            self._counters["dropped_full"] += 1
            return False
        self._counters["frames_out"] += 1
        self._counters["bytes_out"] += len(frame)
        return True

    def retry(self) -> None:
        """Nothing to do: a broken link is connected the moment somebody listens."""

    def rekey(self, mesh_key: MeshKey) -> None:
        with self._network.lock:
            self._mesh_key = mesh_key
            callers = list(self._callers.values())
            self._callers.clear()
            for caller, link in callers:
                caller.link_ended(link)
            links = [link for link, other in self._links.items() if other is not None]
            for link in links:
                self.hangup(link)
                self._waiting.put(LinkDown(link, "eof"))
                self._links[link] = None
            for link in self._links:
                self._connect(link)
            for other in list(self._network.transports - {self}):
                other.redial(self._port)

    def poll(self, timeout_s: float) -> list[Happening]:
        happenings: list[Happening] = []
        try:
            first = self._waiting.get(timeout=timeout_s) if timeout_s > 0 else None
            if first is not None:
                happenings.append(first)
            while True:
                item = self._waiting.get_nowait()
                if item is not None:
                    happenings.append(item)
        except queue.Empty:
            return happenings

    def wake(self) -> None:
        if self._waiting.empty():
            self._waiting.put(None)

    def close(self) -> None:
        with self._network.lock:
            self._network.transports.discard(self)
            if self._network.ports.get(self._port) is self:
                del self._network.ports[self._port]
            for link in list(self._links):
                self.hangup(link)
            for caller, link in list(self._callers.values()):
                caller.link_ended(link)
            self._callers.clear()

    def deliver(self, arrived: Arrived) -> bool:
        """Take a frame from another transport; False when it was dropped."""
        if len(arrived.frame) > FRAME_MAX_BYTES or self._waiting.qsize() >= WAITING_MAX:
            return False
        self._waiting.put(arrived)
        self._counters["frames_in"] += 1
        self._counters["bytes_in"] += len(arrived.frame)
        return True

    def admit(self, caller: LoopbackTransport, link: str, mesh_key: MeshKey) -> bool:
        """Whether a caller with this mesh key may connect; it can then be answered."""
        self._counters["accepted"] += 1
        if mesh_key != self._mesh_key:
            self._counters["strangers"] += 1
            return False
        self._counters["admitted"] += 1
        self._callers[caller.node_id] = (caller, link)
        return True

    def caller_gone(self, node_id: str) -> None:
        """A node hung up its link to us."""
        self._callers.pop(node_id, None)

    def link_ended(self, link: str) -> None:
        """The other end of one of our links has closed, or changed its key."""
        if self._links.get(link) is not None:
            self._links[link] = None
            self._waiting.put(LinkDown(link, "eof"))
            self._connect(link)

    def _connect(self, link: str) -> None:
        other = self._network.ports.get(parse_host_port(link)[1])
        if other is None:
            self._waiting.put(LinkDown(link, "refused"))
        elif other.admit(self, link, self._mesh_key):
            self._links[link] = other
            self._waiting.put(LinkUp(link))
        else:
            self._waiting.put(LinkDown(link, "handshake"))

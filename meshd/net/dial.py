"""One outgoing connection: from a name to a finished handshake, and again when it ends.

                     fail: wait 0.2 s, 0.4 s ... 10 s
          +--------------------------------------------------+
          v                    |              |              |
    resolving -> knocking -----+---> shaking -+---> up       |
    (names only)    ^                                | eof   |
                    +--- at once, if it had lasted --+-------+

ZeroMQ would reconnect by itself, but its monitor cannot say why an attempt failed, and membership
needs to know: "refused" straight after "eof" proves that the process is gone, while silence proves
nothing. So libzmq makes exactly one attempt per DEALER (RECONNECT_IVL -1), and before each attempt
this module *knocks*: a plain non-blocking TCP connect, closed as soon as it has an answer. The
kernel's answer is exact. The cost is one round trip per attempt; the gain beside the cause is that
no socket, monitor and queue exists for a machine that is switched off.

All addresses of a name are tried before the link is called down.

Causes: `refused` the port is closed; `unreachable` no route, or the name is unknown; `timeout` no
answer in time; `handshake` something answers that is not of our mesh; `eof` a working connection
ended.
"""

from __future__ import annotations

import errno
import math
import select
import socket
from collections.abc import Callable, Collection, Iterator
from random import Random

import zmq
from zmq.utils.monitor import parse_monitor_message

from meshd.address import is_address
from meshd.net import gatekeeper
from meshd.net.ears import Ears
from meshd.net.lookup import Address, Lookup, endpoint_url, find_addresses, host_of
from meshd.net.trust import Identity
from protocol.frozen import frozen

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 10.0
"""Waits between failed attempts double from the first to the last: a machine that is off for a
week costs six knocks a minute."""

RETRY_JITTER = 0.25
"""Share by which a wait is varied, so that a mesh that lost its switch does not knock in step."""

STEADY_S = 1.0
"""A connection that lasted this long is knocked at once after its end; a shorter one waits."""

RESOLVE_WAIT_S = 5.0
"""mDNS answers a `.local` name within one second, a DNS server within two."""

KNOCK_WAIT_S = 1.5
"""TCP repeats a lost SYN after one second; one repeat is allowed for."""

KNOCKS_AGAIN_MAX = 2
"""Knocks repeated within one attempt. A kernel closes a dead process's sockets one by one, within
milliseconds; each repeat takes a round trip, and one is nearly always enough."""

SETTLE_S = 1.0
"""How long after a link has worked, or our key has changed, a failed handshake only means that one
of the two has heard of the new mesh key before the other: they hear within milliseconds."""

RESHAKE_S = 0.05
"""Pause before the next try with such a peer."""

SHAKE_WAIT_S = 4.0
"""Beyond libzmq's own HANDSHAKE_IVL, in case it reports nothing."""

LINK_EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)
TIMEOUTS = frozenset({errno.EAGAIN, errno.ETIMEDOUT})


@frozen
class LinkUp:
    """The link works: the other end has shown that it holds the mesh key. `host` is the address
    that answered, where the link only has a name; to look that up again may take seconds."""

    link: str
    host: str = ""


@frozen
class LinkDown:
    """A working link ended, or an attempt failed. Causes: see the module's head."""

    link: str
    cause: str


LinkEvent = LinkUp | LinkDown
Ready = Collection[zmq.Socket[bytes] | int | None]
"""What a poll found: sockets and file descriptors."""


@frozen
class Shape:
    """What a link's socket is made from: identity, server key (raw), and the plane's options."""

    context: zmq.Context[zmq.Socket[bytes]]
    identity: Identity
    server_public: bytes
    options: Callable[[zmq.Socket[bytes]], None]

    def dealer(self, address: Address) -> zmq.Socket[bytes]:
        """A DEALER for one attempt at `address`, not yet connected."""
        dealer = self.context.socket(zmq.DEALER)
        self.options(dealer)
        gatekeeper.introduce(dealer, self.identity, self.server_public)
        dealer.set(zmq.RECONNECT_IVL, -1)
        dealer.set(zmq.IPV6, int(address[0] == socket.AF_INET6))
        return dealer


class OutgoingLink:
    """One link and its sockets. Owned by the transport's thread; `begin`, then `step` often."""

    def __init__(
        self,
        name: str,
        target: tuple[str, int],
        shape: Shape,
        *,
        ears: Ears,
        rng: Random,
        wake: Callable[[], None],
    ) -> None:
        self.name = name
        self.due = 0.0
        """When `step` must run at the latest (monotonic s)."""
        self._target = target
        self._shape = shape
        self._ears = ears
        self._rng = rng
        self._wake = wake
        self._state = "waiting"
        self._failures = 0
        self._up_at = 0.0
        self._settles_at = 0.0
        self._lookup: Lookup | None = None
        self._addresses: list[Address] = []
        self._knocked_again = 0
        self._knock: socket.socket | None = None
        self._dealer: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None

    @property
    def up(self) -> bool:
        return self._state == "up"

    def begin(self, now: float) -> None:
        """Start an attempt: look the name up, or knock when the host is an address."""
        self._knocked_again = 0
        host, port = self._target
        if is_address(host):
            self._lookup = None
            self._addresses = find_addresses(host, port, socket.AI_NUMERICHOST)
            self._enter("resolving", now)
        else:
            self._lookup = Lookup(host, port, self._wake)
            self._enter("resolving", now + RESOLVE_WAIT_S)

    def step(self, now: float, ready: Ready) -> LinkEvent | None:
        """Move on as far as `ready` and the time allow; what became of the link, if anything did.

        Drain the link first: an end closes its socket.
        """
        if self._state == "resolving":
            return self._step_resolving(now)
        if self._state == "knocking":
            return self._step_knocking(now, ready)
        if self._state == "waiting":
            if now >= self.due:
                self.begin(now)
            return None
        return self._step_connected(now, ready)

    def retry(self, now: float) -> None:
        """Do not wait out the pause after a failure: the network may have changed."""
        if self._state == "waiting":
            self._failures = 0
            self.due = now

    def settle(self, now: float) -> None:
        """A mesh key is changing: do not take a failed handshake for an answer yet."""
        self._settles_at = now + SETTLE_S

    def stirred(self, ready: Ready) -> bool:
        """Whether the last poll found frames, or an event behind which frames may stand."""
        return self.up and (self._dealer in ready or self._monitor in ready)

    def send(self, frame: bytes) -> None:
        """Raises zmq.Again when the queue is full, and zmq.ZMQError when the link is not up."""
        if self._dealer is None:
            raise zmq.ZMQError(errno.EHOSTUNREACH)
        self._ears.touch(self._dealer)
        self._dealer.send(frame, zmq.NOBLOCK)

    def drain(self, most: int) -> Iterator[list[bytes]]:
        """Up to `most` frames that have arrived, each as its parts."""
        for _ in range(most):
            if self._dealer is None:
                return
            self._ears.touch(self._dealer)
            try:
                yield self._dealer.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return

    def close(self) -> None:
        """Let go of every socket. Frames already sent may still leave within the linger time."""
        self._lookup = None
        if self._knock is not None:
            self._ears.unregister(self._knock.fileno())
            self._knock.close()
            self._knock = None
        if self._monitor is not None and self._dealer is not None:
            self._ears.unregister(self._monitor)
            self._dealer.disable_monitor()
            self._monitor.close(linger=0)
            self._monitor = None
        if self._dealer is not None:
            self._ears.unregister(self._dealer)
            self._dealer.close()
            self._dealer = None

    def _enter(self, state: str, due: float) -> None:
        self._state = state
        self.due = due

    def _step_resolving(self, now: float) -> LinkEvent | None:
        if self._lookup is not None:
            if self._lookup.found is None:
                return self._failed(now, "timeout") if now >= self.due else None
            self._addresses = self._lookup.found
            self._lookup = None
        return self._knock_next(now, "unreachable")

    def _knock_next(self, now: float, cause: str) -> LinkEvent | None:
        """Knock at the next address; with none left, the attempt has failed for `cause`."""
        while self._addresses:
            family, target = self._addresses[0]
            try:
                knock = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                return self._failed(now, "unreachable")  # out of file descriptors
            knock.setblocking(False)
            error = knock.connect_ex(target)
            if error in {0, errno.EINPROGRESS, errno.EWOULDBLOCK}:
                self._knock = knock
                self._ears.register(knock.fileno(), select.POLLOUT)
                self._enter("knocking", now + KNOCK_WAIT_S)
                return None
            knock.close()
            self._addresses.pop(0)
            cause = cause_of(error)
        return self._failed(now, cause)

    def _step_knocking(self, now: float, ready: Ready) -> LinkEvent | None:
        assert self._knock is not None
        answered = self._knock.fileno() in ready
        if not answered and now < self.due:
            return None
        error = errno.ETIMEDOUT
        if answered:
            error = self._knock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.close()
        if error == errno.ECONNRESET:
            return self._broke_off(now, "unreachable")
        if error:
            return self._lost(now, cause_of(error))
        return self._shake(now)

    def _shake(self, now: float) -> LinkEvent | None:
        address = self._addresses[0]
        try:
            self._dealer = self._shape.dealer(address)
            self._ears.register(self._dealer)
            self._monitor = self._dealer.get_monitor_socket(LINK_EVENTS)
            self._ears.register(self._monitor)
            self._dealer.connect(endpoint_url(address))
        except zmq.ZMQError:
            return self._lost(now, "unreachable")  # out of sockets, or no such interface
        self._enter("shaking", now + SHAKE_WAIT_S)
        return None

    def _step_connected(self, now: float, ready: Ready) -> LinkEvent | None:
        """Shaking or up: the monitor says how the connection fares, each event once."""
        assert self._monitor is not None
        if self._monitor not in ready:
            late = self._state == "shaking" and now >= self.due
            return self._lost(now, "timeout") if late else None
        event = parse_monitor_message(self._monitor.recv_multipart())
        if event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._up_at = now
            self._enter("up", math.inf)
            named = not is_address(self._target[0])
            return LinkUp(self.name, host_of(self._addresses[0]) if named else "")
        if self.up:
            return self._ended(now)
        return self._shaken_off(now, event["event"], event["value"])

    def _shaken_off(self, now: float, event: int, value: int) -> LinkEvent | None:
        if event == zmq.EVENT_CLOSED:
            return self._broke_off(now, "unreachable")
        if event != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            return self._lost(now, "handshake")
        if value in TIMEOUTS:
            return self._lost(now, "timeout")
        return self._broke_off(now, "handshake")

    def _broke_off(self, now: float, cause: str) -> LinkEvent | None:
        """Open a moment ago, and closed without a word: a process may just be dying.

        Another knock tells; after KNOCKS_AGAIN_MAX it is what it looks like.
        """
        if self._knocked_again >= KNOCKS_AGAIN_MAX:
            return self._lost(now, cause)
        self._knocked_again += 1
        self.close()
        return self._knock_next(now, cause)

    def _ended(self, now: float) -> LinkEvent:
        """A working connection is gone. Knock at once, unless it keeps going."""
        self.close()
        self.settle(now)
        if now - self._up_at >= STEADY_S:
            self._failures = 0
        self._enter("waiting", now + self._wait_s() if self._failures else now)
        self._failures += 1
        return LinkDown(self.name, "eof")

    def _lost(self, now: float, cause: str) -> LinkEvent | None:
        """This address did not work: try the next one."""
        self.close()
        self._addresses.pop(0)
        return self._knock_next(now, cause)

    def _failed(self, now: float, cause: str) -> LinkEvent | None:
        self.close()
        if cause == "handshake" and now < self._settles_at:
            self._enter("waiting", now + RESHAKE_S)
            return None
        self._enter("waiting", now + self._wait_s())
        self._failures += 1
        return LinkDown(self.name, cause)

    def _wait_s(self) -> float:
        return retry_wait_s(self._failures) * self._rng.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)


def retry_wait_s(failures: int) -> float:
    """Seconds to wait after so many failures in a row: RETRY_FIRST_S, doubling to RETRY_MAX_S."""
    doublings = min(failures, 16)
    return float(min(RETRY_MAX_S, RETRY_FIRST_S * 2**doublings))


def cause_of(error: int) -> str:
    """The cause that an errno of `connect` stands for. Only a closed port counts as refused."""
    if error == errno.ECONNREFUSED:
        return "refused"
    return "timeout" if error in TIMEOUTS else "unreachable"

"""The door: the socket that is there only while somebody is invited.

A member that invites nobody has no pairing port at all. The first invitation opens one, the end of
the last closes it. It is guarded by CURVE with a key pair that everybody knows (both sides derive
it from nothing), because a newcomer has no other: that keeps out eavesdroppers and what is not
meshd, and proves nobody. Proof is the exchange's business.

It works in a thread of its own, for as long as it is open: SPAKE2 is arithmetic in Python, 15 ms a
hello, which the gateway's loop shall not pay. Callers are told apart by the routing ids that libzmq
gives them. A frame in, a frame out; nothing is kept for a caller but its exchange.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import zmq
from nacl import bindings

from meshd.address import format_host_port
from meshd.core.effects import Notice
from meshd.net import gatekeeper
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.halfopen import end_half_open
from meshd.net.pairing.exchange import Admitted, Offers
from meshd.net.pairing.invitation import Invitation, code_invitation, draw_code, draw_token, shown
from meshd.net.pairing.refusal import PairingError
from protocol.frozen import frozen
from protocol.pairing import FRAME_MAX_BYTES, PairRefusal, Welcome, encode_pairing

DOMAIN = b"pairing"
"""The ZAP domain of the door."""

DOOR_SECRET = hashlib.blake2b(b"everybody", person=b"meshd door", digest_size=32).digest()
DOOR_PUBLIC = bindings.crypto_scalarmult_base(DOOR_SECRET)
"""Known to all. See the module's head."""

PORT_STEP = 2
"""The door's port, from the mesh port on: the relay has the one between. Another free one if this
one is taken."""

TURN_S = 0.25
"""Longest wait in one turn of the door's thread: how late a window may close."""

LATE_S = 1.0
"""How long the door outlives its last invitation. libzmq may drop what a socket was sent just
before it closes, and that would be the welcome; and who comes too late is told so."""

LINGER_MS = 300

HANDSHAKE_WAIT_MS = 3_000
QUEUE_FRAMES = 16
"""Frames waiting for one caller: an exchange has two."""

STOP_WAIT_S = 5.0
"""A turn ends within TURN_S; this passes only on a machine that is suspended."""


@frozen
class Invited:
    """An invitation as a person is shown it."""

    text: str
    """The digits, or the token's line."""
    expires_s: float
    port: int
    """Where the door is, on each address of this machine."""


class Door:
    """Invites, and opens and closes as needed. Any thread may call anything.

    `welcome` and `on_admitted` are called in the door's thread and must return soon; `places`
    says at which `host`s this machine can be reached, best first.
    """

    def __init__(
        self,
        public_key: bytes,
        *,
        context: zmq.Context[zmq.Socket[bytes]],
        gatekeeper: Gatekeeper,
        bind_host: str,
        bind_port: int,
        hosts: Callable[[], Sequence[str]],
        welcome: Callable[[str], Welcome | PairRefusal],
        on_admitted: Callable[[Admitted], None],
        on_notice: Callable[[Notice], None],
        entropy: Callable[[int], bytes] = secrets.token_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        gatekeeper.policy(DOMAIN, lambda _: True)
        self._context = context
        self._host = bind_host
        self._wanted_port = bind_port
        self._hosts = hosts
        self._on_admitted = on_admitted
        self._on_notice = on_notice
        self._entropy = entropy
        self._clock = clock
        self._offers = Offers(public_key, welcome, entropy)
        self._lock = threading.RLock()
        self._router: zmq.Socket[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._closes_at: float | None = None
        self.port = 0
        """Where it is, 0 while it is closed."""

    def invite(self) -> Invited:
        """Open a window of eight digits, in place of the one before. Raises PairingError."""
        code = draw_code(self._entropy)
        with self._lock:
            self._open()
            return self._invite(shown(code), code_invitation(code))

    def invite_token(self) -> Invited:
        """A line for one machine without a keyboard. Raises PairingError."""
        with self._lock:
            self._open()
            places = [format_host_port(host, self.port) for host in self._hosts()]
            return self._invite(*draw_token(self._entropy, places))

    def withdraw(self) -> None:
        """End every invitation. Idempotent."""
        with self._lock:
            for offer in self._offers.offers(self._clock()):
                self._offers.close(offer.invitation.name)

    def state(self) -> Mapping[str, Any]:
        """What is open, for `GET /mesh/v1/pair`; no secret is in it."""
        with self._lock:
            now = self._clock()
            offers = self._offers.offers(now)
            return {
                "door": self.port if offers else None,
                "invitations": [
                    {
                        "kind": "code" if offer.invitation.code else "token",
                        "expires_s": round(offer.until - now, 1),
                        "tries_left": offer.tries_left,
                    }
                    for offer in offers
                ],
            }

    def close(self) -> None:
        """End every invitation, close the port and the thread. Idempotent."""
        with self._lock:
            self._stopping = True
            thread = self._thread
        if thread is not None:
            thread.join(STOP_WAIT_S)

    def _invite(self, text: str, invitation: Invitation) -> Invited:
        offer = self._offers.open(invitation, self._clock())
        return Invited(text, offer.until - self._clock(), self.port)

    def _open(self) -> None:
        """Bind and start the thread, unless it is open. Raises PairingError."""
        if self._stopping:
            raise PairingError("this node is shutting down; pair at another one")
        if self._router is not None:
            return
        self._router = self._bound()
        self._thread = threading.Thread(target=self._run, name="meshd-door", daemon=True)
        self._thread.start()

    def _bound(self) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        shape_door(router, self._host)
        gatekeeper.guard(router, DOMAIN, DOOR_SECRET)
        host = f"[{self._host}]" if ":" in self._host else self._host
        for port in (self._wanted_port, 0):
            try:
                router.bind(f"tcp://{host}:{port or '*'}")
            except zmq.ZMQError as error:
                reason = error.strerror
            else:
                self.port = int(cast(bytes, router.last_endpoint).rsplit(b":", 1)[1])
                return router
        router.close(0)
        raise PairingError(
            f"cannot open a port for pairing on {host}: {reason}; "
            "start the daemon with --mesh HOST:PORT on an address of this machine"
        )

    # From here on: the door's thread.

    def _run(self) -> None:
        assert self._router is not None
        router = self._router
        try:
            while not self._over():
                if router.poll(int(TURN_S * 1_000)):
                    self._answer(router)
        except zmq.ContextTerminated:
            self._shut()

    def _over(self) -> bool:
        """Whether nobody has been invited for LATE_S; the door is closed then."""
        with self._lock:
            if not self._stopping and self._offers.offers(self._clock()):
                self._closes_at = None
                return False
            now = time.monotonic()
            if self._closes_at is None:
                self._closes_at = now + LATE_S
            if now < self._closes_at and not self._stopping:
                return False
            self._shut()
            return True

    def _shut(self) -> None:
        with self._lock:
            if self._router is not None:
                self._router.close(LINGER_MS)
            self.withdraw()
            self._router = self._thread = self._closes_at = None
            self.port = 0

    def _answer(self, router: zmq.Socket[bytes]) -> None:
        parts = router.recv_multipart()
        if len(parts) != 2:
            return
        try:
            with self._lock:
                frame, admitted = self._offers.receive(parts[0], parts[1], self._clock())
        except Exception as error:  # noqa: BLE001
            # The invitation stands: whoever is there can try again, and is told so.
            frame, admitted = encode_pairing(PairRefusal("busy")), None
            self._say_fault(error)
        if admitted is not None:
            # Before the answer: the newcomer may knock on the relay the moment it has read it.
            self._say(admitted)
        router.send_multipart([parts[0], frame])

    def _say(self, admitted: Admitted) -> None:
        try:
            self._on_admitted(admitted)
        except Exception as error:  # noqa: BLE001
            # Whatever is wrong with the listener, the newcomer has earned its answer.
            self._say_fault(error)

    def _say_fault(self, error: Exception) -> None:
        text = f"a fault while admitting a newcomer, please report it: {error!r}"
        self._on_notice(Notice("warning", text))


def shape_door(socket: zmq.Socket[bytes], host: str) -> None:
    """The options that both ends have."""
    socket.set(zmq.IPV6, int(":" in host))
    socket.set(zmq.SNDHWM, QUEUE_FRAMES)
    socket.set(zmq.RCVHWM, QUEUE_FRAMES)
    socket.set(zmq.LINGER, LINGER_MS)
    socket.set(zmq.IMMEDIATE, 1)
    socket.set(zmq.MAXMSGSIZE, FRAME_MAX_BYTES)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_WAIT_MS)
    end_half_open(socket)

"""Who may connect: the one ZAP handler of a ZeroMQ context, in a thread of its own.

libzmq asks this handler about every CURVE handshake that a listening socket is about to finish
(RFC 27). The question names the socket's domain and the client's long-term public key, whose
possession the handshake has already proven. The answer is yes or no, and with a yes goes the
client's key in hexadecimal as the User-Id, so that every frame of that connection can be asked who
sent it: `frame.get("User-Id")`.

No policy for a domain, no CURVE, a malformed question, a policy that raises: refused. Refusals are
counted under a fixed set of reasons, so that no attacker chooses how many counters there are.

A socket is put under guard by `guard()` before it binds; ZAP_ENFORCE_DOMAIN makes libzmq refuse
everybody while no gatekeeper runs, so a forgotten one fails closed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType

import zmq
from nacl import bindings

from meshd.net.trust import Identity, TrustError

Policy = Callable[[bytes], bool]
"""Whether the client with this raw public key may connect. Called in the gatekeeper's thread; it
must answer from memory, because all handshakes of the process wait for it."""

LIBZMQ_MIN = (4, 3, 5)
"""Older ones have known holes that need no key: CVE-2019-13132, CVE-2020-15166."""

CURVE_OVERHEAD_BYTES = 64
"""What encryption adds to a frame (33 bytes today), so that the largest frame still passes."""

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_VERSION = b"1.0"
ZAP_QUESTION_PARTS = 7
"""Version, request id, domain, address, identity, mechanism, and one CURVE credential."""

REASONS = ("malformed", "not curve", "no policy", "key refused", "policy failed")
STOP_WAIT_S = 5.0
"""The thread answers from memory; five seconds only pass on a machine that is suspended."""


def check_libzmq(version: tuple[int, ...], *, curve: bool) -> None:
    """Raises TrustError unless this libzmq is new enough and was built with CURVE."""
    if version < LIBZMQ_MIN:
        raise TrustError(
            f"libzmq {'.'.join(map(str, version))} has known security holes; "
            f"install pyzmq 27 or newer, which brings libzmq {'.'.join(map(str, LIBZMQ_MIN))}"
        )
    if not curve:
        raise TrustError(
            "this libzmq was built without CURVE encryption; install the pyzmq wheel instead"
        )


def guard(socket: zmq.Socket[bytes], domain: bytes, server_secret: bytes) -> None:
    """Make a listening socket speak CURVE as `server_secret` (raw) and ask the gatekeeper."""
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_SECRETKEY, server_secret)
    socket.set(zmq.CURVE_PUBLICKEY, bindings.crypto_scalarmult_base(server_secret))
    socket.set(zmq.ZAP_DOMAIN, domain)
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)


def introduce(socket: zmq.Socket[bytes], identity: Identity, server_public: bytes) -> None:
    """Make a dialling socket speak CURVE as this node, to the server with that raw public key.

    Its routing id becomes the node id's bytes, which is how the other side addresses answers.
    """
    socket.set(zmq.CURVE_SERVERKEY, server_public)
    socket.set(zmq.CURVE_PUBLICKEY, identity.public_key)
    socket.set(zmq.CURVE_SECRETKEY, identity.secret_key)
    socket.set(zmq.ROUTING_ID, bytes.fromhex(identity.node_id))


def proven_key(frame: zmq.Frame) -> bytes | None:
    """The raw public key whose holder sent this frame, None when no gatekeeper admitted it."""
    try:
        user_id = frame.get("User-Id")
    except zmq.ZMQError:
        return None
    return bytes.fromhex(user_id) if isinstance(user_id, str) else None


class Gatekeeper:
    """Answers every handshake of one context. Raises TrustError when libzmq is not fit for use.

    Runs from construction to `close()`; one per context.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        check_libzmq(zmq.zmq_version_info(), curve=bool(zmq.has("curve")))
        self._policies: dict[bytes, Policy] = {}
        self._admitted = 0
        self._refused: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._questions = context.socket(zmq.REP)
        self._questions.linger = 0
        try:
            self._questions.bind(ZAP_ENDPOINT)
        except zmq.ZMQError:
            self._questions.close()
            raise TrustError("this ZeroMQ context already has a gatekeeper") from None
        stop = f"inproc://meshd.gatekeeper.{id(self)}"
        self._stop_in = context.socket(zmq.PAIR)
        self._stop_in.bind(stop)
        self._stop_out = context.socket(zmq.PAIR)
        self._stop_out.linger = 0
        self._stop_out.connect(stop)
        self._thread = threading.Thread(target=self._run, name="meshd-gatekeeper", daemon=True)
        self._thread.start()

    def policy(self, domain: bytes, admits: Policy) -> None:
        """Who may connect to the sockets of `domain`; replaces what was said before."""
        self._policies[domain] = admits

    @property
    def admitted(self) -> int:
        """Handshakes admitted so far."""
        return self._admitted

    @property
    def refused(self) -> Mapping[str, int]:
        """Handshakes refused so far, by reason; every one of REASONS is present."""
        return MappingProxyType(self._refused)

    @property
    def alive(self) -> bool:
        """Whether handshakes are being answered."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop answering: from now on every handshake is refused. Idempotent."""
        if self._stop_out.closed:
            return
        self._stop_out.send(b"")
        self._thread.join(STOP_WAIT_S)
        self._stop_out.close()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._questions, zmq.POLLIN)
        poller.register(self._stop_in, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if self._stop_in in ready:
                    return
                self._answer(self._questions.recv_multipart())
        except zmq.ContextTerminated:
            return
        finally:
            self._questions.close()
            self._stop_in.close(linger=0)

    def _answer(self, question: list[bytes]) -> None:
        request_id = question[1] if len(question) > 1 else b""
        reason = self._objection(question)
        if reason is None:
            self._admitted += 1
            key = question[-1].hex().encode()
            answer = [ZAP_VERSION, request_id, b"200", b"OK", key, b""]
        else:
            self._refused[reason] += 1
            answer = [ZAP_VERSION, request_id, b"400", reason.encode(), b"", b""]
        self._questions.send_multipart(answer)

    def _objection(self, question: list[bytes]) -> str | None:
        """Why not, as one of REASONS; None to admit."""
        if len(question) < ZAP_QUESTION_PARTS - 1 or question[0] != ZAP_VERSION:
            return "malformed"
        domain, mechanism = question[2], question[5]
        if mechanism != b"CURVE" or len(question) != ZAP_QUESTION_PARTS:
            return "not curve"
        admits = self._policies.get(domain)
        if admits is None:
            return "no policy"
        try:
            return None if admits(question[6]) else "key refused"
        except Exception:  # noqa: BLE001
            # A broken policy must neither admit anybody nor end the thread that all others need.
            return "policy failed"

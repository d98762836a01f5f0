"""The gatekeeper admits whom its policy admits, and nobody by accident."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import zmq

from meshd.net import gatekeeper as gate
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.trust import Identity, MeshKey, TrustError, derive_mesh_key, identity_of
from tests.net.patience import wait_for

ANNA = identity_of(b"a" * 32)
KEY = derive_mesh_key(b"k" * 32)
OTHER_KEY = derive_mesh_key(b"o" * 32)

Context = zmq.Context[zmq.Socket[bytes]]


class Door:
    """A guarded listening socket, and callers who knock at it."""

    def __init__(self, context: Context, domain: bytes = b"control") -> None:
        self.context = context
        self.router = context.socket(zmq.ROUTER)
        self.router.linger = 0
        gate.guard(self.router, domain, KEY.server_secret)
        self.port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.callers: list[zmq.Socket[bytes]] = []

    def call(self, identity: Identity = ANNA, key: MeshKey = KEY) -> zmq.Socket[bytes]:
        """A caller whose frame waits for the door to open."""
        caller = self.context.socket(zmq.DEALER)
        caller.linger = 0
        gate.introduce(caller, identity, key.server_public)
        caller.connect(f"tcp://127.0.0.1:{self.port}")
        caller.send(b"hello")
        self.callers.append(caller)
        return caller

    def close(self) -> None:
        for socket in [self.router, *self.callers]:
            socket.close()


@pytest.fixture
def keeper(context: Context) -> Iterator[Gatekeeper]:
    """A gatekeeper without any policy."""
    made = Gatekeeper(context)
    yield made
    made.close()


@pytest.fixture
def door(context: Context, keeper: Gatekeeper) -> Iterator[Door]:
    """A door in the domain `control`."""
    made = Door(context)
    yield made
    made.close()


def test_admitted_caller_is_known_by_its_key(door: Door, keeper: Gatekeeper) -> None:
    """Every frame says whose it is, and the routing id is the caller's node id."""
    keeper.policy(b"control", lambda key: key == ANNA.public_key)
    door.call()
    routing_id, frame = door.router.recv_multipart(copy=False)
    assert gate.proven_key(frame) == ANNA.public_key
    assert routing_id.bytes.hex() == ANNA.node_id
    assert keeper.admitted == 1


def test_caller_whom_the_policy_refuses_stays_outside(door: Door, keeper: Gatekeeper) -> None:
    """A refusal is counted by its reason, and nothing the caller sent arrives."""
    keeper.policy(b"control", lambda _: False)
    door.call()
    wait_for(lambda: keeper.refused["key refused"])
    assert not door.router.poll(50)
    assert keeper.admitted == 0


def test_without_a_policy_nobody_is_admitted(door: Door, keeper: Gatekeeper) -> None:
    """A domain that was forgotten is closed."""
    keeper.policy(b"another", lambda _: True)
    door.call()
    wait_for(lambda: keeper.refused["no policy"])


def test_policy_that_raises_admits_nobody_and_ends_nothing(door: Door, keeper: Gatekeeper) -> None:
    """A broken policy refuses; a mended one is asked again."""

    def broken(_: bytes) -> bool:
        raise RuntimeError("broken")

    keeper.policy(b"control", broken)
    door.call()
    wait_for(lambda: keeper.refused["policy failed"])
    keeper.policy(b"control", lambda _: True)
    door.call(identity_of(b"b" * 32))
    assert door.router.recv_multipart()[1] == b"hello"


def test_wrong_mesh_key_does_not_even_reach_the_policy(door: Door, keeper: Gatekeeper) -> None:
    """Whoever does not know the server's key cannot finish a handshake."""
    asked: list[bytes] = []
    keeper.policy(b"control", lambda key: asked.append(key) is None)
    door.call(key=OTHER_KEY)
    door.call(identity_of(b"b" * 32))
    assert door.router.recv_multipart()[1] == b"hello"
    assert asked == [identity_of(b"b" * 32).public_key]


def test_without_a_gatekeeper_nobody_is_admitted(context: Context) -> None:
    """A daemon that forgets its gatekeeper fails closed."""
    door = Door(context)
    door.call()
    assert not door.router.poll(300)
    door.close()


def test_closing_ends_the_thread(context: Context) -> None:
    """No thread outlives its owner, and closing twice is fine."""
    keeper = Gatekeeper(context)
    assert keeper.alive
    keeper.close()
    keeper.close()
    assert not keeper.alive
    assert "meshd-gatekeeper" not in {thread.name for thread in threading.enumerate()}


def test_context_has_one_gatekeeper(context: Context, keeper: Gatekeeper) -> None:
    """A second one would be asked nothing, so it is refused."""
    assert keeper.alive
    with pytest.raises(TrustError, match="already has a gatekeeper"):
        Gatekeeper(context)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ([b"1.0", b"7"], b"malformed"),
        ([b"9.9", b"7", b"control", b"", b"", b"CURVE", b"k" * 32], b"malformed"),
        ([b"1.0", b"7", b"control", b"", b"", b"NULL"], b"not curve"),
        ([b"1.0", b"7", b"control", b"", b"", b"PLAIN", b"user", b"word"], b"not curve"),
    ],
)
def test_question_that_is_not_about_curve_is_refused(
    context: Context, keeper: Gatekeeper, question: list[bytes], answer: bytes
) -> None:
    """Only what RFC 27 says of CURVE is answered with yes."""
    keeper.policy(b"control", lambda _: True)
    with context.socket(zmq.REQ) as asker:
        asker.connect(gate.ZAP_ENDPOINT)
        asker.send_multipart(question)
        assert asker.recv_multipart() == [b"1.0", b"7", b"400", answer, b"", b""]


def test_frame_without_a_gatekeeper_has_no_proven_key() -> None:
    """A frame that came over no guarded connection is nobody's."""
    assert gate.proven_key(zmq.Frame(b"frame")) is None


@pytest.mark.parametrize(
    ("version", "curve", "says"),
    [((4, 3, 4), True, "libzmq 4.3.4 has known security holes"), ((4, 3, 5), False, "CURVE")],
)
def test_unfit_libzmq_is_refused_with_the_cure(
    version: tuple[int, ...], curve: bool, says: str
) -> None:
    """The owner learns what to install."""
    with pytest.raises(TrustError, match=says):
        gate.check_libzmq(version, curve=curve)


def test_this_libzmq_is_fit() -> None:
    """The wheel that the lock file names is new enough."""
    gate.check_libzmq(zmq.zmq_version_info(), curve=bool(zmq.has("curve")))

"""What only sockets have: strangers, rogue members, limits of the kernel, names and families."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from random import Random

import pytest
import zmq

from meshd.net import gatekeeper as gate
from meshd.net.dial import LinkDown, LinkUp
from meshd.net.gatekeeper import Gatekeeper
from meshd.net.transport import (
    HIGH_WATER_FRAMES,
    LINKS_MAX,
    Arrived,
    BindError,
    ZmqTransport,
    shape_control,
)
from meshd.net.trust import identity_of, vouch
from protocol import limits
from tests.net.ends import ANNA, BERT, KEY, Context, End, Ends, ZmqWorld
from tests.net.patience import wait_for


@pytest.fixture
def sockets(context: Context, gatekeeper: Gatekeeper) -> Iterator[Ends]:
    """Only the world of sockets."""
    made = Ends(ZmqWorld(context))
    yield made
    for end in list(made.made):
        made.close(end)


def stranger(end: End, words: bytes) -> socket.socket:
    """A plain TCP client of the mesh port that has said something."""
    made = socket.create_connection(("127.0.0.1", end.transport.port))
    made.sendall(words)
    return made


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n",
        Random(7).randbytes(4_096),
        b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48) + b"nonsense" * 8,
        b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(47) + Random(8).randbytes(300),
        b"\xff\x00",
    ],
    ids=["http", "random", "zmtp without encryption", "false handshake", "half open"],
)
def test_stranger_is_counted_and_nothing_else(sockets: Ends, words: bytes) -> None:
    """Whatever comes to the port, members still get through and nobody hears of it."""
    anna, bert = sockets.add(ANNA), sockets.add(BERT)
    with stranger(bert, words):
        sockets.until(lambda: bert.transport.counters["strangers"] == 1)
        anna.transport.dial(bert.link)
        sockets.until(lambda: anna.seen)
        anna.transport.send(None, bert.link, b"hello")
        sockets.until(lambda: bert.seen)
    assert bert.seen == [Arrived(ANNA.node_id, b"hello", None)]


def test_oversize_frame_ends_its_connection_only(sockets: Ends, context: Context) -> None:
    """A member that breaks the limit loses its connection before Python sees a byte."""
    bert = sockets.add(BERT)
    with context.socket(zmq.DEALER) as rogue:
        shape_control(rogue)
        gate.introduce(rogue, ANNA, KEY.server_public)
        rogue.connect(f"tcp://{bert.link}")
        rogue.send(bytes(2 * limits.CONTROL_FRAME_MAX_BYTES))
        rogue.send(b"after")
        carl = sockets.add(identity_of(b"c" * 32))
        carl.transport.dial(bert.link)
        sockets.until(lambda: carl.seen)
        carl.transport.send(None, bert.link, b"hello")
        sockets.until(lambda: b"hello" in bert.frames())
    assert set(bert.frames()) <= {b"hello", b"after"}


def test_member_cannot_send_under_anothers_routing_id(sockets: Ends, context: Context) -> None:
    """The routing id must be the hash of the key that the handshake proved."""
    bert = sockets.add(BERT)
    with context.socket(zmq.DEALER) as rogue:
        gate.introduce(rogue, ANNA, KEY.server_public)
        rogue.set(zmq.ROUTING_ID, bytes(16))
        rogue.connect(f"tcp://{bert.link}")
        rogue.send(b"hello")
        sockets.until(lambda: bert.transport.counters["sender_unproven"] == 1)
    assert bert.seen == []


@pytest.mark.parametrize(
    "parts",
    [
        [b"frame"],
        [b"frame", b"no voucher"],
        [b"frame", vouch(b"other", BERT, ANNA.public_key)],
        [b"frame", vouch(b"frame", BERT, ANNA.public_key), b"more"],
    ],
)
def test_listener_cannot_speak_for_another(
    sockets: Ends, context: Context, gatekeeper: Gatekeeper, parts: list[bytes]
) -> None:
    """Every member holds the server key, so what comes back over a link needs its own proof."""
    gatekeeper.policy(b"rogue", lambda _: True)
    anna = sockets.add(ANNA)
    with context.socket(zmq.ROUTER) as rogue:
        gate.guard(rogue, b"rogue", KEY.server_secret)
        port = rogue.bind_to_random_port("tcp://127.0.0.1")
        link = f"127.0.0.1:{port}"
        anna.transport.dial(link)
        sockets.until(lambda: anna.seen)
        anna.transport.send(None, link, b"hello")
        caller = rogue.recv_multipart()[0]
        rogue.send_multipart([caller, *parts])
        sockets.until(lambda: anna.transport.counters["sender_unproven"] == 1)
    assert anna.frames() == []


def test_flood_is_bounded_by_the_high_water_mark(sockets: Ends) -> None:
    """A peer that stops polling holds at most a full queue on each side, plus the kernel's."""
    anna, bert = sockets.add(ANNA), sockets.add(BERT)
    anna.transport.dial(bert.link)
    sockets.until(lambda: anna.seen)
    frame = bytes(60_000)
    wait_for(lambda: not anna.transport.send(None, bert.link, frame))
    kernel_frames = 16_000_000 // len(frame)
    assert anna.transport.counters["frames_out"] <= 2 * HIGH_WATER_FRAMES + kernel_frames


@pytest.mark.parametrize(
    ("host", "advice"),
    [("203.0.113.77", "choose an address of this machine with --mesh"), ("::ffff:1", "--mesh")],
)
def test_address_of_another_machine_cannot_be_bound(
    context: Context, host: str, advice: str
) -> None:
    """The line names the address and what to do."""
    transport = ZmqTransport(context, ANNA, KEY, bind_host=host, bind_port=8788, rng=Random(1))
    with pytest.raises(BindError, match=advice):
        transport.listen()
    transport.close()


def test_ipv6_listens_and_dials(context: Context, gatekeeper: Gatekeeper) -> None:
    """Brackets in a link, none in the address to listen on."""
    assert gatekeeper.alive
    anna = End(ZmqTransport(context, ANNA, KEY, bind_host="::1", bind_port=0, rng=Random(1)))
    link = f"[::1]:{anna.transport.port}"
    anna.transport.dial(link)
    wait_for(lambda: anna.turn() or anna.seen)
    assert anna.seen == [LinkUp(link)]
    anna.transport.close()


def test_names_are_resolved_without_stopping_the_loop(sockets: Ends) -> None:
    """A name of this machine works, and the address behind it is told; a name of nobody is
    unreachable."""
    anna, bert = sockets.add(ANNA), sockets.add(BERT)
    anna.transport.dial(f"localhost:{bert.transport.port}")
    anna.transport.dial("no-such-machine.invalid:8788")
    sockets.until(lambda: len(anna.seen) >= 2)
    assert LinkUp(f"localhost:{bert.transport.port}", "127.0.0.1") in anna.seen
    assert LinkDown("no-such-machine.invalid:8788", "unreachable") in anna.seen


def test_links_are_bounded(sockets: Ends) -> None:
    """A peer that gossips a thousand addresses cannot use up our sockets."""
    anna = sockets.add(ANNA)
    for number in range(LINKS_MAX + 44):
        anna.transport.dial(f"127.0.0.1:{number + 1}")
    assert anna.transport.counters["links_refused"] == 44

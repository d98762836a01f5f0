"""ZeroMQ on the loop: addresses, options, and the turns of a socket."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
import zmq

from meshd.net.gatekeeper import CURVE_OVERHEAD_BYTES
from meshd.net.relay.sockets import (
    TURN_FRAMES_MAX,
    Context,
    Counters,
    LoopSocket,
    bracketed,
    new_socket,
    tcp_address,
)
from protocol import limits
from protocol.messages import Endpoint

from .conftest import until


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.168.1.5", "tcp://192.168.1.5:8789"),
        ("fd00::5", "tcp://[fd00::5]:8789"),
        ("fe80::5%eth0", "tcp://[fe80::5%eth0]:8789"),
    ],
)
def test_an_endpoint_is_written_as_zeromq_reads_it(host: str, address: str) -> None:
    """IPv6 goes into brackets, with its scope."""
    assert tcp_address(Endpoint(host, 8788, 8789)) == address
    assert bracketed(host) in address


def test_a_socket_refuses_frames_beyond_the_limit(context: Context) -> None:
    """Oversize frames never reach Python, and ZeroMQ queues nothing for the absent."""
    with new_socket(context, zmq.DEALER, "fd00::5") as made:
        assert made.get(zmq.MAXMSGSIZE) == limits.RELAY_FRAME_MAX_BYTES + CURVE_OVERHEAD_BYTES
        assert made.get(zmq.IMMEDIATE) == 1
        assert made.get(zmq.IPV6) == 1


def test_a_rejection_is_counted_by_its_name() -> None:
    """Each reason of an inspection has a counter."""
    counters = Counters()
    for reason in ("sender_mismatch", "foreign_mesh", "replayed"):
        counters.reject(reason)
    assert (counters.sender_mismatch, counters.foreign_mesh, counters.replayed) == (1, 1, 1)


async def test_a_flood_does_not_keep_the_loop_from_others(context: Context) -> None:
    """After TURN_FRAMES_MAX frames everybody else gets a turn, and then the rest is read."""
    received: list[bytes] = []
    steps: list[int] = []
    with context.socket(zmq.PAIR) as far:
        far.bind("inproc://flood")
        near: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        near.connect("inproc://flood")
        for _ in range(3 * TURN_FRAMES_MAX):
            far.send(b"x")
        driven = LoopSocket(near, lambda: received.append(near.recv(zmq.NOBLOCK)), lambda: False)
        while len(received) < 3 * TURN_FRAMES_MAX:
            await asyncio.sleep(0)
            steps.append(len(received))
        driven.close()
        driven.close()
    assert max(after - before for before, after in pairwise([0, *steps])) <= TURN_FRAMES_MAX


async def test_a_blocked_send_is_tried_until_it_leaves(context: Context) -> None:
    """Without any signal from the socket, on_writable is called again, and then no more."""
    tries: list[int] = []

    def on_writable() -> bool:
        tries.append(1)
        return len(tries) < 3

    near: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    driven = LoopSocket(near, lambda: None, on_writable)
    driven.want_out()
    await until(lambda: len(tries) == 3)
    await asyncio.sleep(0.05)
    assert len(tries) == 3
    driven.close()


async def test_a_closed_socket_calls_nobody(context: Context) -> None:
    """Turns that were asked for before do not happen after."""
    tries: list[int] = []

    def on_writable() -> bool:
        tries.append(1)
        return True

    near: zmq.Socket[bytes] = context.socket(zmq.PAIR)
    driven = LoopSocket(near, lambda: None, on_writable)
    driven.want_out()
    await until(lambda: bool(tries))
    driven.kick()
    driven.close()
    before = len(tries)
    await asyncio.sleep(0.05)
    assert len(tries) == before


async def test_a_fault_costs_the_frame_in_hand_and_not_those_behind_it(context: Context) -> None:
    """Whoever handles one frame may fail: the loop is told, and the rest is read all the same.
    Without that the socket was deaf from then on, for ZeroMQ signals only what comes to an idle
    reader."""
    received, faults = list[bytes](), list[object]()
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: faults.append(context["exception"])
    )
    ends = [context.socket(zmq.PAIR) for _ in range(2)]
    ends[0].bind("inproc://fault")
    ends[1].connect("inproc://fault")

    def read() -> None:
        received.append(ends[0].recv(zmq.NOBLOCK))
        if received[-1] == b"odd":
            raise ArithmeticError

    for frame in (b"odd", b"one", b"odd", b"two"):
        ends[1].send(frame)
    socket = LoopSocket(ends[0], read, lambda: False)
    await until(lambda: len(received) == 4)
    assert [type(fault) for fault in faults] == [ArithmeticError, ArithmeticError]
    socket.close()
    ends[1].close(0)

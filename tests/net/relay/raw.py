"""The other end of a relay connection, by hand: it can say what a correct node never would."""

from __future__ import annotations

import asyncio
from typing import Any

import zmq

from meshd.net.relay.sockets import Context, Counters, new_socket
from meshd.net.trust import Identity
from protocol.codec import decode_relay, encode
from protocol.envelope import Envelope
from protocol.messages import RelayMessage

from .conftest import MESH


class RawEnd:
    """A bare socket that speaks for `identity`, and lies when told to."""

    def __init__(self, socket: zmq.Socket[bytes], identity: Identity) -> None:
        self.socket = socket
        self.identity = identity
        self.sequence = -1

    def frame(self, message: RelayMessage, **lies: Any) -> bytes:
        """A frame of the next number; `lies` replace fields of the envelope."""
        self.sequence += 1
        truth = {"mesh": MESH, "sender": self.identity.node_id, "boot_id": 7}
        return encode(Envelope(**{**truth, "sequence": self.sequence, **lies}), message)

    async def parts(self) -> list[bytes]:
        """The next message, as it came."""
        while not self.socket.get(zmq.EVENTS) & zmq.POLLIN:  # noqa: ASYNC110 - a bare socket
            await asyncio.sleep(0.002)
        return self.socket.recv_multipart()

    async def message(self) -> Any:
        """The next message, decoded."""
        return decode_relay((await self.parts())[-1])[1]


def dealer(
    context: Context, identity: Identity, server: Identity, port: int, routing_id: bytes = b""
) -> RawEnd:
    """An asker by hand, whose routing id libzmq draws unless one is given."""
    socket = new_socket(context, zmq.DEALER, "127.0.0.1")
    if routing_id:
        socket.set(zmq.ROUTING_ID, routing_id)
    socket.set(zmq.CURVE_SERVERKEY, server.public_key)
    socket.set(zmq.CURVE_PUBLICKEY, identity.public_key)
    socket.set(zmq.CURVE_SECRETKEY, identity.secret_key)
    socket.set(zmq.SNDTIMEO, 5_000)
    socket.connect(f"tcp://127.0.0.1:{port}")
    return RawEnd(socket, identity)


def router(context: Context, identity: Identity) -> tuple[RawEnd, int]:
    """An answering side by hand that admits everybody, and its port."""
    socket = new_socket(context, zmq.ROUTER, "127.0.0.1")
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.CURVE_SECRETKEY, identity.secret_key)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    return RawEnd(socket, identity), port


def counted(counters: Counters) -> dict[str, int]:
    """The counters of what was ignored, those that are not zero."""
    names = ("malformed", "unknown", "sender_mismatch", "foreign_mesh", "replayed", "misplaced")
    names += ("duplicate", "late", "broken", "dropped", "refused", "expired")
    return {name: getattr(counters, name) for name in names if getattr(counters, name)}

"""Transports that can reach each other, and what has happened to them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

import zmq

from meshd.net.loopback import LoopbackTransport, Network
from meshd.net.transport import Arrived, Happening, Transport, ZmqTransport
from meshd.net.trust import Identity, MeshKey, derive_mesh_key, identity_of
from tests.net.patience import wait_for

ANNA = identity_of(b"a" * 32)
BERT = identity_of(b"b" * 32)
KEY = derive_mesh_key(b"k" * 32)
OTHER_KEY = derive_mesh_key(b"o" * 32)

Context = zmq.Context[zmq.Socket[bytes]]


class World(Protocol):
    """Makes transports that can reach each other."""

    def make(self, identity: Identity, key: MeshKey = KEY, port: int = 0) -> Transport: ...


class ZmqWorld:
    """Real sockets on loopback."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def make(self, identity: Identity, key: MeshKey = KEY, port: int = 0) -> ZmqTransport:
        return ZmqTransport(
            self.context, identity, key, bind_host="127.0.0.1", bind_port=port, rng=Random(1)
        )


class MemoryWorld:
    """A network in this process."""

    def __init__(self) -> None:
        self.network = Network()

    def make(self, identity: Identity, key: MeshKey = KEY, port: int = 0) -> LoopbackTransport:
        return LoopbackTransport(self.network, identity, key, port)


class End:
    """A transport, and everything that has happened to it."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.seen: list[Happening] = []
        transport.listen()

    @property
    def link(self) -> str:
        return f"127.0.0.1:{self.transport.port}"

    def turn(self) -> None:
        self.seen += self.transport.poll(0.005)

    def frames(self) -> list[bytes]:
        return [one.frame for one in self.seen if isinstance(one, Arrived)]


class Ends:
    """Two or more ends, turned together until something is true."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.made: list[End] = []

    def add(self, identity: Identity, key: MeshKey = KEY, port: int = 0) -> End:
        end = End(self.world.make(identity, key, port))
        self.made.append(end)
        return end

    def until(self, condition: Callable[[], object]) -> None:
        def turned() -> bool:
            for end in self.made:
                end.turn()
            return bool(condition())

        wait_for(turned)

    def close(self, end: End) -> None:
        end.transport.close()
        self.made.remove(end)

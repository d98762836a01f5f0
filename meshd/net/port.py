"""The mesh port: a listening socket that outlives the ROUTERs behind it.

A mesh key may change while the node runs. A ROUTER's CURVE key is fixed when it binds, so a new key
means a new ROUTER; and to close the old one first would close the port for a moment, in which every
peer, having just lost its connection, knocks and is refused. For membership that is the proof of a
dead process. So the port belongs to us, and each ROUTER is lent a duplicate of it (ZMQ_USE_FD):
between two ROUTERs the kernel takes the knocks in.

(`unbind` and `bind` again on one ROUTER would not do either: libzmq then keeps the connections that
were accepted before, but no frame crosses them any more and neither end is told.)
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

import zmq

from meshd.net import gatekeeper

BACKLOG = 128
"""Connections the kernel holds for us: a mesh of 50 that wakes at once, and as much again."""


class BindError(Exception):
    """The mesh port cannot be opened; the text says why and what to do, in one line."""


class MeshPort:
    """An open port. Raises BindError when it cannot be opened."""

    def __init__(self, host: str, port: int) -> None:
        self._host = f"[{host}]" if ":" in host else host
        try:
            self._listening = _listen(host, port)
        except OSError as error:
            raise BindError(bind_advice(self._host, port, error)) from None
        self.number: int = self._listening.getsockname()[1]

    def router(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        shape: Callable[[zmq.Socket[bytes]], None],
        domain: bytes,
        server_secret: bytes,
    ) -> zmq.Socket[bytes]:
        """A ROUTER that accepts here from now on, as the holder of a raw secret key. Close the one
        before it first: two would share the callers out between them."""
        router = context.socket(zmq.ROUTER)
        shape(router)
        gatekeeper.guard(router, domain, server_secret)
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.ROUTER_HANDOVER, 1)
        router.set(zmq.USE_FD, os.dup(self._listening.fileno()))
        router.bind(f"tcp://{self._host}:{self.number}")
        return router

    def close(self) -> None:
        """Knocks are refused from now on. Idempotent."""
        self._listening.close()


def bind_advice(host: str, port: int, error: OSError) -> str:
    """One line for the owner: which port, why, and what to do."""
    if error.errno == errno.EADDRINUSE:
        advice = "stop the daemon that holds it, or choose another port with --mesh HOST:PORT"
    elif error.errno in {errno.EACCES, errno.EPERM}:
        advice = "choose a port above 1023 with --mesh HOST:PORT"
    else:
        advice = "choose an address of this machine with --mesh HOST:PORT"
    return f"cannot listen for the mesh on {host}:{port}: {error.strerror}; {advice}"


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket of the kind libzmq makes itself. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening

"""Listening to many quiet ZeroMQ sockets at once, at the price of those that have something to say.

`zmq_poll` asks every socket two or three times what is going on inside it, and each answer costs a
system call or two: a wake with 101 sockets, as in a mesh of fifty, took 171 us of processor time,
and takes 40 here; with 21, as in a mesh of ten, 40 and 25. A socket also has a file descriptor,
which its I/O thread makes readable when there is something to look into. So the descriptors are
waited for, and only the sockets behind those that woke are asked.

The trap is that looking takes the signal away. Whoever sends or receives on a socket makes libzmq
look into it, and what it finds there wakes nobody any more. Hence two rules:

- a socket that was found ready is asked again at the next `poll`, whatever was read of it;
- after any other use of a socket its user calls `touch`, and it is asked at the next `poll` too.
"""

from __future__ import annotations

import select
from collections.abc import Iterable
from time import monotonic

import zmq

Socket = zmq.Socket[bytes]


class Ears:
    """A poller for reading from ZeroMQ sockets, and for plain descriptors. Used by one thread."""

    def __init__(self) -> None:
        self._waiting = select.poll()
        self._sockets: dict[int, Socket] = {}
        self._descriptors: dict[Socket, int] = {}
        self._unsure: set[Socket] = set()

    def register(self, what: Socket | int, events: int = select.POLLIN) -> None:
        """Listen to a socket, or to a descriptor for these `events` of `select.poll`."""
        if isinstance(what, int):
            self._waiting.register(what, events)
            return
        descriptor = int(what.get(zmq.FD))
        self._sockets[descriptor] = what
        self._descriptors[what] = descriptor
        self._waiting.register(descriptor, select.POLLIN)
        self._unsure.add(what)

    def unregister(self, what: Socket | int) -> None:
        """Before it is closed. Raises KeyError for what was not registered."""
        if isinstance(what, int):
            self._waiting.unregister(what)
            return
        descriptor = self._descriptors.pop(what)
        del self._sockets[descriptor]
        self._waiting.unregister(descriptor)
        self._unsure.discard(what)

    def touch(self, used: Socket) -> None:
        """The socket was used, and its signal may be gone."""
        if used in self._descriptors:
            self._unsure.add(used)

    def poll(self, timeout_ms: int) -> set[Socket | int]:
        """The sockets with something to read and the descriptors with an event; waits up to
        `timeout_ms` for the first. Raises zmq.ContextTerminated."""
        until = monotonic() + timeout_ms / 1_000
        ready: set[Socket | int] = set()
        while True:
            ready |= self._readable(self._unsure)
            left_ms = 0.0 if ready else max(0.0, (until - monotonic()) * 1_000)
            woken = [descriptor for descriptor, _ in self._waiting.poll(left_ms)]
            self._unsure = {self._sockets[each] for each in woken if each in self._sockets}
            ready.update(each for each in woken if each not in self._sockets)
            ready |= self._readable(self._unsure)
            if ready or not woken or left_ms <= 0.0:
                self._unsure = {each for each in ready if not isinstance(each, int)}
                return ready
            self._unsure = set()

    def _readable(self, sockets: Iterable[Socket]) -> set[Socket | int]:
        return {each for each in sockets if int(each.get(zmq.EVENTS)) & zmq.POLLIN}

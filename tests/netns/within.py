"""Sockets and counters of another network namespace, without a process in it.

A socket belongs for life to the namespace its thread was in when it was made. So one thread can
hold a connection to a daemon in each of thirty namespaces, and watch them all.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

NETWORK = 0x40000000
"""CLONE_NEWNET of <sched.h>: the kind of namespace that is entered."""

_LIBC = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """This thread is in the namespace; "" means where it already is."""
    if not netns:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def connect(netns: str, host: str, port: int, timeout_s: float = 5.0) -> socket.socket:
    """A TCP connection made inside the namespace. Raises OSError."""
    with inside(netns):
        return socket.create_connection((host, port), timeout_s)


def interface_bytes(netns: str, interface: str) -> tuple[int, int]:
    """Bytes received and sent by an interface so far, Ethernet headers included."""
    with inside(netns):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    row = next(line for line in lines if line.strip().startswith(f"{interface}:"))
    numbers = row.split(":", 1)[1].split()
    return int(numbers[0]), int(numbers[8])


def _enter(descriptor: int) -> None:
    if _LIBC.setns(descriptor, NETWORK) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot enter a network namespace: {os.strerror(error)}")

"""From the host of a link to addresses that a socket takes.

Names are resolved in a daemon thread per look-up: the system's resolver may take ten seconds and
cannot be interrupted, and libzmq, left to do it, would stop everybody's frames meanwhile.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import cast

from meshd.address import format_host_port, is_address

ADDRESSES_MAX = 8
"""Addresses of one name that are tried."""

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
Address = tuple[int, SocketAddress]
"""An address family and what `connect` takes."""


def find_addresses(host: str, port: int, flags: int = 0) -> list[Address]:
    """The addresses of a host, in the system's order of preference; empty when it is unknown."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError):
        return []
    addresses = [(int(family), cast(SocketAddress, target)) for family, _, _, _, target in found]
    return addresses[:ADDRESSES_MAX]


def listening_host(host: str) -> str:
    """The address that a socket bound to `host` listens on; `host` itself if it is none's name."""
    found = [] if is_address(host) else find_addresses(host, 0, socket.AI_PASSIVE)
    return found[0][1][0] if found else host


def host_of(address: Address) -> str:
    """The address without its port; an IPv6 scope becomes its interface number."""
    _, target = address
    scope = target[3] if len(target) == 4 else 0
    return f"{target[0].partition('%')[0]}%{scope}" if scope else target[0]


def endpoint_url(address: Address) -> str:
    """The address as libzmq writes it."""
    return f"tcp://{format_host_port(host_of(address), address[1][1])}"


class Lookup:
    """One name look-up in a daemon thread, which ends when the system's resolver gives up."""

    def __init__(self, host: str, port: int, wake: Callable[[], None]) -> None:
        self.found: list[Address] | None = None
        """None until the look-up is over."""

        def look_up() -> None:
            self.found = find_addresses(host, port)
            wake()

        threading.Thread(target=look_up, name="meshd-resolve", daemon=True).start()

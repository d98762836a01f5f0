"""`HOST:PORT` as people write it. IPv6 hosts stand in brackets, with their scope: [fe80::1%eth0]:1.

One parser for flags, files, environment and remembered peers, and its inverse, so that an address
printed by one tool can be pasted into another.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

PORT_MAX = 65_535
"""Highest TCP port."""

LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
"""The hosts that stand for every address of a machine, and what can be typed on it instead."""

HOST_SHAPE = re.compile(r"[A-Za-z0-9._-]{1,253}")
"""A DNS name or an IPv4 address; 253 characters is the longest DNS name."""


def parse_host_port(text: str, *, zero_ok: bool = False) -> tuple[str, int]:
    """(host, port). Raises ValueError, whose text says how to write it.

    `zero_ok` admits port 0, which means "any free port" where a socket is bound.
    """
    bracketed = re.fullmatch(r"\[([^\[\]]+)\]:([0-9]{1,5})", text)
    plain = re.fullmatch(r"([^:\[\]]+):([0-9]{1,5})", text)
    found = bracketed or plain
    if not found:
        raise ValueError(
            f"{text!r} is not HOST:PORT; write 192.168.1.20:8788, or [fe80::1%eth0]:8788 for IPv6"
        )
    host, port = found[1], int(found[2])
    if bracketed:
        _check_ipv6(host)
    elif not HOST_SHAPE.fullmatch(host):
        raise ValueError(f"{host!r} is neither an address nor a host name")
    if port > PORT_MAX or (port == 0 and not zero_ok):
        raise ValueError(f"port {port} is outside {0 if zero_ok else 1}-{PORT_MAX}")
    return host, port


def format_host_port(host: str, port: int) -> str:
    """The inverse of `parse_host_port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_address(host: str) -> bool:
    """Whether the host is an IP address, with a scope perhaps: no name service is needed."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1_024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_ipv6(host: str) -> None:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise ValueError(f"{host!r} is not an IPv6 address") from None

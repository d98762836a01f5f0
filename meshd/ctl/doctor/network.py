"""Trying the network: one multicast query, and one connection to each member."""

from __future__ import annotations

import errno
import fcntl
import secrets
import socket
import sys
import termios
import time
from array import array
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from meshd.address import parse_host_port
from meshd.ctl.doctor.facts import Multicast, Reach
from meshd.ctl.doctor.ports import holder_of

GROUP = "224.0.0.251"
MDNS_PORT = 5353

LISTEN_S = 1.5
"""How long answers are waited for: mDNS responders spread theirs over half a second."""

CONNECT_S = 1.5
"""Longest wait for one connection: a LAN answers in milliseconds, a sleeping Wi-Fi in a second."""

DRAIN_S = 1.5
"""Longest wait for the large packets to be acknowledged: TCP repeats a lost one three times."""

DRAIN_LOOK_S = 0.01

REACHES_MAX = 32
"""Members tried at once."""

UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})

SO_NWRITE = 0x1024
"""macOS (sys/socket.h): bytes that were sent and not acknowledged. Linux: SIOCOUTQ, the same."""

# What a ZeroMQ client says first (ZMTP 3.0), and the head of a command of which it never says all.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
_LARGE = _GREETING + b"\x06" + (2**15).to_bytes(8, "big") + bytes(2**14)
"""More than a packet of 9,000 bytes, the largest in use; less than what TCP sends at once."""

# A question for every kind of service (RFC 6763, section 9), after its two bytes of id.
_QUESTION = (
    b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    b"\x09_services\x07_dns-sd\x04_udp\x05local\x00\x00\x0c\x00\x01"
)


def try_multicast(hosts: Sequence[str]) -> Multicast:
    """Ask who is there over each of this machine's IPv4 addresses `hosts`, and listen."""
    query = secrets.token_bytes(2) + _QUESTION
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            channel.bind(("", MDNS_PORT))
        except OSError as error:
            return Multicast(error.strerror or str(error), holder_of(MDNS_PORT, udp=True))
        sent = [_send(channel, query, host) for host in (hosts or ("0.0.0.0",))]  # noqa: S104
        if not any(sent):
            return Multicast()
        heard = _listen(channel)
    own = {sender for data, sender in heard if data == query}
    return Multicast(heard_self=bool(own), heard_others=len({s for _, s in heard} - own))


def _send(channel: socket.socket, query: bytes, host: str) -> bool:
    """Join the group on one address and ask there; whether that could be done."""
    address = socket.inet_aton(host)
    with suppress(OSError):
        group = socket.inet_aton(GROUP) + address
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    try:
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, address)
        channel.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        channel.sendto(query, (GROUP, MDNS_PORT))
    except OSError:
        return False
    return True


def _listen(channel: socket.socket) -> Collection[tuple[bytes, str]]:
    """Everything that came within LISTEN_S: the bytes, and from where."""
    heard = set()
    until = time.monotonic() + LISTEN_S
    while (left_s := until - time.monotonic()) > 0:
        channel.settimeout(left_s)
        try:
            data, sender = channel.recvfrom(9_000)
        except OSError:
            break
        heard.add((data, sender[0]))
    return heard


def try_members(peers: Sequence[Mapping[str, Any]]) -> tuple[Reach, ...]:
    """One connection to each member, at the address it is used at, else its first."""
    places = [
        (peer["name"], peer.get("address") or next(iter(peer["endpoints"]), ""))
        for peer in peers[:REACHES_MAX]
        if peer["state"] != "left"
    ]
    with ThreadPoolExecutor(REACHES_MAX) as pool:
        return tuple(pool.map(lambda place: _reach(*place), [p for p in places if p[1]]))


def _reach(name: str, address: str) -> Reach:
    host, port = parse_host_port(address)
    try:
        with socket.create_connection((host, port), CONNECT_S) as channel:
            outcome = "choked" if _choked(channel) else "open"
    except TimeoutError:
        outcome = "silent"
    except ConnectionRefusedError:
        outcome = "refused"
    except OSError as error:
        outcome = "unreachable" if error.errno in UNREACHABLE else "error"
    return Reach(name, address, outcome)


def _choked(channel: socket.socket) -> bool:
    """Whether large packets do not get to the other end: its kernel acknowledges those that do.
    One that ended the connection has got them."""
    until = time.monotonic() + DRAIN_S
    with suppress(ConnectionError):
        channel.sendall(_LARGE)
        while _unacknowledged_bytes(channel):
            if time.monotonic() > until:
                return True
            time.sleep(DRAIN_LOOK_S)
    return False


def _unacknowledged_bytes(channel: socket.socket) -> int:
    if sys.platform == "darwin":
        return channel.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
    found = array("i", [0])
    fcntl.ioctl(channel, termios.TIOCOUTQ, found)
    return found[0]

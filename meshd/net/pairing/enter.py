"""The newcomer at the door: knock everywhere at once, and talk to the first that opens.

A person types the mesh port, the door's port, or only a host, and a token names several addresses
of which some lead nowhere from here. So all of them are dialled together, and the first connection
that finishes its handshake is a door: nothing else holds the door's key pair. Only with that one
the exchange is begun, because each is a try.

Everything here waits, at most NAME_WAIT_S + CONNECT_WAIT_S + 2 x ANSWER_WAIT_S; callers with a
loop run it in a thread.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence

import zmq

from meshd.address import PORT_MAX, format_host_port, parse_host_port
from meshd.net.lookup import Address, Lookup, endpoint_url
from meshd.net.pairing.door import DOOR_PUBLIC, PORT_STEP, shape_door
from meshd.net.pairing.exchange import Entry
from meshd.net.pairing.invitation import Invitation, code_invitation, is_token, read_token
from meshd.net.pairing.refusal import PairingError
from protocol.pairing import Welcome

MESH_PORT = 8788
"""The mesh port when only a host is typed."""

NAME_WAIT_S = 5.0
"""mDNS answers for a `.local` name within one second, a DNS server within two."""

CONNECT_WAIT_S = 5.0
"""Connection and handshake, for a member that is there: 1 s on a busy Pi and a bad Wi-Fi."""

ANSWER_WAIT_S = 10.0
"""One answer at the door; as long as the member keeps an exchange open."""

PLACES_MAX = 16
"""Addresses dialled at once."""


def read_invitation(text: str, at: str | None) -> tuple[Invitation, tuple[str, ...]]:
    """What was typed after `meshctl join`, and where to knock; () when it has to be looked for.

    Raises PairingError.
    """
    typed = door_places(at) if at is not None else ()
    if is_token(text):
        invitation, places = read_token(text)
        return invitation, typed or places
    return code_invitation(text), typed


def door_places(at: str) -> tuple[str, ...]:
    """Where the door may be, given what a person typed after --at. Raises PairingError."""
    try:
        host, port = parse_host_port(at if _has_port(at) else f"{_bracketed(at)}:{MESH_PORT}")
    except ValueError as error:
        raise PairingError(f"--at: {error}") from None
    ports = [p for p in (port, port + PORT_STEP) if p <= PORT_MAX]
    return tuple(format_host_port(host, p) for p in ports)


def enter(
    invitation: Invitation,
    places: Sequence[str],
    public_key: bytes,
    *,
    context: zmq.Context[zmq.Socket[bytes]],
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> Welcome:
    """Go through the exchange at the first of `places` that is a door. Raises PairingError."""
    addresses = _addresses(places)
    if not addresses:
        raise PairingError(
            f"no address is known here for {' or '.join(places)}; check the name, or the interface "
            "after the %, or give another address of the member: --at HOST:PORT"
        )
    dealers = [_dealer(context, address) for address in addresses]
    try:
        door = _first_open(dealers)
        if door is None:
            raise PairingError(
                f"no pairing window is open at {' or '.join(places)}; run `meshctl pair` on a "
                "member, and give its address and the port it shows: --at HOST:PORT"
            )
        return _talk(door, Entry(invitation, public_key, entropy))
    finally:
        for dealer in dealers:
            dealer.close(0)


def _talk(door: zmq.Socket[bytes], entry: Entry) -> Welcome:
    step: bytes | Welcome = entry.hello
    while isinstance(step, bytes):
        door.send(step)
        if not door.poll(int(ANSWER_WAIT_S * 1_000)):
            raise PairingError(
                "the member stopped answering in the middle of pairing; "
                "look whether it still runs, and take a fresh code"
            )
        step = entry.receive(door.recv_multipart()[-1])
    return step


def _first_open(dealers: Sequence[zmq.Socket[bytes]]) -> zmq.Socket[bytes] | None:
    """The first whose handshake is finished: with IMMEDIATE only such a socket takes a frame."""
    poller = zmq.Poller()
    for dealer in dealers:
        poller.register(dealer, zmq.POLLOUT)
    until = time.monotonic() + CONNECT_WAIT_S
    while (left_s := until - time.monotonic()) > 0:
        ready = dict(poller.poll(int(left_s * 1_000)))
        found = next((dealer for dealer in dealers if dealer in ready), None)
        if found is not None:
            return found
    return None


def _addresses(places: Sequence[str]) -> list[Address]:
    """All addresses of the places. Looked up here, because libzmq would take the first of each, of
    IPv4 alone, and ask for it in the thread that moves all frames of this node."""
    over = threading.Semaphore(0)
    lookups = [Lookup(*parse_host_port(place), over.release) for place in places[:PLACES_MAX]]
    until = time.monotonic() + NAME_WAIT_S
    for _ in lookups:
        over.acquire(timeout=max(0.0, until - time.monotonic()))
    return [address for lookup in lookups for address in lookup.found or ()][:PLACES_MAX]


def _dealer(context: zmq.Context[zmq.Socket[bytes]], address: Address) -> zmq.Socket[bytes]:
    """A socket on its way to a door, under a key of its own: nobody learns who knocks in vain."""
    dealer = context.socket(zmq.DEALER)
    shape_door(dealer, ":" if address[0] == socket.AF_INET6 else "")
    public, secret = zmq.curve_keypair()
    dealer.set(zmq.CURVE_SERVERKEY, DOOR_PUBLIC)
    dealer.set(zmq.CURVE_PUBLICKEY, public)
    dealer.set(zmq.CURVE_SECRETKEY, secret)
    dealer.connect(endpoint_url(address))
    return dealer


def _has_port(at: str) -> bool:
    return (at.startswith("[") and "]:" in at) or at.count(":") == 1


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host

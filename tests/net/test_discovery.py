"""Nodes find each other over real mDNS on the loopback interface, and trouble stays inside.

Other programs may be on the same multicast group, so nothing here counts what it did not send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from meshd.core.effects import Notice
from meshd.net.discovery import Discovery, Pace, multicast_hosts
from meshd.net.interfaces import InterfaceAddress
from protocol.service import NodeAdvert
from tests.net.patience import wait_for

LOOPBACK = InterfaceAddress("lo", 1, "127.0.0.1")
SECOND = InterfaceAddress("lo", 1, "127.0.0.2")
QUICK = Pace(snapshot_s=0.05, reoffer_s=0.1, quiet_s=0.1, restart_s=0.05)

MESH = "mesh of this test"


class Node:
    """One node's discovery, and all that it has said."""

    def __init__(self, letter: str, port: int, mesh: str, door: int = 0, **options: Any) -> None:
        self.node_id = letter * 32
        self.candidates: list[tuple[str, str]] = []
        self.notices: list[Notice] = []
        arguments: dict[str, Any] = {
            "bind_host": "127.0.0.1",
            "read": lambda: [LOOPBACK],
            "on_candidate": lambda link, node_id: self.candidates.append((link, node_id)),
        }
        self.discovery = Discovery(
            NodeAdvert(self.node_id, mesh, port, port + 1, door),
            on_notice=self.notices.append,
            **(arguments | options),
        )
        self.discovery.start()


Start = Callable[..., Node]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts nodes; no thread of theirs outlives the test."""
    started: list[Node] = []

    def start_one(letter: str, port: int, mesh: str = MESH, **options: Any) -> Node:
        started.append(Node(letter, port, mesh, **options))
        return started[-1]

    yield start_one
    for node in started:
        node.discovery.stop()
    assert "meshd-discovery" not in {thread.name for thread in threading.enumerate()}


def test_two_nodes_find_each_other(start: Start) -> None:
    """Whoever comes second is heard by the first, and hears it."""
    anna = start("a", 18001)
    wait_for(lambda: anna.discovery.addresses)
    bert = start("b", 18002)
    wait_for(lambda: ("127.0.0.1:18002", bert.node_id) in anna.candidates)
    wait_for(lambda: ("127.0.0.1:18001", anna.node_id) in bert.candidates)
    assert not anna.notices


def test_other_mesh_is_heard_but_never_offered(start: Start) -> None:
    """A neighbour's mesh on the same network is a number."""
    anna, eve = start("a", 18001), start("e", 18003, "mesh next door")
    wait_for(lambda: anna.discovery.counters()["discovery_foreign"])
    assert eve.node_id not in [node_id for _, node_id in anna.candidates]
    assert anna.discovery.heard_at is not None


def test_what_is_known_is_offered_again(start: Start) -> None:
    """The member table may have forgotten it meanwhile."""
    anna, bert = start("a", 18001, pace=QUICK), start("b", 18002)
    wait_for(lambda: anna.candidates.count(("127.0.0.1:18002", bert.node_id)) >= 3)


def test_node_that_stops_is_not_offered_any_more(start: Start) -> None:
    """A clean stop takes the advert back."""
    anna, bert = start("a", 18001), start("b", 18002)
    wait_for(lambda: anna.candidates)
    bert.discovery.stop()
    wait_for(lambda: not anna.discovery.known())


def test_who_goes_while_discovery_begins_anew_is_not_offered_for_ever(start: Start) -> None:
    """Adverts expire in the memory of the sockets that heard them, and end with those."""
    quarrel = threading.Event()

    def read() -> Iterable[InterfaceAddress]:
        if quarrel.is_set():
            raise OSError(101, "Network is unreachable")
        return [LOOPBACK]

    anna, bert = start("a", 18001, read=read, pace=QUICK), start("b", 18002, door=18004)
    wait_for(lambda: anna.discovery.known() and anna.discovery.doors())
    quarrel.set()
    wait_for(lambda: anna.discovery.counters()["discovery_failures"])
    bert.discovery.stop()
    quarrel.clear()
    wait_for(lambda: anna.discovery.addresses)
    assert not anna.discovery.known()
    assert not anna.discovery.doors()


def test_discovery_follows_the_addresses_of_the_machine(start: Start) -> None:
    """After a change of network the node is announced at its new address."""
    addresses = [LOOPBACK]
    anna = start("a", 18001)
    bert = start("b", 18002, read=lambda: list(addresses), bind_host="0.0.0.0")
    wait_for(lambda: ("127.0.0.1:18002", bert.node_id) in anna.candidates)
    addresses[:] = [SECOND]
    bert.discovery.look_again()
    wait_for(lambda: ("127.0.0.2:18002", bert.node_id) in anna.candidates)


def test_node_without_an_address_waits_for_one(start: Start) -> None:
    """A laptop that starts in flight mode joins when it lands; the owner is told once."""
    addresses: list[InterfaceAddress] = []
    anna = start("a", 18001, read=lambda: list(addresses), pace=QUICK)
    wait_for(lambda: anna.notices)
    addresses.append(LOOPBACK)
    wait_for(lambda: anna.discovery.addresses == (LOOPBACK,))
    assert [notice.text for notice in anna.notices][:1] == [
        "no usable address on interfaces: mDNS waits for one"
    ]


def test_interface_that_does_not_exist_is_named(start: Start) -> None:
    """A typing error in `--interface` is one line, not silence."""
    anna = start("a", 18001, interfaces=("eth9",), pace=QUICK)
    wait_for(lambda: anna.notices)
    assert anna.notices[0].text == "no usable address on interface eth9: mDNS waits for one"


def test_failure_is_said_once_and_tried_again(start: Start) -> None:
    """Whatever mDNS does, discovery comes back by itself and nothing is raised out."""
    failures = iter([OSError(101, "Network is unreachable")] * 3)

    def read() -> Iterable[InterfaceAddress]:
        for failure in failures:
            raise failure
        return [LOOPBACK]

    anna = start("a", 18001, read=read, pace=QUICK)
    wait_for(lambda: anna.discovery.addresses)
    assert anna.discovery.counters()["discovery_failures"] == 3
    said = [notice.text for notice in anna.notices if "Errno 101" in notice.text]
    assert len(said) == 1
    assert "peers named with --peer and remembered ones still do" in said[0]


def test_silence_is_said_once(start: Start) -> None:
    """A network that swallows multicast is told from a mesh of one by the owner."""
    anna = start("a", 18001, "mesh of one", pace=QUICK)
    wait_for(lambda: anna.notices or anna.discovery.heard_at)
    assert all("--peer HOST:PORT" in notice.text for notice in anna.notices)


def test_listener_that_raises_ends_nothing(start: Start) -> None:
    """A bug behind `on_candidate` is a notice; discovery goes on."""

    def broken(*_: object) -> None:
        raise RuntimeError("bug")

    anna = start("a", 18001, on_candidate=broken)
    start("b", 18002)
    wait_for(lambda: anna.discovery.counters()["discovery_failures"])
    assert anna.discovery.alive


def test_stopping_is_idempotent_and_needs_no_start() -> None:
    """Whoever closes the daemon need not know how far it came."""
    never = Discovery(
        NodeAdvert("a" * 32, MESH, 1, 2), on_candidate=print, on_notice=print, bind_host="127.0.0.1"
    )
    never.stop()
    assert not never.alive
    never.start()
    never.stop()
    never.stop()
    assert not never.alive


def test_one_ipv6_address_per_interface_is_bound() -> None:
    """Joining a group twice on one interface is an error for IPv6 and harmless for IPv4."""
    found = [
        InterfaceAddress("eth0", 2, "192.168.1.7"),
        InterfaceAddress("eth0", 2, "2001:db8:1::7"),
        InterfaceAddress("eth0", 2, "fe80::2"),
        InterfaceAddress("eth1", 3, "fe80::3"),
    ]
    assert multicast_hosts(found) == ["192.168.1.7", "2001:db8:1::7", "fe80::3"]

"""Which addresses a node tells others, and in which order."""

from __future__ import annotations

import pytest

from meshd.net.interfaces import (
    InterfaceAddress,
    address_rank,
    advertised_endpoints,
    read_interfaces,
    usable_addresses,
)
from protocol import limits

LAPTOP = (
    InterfaceAddress("lo", 1, "127.0.0.1"),
    InterfaceAddress("lo", 1, "::1"),
    InterfaceAddress("wlan0", 3, "fe80::2"),
    InterfaceAddress("wlan0", 3, "2001:db8:1::7"),
    InterfaceAddress("wlan0", 3, "192.168.1.7"),
    InterfaceAddress("docker0", 5, "172.17.0.1"),
    InterfaceAddress("br-3fa1", 6, "172.18.0.1"),
    InterfaceAddress("vethab12", 7, "fe80::5"),
    InterfaceAddress("virbr0", 8, "192.168.122.1"),
    InterfaceAddress("utun3", 9, "10.8.0.2"),
)


def hosts(bind_host: str, *allowed: str) -> list[str]:
    return [one.host for one in usable_addresses(LAPTOP, bind_host, allowed)]


def test_ipv4_only_listener_advertises_ipv4_only() -> None:
    """An address where nobody listens would cost every peer a timeout."""
    assert hosts("0.0.0.0") == ["192.168.1.7"]


def test_listener_on_everything_ranks_what_it_has() -> None:
    """Private IPv4, then global IPv6, then link-local with its scope."""
    assert hosts("::") == ["192.168.1.7", "2001:db8:1::7", "fe80::2%wlan0"]


def test_bridges_and_tunnels_count_when_the_owner_says_so() -> None:
    """`--interface` overrules the list of names that lead nowhere."""
    assert hosts("0.0.0.0", "docker0", "utun3") == ["172.17.0.1", "10.8.0.2"]


def test_interface_that_does_not_exist_gives_nothing() -> None:
    """A typing error must not fall back to announcing everywhere."""
    assert hosts("0.0.0.0", "eth9") == []


def test_loopback_counts_only_alone() -> None:
    """Two nodes on a laptop in a train still meet."""
    offline = LAPTOP[:2]
    assert [one.host for one in usable_addresses(offline, "0.0.0.0")] == ["127.0.0.1"]


@pytest.mark.parametrize("name", ["br0", "bridge0", "eth0", "en0", "enp3s0", "bond0", "wg0"])
def test_real_interfaces_are_not_skipped(name: str) -> None:
    """A bridged LAN is `br0`, Thunderbolt between two Macs is `bridge0`."""
    found = [InterfaceAddress(name, 2, "10.0.0.1")]
    assert usable_addresses(found, "0.0.0.0")


@pytest.mark.parametrize("name", ["docker0", "br-1a", "veth0", "virbr0", "utun0", "bridge100"])
def test_interfaces_that_lead_nowhere_are_skipped(name: str) -> None:
    """Their addresses are equal on every machine, or belong to virtual ones."""
    found = [InterfaceAddress(name, 2, "10.0.0.1"), InterfaceAddress("eth0", 3, "192.0.2.1")]
    assert [one.interface for one in usable_addresses(found, "0.0.0.0")] == ["eth0"]


@pytest.mark.parametrize(
    ("address", "rank"),
    [
        ("10.0.0.1", 0),
        ("172.16.0.1", 0),
        ("192.168.0.1", 0),
        ("8.8.8.8", 1),
        ("100.64.0.1", 1),
        ("fd00::1", 2),
        ("2606:4700::1", 3),
        ("169.254.1.1", 4),
        ("fe80::1", 5),
        ("127.0.0.1", 6),
        ("::1", 6),
    ],
)
def test_rank_row_by_row(address: str, rank: int) -> None:
    """What a home network runs on comes first."""
    assert address_rank(address) == rank


@pytest.mark.parametrize("host", ["192.168.1.7", "127.0.0.1", "fe80::2%wlan0"])
def test_listener_on_one_address_advertises_that_one(host: str) -> None:
    """No interface needs to be read."""
    endpoints = advertised_endpoints(host, control_port=1, relay_port=2, read=lambda: ())
    assert [(one.host, one.control_port, one.relay_port) for one in endpoints] == [(host, 1, 2)]


def test_endpoints_are_bounded() -> None:
    """A router with a hundred addresses still fits in a record."""
    many = [InterfaceAddress("eth0", 2, f"10.0.0.{number}") for number in range(100)]
    endpoints = advertised_endpoints("0.0.0.0", control_port=1, relay_port=2, read=lambda: many)
    assert [one.host for one in endpoints] == [
        f"10.0.0.{number}" for number in range(limits.ENDPOINTS_MAX)
    ]


def test_this_machine_can_be_read() -> None:
    """Loopback is always there, and scopes have been taken off."""
    found = read_interfaces()
    assert "127.0.0.1" in [one.address for one in found]
    assert not any("%" in one.address for one in found)

"""Where others can reach this node: its addresses, the most useful first.

A machine has more addresses than ways to be reached. Container bridges, virtual machines and
tunnels carry addresses that are equal on every machine or lead nowhere, and a node that advertises
one of them collects connection attempts that time out. So: skip what is known to lead nowhere,
rank the rest, and let the owner overrule with `--interface NAME`.

Rank: private IPv4 (what a home network runs on), other IPv4, unique local IPv6, other IPv6, IPv4
link-local (two machines on one cable), IPv6 link-local with its scope. Loopback counts only when
there is nothing else, so that two nodes on one laptop in a train still meet.

A node that listens on one address advertises that one. IPv6 is advertised when the node listens on
it, which `0.0.0.0` does not and `::` does (for both families).

Left out on purpose: ranking by link speed or by wire against Wi-Fi. The name of an interface says
neither, and whoever dials remembers which address answered.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from protocol import limits
from protocol.frozen import frozen
from protocol.messages import Endpoint

ANY_IPV4 = "0.0.0.0"  # noqa: S104 - the name of the wildcard, not a socket bound to it
ANY_IPV6 = "::"

SKIPPED_PREFIXES = (
    "docker", "br-", "veth", "virbr", "podman", "cni", "flannel", "lxcbr", "lxdbr",  # containers
    "vmnet", "vboxnet", "bridge1",  # virtual machines; macOS numbers their bridges from 100
    "utun", "tun", "tap", "awdl", "llw",  # tunnels, and Apple's peer-to-peer radio
)  # fmt: skip
"""Interfaces that lead nowhere useful. `br0` and `bridge0` are real: a bridged LAN, Thunderbolt."""


@frozen
class InterfaceAddress:
    """One address of one interface; `index` is the system's number for the interface."""

    interface: str
    index: int
    address: str

    @property
    def host(self) -> str:
        """As an endpoint names it: link-local IPv6 with its scope."""
        scoped = ":" in self.address and ipaddress.ip_address(self.address).is_link_local
        return f"{self.address}%{self.interface}" if scoped else self.address


def read_interfaces() -> tuple[InterfaceAddress, ...]:
    """Every address of this machine now, in the system's order. Takes well below 1 ms."""
    import ifaddr

    return tuple(
        InterfaceAddress(
            str(adapter.nice_name),
            adapter.index or 0,
            entry.ip if isinstance(entry.ip, str) else entry.ip[0].partition("%")[0],
        )
        for adapter in ifaddr.get_adapters()
        for entry in adapter.ips
    )


def advertised_endpoints(
    bind_host: str,
    *,
    control_port: int,
    relay_port: int,
    allowed: Sequence[str] = (),
    read: Callable[[], Iterable[InterfaceAddress]] = read_interfaces,
) -> tuple[Endpoint, ...]:
    """The endpoints of a node that listens on `bind_host`, best first, at most ENDPOINTS_MAX."""
    if is_wildcard(bind_host):
        hosts = [found.host for found in usable_addresses(read(), bind_host, allowed)]
    else:
        hosts = [bind_host]
    return tuple(Endpoint(host, control_port, relay_port) for host in hosts[: limits.ENDPOINTS_MAX])


def usable_addresses(
    found: Iterable[InterfaceAddress], bind_host: str, allowed: Sequence[str] = ()
) -> tuple[InterfaceAddress, ...]:
    """Those of `found` at which a node that listens on `bind_host` can be reached, best first.

    `allowed` names the only interfaces that count, whatever they are; empty means the usual choice.
    """
    reachable = [one for one in found if _listens_on(bind_host, one)]
    if allowed:
        chosen = [one for one in reachable if one.interface in allowed]
    else:
        chosen = [one for one in reachable if not one.interface.startswith(SKIPPED_PREFIXES)]
    remote = [one for one in chosen if not ipaddress.ip_address(one.address).is_loopback]
    return tuple(sorted(remote or chosen, key=lambda one: address_rank(one.address)))


def address_rank(address: str) -> int:
    """How useful an address (without scope) is to others; lower is better."""
    ip = ipaddress.ip_address(address)
    if ip.is_loopback:
        return 6
    if isinstance(ip, ipaddress.IPv4Address):
        if ip.is_link_local:
            return 4
        return 0 if ip.is_private else 1
    if ip.is_link_local:
        return 5
    return 2 if ip.is_private else 3


def is_wildcard(bind_host: str) -> bool:
    """Whether listening on this host means listening on every interface."""
    return bind_host in {ANY_IPV4, ANY_IPV6}


def _listens_on(bind_host: str, one: InterfaceAddress) -> bool:
    if bind_host == ANY_IPV6:
        return True
    if bind_host == ANY_IPV4:
        return ":" not in one.address
    return one.address == bind_host.partition("%")[0]

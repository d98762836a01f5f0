"""Which adverts make candidates: the rules of discovery, without its sockets.

What is heard over mDNS is unauthenticated: it may be stale, forged or endless. An advert with our
mesh label becomes links to try, each of which then has to complete a CURVE handshake. Adverts of
other meshes are counted, our own is ignored, and only so many are kept. An advert that disappears
takes nothing with it: whether a member lives is for membership to say.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from meshd.address import format_host_port
from meshd.net.interfaces import address_rank
from protocol import limits
from protocol.errors import ProtocolError
from protocol.frozen import frozen
from protocol.service import NodeAdvert, advert_from_txt

ADVERTS_MAX = 256
"""Nodes whose adverts are kept. A flood beyond it is counted and ignored."""

COUNTERS = ("adverts", "foreign", "malformed", "ignored")


@frozen
class Offer:
    """Links at which a node may be found, the most useful first."""

    node_id: str
    links: tuple[str, ...]


class AdvertBook:
    """The adverts of our mesh that have not expired, and how many others were heard."""

    def __init__(self, myself: NodeAdvert, adverts_max: int = ADVERTS_MAX) -> None:
        self._myself = myself
        self._adverts_max = adverts_max
        self._offers: dict[str, Offer] = {}
        self._doors: dict[str, tuple[str, ...]] = {}
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.heard_at: float | None = None
        """When another node's advert was last heard (monotonic s), None until one is."""

    def heard(
        self,
        name: str,
        txt: Mapping[bytes, bytes | None],
        port: int | None,
        hosts: Sequence[str],
        now: float,
    ) -> Offer | None:
        """What to try because of an advert, None when there is nothing to try."""
        try:
            advert = advert_from_txt(txt, port)
        except ProtocolError:
            self.counters["malformed"] += 1
            return None
        if advert.node_id == self._myself.node_id:
            return None
        self.heard_at = now
        self._note_door(name, advert, hosts)
        if advert.mesh != self._myself.mesh:
            self.counters["foreign"] += 1
            return None
        if name not in self._offers and len(self._offers) >= self._adverts_max:
            self.counters["ignored"] += 1
            return None
        self.counters["adverts"] += 1
        offer = self._offers[name] = Offer(advert.node_id, links_of(hosts, advert.control_port))
        return offer

    def gone(self, name: str) -> None:
        """An advert has expired, or was taken back."""
        self._offers.pop(name, None)
        self._doors.pop(name, None)

    def forget(self) -> None:
        """Nobody will say any more which of these expire; what is still there is heard again."""
        self._offers.clear()
        self._doors.clear()

    def doors(self) -> tuple[tuple[str, ...], ...]:
        """Where newcomers are awaited now, in any mesh: the links of each open door."""
        return tuple(self._doors.values())

    def _note_door(self, name: str, advert: NodeAdvert, hosts: Sequence[str]) -> None:
        if not advert.door_port:
            self._doors.pop(name, None)
        elif name in self._doors or len(self._doors) < self._adverts_max:
            self._doors[name] = links_of(hosts, advert.door_port)

    def __iter__(self) -> Iterator[Offer]:
        return iter(list(self._offers.values()))


def links_of(hosts: Sequence[str], port: int) -> tuple[str, ...]:
    """The links to try for an advert, most useful first, at most ENDPOINTS_MAX.

    Unscoped link-local IPv6 is left out: nobody can connect to it.
    """
    usable = [host for host in hosts if _can_be_dialled(host)]
    usable.sort(key=lambda host: address_rank(host.partition("%")[0]))
    return tuple(format_host_port(host, port) for host in usable[: limits.ENDPOINTS_MAX])


def _can_be_dialled(host: str) -> bool:
    address, percent, _ = host.partition("%")
    ip = ipaddress.ip_address(address)
    if ip.is_unspecified or ip.is_multicast:
        return False
    return ip.version == 4 or bool(percent) or not ip.is_link_local

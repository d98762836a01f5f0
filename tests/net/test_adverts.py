"""Which adverts make candidates, without any network."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from meshd.net.adverts import AdvertBook, Offer, links_of
from protocol import limits
from protocol.service import NodeAdvert, advert_to_txt

ANNA = NodeAdvert("aa" * 16, "our mesh", 8788, 8789)
BERT = NodeAdvert("bb" * 16, "our mesh", 9001, 9002)
EVE = NodeAdvert("ee" * 16, "another mesh", 8788, 8789)
HOSTS = ["192.168.1.7"]


def hear(book: AdvertBook, advert: NodeAdvert, now: float = 5.0) -> Offer | None:
    name = f"{advert.node_id}._meshd._tcp.local."
    return book.heard(name, advert_to_txt(advert), advert.control_port, HOSTS, now)


def test_advert_of_our_mesh_is_an_offer() -> None:
    """The link has the port of the SRV record; the node id is only expected."""
    assert hear(AdvertBook(ANNA), BERT) == Offer(BERT.node_id, ("192.168.1.7:9001",))


def test_own_advert_is_silence() -> None:
    """A node that hears itself has not heard anybody."""
    book = AdvertBook(ANNA)
    assert hear(book, ANNA) is None
    assert book.heard_at is None


def test_other_mesh_is_counted_and_proves_that_multicast_works() -> None:
    """Not ours to knock at, but it was heard."""
    book = AdvertBook(ANNA)
    assert hear(book, EVE, now=7.0) is None
    assert (book.counters["foreign"], book.heard_at) == (1, 7.0)
    assert list(book) == []


@pytest.mark.parametrize(
    ("txt", "port"),
    [
        ({}, 8788),
        ({b"v": b"1"}, 8788),
        (advert_to_txt(BERT) | {b"v": b"2"}, 8788),
        (advert_to_txt(BERT) | {b"id": b"zz" * 16}, 8788),
        (advert_to_txt(BERT) | {b"id": b"\xff" * 32}, 8788),
        (advert_to_txt(BERT) | {b"mesh": b""}, 8788),
        (advert_to_txt(BERT) | {b"mesh": b"m" * 5_000}, 8788),
        (advert_to_txt(BERT) | {b"relay": b"9" * 100}, 8788),
        (advert_to_txt(BERT) | {b"relay": None}, 8788),
        (advert_to_txt(BERT), 0),
        (advert_to_txt(BERT), None),
    ],
)
def test_malformed_advert_is_counted(txt: Mapping[bytes, bytes | None], port: int | None) -> None:
    """Whatever is on the air, nothing is raised and nobody is dialled."""
    book = AdvertBook(ANNA)
    assert book.heard("name", txt, port, HOSTS, 5.0) is None
    assert book.counters["malformed"] == 1


def test_flood_is_bounded() -> None:
    """New names beyond the limit are ignored; known ones may still move."""
    book = AdvertBook(ANNA, adverts_max=2)
    flood = [NodeAdvert(f"{number:032x}", "our mesh", 8788, 8789) for number in range(5)]
    assert [hear(book, advert) is not None for advert in flood] == [True, True] + [False] * 3
    assert hear(book, flood[0]) is not None
    assert book.counters["ignored"] == 3
    assert len(list(book)) == 2


def test_advert_that_has_gone_is_not_offered_again() -> None:
    """What expired makes room for others."""
    book = AdvertBook(ANNA)
    hear(book, BERT)
    book.gone(f"{BERT.node_id}._meshd._tcp.local.")
    book.gone("never heard of")
    assert list(book) == []


def test_links_are_ranked_and_only_those_that_can_be_dialled() -> None:
    """Private IPv4 first; link-local IPv6 only with the scope it was heard on."""
    hosts = [
        "fe80::1%3",
        "2001:db8:1::7",
        "fe80::2",
        "8.8.8.8",
        "192.168.1.7",
        "0.0.0.0",
        "ff02::fb",
    ]
    assert links_of(hosts, 1) == (
        "192.168.1.7:1",
        "8.8.8.8:1",
        "[2001:db8:1::7]:1",
        "[fe80::1%3]:1",
    )


def test_links_of_one_advert_are_bounded() -> None:
    """A forged advert with a thousand addresses costs no more than an honest one."""
    hosts = [f"10.0.{number // 256}.{number % 256}" for number in range(1_000)]
    assert len(links_of(hosts, 1)) == limits.ENDPOINTS_MAX

"""The advert: four facts through DNS-SD and back, and a hint never more than a hint."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.limits import MESH_LABEL_MAX_CHARS, NODE_ID_BYTES
from protocol.service import (
    TXT_VALUE_MAX_BYTES,
    NodeAdvert,
    advert_from_txt,
    advert_to_txt,
    instance_name,
)
from tests.protocol.strategies import record_of, refusal

ADVERT = NodeAdvert("0f" * NODE_ID_BYTES, "a1b2c3d4", 8788, 8789)
TXT = advert_to_txt(ADVERT)


@given(record_of(NodeAdvert))
def test_an_advert_survives_the_journey(advert: NodeAdvert) -> None:
    """What is published is what is found."""
    assert advert_from_txt(advert_to_txt(advert), advert.control_port) == advert


@given(
    st.dictionaries(st.sampled_from([b"v", b"id", b"mesh", b"relay"]), st.none() | st.binary()),
    st.none() | st.integers(),
)
def test_any_properties_are_an_advert_or_the_one_error(
    txt: dict[bytes, bytes | None], port: int | None
) -> None:
    """mDNS carries whatever anybody on the link likes to say."""
    assert refusal(advert_from_txt, txt | {b"v": b"1"}, port) != "accepted"


@pytest.mark.parametrize("key", sorted(TXT))
def test_every_property_is_needed(key: bytes) -> None:
    """A property that is missing, or there without a value, is an error."""
    rest = {other: value for other, value in TXT.items() if other != key}
    assert refusal(advert_from_txt, rest, 8788) == "truncated"
    assert refusal(advert_from_txt, {**rest, key: None}, 8788) == "truncated"


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        (b"v", b"2", "version"),
        (b"id", b"0f", "length"),
        (b"id", b"0F" * NODE_ID_BYTES, "type"),
        (b"mesh", b"", "length"),
        (b"mesh", b"m" * (MESH_LABEL_MAX_CHARS + 1), "length"),
        (b"mesh", b"m" * (TXT_VALUE_MAX_BYTES + 1), "length"),
        (b"mesh", "Büro".encode(), "type"),
        (b"relay", b"", "type"),
        (b"relay", b"+1", "type"),
        (b"relay", "²".encode(), "type"),
        (b"relay", b"0", "range"),
        (b"relay", b"65536", "range"),
        (b"door", b"none", "type"),
        (b"door", b"0", "range"),
    ],
)
def test_a_malformed_property_is_refused(key: bytes, value: bytes, code: str) -> None:
    """Each with its code, so that the counters tell a stranger from a fault."""
    assert refusal(advert_from_txt, {**TXT, key: value}, 8788) == code


@pytest.mark.parametrize(("port", "code"), [(None, "type"), (0, "range"), (65_536, "range")])
def test_an_advert_without_a_port_is_refused(port: int | None, code: str) -> None:
    """The control port comes from the SRV record, which may be missing or absurd."""
    assert refusal(advert_from_txt, TXT, port) == code


def test_properties_of_later_versions_are_skipped() -> None:
    """Keys may be added to the advert."""
    assert advert_from_txt({**TXT, b"later": b"x", b"flag": None}, 8788) == ADVERT


def test_the_instance_is_named_by_the_key() -> None:
    """No two nodes can want the same name, so nothing needs probing for."""
    assert instance_name(ADVERT.node_id) == "0f" * 16 + "._meshd._tcp.local."


def test_an_advert_says_where_to_knock_and_nothing_else() -> None:
    """No name, no model, no load, no secret."""
    assert set(TXT) == {b"v", b"id", b"mesh", b"relay"}


def test_the_door_is_advertised_only_while_it_is_open() -> None:
    """A newcomer finds it; a node that invites nobody says nothing of it."""
    open_door = replace(ADVERT, door_port=8790)
    assert advert_to_txt(open_door)[b"door"] == b"8790"
    assert advert_from_txt(advert_to_txt(open_door), 8788) == open_door
    assert b"door" not in advert_to_txt(ADVERT)

"""The pairing plane: every message round, every other byte string refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import limits
from protocol.errors import ProtocolError, UnknownMessageError
from protocol.inventory import least, typical
from protocol.messages import KINDS, Endpoint
from protocol.pairing import (
    FRAME_MAX_BYTES,
    HEADER,
    PAIRING_KIND_OF,
    PAIRING_KINDS,
    SPONSORS_MAX,
    WELCOME_MAX_BYTES,
    PairWelcome,
    Sponsor,
    Welcome,
    decode_pairing,
    decode_welcome,
    encode_pairing,
    encode_welcome,
)
from protocol.trust import REVOKED_MAX, TrustRecord
from tests.protocol.strategies import refusal

MESSAGES = list(PAIRING_KINDS.values())


def frame_of(*values: Any) -> bytes:
    """A frame of these values."""
    packed: bytes = msgpack.packb(list(values))
    return HEADER + packed


def code_of(frame: bytes) -> str:
    """Why a frame is refused."""
    with pytest.raises(ProtocolError) as refused:
        decode_pairing(frame)
    return refused.value.code


@pytest.mark.parametrize("make", [least, typical])
@pytest.mark.parametrize("cls", MESSAGES)
def test_every_message_survives_the_wire(cls: type[Any], make: Any) -> None:
    """The smallest and the fullest of each kind come back as they were."""
    message = make(cls)
    assert decode_pairing(encode_pairing(message)) == message


@pytest.mark.parametrize("cls", MESSAGES)
def test_later_versions_may_say_more(cls: type[Any]) -> None:
    """Trailing fields, and trailing parts of the frame, are skipped."""
    kind, fields = msgpack.unpackb(encode_pairing(typical(cls))[len(HEADER) :])
    assert decode_pairing(frame_of(kind, [*fields, "more"], "and more")) == typical(cls)


def test_ids_are_of_this_plane_alone() -> None:
    """64 to 95, none of them shared with control or relay."""
    assert all(64 <= kind <= 95 for kind in PAIRING_KINDS)
    assert not PAIRING_KINDS.keys() & KINDS.keys()
    assert {PAIRING_KIND_OF[cls]: cls for cls in PAIRING_KIND_OF} == PAIRING_KINDS


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "magic"),
        (b"GET / HTTP/1.1\r\n", "magic"),
        (b"MSHD", "version"),
        (b"MSHD\x02\x92", "version"),
        (HEADER, "malformed"),
        (HEADER + b"\xc0", "type"),
        (frame_of(), "truncated"),
        (frame_of(64), "truncated"),
        (frame_of("64", []), "type"),
        (frame_of(True, []), "type"),
        (frame_of(64, []), "truncated"),
        (frame_of(66, [b"short"]), "length"),
        (frame_of(68, [1]) + b"\0", "trailing"),
        (HEADER + bytes(FRAME_MAX_BYTES + 1), "length"),
    ],
)
def test_what_is_no_message_says_why(frame: bytes, code: str) -> None:
    """One family of errors, under a fixed set of codes."""
    assert code_of(frame) == code


def test_a_later_message_is_unknown() -> None:
    """With its id, as on the other planes."""
    with pytest.raises(UnknownMessageError) as unknown:
        decode_pairing(frame_of(95, []))
    assert unknown.value.kind == 95


@settings(deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: HEADER + tail))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    """Nothing but ProtocolError comes out, of frames and of welcomes."""
    verdicts = {refusal(decode_pairing, data), refusal(decode_welcome, data)}
    assert verdicts <= {*ProtocolError.CODES, "accepted"}


def test_the_largest_welcome_fits() -> None:
    """512 revoked, 32 sponsors with eight addresses each: sealed, it is within the door's bound."""
    ids = tuple(f"{number:032x}" for number in range(REVOKED_MAX))
    endpoint = Endpoint("x" * limits.ADDRESS_MAX_CHARS, 65_535, 65_535)
    sponsor = Sponsor("ff" * 32, "漢" * limits.NAME_MAX_CHARS, (endpoint,) * limits.ENDPOINTS_MAX)
    trust = TrustRecord("f" * limits.MESH_LABEL_MAX_CHARS, 2**31 - 1, bytes(32), ids, ids)
    packed = encode_welcome(Welcome(trust, (sponsor,) * SPONSORS_MAX))
    assert decode_welcome(packed).trust == trust
    assert len(packed) + 16 <= WELCOME_MAX_BYTES
    assert len(encode_pairing(PairWelcome(packed))) <= FRAME_MAX_BYTES


def test_the_mesh_key_shows_in_no_repr() -> None:
    """What ends in a log by accident is not the key of the mesh."""
    assert "secret" not in repr(typical(Welcome))

"""The head of a frame."""

from __future__ import annotations

import pytest

from protocol.envelope import Envelope
from protocol.fields import decode_record, encode_record
from tests.protocol.strategies import refusal

ID = "0f" * 16


def test_an_envelope_is_four_elements_in_a_fixed_order() -> None:
    """Mesh, sender, boot and sequence; ids are bytes on the wire."""
    assert encode_record(Envelope("home", ID, 3, 4)) == ["home", b"\x0f" * 16, 3, 4]


@pytest.mark.parametrize(
    "envelope",
    [
        Envelope("", ID, 1, 1),
        Envelope("Büro", ID, 1, 1),
        Envelope("home", "0f" * 15, 1, 1),
        Envelope("home", ID, -1, 1),
        Envelope("home", ID, 1, 2**64),
    ],
)
def test_a_malformed_envelope_is_not_sent(envelope: Envelope) -> None:
    """Labels are short ASCII, ids whole, counters within 64 bits."""
    assert refusal(encode_record, envelope) in {"length", "range"}


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_no_part_of_an_envelope_may_be_missing(length: int) -> None:
    """Unlike a message's later fields, the four have been there from the first version."""
    assert refusal(decode_record, Envelope, ["home", b"\0" * 16, 1, 1][:length]) == "truncated"

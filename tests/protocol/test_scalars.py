"""Single values: what each kind takes, what it refuses, and in which words."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import limits
from protocol.scalars import (
    I64_MIN,
    TOKEN_ID_MAX,
    U64_MAX,
    Bool,
    Bytes,
    Choice,
    Float,
    Hex,
    Int,
    Text,
    Tokens,
    wrong_type,
)
from tests.protocol.strategies import refusal

LEVEL = Choice("low", "high", otherwise="low")
STATE = Choice("on", "off")

TAKEN: list[tuple[Any, Any, Any]] = [
    (Int(), 0, 0),
    (Int(), U64_MAX, U64_MAX),
    (Int(-5, 5), -5, -5),
    (Float(), 1.5, 1.5),
    (Float(-1.0, 1.0), -1.0, -1.0),
    (Bool(), True, True),
    (Text(3), "äöü", "äöü"),
    (Text(3, shortest=1, ascii_only=True), "abc", "abc"),
    (LEVEL, "high", 1),
    (Bytes(3), b"", b""),
    (Bytes(3, exact=True), b"abc", b"abc"),
    (Hex(2), "0aff", b"\x0a\xff"),
    (Tokens(), (), b""),
    (Tokens(), (1,), b"\x01\0\0\0"),
    (Tokens(), (0, TOKEN_ID_MAX), b"\0\0\0\0\xff\xff\xff\x7f"),
]

NOT_DECODED: list[tuple[Any, Any, str]] = [
    (Int(), True, "type"),
    (Int(), 1.0, "type"),
    (Int(), -1, "range"),
    (Int(0, 5), 6, "range"),
    (Float(), True, "type"),
    (Float(), "1.5", "type"),
    (Float(), -0.1, "range"),
    (Float(), float("nan"), "range"),
    (Float(), float("inf"), "range"),
    (Float(), 10**400, "range"),
    (Bool(), 1, "type"),
    (Text(3), b"abc", "type"),
    (Text(3), "abcd", "length"),
    (Text(3, shortest=1), "", "length"),
    (Text(3, ascii_only=True), "ä", "range"),
    (Text(3), "\ud800", "type"),
    (STATE, "on", "type"),
    (STATE, True, "type"),
    (STATE, 2, "range"),
    (STATE, -1, "range"),
    (LEVEL, -1, "range"),
    (Bytes(3), "abc", "type"),
    (Bytes(3), b"abcd", "length"),
    (Bytes(3, exact=True), b"ab", "length"),
    (Hex(2), "0aff", "type"),
    (Hex(2), b"abc", "length"),
    (Tokens(), [1], "type"),
    (Tokens(), b"abc", "length"),
    (Tokens(), b"\0\0\0\x80", "range"),
    (Tokens(), bytes(4) + b"\0\0\0\x80", "range"),
    (Tokens(), bytes(4 * limits.TOKEN_IDS_MAX + 4), "length"),
]

NOT_ENCODED: list[tuple[Any, Any, str]] = [
    (LEVEL, "medium", "range"),
    (LEVEL, 0, "type"),
    (Hex(2), "0af", "type"),
    (Hex(2), "0AFF", "type"),
    (Hex(2), "0a ff", "type"),
    (Hex(2), None, "type"),
    (Hex(2), "0a", "length"),
    (Tokens(), [1], "type"),
    (Tokens(), (True,), "type"),
    (Tokens(), (1.0, 2.0), "type"),
    (Tokens(), (-1,), "range"),
    (Tokens(), (0, TOKEN_ID_MAX + 1), "range"),
    (Tokens(), (0,) * (limits.TOKEN_IDS_MAX + 1), "length"),
]

WORDS: list[tuple[Any, str]] = [
    (Int(0, 255), "integer 0 to 255"),
    (Int(I64_MIN, U64_MAX), "integer -2^63 to 2^64-1"),
    (Float(0.0, 1e9), "number 0 to 1e+09"),
    (Bool(), "boolean"),
    (Text(1_000), "text, 0 to 1,000 characters"),
    (Text(32, 1, ascii_only=True), "ASCII text, 1 to 32 characters"),
    (STATE, "index: 0 on, 1 off"),
    (LEVEL, "index: 0 low, 1 high; others read as low"),
    (Bytes(256), "0 to 256 bytes"),
    (Bytes(32, exact=True), "32 bytes"),
    (Hex(16), "16 bytes"),
    (Tokens(), "0 to 1,048,576 token ids, 4 bytes each, little-endian"),
]


@pytest.mark.parametrize(("field", "value", "raw"), TAKEN)
def test_a_value_within_bounds_crosses_unchanged(field: Any, value: Any, raw: Any) -> None:
    """Encoding gives the documented wire form, and decoding gives the value back."""
    assert field.encode(value) == raw
    assert field.decode(raw) == value


@pytest.mark.parametrize(("field", "raw", "code"), NOT_DECODED)
def test_a_wire_form_out_of_bounds_is_refused(field: Any, raw: Any, code: str) -> None:
    """Decoding refuses other types, other ranges and other lengths, each with its code."""
    assert refusal(field.decode, raw) == code


@pytest.mark.parametrize(("field", "value", "code"), NOT_ENCODED)
def test_a_value_out_of_bounds_is_not_sent(field: Any, value: Any, code: str) -> None:
    """Encoding refuses what a receiver would, so that our own bug shows where it is."""
    assert refusal(field.encode, value) == code


@pytest.mark.parametrize(("field", "words"), WORDS)
def test_a_kind_says_in_words_what_it_allows(field: Any, words: str) -> None:
    """SPEC.md's tables are made of these words."""
    assert str(field) == words


def test_a_whole_number_is_taken_where_a_number_is_due() -> None:
    """Encoders that shorten 1.0 to 1 are understood, and the value is a float again."""
    assert type(Float().decode(1)) is float


def test_a_word_of_a_later_version_reads_as_the_safe_one() -> None:
    """A set with a fallback survives growing; what the index means is not guessed."""
    assert [LEVEL.decode(index) for index in (0, 1, 2, 2**63)] == ["low", "high", "low", "low"]


def test_a_fallback_is_one_of_the_words() -> None:
    """A set cannot fall back on a word that nobody knows."""
    with pytest.raises(AssertionError):
        Choice("on", "off", otherwise="dim")


def test_a_refusal_names_types_and_not_values() -> None:
    """Details may be logged, so they never hold what a peer sent."""
    assert str(wrong_type("integer", "secret prompt")) == "type: expected integer, got str"

"""Records: one declaration for both directions, and versions that understand each other."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.errors import ProtocolError
from protocol.fields import (
    Int,
    Known,
    ListOf,
    Optional,
    Pair,
    Record,
    Text,
    Union,
    decode_record,
    encode_record,
    record,
    record_fields,
    required_fields,
    wire,
)
from tests.protocol.strategies import refusal

BYTE = Int(0, 255)


@record
class Point:
    """As release 1.0 declares it."""

    x: int = wire(BYTE)
    y: int = wire(BYTE)


@record
class PointOf11:
    """The same record in release 1.1, with two fields appended."""

    x: int = wire(BYTE)
    y: int = wire(BYTE)
    z: int = wire(BYTE, default=7)
    label: str = wire(Text(5), default="none")


@record
class Line:
    """A record of records."""

    points: tuple[Point, ...] = wire(ListOf(Record(Point), 3))


@record
class Mark:
    """A record with one field."""

    at: int = wire(BYTE)


SHAPES = Union({1: Point, 2: Mark})

TAKEN: list[tuple[Any, Any, Any]] = [
    (Optional(BYTE), None, None),
    (Optional(BYTE), 5, 5),
    (Pair(BYTE, Text(3)), (5, "a"), [5, "a"]),
    (ListOf(BYTE, 2), (), []),
    (ListOf(BYTE, 2), (1, 2), [1, 2]),
    (Record(Point), Point(1, 2), [1, 2]),
    (SHAPES, Mark(9), [2, 9]),
    (Known(SHAPES, 2), (Point(1, 2), Mark(9)), [[1, 1, 2], [2, 9]]),
]

NOT_DECODED: list[tuple[Any, Any, str]] = [
    (Optional(BYTE), "x", "type"),
    (Pair(BYTE, BYTE), [1], "type"),
    (Pair(BYTE, BYTE), [1, 2, 3], "type"),
    (Pair(BYTE, BYTE), (1, 2), "type"),
    (Pair(BYTE, BYTE), [1, 256], "range"),
    (ListOf(BYTE, 2), None, "type"),
    (ListOf(BYTE, 2), {}, "type"),
    (ListOf(BYTE, 2), [1, 2, 3], "length"),
    (Record(Point), {"x": 1}, "type"),
    (Record(Point), [1], "truncated"),
    (SHAPES, [], "type"),
    (SHAPES, ["1", 2], "type"),
    (SHAPES, {"1": 2}, "type"),
    (SHAPES, [3, 1], "unknown"),
    (SHAPES, [2], "truncated"),
    (Known(SHAPES, 2), None, "type"),
    (Known(SHAPES, 2), [[3]] * 3, "length"),
    (Known(SHAPES, 2), [[2]], "truncated"),
    (Known(SHAPES, 2), [[]], "type"),
]

NOT_ENCODED: list[tuple[Any, Any, str]] = [
    (Pair(BYTE, BYTE), [1, 2], "type"),
    (Pair(BYTE, BYTE), (1,), "type"),
    (ListOf(BYTE, 2), [1], "type"),
    (ListOf(BYTE, 2), (1, 2, 3), "length"),
    (Record(Point), Mark(1), "type"),
    (SHAPES, Line(()), "type"),
]

WORDS: list[tuple[Any, str]] = [
    (Optional(BYTE), "nil, or integer 0 to 255"),
    (Pair(BYTE, Text(3)), "[integer 0 to 255, text, 0 to 3 characters]"),
    (ListOf(Record(Point), 1_000), "0 to 1,000 of: Point"),
    (SHAPES, "[1, Point...], [2, Mark...]"),
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


def test_an_older_record_gets_the_defaults_of_what_it_lacks() -> None:
    """A 1.1 decoder reads a 1.0 record, and one that ends between the two."""
    assert decode_record(PointOf11, encode_record(Point(1, 2))) == PointOf11(1, 2, 7, "none")
    assert decode_record(PointOf11, [1, 2, 3]) == PointOf11(1, 2, 3, "none")


def test_a_newer_record_is_read_without_what_it_adds() -> None:
    """A 1.0 decoder skips the fields that 1.1 appended, whatever they hold."""
    assert decode_record(Point, encode_record(PointOf11(1, 2, 3, "far"))) == Point(1, 2)
    assert decode_record(Point, [1, 2, {"not": [b"even"]}, None]) == Point(1, 2)


def test_entries_of_an_unknown_tag_are_skipped() -> None:
    """An older receiver keeps the entries it knows, in order."""
    raw = [[9, "new"], [2, 5], [8], [1, 1, 2]]
    assert Known(SHAPES, 4).decode(raw) == (Mark(5), Point(1, 2))


def test_a_refusal_names_the_field_by_its_whole_path() -> None:
    """Whoever reads the error need not guess which of forty fields was wrong."""
    with pytest.raises(ProtocolError) as refused:
        decode_record(Line, [[[1, 2], [3, 256]]])
    assert refused.value.detail == "Line.points: Point.y: integer outside [0, 255]"
    with pytest.raises(ProtocolError) as unsent:
        encode_record(Line((Point(1, 2), Point(3, 256))))
    assert unsent.value.detail == refused.value.detail


def test_a_decoded_record_is_the_value_that_a_made_one_is() -> None:
    """Filled slot by slot, it equals and hashes as if its constructor had run."""
    decoded = decode_record(Point, [1, 2])
    assert decoded == Point(1, 2)
    assert hash(decoded) == hash(Point(1, 2))


def test_a_record_lists_its_fields_in_wire_order() -> None:
    """What SPEC.md prints is what the codec uses."""
    assert [name for name, _ in record_fields(PointOf11)] == ["x", "y", "z", "label"]
    assert (required_fields(Point), required_fields(PointOf11)) == (2, 2)


def test_a_record_without_fields_cannot_be_declared() -> None:
    """Nothing could ever be told about it, and msgpack's empty array is easily a mistake."""
    with pytest.raises(AssertionError):
        record(type("Nothing", (), {}))

"""Values, wire forms and bytes to test with, all derived from the declarations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgpack
from hypothesis import strategies as st

from protocol import codec
from protocol.envelope import Envelope
from protocol.errors import ProtocolError
from protocol.fields import (
    Bool,
    Bytes,
    Choice,
    Field,
    Float,
    Hex,
    Int,
    Json,
    Known,
    ListOf,
    Optional,
    Pair,
    Record,
    Text,
    Tokens,
    record_fields,
)
from protocol.messages import KINDS
from protocol.scalars import TOKEN_ID_MAX

Strategy = st.SearchStrategy[Any]

LETTERS = st.characters(codec="utf-8")
ASCII = st.characters(codec="ascii")
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(LETTERS, max_size=9)
JSON = st.recursive(
    LEAVES | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(LETTERS, max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)
"""What a free-form field may hold."""

MSGPACK = st.recursive(
    LEAVES | st.floats() | st.binary(max_size=40) | st.just(msgpack.Timestamp(1, 2)),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.text(LETTERS, max_size=5) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=30,
)
"""Whatever msgpack can say."""

VALUES: Mapping[type[Field], Callable[[Any], Strategy]] = {
    Int: lambda field: st.integers(field.lowest, field.highest),
    Float: lambda field: st.floats(field.lowest, field.highest),
    Bool: lambda _: st.booleans(),
    Text: lambda field: st.text(
        ASCII if field.ascii_only else LETTERS,
        min_size=field.shortest,
        max_size=min(field.longest, 40),
    ),
    Choice: lambda field: st.sampled_from(field.words),
    Bytes: lambda field: st.binary(min_size=field.shortest, max_size=min(field.longest, 64)),
    Hex: lambda field: st.binary(min_size=field.size_bytes, max_size=field.size_bytes).map(
        bytes.hex
    ),
    Tokens: lambda _: st.lists(st.integers(0, TOKEN_ID_MAX), max_size=5).map(tuple),
    Json: lambda _: JSON,
    Optional: lambda field: st.none() | value_of(field.inner),
    Pair: lambda field: st.tuples(value_of(field.first), value_of(field.second)),
    ListOf: lambda field: st.lists(value_of(field.inner), max_size=min(field.most, 3)).map(tuple),
    Known: lambda field: st.lists(
        st.sampled_from(list(field.inner.by_class)).flatmap(record_of), max_size=4
    ).map(tuple),
    Record: lambda field: record_of(field.cls),
}


def value_of(field: Field) -> Strategy:
    """Every kind of value that the field may hold."""
    return VALUES[type(field)](field)


@cache
def record_of(cls: type[Any]) -> Strategy:
    """Every kind of record of this class."""
    return st.builds(cls, *(value_of(field) for _, field in record_fields(cls)))


MESSAGES = st.sampled_from(list(KINDS.values())).flatmap(record_of)
FRAMES = st.builds(codec.encode, record_of(Envelope), MESSAGES)


@st.composite
def damaged(draw: st.DrawFn, frames: Strategy = FRAMES) -> bytes:
    """A frame some of whose bytes were changed, and whose end may be gone."""
    frame = bytearray(draw(frames))
    changes = st.tuples(st.integers(0, len(frame) - 1), st.integers(0, 255))
    for place, byte in draw(st.lists(changes, max_size=4)):
        frame[place] = byte
    return bytes(frame[: draw(st.integers(0, len(frame)) | st.just(len(frame)))])


def outcome(decode: Callable[[bytes], Any], frame: bytes) -> list[Any]:
    """What was decoded, or nothing when it was refused with a ProtocolError."""
    try:
        return [decode(frame)]
    except ProtocolError:
        return []


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """The code that a call is refused with, or `accepted`."""
    try:
        call(*arguments)
    except ProtocolError as error:
        return error.code
    return "accepted"

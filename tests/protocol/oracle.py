"""The same wire, declared a second time in msgspec: somebody else's encoder, decoder and checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from protocol import limits
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
    Union,
    record_fields,
    required_fields,
)

I64_MAX = 2**63 - 1
"""msgspec states bounds in 64 signed bits; what lies beyond it leaves to the encoding."""


def _integer(field: Int) -> Any:
    lowest, highest = max(field.lowest, -I64_MAX - 1), field.highest
    return Annotated[int, Meta(ge=lowest, le=highest if highest <= I64_MAX else None)]


def _choice(field: Choice) -> Any:
    return Annotated[int, Meta(ge=0, le=None if field.otherwise else len(field.words) - 1)]


def _text(field: Text) -> Any:
    pattern = r"^[\x00-\x7f]*$" if field.ascii_only else None
    return Annotated[
        str, Meta(min_length=field.shortest, max_length=field.longest, pattern=pattern)
    ]


def _exact(size_bytes: int) -> Any:
    return Annotated[bytes, Meta(min_length=size_bytes, max_length=size_bytes)]


TYPES: Mapping[type[Field], Callable[[Any], Any]] = {
    Int: _integer,
    Float: lambda field: Annotated[float, Meta(ge=field.lowest, le=field.highest)],
    Bool: lambda _: bool,
    Text: _text,
    Choice: _choice,
    Bytes: lambda field: Annotated[
        bytes, Meta(min_length=field.shortest, max_length=field.longest)
    ],
    Hex: lambda field: _exact(field.size_bytes),
    Tokens: lambda _: Annotated[bytes, Meta(max_length=4 * limits.TOKEN_IDS_MAX)],
    Json: lambda _: None | bool | int | float | str | list[Any] | dict[str, Any],
    Optional: lambda field: None | type_of(field.inner),
    Pair: lambda field: tuple[type_of(field.first), type_of(field.second)],
    ListOf: lambda field: Annotated[list[type_of(field.inner)], Meta(max_length=field.most)],
    Known: lambda field: Annotated[list[_union(field.inner)], Meta(max_length=field.most)],
    Record: lambda field: struct(field.cls),
}


def type_of(field: Field) -> Any:
    """msgspec's type of what the field holds on the wire."""
    return TYPES[type(field)](field)


@cache
def struct(cls: type[Any], tag: int | None = None) -> Any:
    """msgspec's twin of a record: an array, its end optional, what follows it skipped."""
    fields = record_fields(cls)
    required = required_fields(cls)
    members = [
        (name, type_of(field))
        if index < required
        else (name, type_of(field) | msgspec.UnsetType, msgspec.UNSET)
        for index, (name, field) in enumerate(fields)
    ]
    return msgspec.defstruct(cls.__name__, members, array_like=True, tag=tag)


def _union(field: Union) -> Any:
    united: Any = None
    for tag, cls in field.by_tag.items():
        member = struct(cls, tag)
        united = member if united is None else united | member
    return united


def again(cls: type[Any], packed: bytes) -> bytes:
    """A packed record after a journey through msgspec's decoder and encoder.

    Raises msgspec.ValidationError.
    """
    return msgspec.msgpack.encode(msgspec.msgpack.decode(packed, type=struct(cls)))


def accepts(cls: type[Any], packed: bytes) -> bool:
    """Whether msgspec finds a packed record within its bounds."""
    try:
        msgspec.msgpack.decode(packed, type=struct(cls))
    except msgspec.ValidationError:
        return False
    return True

"""What version 1 consists of, found by walking the declarations, with an example of each.

SPEC.md's tables, the golden vectors and the tests all start from here, so nothing that is declared
can be left out of any of them. Each record has two examples: the *least* (every value the smallest
its field allows) and the *typical* (every field in use, at the edge of its range where that edge
says something: the highest integer, text beyond ASCII, the last word of a set).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from protocol.envelope import Envelope
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
)
from protocol.jobs import Job
from protocol.messages import KINDS
from protocol.pairing import PAIRING_KINDS, Welcome
from protocol.scalars import TOKEN_ID_MAX

ROOTS: tuple[type[Any], ...] = (Envelope, *KINDS.values(), Job, *PAIRING_KINDS.values(), Welcome)

TEXT_SAMPLE = "Grüße, 漢字 🙂"
ASCII_SAMPLE = "fe80::1%eth0"
JSON_SAMPLE = {"role": "user", "content": [{"type": "text", "text": "Zoë"}, None, True, -1, 0.5]}


def records() -> tuple[type[Any], ...]:
    """Every record class of the wire: the roots, and what they hold, in order of first mention."""
    found: dict[type[Any], None] = dict.fromkeys(ROOTS)
    waiting = list(ROOTS)
    while waiting:
        inside = [cls for _, field in record_fields(waiting.pop(0)) for cls in _held(field)]
        new = [cls for cls in inside if cls not in found]
        found.update(dict.fromkeys(new))
        waiting.extend(new)
    return tuple(found)


def least(cls: type[Any]) -> Any:
    """The smallest value of a record class."""
    return cls(*(_least(field) for _, field in record_fields(cls)))


def typical(cls: type[Any]) -> Any:
    """A value of a record class that uses every field."""
    return cls(*(_typical(field) for _, field in record_fields(cls)))


def plain(value: Any) -> Any:
    """The same value in JSON's types, for people and golden files.

    A record is `{"Name": {field: value}}`, bytes are `{"hex": "..."}`, a tuple is a list.
    """
    if dataclasses.is_dataclass(value):
        inside = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {type(value).__name__: inside}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def _held(field: Field) -> Iterator[type[Any]]:
    for inner in _inside(field):
        if isinstance(inner, Record):
            yield inner.cls
        elif isinstance(inner, Union):
            yield from inner.by_tag.values()


def _inside(field: Field) -> Iterator[Field]:
    """The field and everything it wraps, short of other records' own fields."""
    yield field
    if isinstance(field, Optional | ListOf):
        yield from _inside(field.inner)
    elif isinstance(field, Pair):
        yield from _inside(field.first)
        yield from _inside(field.second)


Example = Callable[[Any], Any]

LEAST: Mapping[type[Field], Example] = {
    Int: lambda field: field.lowest,
    Float: lambda field: field.lowest,
    Bool: lambda _: False,
    Text: lambda field: "a" * field.shortest,
    Choice: lambda field: field.words[0],
    Bytes: lambda field: bytes(field.shortest),
    Hex: lambda field: bytes(field.size_bytes).hex(),
    Tokens: lambda _: (),
    Json: lambda _: None,
    Optional: lambda _: None,
    Pair: lambda field: (_least(field.first), _least(field.second)),
    ListOf: lambda _: (),
    Known: lambda _: (),
    Record: lambda field: least(field.cls),
}

TYPICAL: Mapping[type[Field], Example] = {
    Int: lambda field: field.highest,
    Float: lambda field: min(field.highest, field.lowest + 0.1),
    Bool: lambda _: True,
    Text: lambda field: (ASCII_SAMPLE if field.ascii_only else TEXT_SAMPLE)[: field.longest],
    Choice: lambda field: field.words[-1],
    Bytes: lambda field: bytes(range(256))[: field.longest],
    Hex: lambda field: bytes(range(field.size_bytes)).hex(),
    Tokens: lambda _: (0, 1, TOKEN_ID_MAX),
    Json: lambda _: JSON_SAMPLE,
    Optional: lambda field: _typical(field.inner),
    Pair: lambda field: (_typical(field.first), _typical(field.second)),
    ListOf: lambda field: (_least(field.inner), _typical(field.inner)),
    Known: lambda field: tuple(typical(cls) for cls in field.inner.by_tag.values()),
    Record: lambda field: typical(field.cls),
}


def _least(field: Field) -> Any:
    return LEAST[type(field)](field)


def _typical(field: Field) -> Any:
    return TYPICAL[type(field)](field)
